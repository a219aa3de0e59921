"""``A @ B`` of large matrices on an OpenCL device.

The device's matrices are by columns, so a result by rows is computed as its transpose, B'A'. It is cut into panels
of columns:

    upload      A, once; then B, a panel at a time where it lies by columns     a queue and threads of its own
    gemm        C's panel                                                       opencl/lapack.py
    download    of the panel before, meanwhile                                  a queue and threads of its own

and, where the device has no room for A, into blocks of rows as well. What is left to others: layouts with gaps between
neighbours or in reverse, and whatever is not finite, since only NumPy's own loop gives its pattern and its warnings.
"""

from __future__ import annotations

import math
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lapack_ai_backend.errors import Decline
from lapack_ai_backend.linalg import Settings
from lapack_ai_backend.linalg.verification import LIMIT, times
from lapack_ai_backend.opencl import devices, lapack, memory, transfer
from lapack_ai_backend.opencl.lapack import Matrix
from lapack_ai_backend.opencl.session import Session, open_session

Array = np.ndarray[Any, Any]

PANELS = 8  # of a result that the device has room for: enough for copies and products to overlap
LEAST_PANEL = 2**23  # bytes of a result's panel: the threads of smaller copies would mostly wait for each other
UNIT = 128  # panels and blocks are multiples of the largest tile
IN_WORK = 2  # panels: one is computed, while the next arrives and the one before leaves


def gemm(options: Settings, a: Array, b: Array, c: Array) -> Any:
    """``c[...] = a @ b``, of float32 or float64; ``NotImplemented`` for layouts that are left to others.

    Whatever is raised, `c` may hold anything then.
    """
    if not all(_is_plain(each) for each in (a, b, c)):
        return NotImplemented
    if c.strides[0] != c.itemsize:
        a, b, c = b.T, a.T, c.T
    device = devices.choose(options.device, c.dtype.name)
    if device is None:
        raise Decline("device", devices.why_not(options.device, c.dtype.name))
    session = open_session(device)
    with session.lock:
        largest = _Panels(session, a, b, c).compute()
    if not math.isfinite(largest):
        return NotImplemented
    if options.verify != "off":
        _check(a, b, c, largest)
    return None


def _is_plain(x: Array) -> bool:
    """Whether neighbours in columns, or in rows, are side by side."""
    (m, n), item = x.shape, x.itemsize
    return (x.strides[0] == item and x.strides[1] >= m * item) or (x.strides[1] == item and x.strides[0] >= n * item)


def _is_by_columns(x: Array) -> bool:
    return x.strides[0] == x.itemsize


@dataclass(frozen=True)
class Cut:
    """How a product is cut: rows of a block of A, columns of a panel of B; `whole`: B goes to the device as one."""

    dtype: str
    rows: int
    columns: int
    whole: bool

    def sizes(self, m: int, k: int, n: int) -> list[int]:
        """Elements of the buffers: A's block, B, the results in work, `gemm`'s workspace, largest entries."""
        of_b = [k * n] if self.whole else [k * self.columns] * IN_WORK
        work = lapack.gemm_work(self.dtype, self.rows, self.columns, k)
        uploads = -(-m // self.rows) * (1 + -(-n // self.columns)) + 1
        return [self.rows * k, *of_b, *[self.rows * self.columns] * IN_WORK, max(work, lapack.max_abs_work()), uploads]


def cut(session: Session, dtype: str, m: int, k: int, n: int, *, by_columns: bool) -> Cut:
    """The cut that needs the fewest transfers of what the device has room for.

    Raises
    ------
    Decline
        "memory".
    """
    least = -(-LEAST_PANEL // (m * memory.ITEM_SIZES[dtype]))
    rows, columns = m, min(n, _rounded(max(-(-n // PANELS), least)))
    allowed = memory.device_limit(session.device)
    while True:
        for whole in (False, True) if by_columns else (True, False):
            found = Cut(dtype, rows, columns, whole)
            sizes = [size * memory.ITEM_SIZES[dtype] for size in found.sizes(m, k, n)]
            if sum(sizes) <= allowed and max(sizes) <= session.device.max_allocation:
                return found
        if rows <= UNIT and columns <= UNIT:
            memory.check(session, sizes, 0)  # raises, with the numbers
            raise Decline("memory", "the device's memory changed meanwhile")
        rows, columns = (_rounded(rows // 2), columns) if rows >= columns else (rows, _rounded(columns // 2))


def _rounded(size: int) -> int:
    return max(-(-size // UNIT), 1) * UNIT


@dataclass
class _Panels:
    """One product at work: C = A B, all of C by columns."""

    session: Session
    a: Array
    b: Array
    c: Array
    _leaving: list[Future[None]] = field(default_factory=list)

    def compute(self) -> float:
        """Fill C; the largest absolute value of A times that of B, not finite where one of them holds such a number."""
        (m, k), n, dtype = self.a.shape, self.b.shape[1], self.c.dtype
        cuts = cut(self.session, dtype.name, m, k, n, by_columns=_is_by_columns(self.b))
        sizes = [size * dtype.itemsize for size in cuts.sizes(m, k, n)]
        copied = 2 * max(sizes) if cuts.rows < m or not self._is_contiguous() else 0
        memory.check(self.session, sizes, copied + 2 * transfer.pinned_bytes(self.session, max(sizes)))
        rooms = self._rooms(cuts)
        try:
            return self._run(cuts, rooms)
        finally:
            wait_for(self._leaving)  # nobody writes to C after the call
            for room in rooms:
                room.take()

    def _is_contiguous(self) -> bool:
        return all(x.flags.c_contiguous or x.flags.f_contiguous for x in (self.a, self.b, self.c))

    def _rooms(self, cuts: Cut) -> list[transfer.Room]:
        """C's panels, whose pages come while the first operands travel."""
        if not self.c.flags.f_contiguous:
            return []
        return [transfer.Room(self.session, self.c[:, columns]) for columns in _slices(self.c.shape[1], cuts.columns)]

    def _run(self, cuts: Cut, rooms: list[transfer.Room]) -> float:
        session = self.session
        (m, k), n = self.a.shape, self.b.shape[1]
        size_a, *sizes, size_work, count = cuts.sizes(m, k, n)
        buffer_a, work, largest = (self._allocate(size) for size in (size_a, size_work, count))
        *buffers_b, first_c, second_c = (self._allocate(size) for size in sizes)
        session.wait()  # allocation writes to buffers, by another queue than uploads
        found: dict[str, list[int]] = {"a": [], "b": []}  # places in `largest`

        def upload(x: Array, buffer: Matrix, operand: str) -> Matrix:
            place = sum(map(len, found.values()))
            found[operand].append(place)
            stored = _as_it_lies(x, buffer)
            transfer.write(session.beside("upload"), _without_gaps(x), buffer.buffer)
            lapack.max_abs(session, stored, largest.part(place, 0, 1, 1), work)
            return stored

        trans_a, trans_b = not _is_by_columns(self.a), not _is_by_columns(self.b)
        whole = upload(self.b, buffers_b[0], "b") if cuts.whole else None
        for rows in _slices(m, cuts.rows):
            block = upload(self.a[rows], buffer_a, "a")  # products of the one before are done: their results have left
            for index, columns in enumerate(_slices(n, cuts.columns)):
                turn = len(self._leaving) % IN_WORK
                if len(self._leaving) >= IN_WORK:
                    self._leaving[-IN_WORK].result()  # and so its panel's buffers are free
                if whole is None:
                    panel = upload(self.b[:, columns], buffers_b[turn], "b")
                else:
                    panel = _part_of(whole, columns, transposed=trans_b)
                target = self.c[rows, columns]
                result = _as_it_lies(target, (first_c, second_c)[turn])
                lapack.gemm(session, trans_a, trans_b, 1, block, panel, 0, result, work)
                self._leaving.append(self._download(result, target, rooms[index] if rooms else None))
            for leaving in self._leaving[-IN_WORK:]:
                leaving.result()
        values = np.empty(count, self.c.dtype)
        transfer.read(session, largest.buffer, values)
        return float(values[found["a"]].max()) * float(values[found["b"]].max())

    def _allocate(self, size: int) -> Matrix:
        return lapack.allocate(self.session, self.c.dtype.name, size)

    def _download(self, result: Matrix, target: Array, room: transfer.Room | None) -> Future[None]:
        """Start to move a result to the host, once it is there."""
        import pyopencl as cl

        done = cl.enqueue_marker(self.session.queue)
        self.session.queue.flush()
        session, before = self.session, self._leaving[-1:]
        beside = session.beside("download")

        def fetch() -> None:
            wait_for(before)  # one at a time has the pinned memory
            session.wait(done)
            if room is not None:
                room.take()
            if target.flags.f_contiguous:
                transfer.read(beside, result.buffer, target)
                return
            found = np.empty(target.shape, target.dtype, "F")
            transfer.read(beside, result.buffer, found)
            target[...] = found

        return transfer.in_background(beside, fetch)


def _slices(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _as_it_lies(x: Array, buffer: Matrix) -> Matrix:
    """What `x` without gaps is on the device: a matrix by columns, or the transpose of one by rows."""
    rows, columns = x.shape if _is_by_columns(x) else x.shape[::-1]
    return buffer._replace(rows=rows, columns=columns, ld=rows)


def _part_of(whole: Matrix, columns: slice, *, transposed: bool) -> Matrix:
    """Columns of a matrix, or of the one whose transpose it is."""
    count = columns.stop - columns.start
    if transposed:
        return whole.part(columns.start, 0, count, whole.columns)
    return whole.part(0, columns.start, whole.rows, count)


def _without_gaps(x: Array) -> Array:
    if x.flags.c_contiguous or x.flags.f_contiguous:
        return x
    return np.array(x, order="F" if _is_by_columns(x) else "C")


def _check(a: Array, b: Array, c: Array, largest: float) -> None:
    """``w'C = (w'A) B`` for a random w (R. Freivalds): three products of a matrix and a vector, on the host.

    `largest`: ``max|A| max|B|``. Raises Decline, "wrong_result".
    """
    (m, k), dtype = a.shape, c.dtype
    w = np.random.default_rng((m, k, c.shape[1])).standard_normal(m)
    difference = times(c.T, w) - times(b.T, times(a.T, w))
    scale = float(np.linalg.norm(w)) * k * largest
    units = float(np.abs(difference).max()) / (max(scale, float(np.finfo(dtype).tiny)) * float(np.finfo(dtype).eps))
    allowed = LIMIT[0] + LIMIT[1] * max(m, k) ** 0.5
    if not units <= allowed:
        raise Decline("wrong_result", f"random combination of rows: {units:.3g} eps, {allowed:.3g} are allowed")
