"""What ran where: counters of the process, traces of a context, the log."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from lapack_ai_backend import activation
from lapack_ai_backend.environment import log_level
from lapack_ai_backend.multimethods import FUNCTIONS
from lapack_ai_backend.native import address, ffi, lib
from lapack_ai_backend.policy import Decision, readable
from lapack_ai_backend.reasons import NUMBERS as REASONS
from lapack_ai_backend.registry import KERNELS, STOCK

log = logging.getLogger("lapack_ai_backend")
log.addHandler(logging.NullHandler())


def start_logging() -> None:
    """Log to standard error where the environment names a level; else the program decides."""
    level = log_level()
    if level is not None and all(isinstance(handler, logging.NullHandler) for handler in log.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s %(levelname)s: %(message)s"))
        log.addHandler(handler)
        log.setLevel(level)


@functools.cache  # each text once a process
def log_once(level: int, function: str, reason: str) -> None:
    """Say why a function stays stock here, for reasons that hold for every call."""
    log.log(level, "stock runs %s: %s", function, reason)


# ---- counters ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counter:
    """Counts of one function on one kernel since the start or ``reset_stats()``."""

    calls: int
    blocks_alphatensor: int
    blocks_direct: int
    blocks_stock: int
    bytes: int
    fallbacks: dict[str, int] = field(default_factory=dict)  # of kernel "stock": why, by reason code


def stats() -> dict[tuple[str, str], Counter]:
    """Calls that reached the active backend, by function and kernel.

    Returns
    -------
    dict of (str, str) to Counter
        Keys are (public dotted name, kernel name). Calls made where the backend is
        off are not counted. The entry of kernel "stock" says in `fallbacks` why
        NumPy or SciPy ran, by reason code.
    """
    counted = {}
    c = ffi.new("lai_counter *")
    for number, function in enumerate(FUNCTIONS):
        for kernel in (STOCK, *KERNELS.values()):
            lib.lai_read_counter(number, kernel.number, c)
            if c.calls or c.bytes:  # a later piece of a call may go to another kernel than the first
                fallbacks = dict(_fallbacks(number)) if kernel is STOCK else {}
                blocks = c.blocks
                counted[function, kernel.name] = Counter(
                    c.calls, blocks.alphatensor, blocks.direct, blocks.stock, c.bytes, fallbacks
                )
    return counted


def _fallbacks(function: int) -> Iterator[tuple[str, int]]:
    for code, reason in REASONS.items():
        count = lib.lai_read_fallbacks(function, reason)
        if count:
            yield code, count


def reset_stats() -> None:
    """Set every counter of ``stats()`` to zero."""
    lib.lai_reset_counters()


def begin(c_decision: Any) -> int:
    """Append a decision that was made in Python to the trace that is open here; its index, -1 without one."""
    trace = _open_trace()
    return lib.lai_append_to_trace(trace, c_decision) if trace else -1


def finish(c_decision: Any, index: int) -> None:
    """Count a decision whose outcome is known now, and bring the trace up to date."""
    count(c_decision)
    trace = _open_trace()
    if trace and index >= 0:
        lib.lai_update_trace(trace, index, c_decision)


def count(c_decision: Any) -> None:
    """Count a call by its decision."""
    lib.lai_count(c_decision, ffi.addressof(c_decision, "blocks"), 1, 1, 0)


def is_traced() -> bool:
    """Whether a trace is open here."""
    here = activation.ACTIVE.get()
    return here is not None and here.trace != 0


def _open_trace() -> Any:
    here = activation.ACTIVE.get()
    return ffi.cast("lai_trace *", here.trace) if here is not None and here.trace else None


# ---- traces --------------------------------------------------------------------------------


class Trace:
    """Context manager: decisions of the calls made in this context, in call order.

    Attributes
    ----------
    decisions : list of Decision
        Readable while the trace is open and afterwards.
    """

    def __init__(self) -> None:
        self._c_traces: list[Any] = []  # one for each time it was opened, the last is in use
        self._kept: list[Decision] = []
        self._open = False

    def __enter__(self) -> Trace:
        if self._open:
            raise RuntimeError("this trace is open already; make another one")
        opened = lib.lai_open_trace()
        if not opened:
            raise MemoryError("no memory for a trace")
        # Freed with this object, which every activation that holds the address keeps alive.
        self._c_traces.append(ffi.gc(opened, lib.lai_free_trace))
        self._open = True
        activation.attach(self, address(opened))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        activation.leave(self)
        self._kept = self._read()
        self._open = False
        lib.lai_close_trace(self._c_traces[-1])

    @property
    def decisions(self) -> list[Decision]:
        return self._read() if self._open else self._kept

    def _read(self) -> list[Decision]:
        c_decision = ffi.new("lai_decision *")
        decisions = []
        for index in range(lib.lai_trace_length(self._c_traces[-1])):
            if lib.lai_read_trace(self._c_traces[-1], index, c_decision):
                decisions.append(readable(c_decision, active=bool(c_decision.table)))
        return decisions


def trace() -> Trace:
    """Record a Decision for every call of this context that reaches the interception.

    Stock calls are recorded too, and so are calls made inside other calls
    (``pinv`` calls ``svd``). Opening a trace does not switch the backend on.

    Returns
    -------
    Trace
        A context manager with the list `decisions`.

    Examples
    --------
    >>> import numpy as np, lapack_ai_backend as lapack_ai
    >>> a = np.ones((10, 4, 4))
    >>> with lapack_ai.set_backend(), lapack_ai.trace() as t:
    ...     b = a @ a
    >>> t.decisions[0].kernel
    'alphatensor49'
    """
    return Trace()
