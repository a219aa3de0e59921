"""fortran/{d,s}gemm_alpha.f90: DGEMM's interface, and its results within a norm-wise bound."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lapack_ai_backend._native import ffi, lib
from scipy.linalg import blas

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "csrc"))  # build-time modules, no part of the package

from factor_tables import parse  # noqa: E402

Array = np.ndarray[Any, Any]

# Declared: max|C - Ĉ| <= 50 k eps max|A| max|B|. Measured over 3000 products of uniform, positive, +-1-like and normal
# entries: at most 18 (k = 5, entries of nearly equal size), typically 1 to 5. worst_ratio() below is the proved limit.
DECLARED = 50.0

DTYPES = ("float64", "float32")
SCALARS = (0.0, 1.0, -1.0, 2.5)
LEVELS = [level for level in (lib.LAI_BASELINE, lib.LAI_AVX2, lib.LAI_AVX512) if level <= lib.lai_best_isa()]
LEVEL_NAMES = {lib.LAI_BASELINE: "baseline", lib.LAI_AVX2: "avx2", lib.LAI_AVX512: "avx512"}


@pytest.fixture(autouse=True, params=LEVELS, ids=LEVEL_NAMES.get, scope="module")
def level(request: pytest.FixtureRequest) -> Iterator[int]:
    before = lib.lai_current_isa()
    assert lib.lai_use_isa(request.param) == 0
    yield request.param
    lib.lai_use_isa(before)


def worst_ratio(k: int) -> float:
    """The proved first-order bound of max|C - Ĉ| / (k eps max|A| max|B|).

    The r-th product sums p entries of A times sums of q entries of B, added up over K tiles, and goes with others into
    an entry of C, which sums s products. Each of these terms is at most p q max|A| max|B|, there are K of them, and a
    term is rounded at most (p - 1) + (q - 1) + 1 + (K - 1) + (s - 1) times, by eps / 2 each. Common subexpressions
    are partial sums of these sums, so they change no count.
    """
    table = parse(ROOT / "csrc" / "factors" / "alphatensor49.txt")
    tiles = (k + 3) // 4
    width = {c: sum(c in product.c for product in table.products) for product in table.products for c in product.c}
    roundings = dict.fromkeys(width, 0)
    for product in table.products:
        p, q = len(product.a), len(product.b)
        for c in product.c:
            roundings[c] += p * q * (p + q + tiles + width[c] - 2)
    return max(roundings.values()) * tiles / 2 / k


def test_the_declared_constant_is_below_the_proved_one() -> None:
    assert worst_ratio(4) == pytest.approx(1175.75)
    assert all(worst_ratio(k) > DECLARED for k in range(1, 100))


class Call(NamedTuple):
    """The arguments of one call, C included; run() changes c."""

    dtype: str
    transa: str
    transb: str
    m: int
    n: int
    k: int
    alpha: float
    a: Array
    b: Array
    beta: float
    c: Array
    leading: tuple[int, int, int]

    def run(self, **changed: Any) -> int:
        """Call the routine, return the position of the illegal argument or 0."""
        leading = dict(zip(("lda", "ldb", "ldc"), self.leading, strict=True))
        given_arguments = {**self._asdict(), **leading, **changed}
        real = "double" if self.dtype == "float64" else "float"

        def integer(name: str) -> Any:
            return ffi.new("int *", given_arguments[name])

        def scalar(name: str) -> Any:
            return ffi.new(f"{real} *", given_arguments[name])

        def array(name: str) -> Any:
            return ffi.cast(f"{real} *", given_arguments[name].ctypes.data)

        routine = lib.lai_dgemm_alpha if self.dtype == "float64" else lib.lai_sgemm_alpha
        routine(
            given_arguments["transa"].encode(), given_arguments["transb"].encode(), integer("m"), integer("n"),
            integer("k"), scalar("alpha"), array("a"), integer("lda"), array("b"), integer("ldb"), scalar("beta"),
            array("c"), integer("ldc"),
        )  # fmt: skip
        return int(lib.lai_argument_error())

    def reference(self) -> Array:
        """What SciPy's dgemm computes, in double precision also for float32."""
        if 0 in (self.m, self.n):
            return np.empty((self.m, self.n))
        c = np.zeros((self.m, self.n), order="F") if self.beta == 0 else np.array(self.c, "float64", order="F")
        if self.k == 0:
            return np.asarray(self.beta * c)
        trans = [int(letter not in "Nn") for letter in (self.transa, self.transb)]
        return np.asarray(
            blas.dgemm(
                self.alpha,
                self.a.astype("float64"),
                self.b.astype("float64"),
                self.beta,
                c,
                trans_a=trans[0],
                trans_b=trans[1],
            )
        )


def with_leading(values: Array, more: int) -> Array:
    """The same matrix, column-major, with `more` rows of NaN below it, which nothing may read or write."""
    room = np.full((max(1, values.shape[0] + more), values.shape[1]), np.nan, values.dtype, order="F")
    room[: values.shape[0]] = values
    return room[: values.shape[0]]


def make(
    dtype: str, m: int, n: int, k: int, *, trans: str = "NN", alpha: float = 1.0, beta: float = 0.0,
    more: tuple[int, int, int] = (0, 0, 0), seed: int = 0, integral: bool = False,
) -> Call:  # fmt: skip
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, extra: int) -> Array:
        values = rng.integers(-9, 10, (rows, columns)) if integral else rng.uniform(-1, 1, (rows, columns))
        return with_leading(values.astype(dtype), extra)

    a = matrix(*((m, k) if trans[0] in "Nn" else (k, m)), more[0])
    b = matrix(*((k, n) if trans[1] in "Nn" else (n, k)), more[1])
    c = matrix(m, n, more[2])
    if beta == 0:
        c[...] = np.nan
    lda, ldb, ldc = (max(1, x.shape[0] + extra) for x, extra in zip((a, b, c), more, strict=True))
    return Call(dtype, trans[0], trans[1], m, n, k, alpha, a, b, beta, c, (lda, ldb, ldc))


def ratio(call: Call, expected: Array) -> float:
    """max|C - Ĉ| / (eps (k |alpha| max|A| max|B| + |beta| max|C|))."""
    if call.c.size == 0:
        return 0.0
    largest = [float(np.max(np.abs(x), initial=0.0)) for x in (call.a, call.b)]
    product = call.k * abs(call.alpha) * largest[0] * largest[1]
    bound = np.finfo(call.dtype).eps * (product + abs(call.beta) + np.finfo(call.dtype).tiny)
    return float(np.max(np.abs(call.c - expected)) / bound)


def check(call: Call) -> None:
    expected = call.reference()
    size, ldc = call.c.itemsize, call.leading[2]
    below = np.lib.stride_tricks.as_strided(call.c, (ldc, call.n), (size, ldc * size))[call.m :]
    assert call.run() == 0
    assert ratio(call, expected) < DECLARED
    assert np.isnan(below).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trans", [x + y for x in "NnTtCc" for y in "NnTtCc"])
def test_every_combination_of_trans(dtype: str, trans: str) -> None:
    for m, n, k in [(4, 4, 4), (8, 12, 4), (7, 9, 10), (37, 33, 41)]:
        check(make(dtype, m, n, k, trans=trans, more=(3, 1, 2), seed=m))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("alpha", "beta"), list(itertools.product(SCALARS, SCALARS)))
def test_alpha_and_beta(dtype: str, alpha: float, beta: float) -> None:
    for m, n, k in [(4, 4, 4), (9, 6, 0), (9, 6, 5), (20, 24, 28)]:
        check(make(dtype, m, n, k, alpha=alpha, beta=beta, trans="NT", more=(0, 2, 1), seed=k))


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_small_sizes(dtype: str) -> None:
    for m, n, k in itertools.product(range(10), repeat=3):
        check(make(dtype, m, n, k, trans="TN", beta=-1.0, more=(1, 0, 2), seed=100 * m + 10 * n + k))


@given(
    dtype=st.sampled_from(DTYPES),
    size=st.tuples(*[st.integers(0, 65)] * 3),
    trans=st.tuples(*[st.sampled_from("NnTtCc")] * 2).map("".join),
    alpha=st.sampled_from(SCALARS),
    beta=st.sampled_from(SCALARS),
    more=st.tuples(*[st.integers(0, 9)] * 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_call(
    dtype: str, size: tuple[int, int, int], trans: str, alpha: float, beta: float, more: tuple[int, int, int], seed: int
) -> None:
    check(make(dtype, *size, trans=trans, alpha=alpha, beta=beta, more=more, seed=seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(150, 130, 137), (129, 33, 262), (300, 65, 130)])
def test_sizes_beyond_one_block(dtype: str, size: tuple[int, int, int]) -> None:
    for trans in ("NN", "TT"):
        check(make(dtype, *size, trans=trans, more=(1, 2, 3)))


@given(
    dtype=st.sampled_from(DTYPES),
    size=st.tuples(*[st.integers(1, 65)] * 3),
    trans=st.tuples(*[st.sampled_from("NT")] * 2).map("".join),
    seed=st.integers(0, 2**32 - 1),
)
def test_integers_are_exact(dtype: str, size: tuple[int, int, int], trans: str, seed: int) -> None:
    """Coefficients are -1, 0 and 1: where no sum of integers exceeds the significand, nothing is rounded."""
    call = make(dtype, *size, trans=trans, alpha=-1.0, beta=2.5, integral=True, seed=seed)
    call.c[...] *= 2
    expected = call.reference()
    assert call.run() == 0
    np.testing.assert_array_equal(call.c, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(8, 8, 8), (5, 6, 7), (3, 3, 3)])
def test_nan_in_what_is_not_read(dtype: str, size: tuple[int, int, int]) -> None:
    overwritten = make(dtype, *size, beta=0.0)
    assert np.isnan(overwritten.c).all()
    assert overwritten.run() == 0
    assert np.isfinite(overwritten.c).all()
    for alpha, beta in [(0.0, 0.0), (0.0, -1.0), (0.0, 1.0)]:
        call = make(dtype, *size, alpha=alpha, beta=beta)
        call.a[...] = call.b[...] = np.nan
        expected = np.zeros_like(call.c) if beta == 0 else beta * call.c
        assert call.run() == 0
        np.testing.assert_array_equal(call.c, expected)


# ---- large products go to the blocked kernel -------------------------------------------

LARGE = 384  # csrc/gemm_alpha.c


def computed_in_blocks(call: Call) -> bool:
    """Whether the call took a workspace, which the Fortran routine has none of."""
    lib.lai_release_workspace()
    check(call)
    return int(lib.lai_kept_workspace()) > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trans", ["NN", "tN", "Nc", "TC"])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (-1.0, 1.0), (2.5, -1.0)])
def test_large_calls(dtype: str, trans: str, alpha: float, beta: float) -> None:
    call = make(dtype, LARGE, LARGE + 13, LARGE + 2, trans=trans, alpha=alpha, beta=beta, more=(1, 2, 3))
    assert computed_in_blocks(call)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("short", range(3))
def test_calls_with_one_short_side_are_not_large(dtype: str, short: int) -> None:
    sizes = [LARGE - (i == short) for i in range(3)]
    assert not computed_in_blocks(make(dtype, *sizes))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_calls_that_blocks_would_spoil(dtype: str) -> None:
    call = make(dtype, LARGE, LARGE, LARGE, beta=2.5)
    call.a[7] = 0
    assert not computed_in_blocks(call)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_calls_without_memory(dtype: str) -> None:
    call = make(dtype, LARGE, LARGE, LARGE, beta=2.5)
    lib.lai_fail_allocations(1)
    try:
        assert not computed_in_blocks(call)
    finally:
        lib.lai_fail_allocations(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("position", "changed"), [(1, {"transa": "X"}), (8, {"lda": LARGE - 1}), (13, {"ldc": 1})])
def test_illegal_arguments_of_large_calls(dtype: str, position: int, changed: dict[str, Any]) -> None:
    call = make(dtype, LARGE, LARGE, LARGE, beta=2.5)
    before = call.c.copy()
    assert call.run(**changed) == position
    np.testing.assert_array_equal(call.c, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nothing", [{"alpha": 0.0}, {"k": 0}])
def test_quick_returns_leave_c(dtype: str, nothing: dict[str, Any]) -> None:
    call = make(dtype, 6, 6, 6, beta=1.0)
    call.c[0, 0] = np.nan
    before = call.c.copy()
    assert call.run(**nothing) == 0
    np.testing.assert_array_equal(call.c, before)


ILLEGAL = [
    (1, {"transa": "X"}),
    (1, {"transa": "\0"}),
    (2, {"transb": "H"}),
    (3, {"m": -1}),
    (4, {"n": -1}),
    (5, {"k": -1}),
    (8, {"lda": 4}),
    (8, {"transa": "T", "lda": 6}),
    (8, {"m": 0, "lda": 0}),
    (10, {"ldb": 6}),
    (10, {"transb": "C", "ldb": 5}),
    (13, {"ldc": 4}),
    (13, {"m": 0, "ldc": 0}),
    # The first illegal argument counts.
    (1, {"transa": "X", "transb": "X", "m": -1}),
    (3, {"m": -1, "n": -1, "k": -1, "ldc": 0}),
    (8, {"lda": 0, "ldb": 0, "ldc": 0}),
    (10, {"ldb": 0, "ldc": 0}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("position", "changed"), ILLEGAL)
def test_illegal_arguments(dtype: str, position: int, changed: dict[str, Any]) -> None:
    call = make(dtype, 5, 6, 7, beta=2.5)
    before = call.c.copy()
    assert call.run(**changed) == position
    assert lib.lai_argument_error() == 0, "reading clears it"
    np.testing.assert_array_equal(call.c, before)
    assert call.run() == 0, "a legal call leaves none"


# ---- as a kernel of numpy.matmul ------------------------------------------------------

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "part of rows": lambda x: np.ascontiguousarray(np.pad(x, ((0, 1), (0, 3)), constant_values=1))[:-1, :-3],
    "part of columns": lambda x: np.asfortranarray(np.pad(x, ((0, 3), (0, 1)), constant_values=1))[:-3, :-1],
}
STRANGE: dict[str, Callable[[Array], Array]] = {
    "both strided": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
}


def run_kernel(a: Array, b: Array, c: Array) -> tuple[int, Any]:
    product = ffi.new("lai_product *")
    product.a, product.b, product.c = (ffi.cast("char *", x.ctypes.data) for x in (a, b, c))
    product.batch, (product.m, product.k), product.n = 1, a.shape, b.shape[1]
    (product.a_row, product.a_column), (product.b_row, product.b_column) = a.strides, b.strides
    product.c_row, product.c_column = c.strides
    blocks = ffi.new("lai_blocks *")
    dtype = lib.LAI_FLOAT64 if a.dtype == np.float64 else lib.LAI_FLOAT32
    return lib.lai_run_product(lib.LAI_GEMM_ALPHA, dtype, product, ffi.new("lai_stock *"), blocks), blocks


def operands(dtype: str, m: int, n: int, k: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.5, 1, (m, k)), rng.uniform(0.5, 1, (k, n))
    return a.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layouts", list(itertools.product(LAYOUTS, repeat=3)))
def test_kernel_takes_every_blas_layout(dtype: str, layouts: tuple[str, str, str]) -> None:
    for m, n, k in [(4, 4, 4), (13, 18, 11), (1, 9, 5), (9, 1, 5), (1, 1, 1)]:
        a, b = operands(dtype, m, n, k)
        c = LAYOUTS[layouts[2]](np.full((m, n), np.nan, dtype))
        status, blocks = run_kernel(LAYOUTS[layouts[0]](a), LAYOUTS[layouts[1]](b), c)
        assert status == lib.LAI_DONE
        bound = DECLARED * k * np.finfo(dtype).eps
        np.testing.assert_allclose(c, a.astype("float64") @ b.astype("float64"), rtol=0, atol=bound)
        assert blocks.alphatensor == (m // 4) * (n // 4) * (k // 4)
        assert blocks.alphatensor + blocks.direct == -(-m // 4) * -(-n // 4) * -(-k // 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("which", [0, 1])
def test_kernel_declines_other_layouts(dtype: str, strange: str, which: int) -> None:
    a, b = operands(dtype, 8, 12, 8)
    a, b = (STRANGE[strange](a), b) if which == 0 else (a, STRANGE[strange](b))
    c = np.full((8, 12), 7, dtype)
    assert run_kernel(a, b, c)[0] == lib.LAI_DECLINED
    assert (c == 7).all()


def window(dtype: str) -> tuple[int, int, int]:
    """Largest exponent of an operand, of both together, least sum of the smallest; design of the guard."""
    return (1018, 1008, -960) if dtype == "float64" else (122, 112, -96)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 0.0, -0.0, "subnormal", 2.0**-22, 2.0**21])
def test_kernel_declines_values_that_it_would_spoil(dtype: str, which: int, value: Any) -> None:
    values = operands(dtype, 9, 10, 11)
    number = np.finfo(dtype).tiny / 2 if value == "subnormal" else value
    values[which][-1, -1] = number
    c = np.full((9, 10), 7, dtype)
    assert run_kernel(*values, c)[0] == lib.LAI_DECLINED
    assert (c == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_keeps_to_its_window(dtype: str) -> None:
    each, together, least = window(dtype)
    # uniform(0.5, 1) has the exponent -1; one tile of depth, so the sum's limit is the stated one.
    for k, exponents, status in [
        (4, (each + 1, -each), lib.LAI_DONE),
        (4, (each + 2, -each), lib.LAI_DECLINED),
        (4, (together // 2 + 1, together // 2 + 1), lib.LAI_DONE),
        (4, (together // 2 + 1, together // 2 + 2), lib.LAI_DECLINED),
        (8, (together // 2 + 1, together // 2 + 1), lib.LAI_DECLINED),
        (8, (together // 2 + 1, together // 2), lib.LAI_DONE),
        (4, (least // 2 + 1, least // 2 + 1), lib.LAI_DONE),
        (4, (least // 2 + 1, least // 2), lib.LAI_DECLINED),
    ]:
        a, b = operands(dtype, 8, 8, k)
        a, b = np.ldexp(a, exponents[0]), np.ldexp(b, exponents[1])
        c = np.full((8, 8), np.nan, dtype)
        assert run_kernel(a, b, c)[0] == status, (k, exponents)
        if status == lib.LAI_DONE:
            assert np.isfinite(c).all()
            scale = sum(exponents)
            exact = np.ldexp(a, -exponents[0]).astype("float64") @ np.ldexp(b, -exponents[1]).astype("float64")
            bound = DECLARED * k * np.finfo(dtype).eps
            np.testing.assert_allclose(np.ldexp(c.astype("float64"), -scale), exact, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_largest_inputs_of_the_window_do_not_overflow(dtype: str) -> None:
    _, together, _ = window(dtype)
    for k in (4, 32, 260):
        depth = int(np.ceil(np.log2(-(-k // 4))))
        exponent = (together - depth) // 2
        signs = np.random.default_rng(k).choice([-1.0, 1.0], (2, 64, k))
        largest = np.nextafter(np.array(2.0, dtype), np.array(0, dtype))
        a, b = (np.ldexp((sign * largest).astype(dtype), exponent) for sign in signs)
        c = np.full((64, 64), np.nan, dtype)
        with np.errstate(all="raise"):
            assert run_kernel(a, b.T, c)[0] == lib.LAI_DONE
        assert np.isfinite(c).all()


def test_kernel_leaves_a_small_stack_alone() -> None:
    """The forms take 600 KiB of stack: a thread that has less must get stock's result, not a crash."""
    statuses = []
    a, b = operands("float64", 64, 64, 64)
    c = np.full((64, 64), 7.0)

    def compute() -> None:
        statuses.append(run_kernel(a, b, c)[0])

    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert statuses == [lib.LAI_NO_MEMORY]
    assert (c == 7).all()
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert statuses[1] == lib.LAI_DONE
