"""What ran where: counters of the process, traces of a context, the log."""

from __future__ import annotations

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
            if c.calls:
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


def record(c_decision: Any, bytes_moved: int = 0) -> None:
    """Count a decision that was made in Python, and append it to the trace that is open here."""
    lib.lai_count(c_decision, bytes_moved)
    append(c_decision)


def append(c_decision: Any) -> None:
    """Append a decision to the trace that is open here, if one is."""
    here = activation.ACTIVE.get()
    if here is not None and here.trace:
        lib.lai_append_to_trace(ffi.cast("lai_trace *", here.trace), c_decision)


# ---- traces --------------------------------------------------------------------------------


class Trace:
    """Context manager: decisions of the calls made in this context, in call order.

    Attributes
    ----------
    decisions : list of Decision
        Readable while the trace is open and afterwards.
    """

    def __init__(self) -> None:
        self._c_trace: Any = None
        self._kept: list[Decision] = []

    def __enter__(self) -> Trace:
        if self._c_trace is not None:
            raise RuntimeError("this trace is open already; make a new one")
        self._c_trace = lib.lai_open_trace()
        if not self._c_trace:
            self._c_trace = None
            raise MemoryError("no memory for a trace")
        activation.push(self, trace=address(self._c_trace))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        activation.pop(self)
        if self._c_trace is not None:
            self._kept = self._read()
            lib.lai_close_trace(self._c_trace)
            self._c_trace = None

    @property
    def decisions(self) -> list[Decision]:
        return self._kept if self._c_trace is None else self._read()

    def _read(self) -> list[Decision]:
        c_decision = ffi.new("lai_decision *")
        decisions = []
        for index in range(lib.lai_trace_length(self._c_trace)):
            if lib.lai_read_trace(self._c_trace, index, c_decision):
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
