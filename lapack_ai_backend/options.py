"""Options: their names, values, defaults and environment variables, in one table.

An option's value comes from the nearest of: the call that opened the context, an
enclosing context, ``enable()``, the environment, the default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lapack_ai_backend.environment import Variable, boolean, choice, from_environment
from lapack_ai_backend.errors import OptionError
from lapack_ai_backend.multimethods import ALIASES, FUNCTIONS
from lapack_ai_backend.opencl import devices
from lapack_ai_backend.registry import STOCK, of_function

POLICIES = ("auto", "static", "tuned")
ACCURACIES = ("normwise", "componentwise")
VERIFICATIONS = ("probe", "off", "always")
DEVICES = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Options:
    """What a context asks for; hashable, so that the compiled policy is made once for each."""

    policy: str = "auto"
    accuracy: str = "normwise"
    device: str = "auto"
    force: tuple[tuple[str, str], ...] = ()
    disable: tuple[str, ...] = ()
    strict: bool = False
    verify: str = "probe"
    any_size: bool = False  # every size threshold at zero: set by the test plugin only
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)  # where each public option comes from


# ---- parsing: text or objects in, checked values out ---------------------------------------


def function_name(name: object) -> str:
    """Public dotted name of a function; its short last part is accepted too."""
    if isinstance(name, str):
        for function in (*FUNCTIONS, *ALIASES):
            if name in (function, function.rpartition(".")[2]):
                return ALIASES.get(function, function)
    raise OptionError.unknown("function", name, FUNCTIONS)


def _disable(value: Any) -> tuple[str, ...]:
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(names, Iterable):
        raise OptionError.unknown("list of functions", value, FUNCTIONS)
    return tuple(dict.fromkeys(function_name(name) for name in names))


def _force(value: Any) -> tuple[tuple[str, str], ...]:
    """``{"numpy.matmul": "direct"}``, or as text ``numpy.matmul=direct,svd=opencl_svd``."""
    if isinstance(value, str):
        items = [item.partition("=") for item in value.split(",") if item.strip()]
        pairs: Any = [(name.strip(), kernel.strip()) for name, _, kernel in items]
    else:
        pairs = value.items() if isinstance(value, Mapping) else value
    try:
        named = [(function_name(name), kernel) for name, kernel in pairs]
    except OptionError:
        raise
    except (TypeError, ValueError):  # no pairs
        raise OptionError.unknown("mapping of functions to kernels", value, FUNCTIONS) from None
    forced = {name: kernel_name(kernel, name) for name, kernel in named}
    for name, kernel in named:
        if forced[name] != kernel:
            raise OptionError(f"force names two kernels for {name}: {kernel!r} and {forced[name]!r}")
    return tuple(sorted(forced.items()))


def kernel_name(kernel: object, function: str) -> str:
    """A registered kernel of the function, or "stock"."""
    valid = [STOCK.name, *(each.name for each in of_function(function))]
    if kernel not in valid:
        raise OptionError.unknown(f"kernel for {function}", kernel, valid)
    return str(kernel)


def _device(value: object) -> str:
    if value in DEVICES:
        return str(value)
    names = [device.selector for device in devices.found()]
    # Where OpenCL is off or has no device, a selector stays a selector: that is no mistake of the program.
    if value not in names and (names or not re.fullmatch(r"\d+:\d+", str(value))):
        raise OptionError.unknown("device", value, (*DEVICES, *names))
    return str(value)


OPTION_VARIABLES = {
    "policy": Variable("LAPACK_AI_POLICY", choice("policy", POLICIES), "auto", "which routing table"),
    "accuracy": Variable(
        "LAPACK_AI_ACCURACY", choice("accuracy", ACCURACIES), "normwise", "weakest error bound allowed"
    ),
    "device": Variable("LAPACK_AI_DEVICE", _device, "auto", "OpenCL device"),
    "force": Variable("LAPACK_AI_FORCE", _force, (), "function=kernel pairs"),
    "disable": Variable("LAPACK_AI_DISABLE", _disable, (), "functions that stay stock"),
    "strict": Variable("LAPACK_AI_STRICT", boolean, False, "raise where a kernel fails"),
    "verify": Variable("LAPACK_AI_VERIFY", choice("verification", VERIFICATIONS), "probe", "check of device results"),
}


def environment_options() -> Options:
    """Options as the environment sets them."""
    read = {name: from_environment(variable) for name, variable in OPTION_VARIABLES.items()}
    sources = {name: source for name, (_, source) in read.items()}
    return Options(**{name: value for name, (value, _) in read.items()}, sources=sources)


def changed(base: Options, given: Mapping[str, object], source: str = "context") -> Options:
    """`base` with the given options, each checked; unknown names and values raise one clear error."""
    checked = {}
    for name, value in given.items():
        if name not in OPTION_VARIABLES:
            raise OptionError.unknown("option", name, OPTION_VARIABLES)
        checked[name] = OPTION_VARIABLES[name].parse(value)
    return replace(base, **checked, sources={**base.sources, **dict.fromkeys(checked, source)})


def as_dict(options: Options) -> dict[str, Any]:
    """The public options by name."""
    return {each.name: getattr(options, each.name) for each in fields(options) if each.name in OPTION_VARIABLES}
