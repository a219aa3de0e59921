"""Where stock functions are made to ask us, in place, so that early imports follow too.

``scipy.linalg`` functions keep their identity and get another ``__code__``: a
trampoline that asks the dispatch when the backend is on and calls the stock
function otherwise. So do those that ``numpy.linalg``'s dispatchers of ``__array_function__``
call. ``numpy.matmul`` gets other inner loops (csrc/matmul_hook.c), and ndarray another ``@``
before it (csrc/matmul_slot.c).
Nothing happens before the first `install`; `uninstall` puts everything back.
"""

from __future__ import annotations

import importlib
import inspect
import os
import threading
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import numpy as np

from lapack_ai_backend import activation, backend, multimethods, observation
from lapack_ai_backend.native import lib

# A frame whose file name holds both words is skipped when Python looks for the line that a warning
# is about (warnings.warn, stacklevel), so warnings go on pointing at the user's line.
FILE_NAME = "<importlib _bootstrap: lapack_ai_backend trampoline>"

lock = threading.RLock()  # of everything that switches the process
_installed = False


def _renew_lock() -> None:
    """In a forked child nobody may ever release the lock that another thread held."""
    global lock
    lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


class Intercepted(NamedTuple):
    """A stock function with its own code and ours; made once, put in and taken out many times."""

    function: Any  # a Python function
    own: CodeType
    trampoline: CodeType


_made: dict[str, Intercepted] = {}
STOCK: dict[str, FunctionType] = {}  # public dotted name -> a function that runs the stock code, whatever is installed
left_stock: dict[str, str] = {}  # public dotted name -> why it is not intercepted

HOOK_FAILURES = {
    lib.LAI_HOOK_NO_NUMPY: "NumPy's C API did not load",
    lib.LAI_HOOK_SIGNATURE: "numpy.matmul has another signature than (n?,k),(k,m?)->(n?,m?)",
    lib.LAI_HOOK_OCCUPIED: "another extension uses process_core_dims_func of numpy.matmul",
    lib.LAI_HOOK_LOOPS: "a loop of numpy.matmul could not be replaced",
}


def install() -> None:
    """Intercept, unless that is done already; safe while other threads compute."""
    global _installed
    if _installed:  # every context comes here
        return
    with lock:
        if _installed:
            return
        observation.start_logging()
        _hook_matmul()
        for name, arrays in multimethods.ARRAYS.items():
            _intercept(name, arrays)
        for name, reason in left_stock.items():
            observation.log.info("%s stays stock: %s", name, reason)
        _installed = True


def uninstall() -> None:
    """Put everything back as it was; calls that are running finish on what they started with."""
    global _installed
    with lock:
        _installed = False
        lib.lai_unhook_matmul()
        for each in _made.values():
            if each.function.__code__ is each.trampoline:  # else somebody has put in code of their own
                each.function.__code__ = each.own
        left_stock.clear()


def is_installed() -> bool:
    """Whether the interception is in place."""
    return _installed


# ---- numpy.matmul --------------------------------------------------------------------------


def _hook_matmul() -> None:
    # Both live as long as the process: the ufunc is NumPy's, the ContextVar a module attribute.
    status = lib.lai_hook_matmul(id(np.matmul), id(activation.ACTIVE))
    if status != lib.LAI_HOOKED:
        left_stock[multimethods.MATMUL] = HOOK_FAILURES[status]


# ---- scipy.linalg and numpy.linalg ------------------------------------------------------------


def _intercept(name: str, arrays: str) -> None:
    module, _, own_name = name.rpartition(".")
    function: Any = getattr(importlib.import_module(module), own_name, None)
    function = getattr(function, "_implementation", function)  # what a dispatcher of NumPy calls
    reason = _unknown(function, arrays)
    if reason:
        left_stock[name] = reason
        return
    if name not in _made or _made[name].function is not function or _made[name].own is not function.__code__:
        _made[name] = _make(name, function, arrays)
    function.__code__ = _made[name].trampoline


def _make(name: str, function: FunctionType, arrays: str) -> Intercepted:
    code = function.__code__
    stock = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    stock.__kwdefaults__ = function.__kwdefaults__
    STOCK[name] = stock
    module = name.rpartition(".")[0]
    if module == "scipy.linalg":
        method = multimethods.multimethod(function, module, arrays)
        return Intercepted(function, code, _trampoline(code, stock, backend.dispatch, method))
    return Intercepted(function, code, _trampoline(code, stock, backend.dispatch_here, name))


def _unknown(function: Any, arrays: str) -> str:
    """Why a function is not the one that the table describes; "" when it is."""
    if function is None:
        return "this SciPy has no such function"
    if not isinstance(function, FunctionType):
        return "it is not a Python function"
    missing = [name for name in arrays.split() if name not in inspect.signature(function).parameters]
    return f"its signature has no {', '.join(missing)}" if missing else ""


def _trampoline(code: CodeType, stock: FunctionType, dispatch: Callable[..., Any], method: Any) -> CodeType:
    """Code with the parameters and free variables of `code` that dispatches when the backend is on.

    Objects are placed among the constants, so that no name enters the stock function's module.
    """
    parameters, arguments, positional, keywords = _call_forms(code)
    source = f"""
def make({", ".join(code.co_freevars)}):
    def trampoline({parameters}):
        if 0: {", ".join(code.co_freevars) or None}  # dead, yet it gives the code its free variables
        lai_get = "@get"
        lai_process = "@process"
        lai_stock = "@stock"
        lai_here = lai_get()
        if not lai_process.watched if lai_here is None else lai_here.quiet:
            return lai_stock({arguments})
        lai_dispatch = "@dispatch"
        lai_result = lai_dispatch("@method", {positional}, {keywords})
        if lai_result is NotImplemented:
            return lai_stock({arguments})
        return lai_result
    return trampoline
"""
    space: dict[str, Any] = {}
    exec(compile(source, FILE_NAME, "exec"), space)
    made = space["make"](*[None] * len(code.co_freevars)).__code__
    objects = {
        "@get": activation.ACTIVE.get,
        "@process": activation.PROCESS,
        "@stock": stock,
        "@dispatch": dispatch,
        "@method": method,
    }
    constants = tuple(objects.get(value, value) if isinstance(value, str) else value for value in made.co_consts)
    changed: CodeType = made.replace(co_consts=constants, co_name=code.co_name, co_qualname=code.co_qualname)
    return changed


def _call_forms(code: CodeType) -> tuple[str, str, str, str]:
    """Source text: parameters; arguments that pass them on; the same as a tuple and as a dict."""
    names = code.co_varnames
    plain, count = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    positional, keyword_only = names[:plain], names[plain:count]
    variadic = bool(code.co_flags & inspect.CO_VARARGS)
    star = f"*{names[count]}" if variadic else ""
    double_star = f"**{names[count + variadic]}" if code.co_flags & inspect.CO_VARKEYWORDS else ""
    slash = ["/"] if code.co_posonlyargcount else []
    divided = [*positional[: code.co_posonlyargcount], *slash, *positional[code.co_posonlyargcount :]]
    parameters = [*divided, star or ("*" if keyword_only else ""), *keyword_only, double_star]
    passed = [f"{name}={name}" for name in keyword_only]
    arguments = [*positional, star, *passed, double_star]
    as_tuple = "".join(f"{each}, " for each in (*positional, star) if each)
    as_dict = [*(f"{name!r}: {name}" for name in keyword_only), double_star]
    return _joined(parameters), _joined(arguments), f"({as_tuple})", f"{{{_joined(as_dict)}}}"


def _joined(parts: list[str]) -> str:
    return ", ".join(part for part in parts if part)
