"""Options: their names, values, defaults and environment variables, in one table.

An option's value comes from the nearest of: the call that opened the context, an
enclosing context, ``enable()``, the environment, the default.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lapack_ai_backend.errors import EnvironmentWarning, OptionError
from lapack_ai_backend.multimethods import FUNCTIONS
from lapack_ai_backend.registry import KERNELS, STOCK

POLICIES = ("auto", "static", "tuned")
ACCURACIES = ("normwise", "componentwise")
VERIFICATIONS = ("probe", "off", "always")
DEVICES = ("auto", "cpu", "gpu")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


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


# ---- parsing: text or objects in, checked values out ---------------------------------------


def function_name(name: object) -> str:
    """Public dotted name of a function; its short last part is accepted too."""
    if isinstance(name, str):
        for function in FUNCTIONS:
            if name in (function, function.rpartition(".")[2]):
                return function
    raise OptionError("function", name, FUNCTIONS)


def _choice(what: str, valid: tuple[str, ...]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in valid:
            raise OptionError(what, value, valid)
        return str(value)

    return parse


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in TRUE + FALSE:
        return text in TRUE
    raise OptionError("truth value", value, TRUE + FALSE)


def _number(least: int, most: int | None = None) -> Callable[[object], int]:
    def parse(value: object) -> int:
        text = str(value).strip()
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise OptionError("number", value, [f"{least} to {most}" if most else f"{least} or more"])
        return int(text)

    return parse


def _level(value: object) -> str:
    return _choice("log level", LEVELS)(str(value).strip().upper())


def _disable(value: object) -> tuple[str, ...]:
    names: Iterable[object] = value.replace(",", " ").split() if isinstance(value, str) else value  # type: ignore[assignment]  # checked name by name
    return tuple(dict.fromkeys(function_name(name) for name in names))


def _force(value: object) -> tuple[tuple[str, str], ...]:
    """``{"numpy.matmul": "direct"}``, or as text ``numpy.matmul=direct,svd=opencl_svd``."""
    if isinstance(value, str):
        pairs: Iterable[tuple[str, str]] = [
            (name.strip(), kernel.strip()) for name, _, kernel in (item.partition("=") for item in value.split(",") if item.strip())
        ]
    else:
        pairs = value.items() if isinstance(value, Mapping) else value  # type: ignore[assignment]  # checked pair by pair
    return tuple(sorted((function_name(name), kernel_name(kernel, function_name(name))) for name, kernel in pairs))


def kernel_name(kernel: object, function: str) -> str:
    """A registered kernel of the function, or "stock"."""
    valid = [STOCK.name, *(each.name for each in KERNELS.values() if each.function == function)]
    if kernel not in valid:
        raise OptionError(f"kernel for {function}", kernel, valid)
    return str(kernel)


def _device(value: object) -> str:
    if value in DEVICES:
        return str(value)
    from lapack_ai_backend.opencl import devices  # OpenCL is looked at only when a device is named

    names = [device.selector for device in devices.found()]
    if value not in names:
        raise OptionError("device", value, (*DEVICES, *names))
    return str(value)


# ---- the environment --------------------------------------------------------------------------


@dataclass(frozen=True)
class Variable:
    """One environment variable: what it sets, how its text is read, what holds without it."""

    name: str
    parse: Callable[[object], Any]
    default: Any
    meaning: str


OPTION_VARIABLES = {
    "policy": Variable("LAPACK_AI_POLICY", _choice("policy", POLICIES), "auto", "which routing table"),
    "accuracy": Variable("LAPACK_AI_ACCURACY", _choice("accuracy", ACCURACIES), "normwise", "weakest error bound allowed"),
    "device": Variable("LAPACK_AI_DEVICE", _device, "auto", "OpenCL device"),
    "force": Variable("LAPACK_AI_FORCE", _force, (), "function=kernel pairs"),
    "disable": Variable("LAPACK_AI_DISABLE", _disable, (), "functions that stay stock"),
    "strict": Variable("LAPACK_AI_STRICT", _boolean, False, "raise where a kernel fails"),
    "verify": Variable("LAPACK_AI_VERIFY", _choice("verification", VERIFICATIONS), "probe", "check of device results"),
}

PROCESS_VARIABLES = {
    "enabled": Variable("LAPACK_AI", _boolean, False, "enable the backend when the package is imported"),
    "num_threads": Variable("LAPACK_AI_NUM_THREADS", _number(1), None, "most threads of the native kernels"),
    "log": Variable("LAPACK_AI_LOG", _level, None, "log level on standard error"),
    "debug": Variable("LAPACK_AI_DEBUG", _boolean, False, "the same as LAPACK_AI_LOG=DEBUG"),
    "log_level": Variable("LAPACK_LOG_LEVEL", _level, None, "log level, where LAPACK_AI_LOG is not set"),
    "gpu_enabled": Variable("LAPACK_GPU_ENABLED", _boolean, True, "0: no OpenCL device at all"),
    "gpu_memory_limit": Variable("LAPACK_GPU_MEMORY_LIMIT", _number(1, 100), 80, "percent of a device's memory"),
    "batch_size_limit": Variable("LAPACK_BATCH_SIZE_LIMIT", _number(1), 1024, "most matrices in one device launch"),
    "dashboard_port": Variable("LAPACK_DASHBOARD_PORT", _number(1, 65535), 8080, "port of the dashboard (read, not used yet)"),
}


@functools.lru_cache(maxsize=256)
def _read(variable: Variable, text: str) -> tuple[Any, bool]:
    """Value and whether it was understood; cached, so that each text warns once."""
    try:
        return variable.parse(text), True
    except OptionError as error:
        message = f"{variable.name}={text!r} is ignored, {variable.default!r} is used: {error}"
        warnings.warn(message, EnvironmentWarning, stacklevel=3)
        return variable.default, False


def from_environment(variable: Variable) -> tuple[Any, str]:
    """Value of a variable and where it comes from: its name, or "default"."""
    text = os.environ.get(variable.name, "").strip()
    if not text:
        return variable.default, "default"
    value, understood = _read(variable, text)
    return value, variable.name if understood else "default"


def environment_options() -> tuple[Options, dict[str, str]]:
    """Options as the environment sets them, and the source of each."""
    read = {name: from_environment(variable) for name, variable in OPTION_VARIABLES.items()}
    return Options(**{name: value for name, (value, _) in read.items()}), {name: source for name, (_, source) in read.items()}


def log_level() -> str | None:
    """The level that the environment asks for; None: leave logging to the program."""
    if from_environment(PROCESS_VARIABLES["debug"])[0]:
        return "DEBUG"
    level: str | None = from_environment(PROCESS_VARIABLES["log"])[0] or from_environment(PROCESS_VARIABLES["log_level"])[0]
    return level


NAMES = tuple(OPTION_VARIABLES)


def changed(base: Options, given: Mapping[str, object]) -> Options:
    """`base` with the given options, each checked; unknown names and values raise one clear error."""
    checked = {}
    for name, value in given.items():
        if name not in OPTION_VARIABLES:
            raise OptionError("option", name, NAMES)
        checked[name] = OPTION_VARIABLES[name].parse(value)
    return replace(base, **checked)


def as_dict(options: Options) -> dict[str, Any]:
    """The public options by name."""
    return {field.name: getattr(options, field.name) for field in fields(options) if field.name in OPTION_VARIABLES}
