"""Makes OpenCL fail at a chosen call, as drivers do, and counts the calls of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import pyopencl as cl

from lapack_ai_backend.native import lib
from lapack_ai_backend.opencl import lapack, session

# What fails: where it is called, and the status with which drivers fail there.
POINTS: dict[str, tuple[Any, str, str]] = {
    "context": (cl, "Context", "OUT_OF_HOST_MEMORY"),
    "build": (cl.Program, "build", "BUILD_PROGRAM_FAILURE"),
    "kernel": (cl, "Kernel", "INVALID_KERNEL_NAME"),
    "allocation": (cl, "Buffer", "MEM_OBJECT_ALLOCATION_FAILURE"),
    "first use": (cl, "enqueue_fill_buffer", "MEM_OBJECT_ALLOCATION_FAILURE"),
    "transfer": (cl, "enqueue_copy", "OUT_OF_RESOURCES"),
    "routine": (lapack, "lib", "OUT_OF_RESOURCES"),  # csrc/opencl: a launch in it fails
}
ONCE = ("context", "build", "kernel")  # called at the first use of a device


class Calls:
    """Counts calls; number `failing` (from 0) is not made but fails with a status, the later ones succeed."""

    def __init__(self, failing: int | None, status: str) -> None:
        self.failing = failing
        self.status = status
        self.count = 0

    def fails_now(self) -> bool:
        self.count += 1
        return self.count - 1 == self.failing

    def raising(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.fails_now():
                raise error(self.status)
            return function(*args, **kwargs)

        return call


class _Library:
    """The native library, whose OpenCL routines return a status."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        function = getattr(lib, name)
        if not name.startswith("lai_cl_") or name.endswith(("_work", "_forget_arguments")):
            return function
        return lambda *args: code(self._calls.status) if self._calls.fails_now() else function(*args)


@contextmanager
def failing(point: str, call: int | None = None, status: str | None = None) -> Iterator[Calls]:
    """Call number `call` at a point of `POINTS` fails; None: calls are counted and none fails.

    At points of `ONCE` the process has no session, as before its first use of a device.
    """
    owner, name, usual = POINTS[point]
    calls = Calls(call, status or usual)
    replacement = _Library(calls) if owner is lapack else calls.raising(getattr(owner, name))
    anew = mock.patch.dict(session._sessions, clear=True) if point in ONCE else nullcontext()
    with anew, mock.patch.object(owner, name, replacement):
        yield calls


def code(status: str) -> int:
    """The number of a status."""
    return int(getattr(cl.status_code, status))


def error(status: str) -> cl.Error:
    """What pyopencl raises for a status."""
    shortage = status in ("MEM_OBJECT_ALLOCATION_FAILURE", "OUT_OF_RESOURCES", "OUT_OF_HOST_MEMORY")
    kind = cl.MemoryError if shortage else cl.LogicError if status.startswith("INVALID_") else cl.RuntimeError
    return kind(cl._cl._ErrorRecord(msg="a test wants it", code=code(status), routine="faulty_device"))
