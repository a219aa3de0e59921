"""The decomposition of one tall or square matrix, A = U S V^T, on an OpenCL device.

    upload      A 2^e, largest entry in [1/2, 1)    lascl     opencl/lapack.py
    tall        A = Q1 R, then on with R            cholqr, or geqrf
    reduction   A = Q B P^T, B bidiagonal           gebrd
    iteration   B = UB S VB^T                       lasda     bidiagonal.py, on the host: S; UB, VB in compact form
                                                    bdsdc     UB and VB
                or S alone                          bdsvx
    back        U = Q1 Q UB, V = P VB               ormqr

The power of two makes the norms of reflectors safe to compute, and rounds only what it makes subnormal.

A is real or complex; B is always real, and so is the iteration. V is the transpose of SciPy's Vh, not its conjugate
transpose: of a wide matrix, which comes as its transpose, U and V change places, no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lapack_ai_backend.errors import Decline, DeviceError
from lapack_ai_backend.linalg import bidiagonal
from lapack_ai_backend.opencl import lapack, programs, transfer
from lapack_ai_backend.opencl.lapack import Matrix
from lapack_ai_backend.opencl.session import Session

Array = np.ndarray[Any, Any]

# Rows over columns from which QR comes first; LAPACK's gesvd has 1.6, its gesdd 11/6.
QR_FIRST = 1.6

# How far from orthonormal CholeskyQR may leave Q1 after its first half, in the Frobenius norm: below 1, its second half
# mends that. Tests of matrices that are nearly singular find it well above or NaN: those take Householder reflectors.
MOST_DISTANCE = 0.1
DISTANCE_PARTS = 64
LEAST_CHOLESKY = 32  # columns: with fewer the tiles of its products are nearly empty

WORK_COLUMNS = 1024

# Matrices that are real whatever A is: bidiagonal ones, and sizes of numbers.
OF_B = frozenset(("d", "e", "s", "z", "numbers", "integers", "products", "largest", "distance"))

# Kernels count rows in 32 bits, up to the end of the last tile.
MAX_ROWS = 2**31 - 64


@dataclass(frozen=True)
class Plan:
    """What the decomposition of an m x n matrix, m >= n, needs; known before anything is transferred."""

    m: int
    n: int
    dtype: str
    vectors: bool
    left: int  # columns of U

    @property
    def tall(self) -> bool:
        """Whether QR comes first."""
        return self.m >= QR_FIRST * self.n

    @property
    def real(self) -> str:
        """The dtype of B and of the singular values."""
        return programs.REAL.get(self.dtype, self.dtype)

    @property
    def cholesky(self) -> bool:
        """Whether CholeskyQR is tried: it has no further columns for full matrices."""
        return self.tall and self.left <= self.n and self.n >= LEAST_CHOLESKY

    def shapes(self) -> dict[str, tuple[int, int]]:
        """The matrices on the device."""
        m, n, dtype = self.m, self.n, self.dtype
        found = {"a": (m, n), "transfer": (m, max(n, self.left)), "p": (n, n), "largest": (1, 1)}
        found |= dict.fromkeys(("d", "e", "s", "tauq", "taup"), (n, 1))
        works = [lapack.max_abs_work(), lapack.gebrd_work(dtype, n if self.tall else m, n)]
        if self.tall:
            found |= {"r": (n, n), "tau": (n, 1)}
            works.append(lapack.geqrf_work(dtype, m, n))
        if self.cholesky:
            found["distance"] = (DISTANCE_PARTS, 1)
            works += [lapack.cholqr_work(dtype, m, n), lapack.gemm_work(dtype, m, n, n)]
        if self.vectors:
            found |= {"u": (m, self.left), "v": (n, n), "z": (n, n), "numbers": bidiagonal.numbers_shape(n)}
            found["integers"] = self._elements(4 * bidiagonal.integers_size(n)), 1
            found["products"] = self._elements(bidiagonal.products_bytes(n)), 1
            works += [lapack.ormqr_work(dtype, m, self.left, n), lapack.ormqr_work(dtype, n, n, n)]
        # A matrix, though it is used as a run of memory: sizes of a matrix are 32-bit.
        return found | {"work": (-(-max(works) // WORK_COLUMNS), WORK_COLUMNS)}

    def dtype_of(self, name: str) -> str:
        """Of one of them."""
        return self.real if name in OF_B else self.dtype

    def device_bytes(self) -> list[int]:
        """Sizes of their buffers."""
        return [math.prod(shape) * np.dtype(self.dtype_of(name)).itemsize for name, shape in self.shapes().items()]

    @property
    def most_bytes(self) -> int:
        """Of the largest transfer."""
        return self.m * max(self.n, self.left) * self._itemsize

    def host_bytes(self, count: int, *, compared: bool = False) -> int:
        """The results of a stack of `count` matrices; of the one at work a copy, its results, and the iteration.

        `compared`: with the products that ``verify="always"`` forms.
        """
        m, n = self.m, self.n
        results = n + (m * self.left + n * n if self.vectors else 0)
        work = sum(self._tree_bytes()) if self.vectors else 0
        products = 2 * m * n + max(self.left, n) ** 2 if compared else 0
        return ((count + 1) * results + 2 * m * n + products) * self._itemsize + work

    def _tree_bytes(self) -> tuple[int, int, int]:
        """Of the divide and conquer on the host."""
        n, numbers = self.n, math.prod(bidiagonal.numbers_shape(self.n)) * np.dtype(self.real).itemsize
        return numbers, 4 * bidiagonal.integers_size(n), bidiagonal.products_bytes(n)

    def _elements(self, size: int) -> int:
        """That many bytes in elements of B."""
        return -(-size // np.dtype(self.real).itemsize)

    @property
    def _itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


def plan(m: int, n: int, dtype: str, *, vectors: bool, full: bool) -> Plan:
    """The plan for an m x n matrix or, if that is wide, its transpose.

    Raises
    ------
    Decline
        "memory", where the sizes exceed what LAPACK's and the kernels' 32-bit integers count.
    """
    m, n = max(m, n), min(m, n)
    if m > MAX_ROWS or (vectors and n > bidiagonal.MAX_ORDER):
        raise Decline("memory", f"{m} x {n} is beyond the 32-bit sizes of the kernels")
    return Plan(m, n, dtype, vectors, (m if full else n) if vectors else 0)


class Workspace:
    """The matrices of a plan on a device; one decomposition after the other uses them."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session, self.plan = session, plan
        self._matrices = {
            name: lapack.allocate(session, plan.dtype_of(name), *shape) for name, shape in plan.shapes().items()
        }
        self.rooms: list[transfer.Room] = []  # for U and V
        self.explicit = False  # of a tall matrix: whether Q1 itself is in "a", not its reflectors

    def __getitem__(self, name: str) -> Matrix:
        return self._matrices[name]

    def transfer(self, rows: int, columns: int) -> Matrix:
        """The room in which matrices arrive from the host and leave for it."""
        return self["transfer"]._replace(rows=rows, columns=columns, ld=rows)


def upload(work: Workspace, a: Array) -> int | None:
    """Make matrix "a" of `work` ``a * 2**e``, largest entry in [1/2, 1); e, or None where `a` is not finite.

    `a` is contiguous by rows or by columns.
    """
    m, n = a.shape
    by_rows = not a.flags.f_contiguous
    arrived = work.transfer(*((n, m) if by_rows else (m, n)))
    _write(work, a.T if by_rows else a, arrived)
    lapack.max_abs(work.session, arrived, work["largest"], work["work"])
    largest = float(_read(work, work["largest"])[0, 0])
    if not math.isfinite(largest):
        return None
    exponent = -math.frexp(largest)[1]
    lapack.lascl(work.session, arrived, work["a"], exponent, transpose=by_rows)
    return exponent


def prepare(work: Workspace, u_order: str = "C") -> None:
    """Let the memory that U and V will take on the host be made ready while the device decomposes."""
    plan = work.plan
    if plan.vectors:
        shapes = (plan.m, plan.left) if u_order == "F" else (plan.left, plan.m), (plan.n, plan.n)
        work.rooms = [transfer.Room(work.session, np.empty(shape, plan.dtype, "F")) for shape in shapes]


def decompose(work: Workspace, u_order: str = "C", v_order: str = "F") -> tuple[Any, Array, Any]:
    """U, the singular values and V of matrix "a" of `work`, which is overwritten; U and V are None without vectors.

    U is m x n or m x m and V n x n, in the memory orders that are asked for.
    """
    s = decompose_on_device(work)
    if not work.plan.vectors:
        return None, s, None
    return _fetch(work, work["u"], u_order), s, _fetch(work, work["v"], v_order)


def decompose_on_device(work: Workspace) -> Array:
    """The singular values of matrix "a" of `work`, which is overwritten; U and V stay on the device, in "u" and "v"."""
    session, plan = work.session, work.plan
    reduced = work["a"]
    if plan.tall:
        _qr(work)
        reduced = work["r"]
    d, e, tauq, taup = work["d"], _first(work["e"]), work["tauq"], _first(work["taup"])
    lapack.gebrd(session, reduced, work["p"], d, e, tauq, taup, work["work"])
    if not plan.vectors:
        lapack.bdsvx(session, d, e, work["s"])
        s = _read(work, work["s"])[:, 0]
        return np.sort(_finite(s))[::-1]
    s, tree = bidiagonal.lasda(_finite(diagonal(work)), _finite(_read(work, e)[:, 0]))
    _vectors_of_b(work, tree)
    _back_transform(work, reduced)
    return s


def _qr(work: Workspace) -> None:
    """A = Q1 R: R in "r"; in "a" Q1, or its reflectors where CholeskyQR would lose orthogonality."""
    session, plan, a, r = work.session, work.plan, work["a"], work["r"]
    work.explicit = False
    if plan.cholesky:
        q, distance = work.transfer(plan.m, plan.n), work["distance"]
        lapack.cholqr(session, a, q, r, work["p"], distance, work["work"])
        squares = _read(work, distance)
        if np.isfinite(squares).all() and float(squares.sum()) <= MOST_DISTANCE**2:
            lapack.lascl(session, q, a, 0)
            work.explicit = True
            return
    lapack.geqrf(session, a, work["tau"], work["work"])
    lapack.lacpy_upper(session, a.part(0, 0, plan.n, plan.n), r)


def _apply_q1(work: Workspace) -> None:
    """Matrix "u" becomes Q1 times itself; of its rows only the first n are not zero, or belong to full matrices."""
    session, n, u = work.session, work.plan.n, work["u"]
    if work.explicit:
        lapack.lascl(session, u.part(0, 0, n, n), work["r"], 0)  # R's reflectors are used up
        lapack.gemm(session, False, False, 1, work["a"], work["r"], 0, u, work["work"])
    else:
        lapack.ormqr(session, False, work["a"], work["tau"], u, work["work"])


def diagonal(work: Workspace) -> Array:
    """The diagonal of B, of the last decomposition."""
    return _read(work, work["d"])[:, 0]


def _vectors_of_b(work: Workspace, tree: bidiagonal.Tree) -> None:
    """UB and VB in "u" and "v"; further columns of full matrices are those of the identity."""
    session, plan, u, v = work.session, work.plan, work["u"], work["v"]
    _write(work, tree.numbers, work["numbers"])
    _write(work, tree.integers, work["integers"])
    lds = (u.ld, v.ld) if plan.dtype == plan.real else (plan.n, plan.n)
    _write(work, tree.products(lds), work["products"])
    lapack.laset(session, 0, 1, u)
    arrays, room = (work["numbers"], work["integers"], work["products"]), work.transfer(plan.n, plan.n)
    for right, target in ((False, u.part(0, 0, plan.n, plan.n)), (True, v)):
        if plan.dtype == plan.real:
            lapack.bdsdc(session, tree.native, tree.places, right, *arrays, target, room, work["z"])
        else:  # where a complex matrix has room, there is room for two real ones
            first = room._replace(dtype=plan.real)
            second = first._replace(offset=plan.n * plan.n)
            lapack.bdsdc(session, tree.native, tree.places, right, *arrays, first, second, work["z"])
            lapack.lacp2(session, first, target)


def _back_transform(work: Workspace, reduced: Matrix) -> None:
    """U = Q1 Q UB, V = P VB; P leaves the first row alone."""
    session, plan, u = work.session, work.plan, work["u"]
    rows, columns = (plan.n, plan.n) if plan.tall else (plan.m, plan.left)
    lapack.ormqr(session, False, reduced, work["tauq"], u.part(0, 0, rows, columns), work["work"])
    if plan.tall:
        _apply_q1(work)
    if plan.n > 1:
        n = plan.n
        reflectors, rest = work["p"].part(1, 0, n - 1, n - 1), work["v"].part(1, 0, n - 1, n)
        lapack.ormqr(session, False, reflectors, _first(work["taup"]), rest, work["work"])


def _first(vector: Matrix) -> Matrix:
    """Without the last element: superdiagonals have one less."""
    return vector._replace(rows=vector.rows - 1)


# ---- between host and device -----------------------------------------------------------------------


def _write(work: Workspace, a: Array, target: Matrix) -> None:
    transfer.write(work.session, a, target.buffer)


def _read(work: Workspace, source: Matrix) -> Array:
    """A matrix without gaps as an array, by columns."""
    found = np.empty((source.rows, source.columns), source.dtype, "F")
    if found.size:
        transfer.read(work.session, source.buffer, found)
    return found


def _fetch(work: Workspace, source: Matrix, order: str) -> Array:
    """A result, in a memory order; transposed on the device where that is by rows."""
    leaving = source
    if order == "C":
        leaving = work.transfer(source.columns, source.rows)
        lapack.lascl(work.session, source, leaving, 0, transpose=True)
    found = _room(work, leaving.rows, leaving.columns)
    transfer.read(work.session, leaving.buffer, found)
    return found.T if order == "C" else found


def _room(work: Workspace, rows: int, columns: int) -> Array:
    """An array by columns for a result, one of those of `prepare` if it has that shape."""
    for room in work.rooms:
        if room.shape == (rows, columns):
            work.rooms.remove(room)
            return room.take()
    return np.empty((rows, columns), work.plan.dtype, "F")


def _finite(x: Array) -> Array:
    """The iteration might not end on anything else."""
    if not np.isfinite(x).all():
        raise DeviceError("the reduction of a finite matrix gave numbers that are not finite")
    return x
