"""The kernel `alphatensor49_blocked`: large products by 49 products of blocks, here at sizes that tests can afford."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lapack_ai_backend._native import lib
from product_cases import COMPLEX, REAL, Array, laid_out, normwise_ratio
from threadpoolctl import threadpool_limits

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import native, policy, registry, rules
from lapack_ai_backend.options import Options
from lapack_ai_backend.problem import Problem
from lapack_ai_backend.registry import Limits

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "csrc"))  # build-time modules, no part of the package

from factor_tables import parse  # noqa: E402

KERNEL = "alphatensor49_blocked"
DTYPES = (*REAL, *COMPLEX)
LEVELS = [level for level in (lib.LAI_BASELINE, lib.LAI_AVX2, lib.LAI_AVX512) if level <= lib.lai_best_isa()]
LEVEL_NAMES = {lib.LAI_BASELINE: "baseline", lib.LAI_AVX2: "avx2", lib.LAI_AVX512: "avx512"}
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_real = pytest.mark.parametrize("dtype", REAL)

# Largest exponent of an operand, of both together, least sum of the smallest; how far rows of A may differ.
WINDOWS = {"float64": (1018, 1008, -960, 20), "float32": (122, 112, -96, 10)}


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """No workspace before, none afterwards; all threads."""
    lib.lai_release_workspace()
    yield
    lib.lai_release_workspace()
    lib.lai_use_threads(0)


@pytest.fixture(params=LEVELS, ids=LEVEL_NAMES.get)
def level(request: pytest.FixtureRequest) -> Iterator[int]:
    before = lib.lai_current_isa()
    assert lib.lai_use_isa(request.param) == 0
    yield request.param
    lib.lai_use_isa(before)


def product(a: Array, b: Array, out: Array | None = None) -> tuple[Array, str, str]:
    """The product with the kernel forced, what computed it, and why."""
    with lapack_ai.set_backend(force={"numpy.matmul": KERNEL}), lapack_ai.trace() as t:
        c = np.matmul(a, b, out=out)
    (decision,) = t.decisions
    return c, decision.kernel, decision.reason_code


def blocked(a: Array, b: Array, out: Array | None = None) -> Array:
    c, kernel, reason = product(a, b, out)
    assert kernel == KERNEL, reason
    return c


def is_declined(a: Array, b: Array) -> bool:
    """Stock ran, and its result is stock's."""
    with np.errstate(all="ignore"):
        c, kernel, reason = product(a, b)
        np.testing.assert_array_equal(c, a @ b)
    assert kernel == KERNEL or reason == "kernel_declined"
    return kernel != KERNEL


def values(shape: tuple[int, ...], dtype: str, seed: int = 0, low: float = -1.0) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.uniform(low, 1, shape)
    return (x + 1j * rng.uniform(low, 1, shape) if dtype in COMPLEX else x).astype(dtype)


def declared(dtype: str) -> float:
    return registry.KERNELS[KERNEL].errors[dtype][1]


# ---- accuracy -----------------------------------------------------------------------------


def worst_ratio(k: int) -> float:
    """The proved first-order bound of max|C - Ĉ| / (k eps max|A| max|B|) of a real product.

    A product of blocks has the inner size K = k / 4 (rounded up). Its entries sum K terms, each a sum of p entries of A
    times a sum of q of B, so at most p q max|A| max|B|. A term is rounded at most (p - 1) + (q - 1) times before, K
    times as a product and in the sum, and s - 1 times in an entry of C that sums s products, by eps / 2 each. Sums over
    slices of k and common subexpressions are partial sums of these: they change no count.
    """
    table = parse(ROOT / "csrc" / "factors" / "alphatensor49.txt")
    inner = (k + 3) // 4
    width = {c: sum(c in each.c for each in table.products) for each in table.products for c in each.c}
    roundings = dict.fromkeys(width, 0)
    for each in table.products:
        p, q = len(each.a), len(each.b)
        for c in each.c:
            roundings[c] += p * q * (p + q - 2 + inner + width[c] - 1)
    return max(roundings.values()) * inner / 2 / k


def test_the_declared_constant_is_below_the_proved_one() -> None:
    assert all(worst_ratio(k) > declared("float64") for k in range(16, 200))


@given(
    dtype=st.sampled_from(DTYPES),
    size=st.tuples(*[st.integers(32, 150)] * 3),
    layouts=st.tuples(*[st.sampled_from(("contiguous", "transposed", "strided", "reversed", "fortran"))] * 3),
    batch=st.integers(1, 2),
    low=st.sampled_from((-1.0, 0.5, 0.999)),
    seed=st.integers(0, 2**32 - 2),
)
def test_any_product(
    dtype: str, size: tuple[int, int, int], layouts: tuple[str, str, str], batch: int, low: float, seed: int
) -> None:
    m, k, n = size
    a = laid_out(values((batch, m, k), dtype, seed, low), layouts[0])
    b = laid_out(values((batch, k, n), dtype, seed + 1, low), layouts[1])
    out = laid_out(np.full((batch, m, n), np.nan, dtype), layouts[2])
    assert normwise_ratio(blocked(a, b, out), a, b) < declared(dtype)


# 2100 is two slices of the inner dimension, 800 several chunks of columns, 600 two panels of rows.
@each_dtype
@pytest.mark.parametrize(
    "size", [(32, 32, 32), (33, 1100, 35), (600, 35, 33), (34, 37, 800), (65, 2100, 130), (129, 131, 257)]
)
def test_every_level(level: int, dtype: str, size: tuple[int, int, int]) -> None:
    m, k, n = size
    a, b = values((m, k), dtype, 1), values((k, n), dtype, 2)
    for left, right in [(a, b), (np.asfortranarray(a), np.asfortranarray(b))]:
        c = blocked(left, right)
        assert normwise_ratio(c[None], a[None], b[None]) < declared(dtype)


@each_dtype
def test_integers_are_exact(level: int, dtype: str) -> None:
    """Coefficients are -1, 0 and 1: where no sum of integers exceeds the significand, nothing is rounded."""
    rng = np.random.default_rng(3)
    a, b = (rng.integers(1, 10, shape).astype(dtype) for shape in [(70, 90), (90, 110)])
    np.testing.assert_array_equal(blocked(a, b), a @ b)


@each_dtype
@pytest.mark.parametrize("size", [(130, 300, 270), (40, 1100, 50)])
def test_any_number_of_threads_gives_the_same_bits(dtype: str, size: tuple[int, int, int]) -> None:
    m, k, n = size
    a, b = values((m, k), dtype, 1), values((k, n), dtype, 2)
    results = []
    for threads in (1, 2, 3):
        lib.lai_use_threads(threads)
        results.append(blocked(a, b).tobytes())
    assert len(set(results)) == 1


# ---- guard ------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("where", [(0, 0), (37, 50), (-1, -1)])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "subnormal"])
def test_special_values_are_declined(dtype: str, which: int, where: tuple[int, int], value: float | str) -> None:
    operands = [values((70, 80), dtype, 1), values((80, 90), dtype, 2)]
    operands[which][where] = np.finfo(dtype).smallest_subnormal if value == "subnormal" else value
    assert is_declined(*operands)


@each_dtype
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
@pytest.mark.parametrize("which", [0, 1])
def test_zero_lines_are_declined(dtype: str, layout: str, which: int) -> None:
    operands = [values((70, 80), dtype, 1), values((80, 90), dtype, 2)]
    operands[which][(slice(None), 13) if which else 13] = 0
    assert is_declined(*(laid_out(x, layout) for x in operands))


@each_real
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
def test_zeros_are_allowed_as_long_as_no_sum_can_be_empty(dtype: str, layout: str) -> None:
    a, b = values((70, 80), dtype, 1), values((80, 90), dtype, 2)
    a[21, :30] = 0
    b[31:, 17] = 0  # 49 zeros
    assert not is_nothing_but_zeros(a, b)
    assert normwise_ratio(blocked(laid_out(a, layout), laid_out(b, layout))[None], a[None], b[None]) < declared(dtype)
    b[30:, 17] = 0  # c[21, 17] has no term
    assert is_declined(laid_out(a, layout), laid_out(b, layout))


def is_nothing_but_zeros(a: Array, b: Array) -> bool:
    return bool(((a != 0).astype(int) @ (b != 0).astype(int) == 0).any())


@each_real
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
@pytest.mark.parametrize("which", [0, 1])
def test_graded_lines(dtype: str, layout: str, which: int) -> None:
    """A small row beside large ones drowns in their roundings: declined from a bound on."""
    lines = WINDOWS[dtype][3]
    for exponent, status in [(lines, False), (lines + 1, True)]:
        operands = [values((70, 80), dtype, 1, 0.5), values((80, 90), dtype, 2, 0.5)]
        line = (slice(None), 21) if which else 21
        operands[which][line] *= 2.0**-exponent
        assert is_declined_or_accurate(*(laid_out(x, layout) for x in operands)) == status


def is_declined_or_accurate(a: Array, b: Array) -> bool:
    c, kernel, _ = product(a, b)
    assert normwise_ratio(c[None], a[None], b[None]) < declared(str(a.dtype))
    return kernel != KERNEL


@each_real
def test_the_window_of_exponents(dtype: str) -> None:
    each, together, least, _ = WINDOWS[dtype]
    depth = 4  # of 2, for blocks of 16
    # values are in [0.5, 1): their exponent is -1.
    for exponents, status in [
        ((each + 1, -each), False),
        ((each + 2, -each), True),
        (((together - depth) // 2 + 1,) * 2, False),
        (((together - depth) // 2 + 1, (together - depth) // 2 + 2), True),
        ((least // 2 + 1,) * 2, False),
        ((least // 2 + 1, least // 2), True),
    ]:
        a, b = values((64, 64), dtype, 1, 0.5), values((64, 64), dtype, 2, 0.5)
        with np.errstate(all="raise"):
            c, kernel, _ = product(np.ldexp(a, exponents[0]), np.ldexp(b, exponents[1]))
        assert (kernel != KERNEL) == status, exponents
        if not status:
            assert normwise_ratio(np.ldexp(c, -sum(exponents))[None], a[None], b[None]) < declared(dtype)


@each_dtype
def test_the_largest_inputs_do_not_overflow(dtype: str) -> None:
    real = "float64" if dtype in ("float64", "complex128") else "float32"
    _, together, _, _ = WINDOWS[real]
    for k in (32, 64, 260):
        depth = int(np.ceil(np.log2(-(-k // 4)))) + (4 if dtype in COMPLEX else 0)
        largest = np.ldexp(np.nextafter(np.array(2, real), np.array(0, real)), (together - depth) // 2)
        signs = np.random.default_rng(k).choice([-1.0, 1.0], (2, 2, 64, k)).astype(real)
        a, b = signs[0, 0] * largest, signs[0, 1] * largest
        if dtype in COMPLEX:
            a, b = a + 1j * signs[1, 0] * largest, b + 1j * signs[1, 1] * largest
        with np.errstate(all="raise"):
            c = blocked(a.astype(dtype), b.astype(dtype).T)
        assert np.isfinite(c).all()


def test_symmetric_products_stay_symmetric() -> None:
    a = values((64, 64), "float64")
    c, kernel, reason = product(a, a.T)
    assert (kernel, reason) == ("stock", "symmetric")
    np.testing.assert_array_equal(c, c.T)


# ---- workspace -----------------------------------------------------------------------------------


@each_dtype
def test_the_workspace_is_kept_and_released(dtype: str) -> None:
    a, b = values((64, 64), dtype, 1), values((64, 64), dtype, 2)
    assert lib.lai_kept_workspace() == 0
    blocked(a, b)
    kept = lib.lai_kept_workspace()
    assert kept > 0
    blocked(a, b)
    assert lib.lai_kept_workspace() == kept
    lib.lai_release_workspace()
    assert lib.lai_kept_workspace() == 0
    blocked(a, b)


def test_no_memory_is_stocks() -> None:
    a, b = values((64, 64), "float64", 1), values((64, 64), "float64", 2)
    blocked(a, b)  # also where one is kept
    lib.lai_fail_allocations(1)
    try:
        c, kernel, reason = product(a, b)
    finally:
        lib.lai_fail_allocations(0)
    assert (kernel, reason) == ("stock", "memory")
    np.testing.assert_array_equal(c, a @ b)
    blocked(a, b)


def test_the_workspace_is_bounded() -> None:
    a, b = values((64, 64), "float64", 1), values((64, 64), "float64", 2)
    blocked(a, b)
    needed = lib.lai_kept_workspace()
    try:
        lib.lai_limit_workspace(needed - 1)
        assert lib.lai_kept_workspace() == 0
        assert product(a, b)[1:] == ("stock", "memory")
        lib.lai_limit_workspace(needed)
        blocked(a, b)
    finally:
        lib.lai_limit_workspace(4 << 30)


def test_concurrent_callers() -> None:
    """Several products at once, while another thread is in BLAS and a third one takes the workspace away."""
    operands = [(values((150 + i, 160), dtype, i), values((160, 170), dtype, i + 9)) for i, dtype in enumerate(DTYPES)]
    expected = [blocked(a, b).tobytes() for a, b in operands]
    x = values((300, 300), "float64")
    in_blas = (x @ x).tobytes()
    done = threading.Event()

    def disturb() -> bool:
        same = True
        while not done.is_set():
            same = same and (x @ x).tobytes() == in_blas
            lib.lai_release_workspace()
        return same

    def repeat(i: int) -> bool:
        a, b = operands[i]
        return all(blocked(a, b).tobytes() == expected[i] for _ in range(10))

    with ThreadPoolExecutor(5) as pool:
        disturbing = pool.submit(disturb)
        try:
            assert all(pool.map(repeat, range(4)))
        finally:
            done.set()
        assert disturbing.result()


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("k", [1536, 2048])
def test_terms_of_one_sign_add_up(dtype: str, k: int) -> None:
    """The largest errors seen: full slices of positive entries."""
    rng = np.random.default_rng(k)
    a, b = rng.uniform(0.5, 1, (96, k)), rng.uniform(0.5, 1, (k, 96))
    if dtype.startswith("complex"):
        a, b = a + 1j * rng.uniform(0.5, 1, a.shape), b + 1j * rng.uniform(0.5, 1, b.shape)
    a, b = a.astype(dtype), b.astype(dtype)
    with lapack_ai.set_backend(force={"numpy.matmul": "alphatensor49_blocked"}), lapack_ai.trace() as t:
        c = a @ b
    assert t.decisions[0].kernel == "alphatensor49_blocked"
    assert normwise_ratio(c, a, b) <= declared(dtype)


@each_dtype
def test_block_diagonal_matrices_keep_their_zeros(dtype: str) -> None:
    a = np.zeros((256, 256), dtype)
    rng = np.random.default_rng(5)
    for rows in (slice(0, 100), slice(100, 256)):
        side = rows.stop - rows.start
        a[rows, rows] = rng.uniform(0.5, 1, (side, side)) * (1 + 2j if dtype.startswith("complex") else 1)
    with lapack_ai.set_backend(force={"numpy.matmul": KERNEL}), lapack_ai.trace() as t:
        c = a @ a
    assert t.decisions[0].reason_code == "kernel_declined"
    assert not c[:100, 100:].any()


def test_a_large_product_asks_the_policy_each_time() -> None:
    """Threads of BLAS and of the kernels may change between two products."""
    rule = rules.Rule("t", "numpy.matmul", ("float64",), Limits(min_dim=128, symmetric=False, as_blas=True), KERNEL, "")
    a = np.random.default_rng(6).uniform(0.5, 1, (128, 128))
    shipped, before = rules.RULES, lib.lai_use_threads(1)
    rules.RULES = (rule,)
    policy.table_for.cache_clear()
    ran = []
    try:
        for threads in (2, 1, 2):
            with threadpool_limits(threads, user_api="blas"), lapack_ai.set_backend(policy="static"):
                lapack_ai.reset_stats()
                a @ a
                ran += [kernel for _, kernel in lapack_ai.stats()]
    finally:
        rules.RULES = shipped
        policy.table_for.cache_clear()
        lib.lai_use_threads(before)
    assert ran == ["stock", KERNEL, "stock"]


def _reason() -> str:
    problem = Problem("numpy.matmul", "float64", 1 << 16, 1 << 16, 1 << 16, 1)
    table = policy.table_for(Options(policy="static"))
    return policy.readable(policy.decide("numpy.matmul", problem, table), problem).reason_code


@pytest.mark.skipif(native.best_isa() != "avx512", reason="routed with AVX-512 only")
def test_routed_only_where_it_was_measured_to_pay() -> None:
    threads, isa = lib.lai_use_threads(0), native.isa()
    try:
        if lib.lai_blas_threads() <= lib.lai_num_threads():
            assert _reason() == "routed"
        native.use_isa("avx2")
        assert _reason() == "isa"
        native.use_isa("avx512")
        lib.lai_use_threads(1)
        if lib.lai_blas_threads() > 1:
            assert _reason() == "threads"
    finally:
        lib.lai_use_threads(threads)
        native.use_isa(isa)
