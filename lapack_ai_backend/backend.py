"""The uarray backend: one ``__ua_function__``, which asks the policy and runs the kernel or declines.

Each call asks us at most once, whoever leads it here: our own contexts (through
`Gated`), uarray's ``register_backend`` and ``set_global_backend`` (through the
module itself), or `dispatch` when uarray's thread-bound stack does not show a
context that is active (``asyncio.to_thread``, ``copy_context().run``, ``enable()``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from lapack_ai_backend import activation, multimethods, observation, problem
from lapack_ai_backend.errors import Decline, KernelError
from lapack_ai_backend.native import DTYPES, ffi, lib
from lapack_ai_backend.options import Options, environment_options
from lapack_ai_backend.policy import by_address, decide, readable, serves, table_for
from lapack_ai_backend.reasons import NUMBERS as REASONS
from lapack_ai_backend.registry import STOCK, Kernel, by_number, count_failure, is_broken
from lapack_ai_backend.uarray_adapter import BackendNotImplementedError

# Reasons that speak against a kernel itself, not against the problem or the moment.
FAILURES = ("kernel_failed", "wrong_result")


class _Asked(threading.local):
    method: Any = None  # the multimethod for which this thread has asked us already


_asked = _Asked()


def dispatch(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Result of the first backend that takes the call; ``NotImplemented`` when all decline.

    Called by the trampolines of interception.py, which then run the stock function
    themselves, so that tracebacks and warnings see one extra frame and no more.
    """
    active = activation.effective_options() is not None
    if activation.is_skipped() or not (active or activation.PROCESS.known_to_uarray):
        _trace_inactive(_name(method), args, kwargs)
        return NotImplemented
    _asked.method = None
    try:
        return method(*args, **kwargs)
    except BackendNotImplementedError:
        pass
    return ask(method, args, kwargs) if active else NotImplemented


def dispatch_here(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `dispatch`, for functions of ``numpy.linalg``, which no uarray backend knows."""
    options = activation.effective_options()
    if options is None or activation.is_skipped():
        _trace_inactive(function, args, kwargs)
        return NotImplemented
    return _run(function, options, args, kwargs)


class Gated:
    """What our contexts put on uarray's stack: it answers only where the ContextVar says so,

    for uarray's stack belongs to the thread and shows through to other asyncio tasks.
    """

    __ua_domain__ = multimethods.DOMAIN

    @staticmethod
    def __ua_function__(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if activation.effective_options() is None:
            return NotImplemented
        return ask(method, args, kwargs)


def registered(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``__ua_function__`` of the module: somebody registered it with uarray, so it is on unless skipped."""
    if activation.is_skipped():
        return NotImplemented
    if activation.effective_options() is not None:
        return ask(method, args, kwargs)
    activation.switch_on(registered, environment_options())
    try:
        return ask(method, args, kwargs)
    finally:
        activation.leave(registered)


def ask(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Policy, kernel, result; or ``NotImplemented``."""
    if _asked.method is method:
        return NotImplemented
    if method is multimethods.matmul:
        return multimethods._matmul(*args, **kwargs)  # np.matmul: its loop asks the policy
    options = activation.effective_options()
    if options is None:  # switched off by another thread since the caller looked
        return NotImplemented
    try:
        return _run(_name(method), options, args, kwargs)
    finally:
        _asked.method = method  # at the end: a kernel may have dispatched other functions meanwhile


def _name(method: Any) -> str:
    return f"scipy.linalg.{method.__name__}"


def _run(function: str, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    table = table_for(options)
    settled = table.settled.get(function)
    if settled is not None and not observation.is_traced():
        observation.count(settled)  # nothing about the arguments matters
        return NotImplemented
    described = problem.of_call(function, args, kwargs)
    if not observation.is_traced():
        declined = table.declined.get(described or function)
        if declined is not None:
            observation.count(declined)
            return NotImplemented
    decision = decide(function, described, table)
    index = observation.begin(decision)  # before the kernel, which may call other functions
    result = NotImplemented
    try:
        if decision.reason == REASONS["device"]:
            _tell_of_missing_device(function, decision, options)
        if decision.kernel != STOCK.number:
            result = _call(by_number(decision.kernel), decision, options, args, kwargs)
    finally:
        if result is NotImplemented:
            decision.kernel, decision.rule = STOCK.number, -1
        observation.finish(decision, index)
    return result


def _call(kernel: Kernel, decision: Any, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a kernel; whatever it raises becomes stock's turn, unless strict."""
    function = multimethods.FUNCTIONS[decision.problem.function]
    try:
        result = _compute(kernel, function, options, args, kwargs)
    except Exception as error:
        code = _reason_of(error)
        decision.reason = REASONS[code]
        if options.strict:
            raise KernelError(f"{kernel.name} failed: {error}") from error
        _tell_of_failure(kernel, function, code, error)
        return NotImplemented
    if result is NotImplemented:
        decision.reason = REASONS["kernel_declined"]
    return result


def _compute(kernel: Kernel, function: str, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with np.errstate(all="ignore"):  # as in LAPACK, whose flags NumPy does not look at
        return kernel.run[function](options, *args, **kwargs)


def _tell_of_failure(kernel: Kernel, function: str, code: str, error: Exception) -> None:
    if code in FAILURES:
        count_failure(kernel)
    broken = " and is switched off" if is_broken(kernel) else ""
    # As text: a handler that keeps the exception would keep its frames, and with them device memory.
    observation.log.warning("%s failed (%s)%s, stock runs %s: %s", kernel.name, code, broken, function, repr(error))


def _reason_of(error: Exception) -> str:
    if isinstance(error, Decline):
        return error.reason_code
    return "memory" if isinstance(error, MemoryError) else "kernel_failed"


def _tell_of_missing_device(function: str, decision: Any, options: Options) -> None:
    """That no GPU is there is no failure, unless somebody asked for a device."""
    reason = readable(decision).reason
    asked = options.device != "auto"
    if asked and options.strict:
        raise KernelError(f"{function}: {reason}")
    observation.log_once(logging.WARNING if asked else logging.INFO, function, reason)


def _trace_inactive(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A trace shows the calls of contexts where the backend is off, too; counters do not."""
    if observation.is_traced():
        observation.begin(decide(function, problem.of_call(function, args, kwargs), None))


# ---- what the loop of numpy.matmul asks: lai_device_functions of csrc/include/lapack_ai.h --------------------------

INTERRUPTED = -1

NAMES = {code: name for name, code in DTYPES.items() if not name.startswith("u")}


@ffi.def_extern(error=REASONS["kernel_failed"])  # type: ignore[untyped-decorator]  # cffi has no types
def lai_python_serves(c_table: Any, number: int, dtype: int) -> Any:
    """Whether a device serves; the policy asks this of rows that want one."""
    return REASONS[serves(by_number(number), NAMES[dtype], by_address(c_table).options)]


@ffi.def_extern(error=REASONS["kernel_failed"])  # type: ignore[untyped-decorator]  # cffi has no types
def lai_python_multiply(c_table: Any, dtype: int, product: Any) -> Any:
    """``C = A B`` on a device. NumPy's loops cannot raise: other kernels, or stock, take over even where ``strict``."""
    kernel, options = by_number(lib.LAI_OPENCL_GEMM), by_address(c_table).options
    try:
        matrices = _matrices(product, NAMES[dtype])
        result = _compute(kernel, multimethods.MATMUL, options, matrices, {}) if matrices else NotImplemented
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        code = _reason_of(error)
        _tell_of_failure(kernel, multimethods.MATMUL, code, error)
        return REASONS[code]
    return REASONS["kernel_declined" if result is NotImplemented else "routed"]


def _matrices(p: Any, dtype: str) -> tuple[np.ndarray[Any, Any], ...]:
    """A, B and C of a product as arrays; empty where rows or columns are reversed or all the same."""
    a, b, c = (p.a_row, p.a_column), (p.b_row, p.b_column), (p.c_row, p.c_column)
    if min(*a, *b, *c) <= 0:
        return ()
    return _array(p.a, p.m, p.k, a, dtype), _array(p.b, p.k, p.n, b, dtype), _array(p.c, p.m, p.n, c, dtype)


def _array(data: Any, m: int, n: int, strides: tuple[int, int], dtype: str) -> np.ndarray[Any, Any]:
    size = (m - 1) * strides[0] + (n - 1) * strides[1] + np.dtype(dtype).itemsize
    return np.ndarray((m, n), dtype, ffi.buffer(ffi.cast("char *", data), size), 0, strides)


lib.lai_use_device_functions(
    ffi.new("lai_device_functions *", {"serves": lib.lai_python_serves, "multiply": lib.lai_python_multiply})
)

assert multimethods.NUMBERS[multimethods.MATMUL] == lib.LAI_MATMUL
