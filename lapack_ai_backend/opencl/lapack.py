"""LAPACK on an OpenCL device, each routine under LAPACK's name without its type letter.

Every function enqueues and returns; the queue is in order, so a later one, or a copy to the host,
sees its results. Matrices are column-major on the device. The mathematics is in ``cl/``, the loops that
enqueue are in ``csrc/opencl/``. Callers hold ``session.lock``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.native import DTYPES, ffi, lib
from lapack_ai_backend.opencl import memory, programs

if TYPE_CHECKING:
    import pyopencl

    from lapack_ai_backend.opencl.session import Session


NOT_CONVERGED, NOT_FINITE = lib.LAI_GESVJ_NOT_CONVERGED, lib.LAI_GESVJ_NOT_FINITE  # in place of a rank, see gesvj


class Matrix(NamedTuple):
    """A column-major matrix: element (i, j) is at ``offset + i + j * ld``. A vector has one column.

    Attributes
    ----------
    buffer : pyopencl.Buffer
        Where it is; other matrices may be in there too.
    dtype : str
        "float32", "float64", "complex64" or "complex128".
    rows, columns : int
        Its sizes.
    offset, ld : int
        In elements.
    """

    buffer: pyopencl.Buffer
    dtype: str
    rows: int
    columns: int
    offset: int
    ld: int

    def part(self, i: int, j: int, rows: int, columns: int) -> Matrix:
        """The `rows` x `columns` matrix whose first element is this one's (i, j)."""
        return self._replace(rows=rows, columns=columns, offset=self.offset + i + j * self.ld)


def allocate(session: Session, dtype: str, rows: int, columns: int = 1) -> Matrix:
    """A new matrix of undefined contents; memory.py says what is raised."""
    return Matrix(memory.allocate(session, rows * columns, dtype), dtype, rows, columns, 0, max(rows, 1))


# ---- workspaces: elements of a dtype needed, to be known before anything is allocated --------------


def max_abs_work() -> int:
    """Elements of the workspace of `max_abs`."""
    return int(lib.lai_cl_max_abs_work())


def gemm_work(dtype: str, m: int, n: int, k: int, transb: int = 0) -> int:
    """Elements of the workspace of `gemm` for an m x n result of sums of k terms; often 0."""
    return int(lib.lai_cl_gemm_work(DTYPES[dtype], transb, m, n, k))


def gebrd_work(dtype: str, m: int, n: int) -> int:
    """Elements of the workspace of `gebrd` of an m x n matrix."""
    return int(lib.lai_cl_gebrd_work(DTYPES[dtype], m, n))


def geqrf_work(dtype: str, m: int, n: int) -> int:
    """Elements of the workspace of `geqrf` of an m x n matrix."""
    return int(lib.lai_cl_geqrf_work(DTYPES[dtype], m, n))


def cholqr_work(dtype: str, m: int, n: int) -> int:
    """Elements of the workspace of `cholqr` of an m x n matrix."""
    return int(lib.lai_cl_cholqr_work(DTYPES[dtype], m, n))


def ormqr_work(dtype: str, m: int, n: int, k: int) -> int:
    """Elements of the workspace of `ormqr` of k reflectors on an m x n matrix."""
    return int(lib.lai_cl_ormqr_work(DTYPES[dtype], m, n, k))


def gesvj_work(dtype: str, m: int, n: int, vectors: bool, count: int) -> int:
    """Elements of the workspace of `gesvj` of so many m x n matrices; 0 where local memory suffices."""
    return int(lib.lai_cl_gesvj_work(DTYPES[dtype], m, n, vectors, count))


# ---- auxiliary routines ---------------------------------------------------------------------------


def max_abs(session: Session, a: Matrix, result: Matrix, work: Matrix) -> None:
    """``result[0] = max |A|``, Inf where A holds a NaN or an Inf; A is one run of memory.

    Of a complex matrix it is the largest part; `result` is real.
    """
    _run(session, "max_abs", a, result, work)


def lascl(session: Session, a: Matrix, b: Matrix, exponent: int, transpose: int = 0) -> None:
    """``B = 2**exponent op(A)``: A, its transpose (1) or its conjugate transpose (2).

    What the host calls row-major is a transposed matrix here.
    """
    _run(session, "lascl", transpose, exponent, a, b)


def laset(session: Session, alpha: int, beta: int, a: Matrix) -> None:
    """``A = alpha`` off the diagonal, ``beta`` on it."""
    _run(session, "laset", alpha, beta, a)


def lacpy_upper(session: Session, a: Matrix, b: Matrix) -> None:
    """``B = triu(A)``."""
    _run(session, "lacpy_upper", a, b)


def lacp2(session: Session, a: Matrix, b: Matrix) -> None:
    """``B = A``, a real matrix."""
    _run(session, "lacp2", a, b, dtype=b.dtype)


# ---- products and decompositions --------------------------------------------------------------------


def gemm(
    session: Session,
    transa: int,
    transb: int,
    alpha: int,
    a: Matrix,
    b: Matrix,
    beta: int,
    c: Matrix,
    work: Matrix | None = None,
) -> None:
    """``C = alpha op(A) op(B) + beta C``; with ``beta=0`` C is not read. No workspace where `gemm_work` is 0.

    op is nothing (0), the transpose (1) or the conjugate transpose (2).
    """
    _run(session, "gemm", transa, transb, alpha, a, b, beta, c, work or c._replace(rows=0))


def gemm_batch(
    session: Session,
    transa: bool,
    transb: bool,
    alpha: int,
    a: Matrix,
    b: Matrix,
    beta: int,
    c: Matrix,
    table: pyopencl.Buffer,
    products: int,
    m: int,
    n: int,
) -> None:
    """``C = alpha op(A) op(B) + beta C`` for each product of a table on the device, by one launch.

    A row of the table is a ``lai_gemm_row``: how far its operands lie behind the first elements of A, B and C, and its
    sizes, of which `m` and `n` are the largest. No result may be an operand or overlap another one.
    """
    rows = ffi.cast("void *", table.int_ptr)
    _run(session, "gemm_batch", transa, transb, alpha, a, b, beta, c, rows, 0, products, m, n)


def gebrd(
    session: Session, a: Matrix, p: Matrix, d: Matrix, e: Matrix, tauq: Matrix, taup: Matrix, work: Matrix
) -> None:
    """``A = Q B P.T`` with B real and upper bidiagonal, for m >= n.

    Parameters
    ----------
    a : Matrix
        m x n, with `max_abs` in [1/2, 1) or zero. On exit column i holds the reflector ``H_i`` of
        ``Q = H_0 H_1 ...`` below the diagonal; its 1 at row i is implied.
    p : Matrix
        n x n, for P's reflectors: column i holds the one whose 1 is at row i + 1. ``p.part(1, 0, n-1, n-1)`` is
        what `ormqr` takes.
    d, e : Matrix
        n and n - 1 elements, real: diagonal and superdiagonal of B.
    tauq, taup : Matrix
        n and n - 1 elements.
    work : Matrix
        `gebrd_work` elements.
    """
    _run(session, "gebrd", a, p, d, e, tauq, taup, work)


def geqrf(session: Session, a: Matrix, tau: Matrix, work: Matrix) -> None:
    """``A = Q R``, scaled as for `gebrd`: R is A's upper triangle on exit, reflectors below as there."""
    _run(session, "geqrf", a, tau, work)


def cholqr(session: Session, a: Matrix, q: Matrix, r: Matrix, gram: Matrix, distance: Matrix, work: Matrix) -> None:
    """``A = Q R`` for m >= n, with Q explicit, by Cholesky factorizations of ``A'A`` and again of ``Q'Q``.

    Parameters
    ----------
    a : Matrix
        m x n, left as it is.
    q, r : Matrix
        m x n and n x n.
    gram : Matrix
        n x n, overwritten.
    distance : Matrix
        A vector, real; the sum of its elements is ``|Q'Q - I|^2`` in the Frobenius norm, of Q after the first
        factorization. Unless that is well below 1, A is too near to singular, and Q and R mean nothing.
    work : Matrix
        `cholqr_work` elements.
    """
    _run(session, "cholqr", a, q, r, gram, distance, work)


def ormqr(session: Session, transpose: int, v: Matrix, tau: Matrix, c: Matrix, work: Matrix) -> None:
    """``C = Q C``, or ``Q.T.conj() C`` (2); Q is the product of the reflectors in the columns of `v`, of C's rows."""
    _run(session, "ormqr", transpose, v, tau, c, work)


def bdsdc(
    session: Session,
    tree: Any,
    places: Sequence[int],
    right: bool,
    numbers: Matrix,
    integers: Matrix,
    products: Matrix,
    s: Matrix,
    room: Matrix,
    z: Matrix,
) -> None:
    """Left, or right, singular vectors of a bidiagonal matrix from its divide and conquer.

    Parameters
    ----------
    tree : lai_tree *
        Its counts and merges on the host.
    places : sequence of int
        Where indices, merges, leaves and the order of the values begin in `integers`.
    numbers, integers, products : Matrix
        The tree's numbers; its integers; a ``lai_gemm_row`` for each merge, by level, left and right.
    s : Matrix
        n x n, where the vectors go, as columns.
    room, z : Matrix
        n x n, without gaps.
    """
    buffers = (ffi.cast("void *", each.buffer.int_ptr) for each in (integers, products))
    _run(session, "bdsdc", tree, right, numbers, ffi.new("lai_tree_places *", (*buffers, *places)), s, room, z)


def bdsvx(session: Session, d: Matrix, e: Matrix, s: Matrix) -> None:
    """Singular values of the upper bidiagonal matrix of `d` and `e`, each on its own.

    Small ones, down to about tiny max(1, |B|^2), have as many digits as large ones; they descend up to rounding only.
    """
    _run(session, "bdsvx", d, e, s)


def gesvj(
    session: Session,
    shape: tuple[int, int, int],
    wide: bool,
    a: Matrix,
    u: Matrix | None,
    v: Matrix | None,
    s: Matrix,
    info: Matrix,
    work: Matrix | None = None,
) -> None:
    """``A = U S V.T`` for many real m x n matrices, 64 >= m >= n, by one-sided Jacobi rotations.

    Each argument holds one column, without gaps, for each of them.

    Parameters
    ----------
    shape : (m, n, columns of U)
        The latter is n or m.
    wide : bool
        Whether A and U are by columns and V by rows; else A and U are by rows and V by columns.
    a, u, v : Matrix
        u and v are None for singular values alone.
    s : Matrix
        The values of ``A * 2**e``, largest entry in [1/2, 1), descending.
    info : Matrix
        e and the rank; in place of the rank `NOT_CONVERGED` or `NOT_FINITE`, and the rest is undefined.
    work : Matrix or None
        `gesvj_work` elements; None where that is 0.
    """
    none = a._replace(rows=0)
    _run(session, "gesvj", *shape, wide, a, u or none, v or none, s, info, work or none)


def _run(session: Session, routine: str, *arguments: Any, dtype: str | None = None) -> None:
    dtype = dtype or next(each.dtype for each in arguments if isinstance(each, Matrix))
    native = [_native(each) if isinstance(each, Matrix) else each for each in arguments]
    kernels = programs.kernels(session, dtype)
    lib.lai_cl_forget_arguments(kernels)
    status = getattr(lib, f"lai_cl_{routine}")(kernels, *native)
    if status:
        raise DeviceError(f"{session.device.name}: {routine}: {_status_name(status)} ({status})")


def _native(a: Matrix) -> Any:
    buffer = ffi.cast("void *", a.buffer.int_ptr)
    return ffi.new("lai_matrix *", (buffer, a.offset, a.ld, a.rows, a.columns))


def _status_name(status: int) -> str:
    import pyopencl as cl

    names = {value: name for name, value in vars(cl.status_code).items() if isinstance(value, int)}
    return f"CL_{names[status]}" if status in names else "unknown status"
