"""opencl/lapack.py, operation by operation, on an OpenCL device of the CPU (PoCL).

Decompositions are judged by LAPACK's ratios, products by the bound of their own rounding errors,
copies by their bits. Operands lie inside larger matrices, whose other elements must stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from svd_cases import (
    ALARM,
    DEVICE,
    DTYPES,
    MATRICES,
    MOST_DTYPES,
    difference,
    is_complex,
    ldexp,
    matrix,
    normal,
    orthogonality,
    real,
    with_spectrum,
)

from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.linalg import bidiagonal, gesdd
from lapack_ai_backend.native import ISAS, best_isa, ffi, lib, use_isa
from lapack_ai_backend.opencl import devices, lapack, programs
from lapack_ai_backend.opencl.lapack import Matrix
from lapack_ai_backend.opencl.session import Session, open_session

Array = np.ndarray[Any, Any]

REAL = ("float32", "float64")


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    device = devices.choose(DEVICE, "float64")
    if device is None:
        pytest.skip(devices.why_not(DEVICE, "float64"))
    opened = open_session(device)
    with opened.lock:
        yield opened


class Host:
    """Matrices between host and device; those on the device lie inside a frame of NaNs."""

    ABOVE, BELOW, BEFORE, BEHIND = 3, 2, 1, 2

    def __init__(self, session: Session, dtype: str) -> None:
        self.session, self.dtype, self.real = session, dtype, real(dtype)
        self.double, self.wide = np.result_type(dtype, float), np.result_type(dtype, np.longdouble)

    @property
    def of_parts(self) -> Host:
        """For real matrices beside those of this dtype."""
        return Host(self.session, self.real)

    def to_device(self, a: Array) -> Matrix:
        import pyopencl as cl

        rows, columns = a.shape
        framed = np.full((self.ABOVE + rows + self.BELOW, self.BEFORE + columns + self.BEHIND), np.nan, self.dtype)
        framed[self.ABOVE : self.ABOVE + rows, self.BEFORE : self.BEFORE + columns] = a
        whole = lapack.allocate(self.session, self.dtype, *framed.shape)
        cl.enqueue_copy(self.session.queue, whole.buffer, np.ascontiguousarray(framed.T))
        return whole.part(self.ABOVE, self.BEFORE, rows, columns)

    def from_device(self, a: Matrix) -> Array:
        """The matrix, once it is sure that its frame is untouched."""
        import pyopencl as cl

        columns = self.BEFORE + a.columns + self.BEHIND
        framed = np.empty((columns, a.ld), self.dtype)
        cl.enqueue_copy(self.session.queue, framed, a.buffer)
        inside = (slice(self.BEFORE, self.BEFORE + a.columns), slice(self.ABOVE, self.ABOVE + a.rows))
        found = framed[inside].T.copy()
        framed[inside] = np.nan
        assert np.isnan(framed).all(), "elements around the matrix were overwritten"
        return found

    def empty(self, rows: int, columns: int = 1) -> Matrix:
        return self.to_device(np.full((rows, columns), np.nan))

    def work(self, elements: int) -> Matrix:
        """A workspace whose first elements belong to somebody else."""
        return self.to_device(np.full((elements, 1), np.nan))

    def random(self, *shape: int, seed: int = 0) -> Array:
        parts = np.random.default_rng(seed).uniform(-1, 1, (2 if is_complex(self.dtype) else 1, *shape))
        return (parts[0] + 1j * parts[1] if is_complex(self.dtype) else parts[0]).astype(self.dtype)


@pytest.fixture(params=MOST_DTYPES)
def host(session: Session, request: pytest.FixtureRequest) -> Host:
    return Host(session, request.param)


@pytest.fixture(params=REAL)
def real_host(session: Session, request: pytest.FixtureRequest) -> Host:
    """For what is real whatever the matrix is."""
    return Host(session, request.param)


@pytest.fixture(scope="module")
def matrix_unit(session: Session) -> Session:
    """A session whose products are made as on a matrix unit, but for the one instruction."""
    import pyopencl as cl

    other = Session(session.device, session.context, cl.CommandQueue(session.context))
    programs.kernels(other, "float64")
    assert programs.use_matrix_unit(other, other.programs["float64"], "-DMATRIX_UNIT=0")
    return other


@pytest.fixture(scope="module")
def large_tiles(matrix_unit: Session) -> Session:
    """The same with its kernel for large products alone."""
    other = Session(matrix_unit.device, matrix_unit.context, matrix_unit.queue)
    handles = ffi.new("lai_opencl *", matrix_unit.programs["float64"].handles[0])
    handles.kernels[lib.LAI_CL_GEMM], handles.gemm_tile[0] = handles.gemm_large, handles.gemm_tile[1]
    handles.gemm_large = ffi.NULL
    other.programs["float64"] = SimpleNamespace(handles=handles)
    return other


@pytest.fixture(params=[*MOST_DTYPES, "matrix_unit", "large_tiles", "matrix_unit, complex"])
def multiplier(session: Session, request: pytest.FixtureRequest) -> Host:
    """Each kernel that makes products, and complex ones, which are made of real ones."""
    if request.param in DTYPES:
        return Host(session, request.param)
    name, _, of_complex = request.param.partition(", ")
    return Host(request.getfixturevalue(name), "complex128" if of_complex else "float64")


@pytest.fixture(params=[*REAL, "matrix_unit", "large_tiles"])
def real_multiplier(session: Session, request: pytest.FixtureRequest) -> Host:
    """Each kernel that makes products."""
    if request.param in REAL:
        return Host(session, request.param)
    return Host(request.getfixturevalue(request.param), "float64")


def scaled(a: Array) -> Array:
    """`a` times the power of two that brings its largest entry into [1/2, 1)."""
    largest = np.abs(a.view(real(a.dtype))).max() if a.size else 0  # of the parts of complex numbers
    return ldexp(a, -np.frexp(largest)[1])


def op(transpose: int, a: Array) -> Array:
    """What LAPACK calls so: the matrix, its transpose (1) or its conjugate transpose (2)."""
    return a if not transpose else a.T.conj() if transpose == 2 else a.T


# ---- products --------------------------------------------------------------------------------------

TRANSPOSES = dict.fromkeys(REAL, (0, 1)) | dict.fromkeys(("complex64", "complex128"), (0, 1, 2))
PRODUCTS = [(1, 1, 1), (2, 3, 0), (16, 64, 16), (63, 65, 17), (64, 64, 15), (65, 1, 64), (130, 67, 33), (33, 40, 2000)]


def check_product(host: Host, transa: int, transb: int, a: Array, b: Array, alpha: int = -1, beta: int = 1) -> None:
    (m, k), n = a.shape, b.shape[1]
    c = host.random(m, n, seed=3)
    if beta == 0:
        c[:] = np.nan  # not read
    target, work = host.to_device(c), host.work(lapack.gemm_work(host.dtype, m, n, k, transb))
    left, right = host.to_device(op(transa, a)), host.to_device(op(transb, b))
    lapack.gemm(host.session, transa, transb, alpha, left, right, beta, target, work)
    wide_a, wide_b, wide_c = (each.astype(host.wide) for each in (a, b, c if beta else np.zeros_like(c)))
    error = np.abs(host.from_device(target) - (alpha * (wide_a @ wide_b) + beta * wide_c))
    bound = abs(alpha) * (np.abs(wide_a) @ np.abs(wide_b)) + abs(beta) * np.abs(wide_c)
    terms = 2 * k if is_complex(host.dtype) else k
    assert (error <= (terms + 3) * np.finfo(host.dtype).eps / 2 * bound).all()


@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (-1, 1), (2, -3)])
@pytest.mark.parametrize("sizes", PRODUCTS)
def test_gemm_is_componentwise_accurate(multiplier: Host, sizes: tuple[int, int, int], alpha: int, beta: int) -> None:
    m, n, k = sizes
    for transa in TRANSPOSES[multiplier.dtype]:
        for transb in TRANSPOSES[multiplier.dtype]:
            check_product(
                multiplier,
                transa,
                transb,
                multiplier.random(m, k, seed=1),
                multiplier.random(k, n, seed=2),
                alpha,
                beta,
            )


def test_gemm_without_enough_workspace_does_nothing(multiplier: Host) -> None:
    c = multiplier.random(5, 5)
    target, factor = multiplier.to_device(c), multiplier.to_device(multiplier.random(3000, 5))
    assert lapack.gemm_work(multiplier.dtype, 5, 5, 3000) > 0
    with pytest.raises(DeviceError, match=r"gemm: CL_INVALID_BUFFER_SIZE \(-61\)"):
        lapack.gemm(multiplier.session, 1, 0, 1, factor, factor, 0, target)
    assert (multiplier.from_device(target) == c).all()


def test_gemm_of_tall_and_wide_operands(multiplier: Host) -> None:
    """Leading dimensions of both parities and at every alignment, a single row, a single column."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        (m, n, k), (transa, transb) = rng.integers(1, 140, 3), rng.integers(0, 2, 2)
        check_product(multiplier, transa, transb, multiplier.random(m, k, seed=m), multiplier.random(k, n, seed=n))


@pytest.mark.parametrize(("m", "n", "k", "transa"), [(70_000, 3, 130, 0), (130, 3, 70_000, 2)])
def test_complex_gemm_of_a_left_operand_that_is_written_out_in_parts(
    session: Session, m: int, n: int, k: int, transa: int
) -> None:
    host = Host(session, "complex64")
    assert lapack.gemm_work(host.dtype, m, n, k) < 2 * m * k
    check_product(host, transa, 0, host.random(m, k, seed=1), host.random(k, n, seed=2))
    check_product(host, transa, 2, host.random(m, k, seed=1), host.random(k, n, seed=2), 2, 0)


def test_gemm_batch_makes_products_of_many_sizes(real_multiplier: Host) -> None:
    """Square blocks along the diagonals of three matrices; one has no terms, one has no rows."""
    import pyopencl as cl

    sizes = [(5, 70, 33), (130, 3, 17), (64, 64, 0), (0, 9, 9), (1, 1, 1), (66, 129, 40)]
    starts = np.vstack([np.zeros(3, int), np.cumsum(sizes, axis=0)])
    m, n, k = starts[-1]
    for transa, transb, alpha, beta in (
        (False, False, 1, 0),
        (True, False, -1, 1),
        (False, True, 2, -1),
        (True, True, 1, 1),
    ):
        a, b, c = (
            real_multiplier.random(m, k, seed=1),
            real_multiplier.random(k, n, seed=2),
            real_multiplier.random(m, n, seed=3),
        )
        wanted, bound = c.astype(np.longdouble), np.abs(c).astype(np.longdouble)
        left, right, target = (
            real_multiplier.to_device(a.T if transa else a),
            real_multiplier.to_device(b.T if transb else b),
            real_multiplier.to_device(c),
        )
        rows = ffi.new("lai_gemm_row[]", len(sizes))
        for row, (i, j, p), (rows_c, columns_c, terms) in zip(rows, starts, sizes, strict=False):
            block = slice(i, i + rows_c), slice(j, j + columns_c)
            terms_a, terms_b = (
                a[i : i + rows_c, p : p + terms].astype(np.longdouble),
                b[p : p + terms, j : j + columns_c],
            )
            wanted[block] = alpha * (terms_a @ terms_b) + beta * wanted[block]
            bound[block] = abs(alpha) * (np.abs(terms_a) @ np.abs(terms_b)) + abs(beta) * bound[block]
            row.a = p + i * left.ld if transa else i + p * left.ld
            row.b = j + p * right.ld if transb else p + j * right.ld
            row.c = i + j * target.ld
            row.m, row.n, row.k = rows_c, columns_c, terms
        text = np.frombuffer(ffi.buffer(rows), np.uint8)
        flags = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
        table = cl.Buffer(real_multiplier.session.context, flags, hostbuf=text)
        largest_m, largest_n = (max(size[d] for size in sizes) for d in (0, 1))
        lapack.gemm_batch(
            real_multiplier.session,
            transa,
            transb,
            alpha,
            left,
            right,
            beta,
            target,
            table,
            len(sizes),
            largest_m,
            largest_n,
        )
        error = np.abs(real_multiplier.from_device(target) - wanted)
        assert (error <= (max(size[2] for size in sizes) + 3) * np.finfo(real_multiplier.dtype).eps / 2 * bound).all()


@pytest.mark.parametrize(
    "change",
    [
        ("left[r][2 * l] = two.x", "left[r][2 * l] = (float)two.x"),  # single precision
        ("4 * (2 * t + e % 2)", "4 * (2 * t + (e + 1) % 2)"),  # fragments that are elsewhere
        ("__kernel", "__kernel nothing"),
    ],
    ids=["single", "exchanged", "no build"],
)
def test_matrix_unit_that_errs_is_not_used(
    matrix_unit: Session, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str]
) -> None:
    text, whole = programs.source(programs.MATRIX_UNIT_SOURCES), matrix_unit.programs["float64"]
    used = whole.handles.kernels[lib.LAI_CL_GEMM]
    assert change[0] in text
    monkeypatch.setattr(programs, "source", lambda _: text.replace(*change))
    assert not programs.use_matrix_unit(matrix_unit, whole, "-DMATRIX_UNIT=0")
    assert whole.handles.kernels[lib.LAI_CL_GEMM] == used


def test_large_tiles_that_err_are_not_used(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    options, tile = programs.SMALL
    monkeypatch.setattr(programs, "LARGE", (options, tile._replace(rows=128)))  # half of which is not computed
    other = Session(session.device, session.context, session.queue)
    programs.kernels(other, "float64")
    assert programs.use_matrix_unit(other, other.programs["float64"], "-DMATRIX_UNIT=0")
    assert other.programs["float64"].handles.gemm_large == ffi.NULL


@pytest.mark.parametrize(
    ("m", "n", "k", "large"),
    [
        (256, 128, 256, True),
        (250, 120, 256, True),
        (256, 128, 255, False),
        (130, 128, 256, False),
        (128, 128, 300, False),
    ],
)
def test_large_tiles_are_for_large_products(matrix_unit: Session, m: int, n: int, k: int, large: bool) -> None:
    """On a device that has room for two of them; the other kernel is no kernel."""
    host = Host(matrix_unit, "float64")
    a, b = host.random(m, k, seed=1), host.random(k, n, seed=2)
    left, right, c, work = host.to_device(a), host.to_device(b), host.empty(m, n), host.work(2 * m * n)
    operands, results = ([lapack._native(each) for each in pair] for pair in ((left, right), (c, work)))
    handles = ffi.new("lai_opencl *", matrix_unit.programs["float64"].handles[0])
    handles.kernels[lib.LAI_CL_GEMM], handles.gemm_tile[1].groups = ffi.NULL, 2
    lib.lai_cl_forget_arguments(handles)
    status = lib.lai_cl_gemm(handles, 0, 0, 1, *operands, 0, *results)
    assert status == (0 if large else -48)  # CL_INVALID_KERNEL
    if large:
        assert np.abs(host.from_device(c) - a @ b).max() < k * np.finfo(float).eps


# ---- decompositions ----------------------------------------------------------------------------------


def apply_q(host: Host, v: Matrix, tau: Matrix, c: Array, transpose: int = 0) -> Array:
    """Q C, or Q' C."""
    target = host.to_device(c)
    work = host.work(lapack.ormqr_work(host.dtype, target.rows, target.columns, v.columns))
    lapack.ormqr(host.session, transpose, v, tau, target, work)
    return host.from_device(target)


def unit_vectors(m: int, n: int) -> Array:
    """The identity, of which very tall matrices get but the columns of a little more than their range."""
    return np.eye(m, m if m <= 700 else n + 40)


def bidiagonalized(host: Host, a: Array) -> tuple[Array, Array, Array]:
    """Q, B and P of a matrix that is scaled."""
    m, n = a.shape
    reduced, p = host.to_device(a), host.empty(n, n)
    d, e, tauq, taup = host.of_parts.empty(n), host.of_parts.empty(n - 1), host.empty(n), host.empty(n - 1)
    lapack.gebrd(host.session, reduced, p, d, e, tauq, taup, host.work(lapack.gebrd_work(host.dtype, m, n)))
    wide_p = np.eye(n, dtype=host.dtype)
    wide_p[1:, 1:] = apply_q(host, p.part(1, 0, n - 1, n - 1), taup, wide_p[1:, 1:])
    q = apply_q(host, reduced, tauq, unit_vectors(m, n))
    b = np.zeros((q.shape[1], n))
    b[:n] = np.diag(host.of_parts.from_device(d)[:, 0]) + np.diag(host.of_parts.from_device(e)[:, 0], 1)
    return q, b, wide_p


def triangularized(host: Host, a: Array) -> tuple[Array, Array]:
    """Q and R of a matrix that is scaled."""
    (m, n), k = a.shape, min(a.shape)
    reduced, tau, r = host.to_device(a), host.empty(k), host.empty(k, n)
    lapack.geqrf(host.session, reduced, tau, host.work(lapack.geqrf_work(host.dtype, m, n)))
    lapack.lacpy_upper(host.session, reduced.part(0, 0, k, n), r)
    q = apply_q(host, reduced.part(0, 0, m, k), tau, unit_vectors(m, n))
    wide_r = np.zeros((q.shape[1], n), host.double)
    wide_r[:k] = host.from_device(r)
    assert (np.tril(wide_r, -1) == 0).all()
    return q, wide_r


def residual(a: Array, product: Array) -> float:
    """``|A - product| / (|A| max(m, n) eps)`` in the 1-norm."""
    norm, error = (np.abs(each.astype(np.result_type(each, float))).sum(axis=0).max() for each in (a, a - product))
    return float(error / (norm * max(a.shape) * np.finfo(a.dtype).eps)) if error else float(error)


def assert_reduced(host: Host, a: Array) -> None:
    """The ratios of gebrd and geqrf, LAPACK's component tests."""
    q, b, p = bidiagonalized(host, a)
    found = {"Q B P^T": residual(a, q.astype(host.double) @ b @ p.T), "Q": orthogonality(q), "P": orthogonality(p)}
    q, r = triangularized(host, a)
    found |= {"Q R": residual(a, q.astype(host.double) @ r), "Q of QR": orthogonality(q)}
    assert all(ratio <= ALARM for ratio in found.values()), found


SHAPES = [
    (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (31, 31), (32, 32), (33, 33), (33, 31), (63, 63), (64, 64), (65, 65),
    (65, 33), (97, 96), (127, 127), (130, 128), (200, 7), (257, 1), (257, 256), (700, 33), (3000, 5), (4130, 66),
    (8230, 66),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_reductions_on_shapes(host: Host, shape: tuple[int, int]) -> None:
    assert_reduced(host, scaled(host.random(*shape)))


@pytest.mark.parametrize("shape", [(1, 3), (31, 40), (33, 32), (32, 90), (70, 200)])
def test_qr_of_any_shape(host: Host, shape: tuple[int, int]) -> None:
    a = scaled(host.random(*shape))
    q, r = triangularized(host, a)
    assert residual(a, q.astype(host.double) @ r) <= ALARM
    assert orthogonality(q) <= ALARM


@pytest.mark.parametrize("name", MATRICES)
def test_reductions_on_the_matrix_set(host: Host, name: str) -> None:
    assert_reduced(host, scaled(matrix(name, 75, 70, host.dtype)))


@pytest.mark.parametrize("name", ["ones", "noise", "rank 5", "graded", "tiny tails"])
def test_reductions_where_norms_underflow(host: Host, name: str) -> None:
    """Tails of rounding errors, or of numbers whose squares vanish, past several panels."""
    n, dtype = 130, host.dtype
    rng = np.random.default_rng(5)
    powers = (1e-40 if host.real == "float64" else 1e-20) ** np.linspace(0, 1, n)
    a = {
        "ones": np.ones((n, n)),
        "noise": 1 + np.finfo(dtype).eps * rng.integers(0, 2, (n, n)),
        "rank 5": normal(n, 5, dtype, rng) @ normal(5, n, dtype, rng),
        "graded": powers[:, None] * normal(n, n, dtype, rng) * powers,
        "tiny tails": np.eye(n) + float(np.finfo(dtype).tiny) * 1e3 * normal(n, n, dtype, rng),
    }[name]
    assert_reduced(host, scaled(a.astype(dtype)))


def test_runs_are_identical(host: Host) -> None:
    """Sums are made in one order, whichever work-group comes first."""
    a = scaled(host.random(300, 257))
    runs = [(*bidiagonalized(host, a), *triangularized(host, a)) for _ in range(3)]
    for run in runs[1:]:
        for first, again in zip(runs[0], run, strict=True):
            assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize(
    ("m", "n", "k"), [(3, 2, 2), (64, 5, 63), (100, 70, 65), (150, 33, 130), (290, 9, 260), (600, 3, 2)]
)
def test_ormqr_applies_the_reflectors_one_after_the_other(host: Host, m: int, n: int, k: int) -> None:
    a, c = scaled(host.random(m, k)), host.random(m, n, seed=1)
    reduced, tau = host.to_device(a), host.empty(k)
    lapack.geqrf(host.session, reduced, tau, host.work(lapack.geqrf_work(host.dtype, m, k)))
    v = np.tril(host.from_device(reduced).astype(host.double), -1) + np.eye(m, k)
    check_reflectors(host, reduced, tau, v, c)


def check_reflectors(host: Host, stored: Matrix, tau: Matrix, v: Array, c: Array) -> None:
    """Q C and Q' C against one reflector after the other."""
    factors, k = host.from_device(tau)[:, 0].astype(host.double), v.shape[1]
    for transpose in (0, 2):
        wanted = c.astype(host.double)
        for i in range(k) if transpose else reversed(range(k)):
            factor = factors[i].conj() if transpose else factors[i]
            wanted -= factor * np.outer(v[:, i], v[:, i].conj() @ wanted)
        assert residual(apply_q(host, stored, tau, c, transpose), wanted) <= ALARM


def test_ormqr_of_more_reflectors_than_are_written_out_at_a_time(host: Host) -> None:
    m, n, k = 1100, 3, 1050
    v = np.tril(host.random(m, k), -1)
    factors = 2 / (1 + (np.abs(v.astype(host.double)) ** 2).sum(axis=0))
    if is_complex(host.dtype):  # any tau of the circle |tau|^2 |v|^2 = 2 Re tau makes a reflector
        factors = factors / 2 * (1 + np.exp(1j * np.arange(k)))
    stored, tau = host.to_device(v + np.triu(host.random(m, k))), host.to_device(factors[:, None])
    check_reflectors(host, stored, tau, (v + np.eye(m, k)).astype(host.double), host.random(m, n, seed=1))


# ---- QR by Cholesky --------------------------------------------------------------------------------------


def by_cholesky(host: Host, a: Array) -> tuple[Array, Array, float]:
    """Q, R, and how far the first Q was from orthonormal."""
    m, n = a.shape
    source, q, r, gram = host.to_device(a), host.empty(m, n), host.empty(n, n), host.empty(n, n)
    distance = host.of_parts.empty(64)
    lapack.cholqr(host.session, source, q, r, gram, distance, host.work(lapack.cholqr_work(host.dtype, m, n)))
    assert (host.from_device(source) == a).all()
    host.from_device(gram)  # its frame
    squares = host.of_parts.from_device(distance)
    return host.from_device(q), host.from_device(r), float(squares.sum()) ** 0.5


TALL = [
    (1, 1),
    (2, 1),
    (64, 31),
    (100, 32),
    (100, 33),
    (256, 63),
    (257, 64),
    (300, 65),
    (500, 130),
    (3000, 5),
    (200, 193),
]


@pytest.mark.parametrize("shape", TALL, ids=lambda shape: "x".join(map(str, shape)))
def test_cholqr_of_any_shape(host: Host, shape: tuple[int, int]) -> None:
    a = scaled(host.random(*shape) + 2 * np.eye(*shape, dtype=host.dtype))
    q, r, distance = by_cholesky(host, a)
    assert distance < 1e-2
    assert (np.tril(r, -1) == 0).all()
    assert residual(a, q.astype(host.double) @ r) <= ALARM
    assert orthogonality(q) <= ALARM


@pytest.mark.parametrize("name", MATRICES)
def test_cholqr_is_right_or_says_so(host: Host, name: str) -> None:
    """Below the limit of gesdd.py for its distance it is as good as Householder's QR."""
    a = scaled(matrix(name, 150, 70, host.dtype))
    q, r, distance = by_cholesky(host, a)
    if distance <= gesdd.MOST_DISTANCE:  # NaN is not
        assert residual(a, q.astype(host.double) @ r) <= ALARM
        assert orthogonality(q) <= ALARM


def test_cholqr_finds_nearly_dependent_columns(host: Host) -> None:
    """As far as a first Q is mended by the second half, and beyond: the error of that Q grows with the square."""
    rng = np.random.default_rng(0)
    eps = float(np.finfo(host.dtype).eps)
    for condition, well in ((1.0, True), (0.02 / eps**0.5, True), (30 / eps**0.5, False), (1 / eps, False)):
        a = scaled(with_spectrum(condition ** -np.linspace(0, 1, 40), 90, 40, rng, host.dtype).astype(host.dtype))
        assert (by_cholesky(host, a)[2] <= gesdd.MOST_DISTANCE) is well


def test_cholqr_of_zero_is_nan(host: Host) -> None:
    assert np.isnan(by_cholesky(host, np.zeros((70, 33), host.dtype))[2])


def test_cholqr_of_badly_scaled_columns(host: Host) -> None:
    """Only what is left of their condition after scaling them alike counts."""
    powers = (1e-100 if host.real == "float64" else 1e-12) ** np.linspace(0, 1, 40)
    a = scaled((host.random(150, 40) * powers).astype(host.dtype))
    q, r, distance = by_cholesky(host, a)
    assert distance < 1e-2
    assert orthogonality(q) <= ALARM
    errors = np.abs(a - q.astype(host.double) @ r).max(axis=0)
    assert (errors <= ALARM * 150 * np.finfo(host.dtype).eps * np.abs(a).max(axis=0)).all()


# ---- singular values of bidiagonal matrices ------------------------------------------------------------


def multisected(host: Host, d: Array, e: Array) -> Array:
    n = len(d)
    s = host.empty(n)
    on_device = [host.to_device(each.reshape(-1, 1)) for each in (d, e)]
    lapack.bdsvx(host.session, *on_device, s)
    return host.from_device(s)[:, 0]


def bidiagonals(n: int, dtype: str) -> dict[str, tuple[Array, Array]]:
    rng = np.random.default_rng(n)
    k = np.arange(n) / max(n - 1, 1)
    least, eps = {"float64": 1e-200, "float32": 1e-25}[dtype], np.finfo(dtype).eps
    found = {
        "random": (rng.standard_normal(n), rng.standard_normal(n)),
        "zero": (np.zeros(n), np.zeros(n)),
        "identity": (-np.ones(n), np.zeros(n)),
        "toeplitz": (np.ones(n), np.ones(n)),
        "falling": (least**k, 0.5 * least**k),
        "rising": (least ** k[::-1], 0.5 * least ** k[::-1]),
        "zeros on d": (np.where(np.arange(n) % 4 == 0, 0, rng.standard_normal(n)), rng.standard_normal(n)),
        "log-random": (eps ** rng.uniform(-1, 1, n), eps ** rng.uniform(-1, 1, n)),
        "chi": (np.sqrt(rng.chisquare(np.arange(n, 0, -1))), np.sqrt(rng.chisquare(np.arange(n, 0, -1)))),
        "divided": (rng.standard_normal(n), np.where(np.arange(n) % 37 == 5, 0, rng.standard_normal(n))),
        "nearly divided": (np.ones(n), np.full(n, 1e-17)),
        "clusters": (np.where(k < 0.5, 1.0, 1e-5), np.full(n, 1e-8)),
        "no diagonal": (np.zeros(n), np.ones(n)),
    }
    return {name: (d.astype(dtype), e[: n - 1].astype(dtype)) for name, (d, e) in found.items()}


@pytest.mark.parametrize("n", [1, 2, 3, 31, 33, 130])
def test_multisection_is_as_accurate_as_the_largest_value(real_host: Host, n: int) -> None:
    for name, (d, e) in bidiagonals(n, real_host.dtype).items():
        s = np.sort(multisected(real_host, d, e))[::-1]
        wanted = np.linalg.svd(np.diag(d.astype(float)) + np.diag(e.astype(float), 1), compute_uv=False)
        assert difference(s, wanted.astype(real_host.dtype), n) <= ALARM, name


@pytest.mark.parametrize("name", ["random", "toeplitz", "falling", "rising", "log-random"])
def test_multisection_is_relatively_accurate(real_host: Host, name: str) -> None:
    """Up to order 25 the divide and conquer is LAPACK's QR iteration, which is accurate relative to each value."""
    d, e = bidiagonals(25, real_host.dtype)[name]
    s = multisected(real_host, d, e)
    wanted = bidiagonal.lasda(d.astype(float), e.astype(float))[0]
    assert (np.abs(s - wanted) <= 100 * np.finfo(real_host.dtype).eps * wanted + np.finfo(real_host.dtype).tiny).all()


def test_multisection_ends_on_anything(real_host: Host) -> None:
    for value in (np.nan, np.inf):
        d, e = bidiagonals(40, real_host.dtype)["random"]
        d[7] = value
        multisected(real_host, d, e)


# ---- divide and conquer ----------------------------------------------------------------------------------

LEAVES = (1, 2, 24, 25, 26, 27, 51, 52, 53, 64, 105, 128, 220)  # around one, two and four leaves, and powers of two


@pytest.mark.parametrize("name", bidiagonals(3, "float64"))
def test_divide_and_conquer(real_host: Host, name: str) -> None:
    for n in LEAVES:
        d, e = bidiagonals(n, real_host.dtype)[name]
        work = gesdd.Workspace(real_host.session, gesdd.plan(n, n, real_host.dtype, vectors=True, full=False))
        s, tree = bidiagonal.lasda(d, e)
        gesdd._vectors_of_b(work, tree)
        u, v = (gesdd._read(work, work[side]).astype(float) for side in "uv")
        b = np.diag(d.astype(float)) + np.diag(e.astype(float), 1)
        assert (s[1:] <= s[:-1]).all()
        assert s[-1] >= 0
        wanted = np.linalg.svd(b, compute_uv=False).astype(real_host.dtype)
        found = {
            "B": residual(b.astype(real_host.dtype), u * s.astype(float) @ v.T),
            "U": orthogonality(u.astype(real_host.dtype)),
            "V": orthogonality(v.astype(real_host.dtype)),
            "S": difference(s, wanted, n),
        }
        assert all(ratio <= ALARM for ratio in found.values()), (n, found)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", REAL)
def test_secular_equation_at_every_instruction_set(dtype: str, isa: str) -> None:
    if not use_isa(isa):
        pytest.skip(f"this CPU lacks {isa}")
    try:
        for name, (d, e) in bidiagonals(230, dtype).items():
            s, _ = bidiagonal.lasda(d, e)
            wanted = np.linalg.svd(np.diag(d.astype(float)) + np.diag(e.astype(float), 1), compute_uv=False)
            assert difference(s, wanted.astype(dtype), len(d)) <= ALARM, name
    finally:
        use_isa(best_isa())


@pytest.mark.parametrize("dtype", REAL)
def test_divide_and_conquer_is_the_same_on_any_number_of_threads(dtype: str) -> None:
    d, e = bidiagonals(700, dtype)["random"]
    before = lib.lai_use_threads(1)
    try:
        alone, tree = bidiagonal.lasda(d, e)
        lib.lai_use_threads(0)
        together, same = bidiagonal.lasda(d, e)
    finally:
        lib.lai_use_threads(before)
    assert (alone == together).all()
    assert (tree.integers == same.integers).all()
    assert (tree.numbers == same.numbers).all()


# ---- stacks ----------------------------------------------------------------------------------------------


def stack_on_device(host: Host, stack: Array, wide: bool) -> Matrix:
    """A column for each matrix, by rows, or by columns where `wide`."""
    return host.to_device((stack.swapaxes(1, 2) if wide else stack).reshape(len(stack), -1).T)


def room_for_stack(host: Host, count: int, m: int, n: int, left: int) -> tuple[Matrix, ...]:
    """u, v, s, info and the workspace of `gesvj`."""
    work = host.work(max(lapack.gesvj_work(host.dtype, m, n, True, count), 1))
    return *(host.empty(rows, count) for rows in (m * left, n * n, n, 2)), work


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "left"), [(9, 5, 5), (9, 5, 9), (32, 32, 32), (40, 35, 40), (64, 32, 32), (3, 1, 3)]
)
def test_gesvj(real_host: Host, m: int, n: int, left: int, wide: bool) -> None:
    """One of the matrices has not full rank."""
    stack = real_host.random(7, m, n).astype(real_host.dtype)
    stack[2, :, -1] = 0
    a, (u, v, s, info, work) = stack_on_device(real_host, stack, wide), room_for_stack(real_host, 7, m, n, left)
    lapack.gesvj(real_host.session, (m, n, left), wide, a, u, v, s, info, work)
    found_u, found_v = real_host.from_device(u).T, real_host.from_device(v).T
    us = found_u.reshape(7, left, m).swapaxes(1, 2) if wide else found_u.reshape(7, m, left)
    vs = found_v.reshape(7, n, n) if wide else found_v.reshape(7, n, n).swapaxes(1, 2)
    values, (exponents, ranks) = real_host.from_device(s).T, real_host.from_device(info)
    np.testing.assert_array_equal(exponents, -np.frexp(np.abs(stack).max((1, 2)))[1])
    assert list(ranks) == [n, n, n - 1, n, n, n, n]
    for k, matrix_ in enumerate(stack):
        product = us[k][:, :n].astype(float) * np.ldexp(values[k], -int(exponents[k])) @ vs[k].T
        eps = float(np.finfo(real_host.dtype).eps)
        assert np.abs(matrix_ - product).sum(0).max() <= ALARM * eps * m * np.abs(matrix_).sum(0).max()
        assert max(orthogonality(us[k]), orthogonality(vs[k])) <= ALARM
    np.testing.assert_array_equal(
        real_host.from_device(a), real_host.from_device(stack_on_device(real_host, stack, wide))
    )


@pytest.mark.parametrize("n", [5, 40])
def test_values_alone_by_gesvj_touch_nothing_else(real_host: Host, n: int) -> None:
    stack = real_host.random(3, 41, n).astype(real_host.dtype)
    stack[1, 3, 2] = np.nan
    a, (_, _, s, info, work) = stack_on_device(real_host, stack, False), room_for_stack(real_host, 3, 41, n, n)
    lapack.gesvj(real_host.session, (41, n, n), False, a, None, None, s, info, work)
    (exponents, ranks), values = real_host.from_device(info), real_host.from_device(s)
    assert list(ranks) == [n, lapack.NOT_FINITE, n]
    for k in (0, 2):
        wanted = np.linalg.svd(np.ldexp(stack[k].astype(float), int(exponents[k])), compute_uv=False)
        assert difference(values[:, k], wanted, 41) <= ALARM


def test_gesvj_without_enough_workspace_does_nothing(real_host: Host) -> None:
    stack = real_host.random(3, 40, 40).astype(real_host.dtype)
    a, (u, v, s, info, _) = stack_on_device(real_host, stack, False), room_for_stack(real_host, 3, 40, 40, 40)
    work = real_host.work(lapack.gesvj_work(real_host.dtype, 40, 40, True, 3) - 1)
    with pytest.raises(DeviceError, match=r"gesvj: CL_INVALID_BUFFER_SIZE \(-61\)"):
        lapack.gesvj(real_host.session, (40, 40, 40), False, a, u, v, s, info, work)
    assert np.isnan(real_host.from_device(info)).all()


# ---- auxiliary routines --------------------------------------------------------------------------------


def largest(host: Host, a: Array) -> float:
    import pyopencl as cl

    run = lapack.allocate(host.session, host.dtype, *a.shape)
    cl.enqueue_copy(host.session.queue, run.buffer, np.ascontiguousarray(a.T))
    result = host.of_parts.empty(1)
    lapack.max_abs(host.session, run, result, host.work(lapack.max_abs_work()))
    return float(host.of_parts.from_device(result)[0, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (257, 3), (400, 401)])
def test_max_abs_finds_every_place(host: Host, shape: tuple[int, int]) -> None:
    a = host.random(*shape)
    parts = a.view(host.real)
    assert largest(host, a) == np.abs(parts).max()
    for place in {0, 1, 255, 256, parts.size // 2, parts.size - 1} & set(range(parts.size)):
        for value, wanted in ((-7.0, 7.0), (np.nan, np.inf), (np.inf, np.inf), (-np.inf, np.inf)):
            changed = a.copy()
            changed.view(host.real).flat[place] = value
            assert largest(host, changed) == wanted
    assert largest(host, np.zeros_like(a)) == 0


def test_max_abs_wants_one_run_of_memory(host: Host) -> None:
    with pytest.raises(DeviceError, match=r"CL_INVALID_VALUE \(-30\)"):
        lapack.max_abs(host.session, host.empty(3, 3), host.of_parts.empty(1), host.work(lapack.max_abs_work()))


@pytest.mark.parametrize("shape", [(1, 1), (31, 33), (32, 64), (100, 7), (1, 90)])
def test_lascl_is_exact(host: Host, shape: tuple[int, int]) -> None:
    a, info = host.random(*shape), np.finfo(host.dtype)
    a.ravel()[0] = info.max
    for exponent in (0, 1, -3, info.minexp - 5):  # the last one makes subnormal numbers
        for transpose in TRANSPOSES[host.dtype]:
            target = host.empty(*(shape[::-1] if transpose else shape))
            lapack.lascl(host.session, host.to_device(a), target, exponent, transpose)
            with np.errstate(over="ignore"):
                wanted = op(transpose, ldexp(a, exponent))
            assert (host.from_device(target) == wanted).all()


def test_lascl_of_a_million_columns(host: Host) -> None:
    """More than one dimension of work-groups may count."""
    a = np.arange(2_000_001, dtype=host.real).astype(host.dtype).reshape(1, -1)
    target = host.empty(a.shape[1])
    lapack.lascl(host.session, host.to_device(a), target, -1, transpose=1)
    assert (host.from_device(target) == a.T / 2).all()


@pytest.mark.parametrize("shape", [(1, 1), (31, 33), (64, 32), (100, 7)])
def test_laset_and_lacpy(host: Host, shape: tuple[int, int]) -> None:
    target, triangle, a = host.empty(*shape), host.empty(*shape), host.random(*shape)
    lapack.laset(host.session, -2, 3, target)
    assert (host.from_device(target) == np.where(np.eye(*shape), 3, -2)).all()
    lapack.lacpy_upper(host.session, host.to_device(a), triangle)
    assert (host.from_device(triangle) == np.triu(a)).all()
    if is_complex(host.dtype):
        lapack.lacp2(host.session, host.of_parts.to_device(a.real), target)
        assert (host.from_device(target) == a.real).all()


def test_arguments_do_not_outlive_their_buffers(host: Host) -> None:
    """Kernels keep arguments from launch to launch; a buffer that takes the place of a freed one is another buffer."""
    for k in range(20):
        a = host.random(37, 29) + k
        source, target = host.to_device(a), host.empty(37, 29)
        lapack.lascl(host.session, source, target, 1)
        assert (host.from_device(target) == 2 * a).all()
        del source, target


# ---- groups that wait for each other ---------------------------------------------------------------------


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch, session: Session) -> Session:
    """Of a device that is said to run groups at once: one of them, since this one does not."""
    monkeypatch.setattr(programs, "waiting_groups", lambda session: 1)
    return replace(session, programs={})


@pytest.mark.parametrize(
    ("dtype", "shapes"),
    [("float64", [(1, 1), (3, 2), (65, 33), (130, 128), (700, 33), (1100, 5), (3000, 40)]), ("complex64", [(65, 33)])],
)
def test_reductions_by_one_launch_a_panel(waiting: Session, dtype: str, shapes: list[tuple[int, int]]) -> None:
    host = Host(waiting, dtype)
    for shape in shapes:
        assert_reduced(host, scaled(host.random(*shape)))
    assert programs.kernels(waiting, dtype).waiting_groups == 1


def test_groups_that_wait_for_too_long_say_so(monkeypatch: pytest.MonkeyPatch, waiting: Session) -> None:
    """As on a device that does not run them at once, which must neither hang nor return numbers."""
    text = programs.source
    changes = {"wanted += groups": "wanted += groups + 1", "(1 << 23)": "(1 << 9)"}
    assert all(old in text() for old in changes)

    def impatient(*names: tuple[str, ...]) -> str:
        found = text(*names)
        for old, new in changes.items():
            found = found.replace(old, new)
        return found

    monkeypatch.setattr(programs, "source", impatient)
    a = Host(waiting, "float32").random(40, 40)
    plan = gesdd.plan(*a.shape, "float32", vectors=True, full=False)
    work = gesdd.Workspace(waiting, plan)
    gesdd.upload(work, a)
    with pytest.raises(DeviceError, match="not finite"):
        gesdd.decompose(work)


# ---- failures --------------------------------------------------------------------------------------------


def test_loops_stop_at_the_first_failure(host: Host) -> None:
    """Each kernel of a reduction in turn is no kernel: its launch fails, and nothing after it is tried."""
    n = 70
    a, square, vector, work = host.to_device(host.random(n, n)), host.empty(n, n), host.empty(n), host.work(10**6)
    reals = host.of_parts.empty(n)
    native = [lapack._native(each) for each in (a, square, reals, reals, vector, vector, work)]
    whole = programs.kernels(host.session, host.dtype)
    sweeps = (lib.LAI_CL_SWEEP_PANEL_2,) if whole.waiting_groups else (lib.LAI_CL_SWEEP_COLUMN, lib.LAI_CL_SWEEP_2)
    for number in (*sweeps, lib.LAI_CL_LASCL_TRANSPOSED):
        broken = ffi.new("lai_opencl *", whole[0])
        broken.kernels[number] = ffi.NULL
        lib.lai_cl_forget_arguments(broken)
        assert lib.lai_cl_gebrd(broken, *native) == -48  # CL_INVALID_KERNEL
    broken = ffi.new("lai_opencl *", whole[0])
    broken.kernels[lib.LAI_CL_GEMM] = ffi.NULL
    lib.lai_cl_forget_arguments(broken)
    assert lib.lai_cl_gebrd(broken, *native) == -48
    lib.lai_cl_forget_arguments(whole)
    assert lib.lai_cl_gebrd(whole, *native) == 0
    host.session.queue.finish()


def test_cholqr_stops_at_the_first_failure(host: Host) -> None:
    m, n = 200, 130
    matrices = [host.to_device(np.eye(*shape)) for shape in ((m, n), (m, n), (n, n), (n, n))]
    matrices += [host.of_parts.empty(64), host.work(lapack.cholqr_work(host.dtype, m, n))]
    native = [lapack._native(each) for each in matrices]
    whole = programs.kernels(host.session, host.dtype)
    for kernel in ("POTRF", "TRSM", "DISTANCE_TO_IDENTITY", "GEMM", "LASCL", "LASCL_TRANSPOSED", "LACPY_UPPER"):
        broken = ffi.new("lai_opencl *", whole[0])
        broken.kernels[getattr(lib, f"LAI_CL_{kernel}")] = ffi.NULL
        lib.lai_cl_forget_arguments(broken)
        assert lib.lai_cl_cholqr(broken, *native) == -48  # CL_INVALID_KERNEL
    lib.lai_cl_forget_arguments(whole)
    assert lib.lai_cl_cholqr(whole, *native) == 0
    host.session.queue.finish()


def test_cholqr_without_enough_workspace_does_nothing(host: Host) -> None:
    a, q, r, gram = (
        host.to_device(np.ones((20, 5))),
        host.to_device(np.zeros((20, 5))),
        host.empty(5, 5),
        host.empty(5, 5),
    )
    with pytest.raises(DeviceError, match=r"cholqr: CL_INVALID_BUFFER_SIZE \(-61\)"):
        lapack.cholqr(
            host.session, a, q, r, gram, host.of_parts.empty(64), host.work(lapack.cholqr_work(host.dtype, 20, 5) - 1)
        )
    assert (host.from_device(q) == 0).all()


def test_library_without_opencl_is_told() -> None:
    assert lib.lai_opencl_load(b"no such library") == -1


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_fit_small_devices(session: Session, dtype: str) -> None:
    """PoCL has megabytes of local memory and groups of thousands, where GPUs have 32 KiB and 256."""
    import pyopencl as cl

    programs.kernels(session, dtype)
    device = devices.handle(session.device)
    for kernel in session.programs[dtype].kernels.values():
        used = kernel.get_work_group_info(cl.kernel_work_group_info.LOCAL_MEM_SIZE, device)
        items = kernel.get_work_group_info(cl.kernel_work_group_info.COMPILE_WORK_GROUP_SIZE, device)
        # Built for devices that have more.
        vendors = kernel.function_name == "gemm_matrix_unit" or kernel.function_name in programs.OF_WAITING_GROUPS
        assert used <= (session.device.local_memory if vendors else devices.LEAST_LOCAL_MEMORY), kernel.function_name
        assert 0 < np.prod(items) <= devices.LEAST_WORK_GROUP, kernel.function_name
