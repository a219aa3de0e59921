"""Copies between arrays and a device's buffers.

A driver reaches ordinary memory through pages of its own, one thread copying: on an H100 at 11 GB/s, and at 2.5 GB/s
into a fresh array, since the system clears each of its pages at the first touch. Pinned memory moves at 55 GB/s.
So large copies go through a little of it, in pieces that several threads fill or empty meanwhile, and the pages of
results are touched while the device still computes. Results themselves are ordinary arrays: pinned memory that
the caller keeps would be scarce memory lost, and after a fork parent and child would write to the same.

Where the device's memory is the host's, where there is no pinned memory to be had, and small arrays: the driver copies.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import TYPE_CHECKING, Any

import numpy as np

from lapack_ai_backend.environment import PROCESS_VARIABLES, from_environment
from lapack_ai_backend.native import lib
from lapack_ai_backend.opencl import devices

if TYPE_CHECKING:
    import pyopencl

    from lapack_ai_backend.opencl.session import Session

log = logging.getLogger("lapack_ai_backend")

Array = np.ndarray[Any, Any]

LEAST = 2**20  # bytes; below, the driver copies
PIECE = 2**22  # most bytes of a piece; a lane has two: the device works on one while the host does on the other
LEAST_PIECE = 2**18
LANES = 8  # threads, and so much pinned memory: 64 MiB at most
PAGE = 4096


class Lane:
    """Pinned memory of one thread, mapped for good: room for two pieces."""

    def __init__(self, session: Session) -> None:
        import pyopencl as cl

        access: Any = cl.map_flags.READ | cl.map_flags.WRITE
        flags, shape, dtype = cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR, (2 * PIECE,), np.dtype(np.uint8)
        buffer = cl.Buffer(session.context, flags, 2 * PIECE)
        found, _ = cl.enqueue_map_buffer(session.queue, buffer, access, 0, shape, dtype)
        self.pieces = found[:PIECE], found[PIECE:]  # they keep the mapping, and that the buffer


class Staging:
    """The lanes of a session, made as transfers want them, and their threads."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.threads = ThreadPoolExecutor(LANES, "lapack-ai-transfer")

    def extend(self, session: Session, count: int) -> bool:
        """Have so many lanes, or those that the system gives; whether there are any."""
        import pyopencl as cl

        try:
            while len(self.lanes) < count:
                self.lanes.append(Lane(session))
        except cl.Error as error:
            log.info("%s: no more than %d lanes of pinned memory: %s", session.device.name, len(self.lanes), error)
        return bool(self.lanes)

    def share(self, copy: Callable[[Lane, range], None], total: int) -> None:
        """Let every lane copy its pieces of so many bytes, given by where they start; then raise the first error."""
        size = _piece(total)
        lanes = self.lanes[: _lanes(total)]
        starts = [range(k * size, total, len(lanes) * size) for k in range(len(lanes))]
        futures = [self.submit(copy, *each) for each in zip(lanes[1:], starts[1:], strict=True)]
        try:
            copy(lanes[0], starts[0])
        finally:  # nobody reads or writes an array after the call
            wait_for(futures)
        for future in futures:
            future.result()

    def submit(self, task: Callable[..., None], *arguments: Any) -> Future[None]:
        """In a thread, or here where the interpreter is about to end and starts none."""
        try:
            return self.threads.submit(task, *arguments)
        except RuntimeError:
            future: Future[None] = Future()
            task(*arguments)
            future.set_result(None)
            return future

    def close(self) -> None:
        """No new threads. The memory goes with the last copy that uses it."""
        self.threads.shutdown(wait=False)


# ---- copies --------------------------------------------------------------------------------------------


def write(session: Session, a: Array, target: pyopencl.Buffer) -> None:
    """``target = a``, a contiguous array."""
    import pyopencl as cl

    session.wait()  # here, not in the driver: what came before is most of the time
    staging = _staging(session, a.nbytes)
    if staging is None:
        cl.enqueue_copy(session.queue, target, a)
        return
    source, size = _bytes_of(a), _piece(a.nbytes)

    def fill(lane: Lane, starts: range) -> None:
        moving: deque[Any] = deque()
        for turn, start in enumerate(starts):
            if len(moving) == 2:
                moving.popleft().wait()
            part = source[start : start + size]
            room = lane.pieces[turn % 2][: part.size]
            np.copyto(room, part)
            moving.append(cl.enqueue_copy(session.queue, target, room, dst_offset=start, is_blocking=False))
        for event in moving:
            event.wait()

    staging.share(fill, a.nbytes)


def read(session: Session, source: pyopencl.Buffer, a: Array) -> None:
    """``a = source``, a contiguous array."""
    import pyopencl as cl

    session.wait()
    staging = _staging(session, a.nbytes)
    if staging is None:
        cl.enqueue_copy(session.queue, a, source)
        return
    target, size = _bytes_of(a), _piece(a.nbytes)

    def empty(lane: Lane, starts: range) -> None:
        moving: deque[tuple[Any, Array, Array]] = deque()
        for turn, start in enumerate([*starts, None, None]):
            if moving and (len(moving) == 2 or start is None):
                event, room, part = moving.popleft()
                event.wait()
                np.copyto(part, room)
            if start is not None:
                part = target[start : start + size]
                room = lane.pieces[turn % 2][: part.size]
                event = cl.enqueue_copy(session.queue, room, source, src_offset=start, is_blocking=False)
                moving.append((event, room, part))

    staging.share(empty, a.nbytes)


def _bytes_of(a: Array) -> Array:
    return a.ravel("K").view(np.uint8)


# ---- results -------------------------------------------------------------------------------------------


class Room:
    """An array by columns that results will fill, whose pages come while the device computes."""

    def __init__(self, session: Session, array: Array) -> None:
        self.shape = array.shape
        self._array = array
        self._futures: list[Future[None]] = []
        staging = _staging(session, self._array.nbytes)
        if staging is not None:
            whole = _bytes_of(self._array)
            share = max(-(-whole.size // (4 * threads())), PIECE)
            parts = (whole[start : start + share : PAGE] for start in range(0, whole.size, share))
            self._futures = [staging.submit(part.fill, 0) for part in parts]

    def take(self) -> Array:
        """The array, which nobody else writes to any more."""
        for future in self._futures:
            future.cancel()
        wait_for(self._futures)
        return self._array


def in_background(session: Session, task: Callable[[], None]) -> Future[None]:
    """Run a task that moves results, beside this thread."""
    if session.staging is None:
        session.staging = Staging()
    staging: Staging = session.staging
    return staging.submit(task)


# ---- whether, and how much -----------------------------------------------------------------------------


def is_used(session: Session) -> bool:
    """Whether copies go through pinned memory: LAPACK_AI_PINNED, else where a GPU has memory of its own."""
    wanted, _ = from_environment(PROCESS_VARIABLES["pinned"])
    if wanted is not None:
        return bool(wanted)
    return session.device.kind == "gpu" and not devices.handle(session.device).host_unified_memory


def threads() -> int:
    """Threads that copy."""
    return max(1, min(LANES, int(lib.lai_num_threads())))


def pinned_bytes(session: Session, total: int) -> int:
    """Pinned memory for copies of `total` bytes."""
    return _lanes(total) * 2 * PIECE if total >= LEAST and is_used(session) else 0


def _staging(session: Session, total: int) -> Staging | None:
    """What copies of so many bytes go through; None where the driver shall copy."""
    if total < LEAST or not is_used(session):
        return None
    if session.staging is None:
        session.staging = Staging()
    staging: Staging = session.staging
    return staging if staging.extend(session, _lanes(total)) else None


def _piece(total: int) -> int:
    """Bytes of a piece: two for each thread, but neither small nor larger than a lane's room."""
    size = min(max(-(-total // (2 * threads())), LEAST_PIECE), PIECE)
    return -(-size // PAGE) * PAGE


def _lanes(total: int) -> int:
    return min(threads(), -(-total // _piece(total)))
