"""The kernels of products through the public path: exactness, error bounds, special values, layouts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st
from product_cases import (
    COMPLEX,
    INTEGERS,
    KINDS,
    LAYOUTS,
    NARROW,
    REAL,
    cases,
    componentwise_ratio,
    filled,
    laid_out,
    normwise_ratio,
)

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import native

Array = np.ndarray[Any, Any]
SMALL = st.integers(1, 16)
FOUR = st.just(4)


@pytest.fixture(params=list(native.ISAS))
def isa(request: pytest.FixtureRequest) -> Any:
    """Each instruction set that this CPU has."""
    before = native.isa()
    with lapack_ai.set_backend():
        if not native.use_isa(request.param):
            pytest.skip(f"this CPU has no {request.param}")
        yield request.param
        native.use_isa(before)


def product(a: Array, b: Array, kernel: str) -> Array:
    """``a @ b`` by the kernel; fails unless that is what ran."""
    with lapack_ai.set_backend(lapack_ai, force={"numpy.matmul": kernel}), lapack_ai.trace() as t:
        c = a @ b
    assert [decision.kernel for decision in t.decisions] == [kernel], t.decisions
    return c


def stock(a: Array, b: Array) -> Array:
    with lapack_ai.skip_backend():
        return a @ b


# ---- error bounds -------------------------------------------------------------------------


@given(cases(REAL + COMPLEX, SMALL, square=False))
def test_direct_is_componentwise_accurate(case: Any) -> None:
    c = product(case.a, case.b, "direct")
    ratio = componentwise_ratio(c, case.a, case.b)
    target(ratio)
    assert ratio <= lapack_ai.kernels()["direct"].errors[c.dtype.name][1]


@given(cases(REAL + COMPLEX, FOUR))
def test_alphatensor_is_normwise_accurate(case: Any) -> None:
    if np.shares_memory(case.a, case.b):
        return
    c = product(case.a, case.b, "alphatensor49")
    ratio = normwise_ratio(c, case.a, case.b)
    target(ratio)
    assert ratio <= lapack_ai.kernels()["alphatensor49"].errors[c.dtype.name][1]


@given(cases(REAL, st.integers(4, 40), most=2))
def test_fortran_variant_is_normwise_accurate(case: Any) -> None:
    with lapack_ai.set_backend(force={"matmul": "gemm_alpha"}), lapack_ai.trace() as t:
        c = case.a @ case.b
    (decision,) = t.decisions
    assert decision.kernel == "gemm_alpha" or decision.reason_code == "kernel_declined"
    assert normwise_ratio(c, case.a, case.b) <= lapack_ai.kernels()["gemm_alpha"].errors[c.dtype.name][1]


# ---- exactness ----------------------------------------------------------------------------


@given(cases(INTEGERS + NARROW, SMALL, square=False))
def test_stacks_of_integers_wrap_exactly_as_numpy(case: Any) -> None:
    np.testing.assert_array_equal(product(case.a, case.b, "direct"), stock(case.a, case.b))


@given(cases(INTEGERS, FOUR), st.sampled_from(["alphatensor49", "integer"]))
def test_integers_wrap_exactly_as_numpy(case: Any, kernel: str) -> None:
    np.testing.assert_array_equal(product(case.a, case.b, kernel), stock(case.a, case.b))


@given(
    st.tuples(st.integers(1, 70), st.integers(1, 300), st.integers(1, 70)),
    st.sampled_from(INTEGERS),
    st.sampled_from(LAYOUTS),
    st.integers(0, 2**32 - 1),
)
def test_integer_kernel_takes_every_shape(shape: tuple[int, int, int], dtype: str, layout: str, seed: int) -> None:
    m, k, n = shape
    a = laid_out(filled((m, k), dtype, "dense", 0, seed), layout)
    b = laid_out(filled((k, n), dtype, "dense", 0, seed + 1), layout)
    np.testing.assert_array_equal(product(a, b, "integer"), stock(a, b))


@pytest.mark.parametrize("dtype", REAL + COMPLEX)
@pytest.mark.parametrize("kernel", ["direct", "alphatensor49"])
def test_small_integers_in_floats_are_exact(kernel: str, dtype: str) -> None:
    a = filled((100, 4, 4), dtype, "integral", 0, 1)
    b = filled((100, 4, 4), dtype, "integral", 0, 2)
    np.testing.assert_array_equal(product(a, b, kernel), stock(a, b))


@pytest.mark.parametrize("dtype", (*REAL, *COMPLEX, *INTEGERS))
@pytest.mark.parametrize(("batch", "n", "k"), [(1, 4, 4), (7, 4, 4), (1000, 4, 4), (9, 3, 3), (9, 5, 16), (9, 16, 7)])
def test_a_times_its_transpose_is_exactly_symmetric(dtype: str, batch: int, n: int, k: int) -> None:
    a = filled((batch, n, k), dtype, "dense", 0, 3)
    with lapack_ai.set_backend(force={"numpy.matmul": "direct"}), lapack_ai.trace() as t:
        c = a @ a.swapaxes(-1, -2)
    assert t.decisions[0].kernel == "direct"
    assert t.decisions[0].problem is not None
    assert t.decisions[0].problem.symmetric
    np.testing.assert_array_equal(c, c.swapaxes(-1, -2))


# ---- every layout, batch and instruction set ----------------------------------------------------


@pytest.mark.parametrize("kernel", ["direct", "alphatensor49"])
@pytest.mark.parametrize("dtype", (*REAL, *COMPLEX, *INTEGERS))
def test_layouts_and_batches_at_each_instruction_set(isa: str, kernel: str, dtype: str) -> None:
    for batch, one, other in itertools.product((1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 33), LAYOUTS, LAYOUTS):
        a = laid_out(filled((batch, 4, 4), dtype, "dense", 0, 4), one)
        b = laid_out(filled((batch, 4, 4), dtype, "dense", 0, 5), other)
        c = product(a, b, kernel)
        if dtype in INTEGERS:
            np.testing.assert_array_equal(c, stock(a, b))
        else:
            assert normwise_ratio(c, a, b) <= lapack_ai.kernels()[kernel].errors[dtype][1], (batch, one, other)


# Every number of rows at once, every width of the last vector, vectors on either side, sums of one product.
SHAPES = [
    (1, 1, 1), (1, 7, 1), (1, 3, 5), (2, 2, 2), (2, 16, 3), (3, 3, 3), (3, 5, 1), (4, 1, 4), (4, 4, 1), (5, 5, 5),
    (6, 6, 6), (7, 7, 7), (7, 9, 1), (8, 8, 8), (8, 3, 2), (9, 2, 9), (11, 4, 15), (12, 12, 12), (13, 16, 1),
    (16, 1, 13), (16, 5, 11), (16, 16, 16),
]  # fmt: skip


@pytest.mark.parametrize("dtype", (*REAL, *COMPLEX, *INTEGERS, *NARROW))
def test_shapes_and_layouts_at_each_instruction_set(isa: str, dtype: str) -> None:
    layouts = itertools.cycle(itertools.product(LAYOUTS, LAYOUTS, LAYOUTS))
    for (m, k, n), repeat in itertools.product(SHAPES, range(11)):
        one, other, into = next(layouts) if repeat else ("contiguous",) * 3
        a = laid_out(filled((5, m, k), dtype, "integral", 0, 4), one)
        b = laid_out(filled((5, k, n), dtype, "integral", 0, 5), other)
        room = np.full((5, 2 * m, 3 * n), 77, dtype)
        out = (
            room[:, ::2, ::3]
            if into == "strided"
            else laid_out(room[:, :m, :n], into.replace("broadcast", "contiguous"))
        )
        with lapack_ai.set_backend(force={"numpy.matmul": "direct"}), lapack_ai.trace() as t:
            np.matmul(a, b, out=out)
        assert t.decisions[0].direct_blocks == 5
        np.testing.assert_array_equal(out, stock(a, b), err_msg=str((m, k, n, one, other, into)))
        out[...] = 77
        assert np.all(room == 77), "written beside the result"


@pytest.mark.parametrize("dtype", (*REAL, *COMPLEX, *INTEGERS))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_go_into_any_out(dtype: str, layout: str) -> None:
    a, b = filled((9, 4, 4), dtype, "dense", 0, 6), filled((9, 4, 4), dtype, "dense", 0, 7)
    expected = product(a, b, "alphatensor49")
    out = laid_out(np.zeros_like(a), "contiguous" if layout == "broadcast" else layout)
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        result = np.matmul(a, b, out=out)
    assert t.decisions[0].kernel == "alphatensor49"
    assert result is out
    np.testing.assert_array_equal(out, expected)


def test_overlapping_out_is_as_stock() -> None:
    a, b = filled((9, 4, 4), "float64", "dense", 0, 8), filled((9, 4, 4), "float64", "dense", 0, 9)
    expected = product(a, b, "alphatensor49")
    with lapack_ai.set_backend():
        np.matmul(a, b, out=a)
    np.testing.assert_array_equal(a, expected)


# ---- special values -------------------------------------------------------------------------


def pattern(x: Array) -> Array:
    """Per entry: NaN, +Inf, -Inf, zero or other; of complex numbers only finite or not."""
    if x.dtype.kind == "c":
        return np.isfinite(x)
    return np.select([np.isnan(x), np.isposinf(x), np.isneginf(x), x == 0], [1, 2, 3, 4], 0)


def special_stacks(dtype: str, m: int = 4, k: int = 4, n: int = 4) -> dict[str, tuple[Array, Array]]:
    """Blocks that a bilinear algorithm would smear, or that overflow somewhere, by name."""
    real = np.dtype(dtype).type(0).real.dtype
    limits = np.finfo(real)
    top, low = int(limits.maxexp), int(limits.minexp)
    dense = [filled((23, *shape), dtype, "dense", 0, seed) for seed, shape in ((10, (m, k)), (11, (k, n)))]
    found: dict[str, tuple[Array, Array]] = {}
    for name, value in {"nan": np.nan, "inf": np.inf, "minus inf": -np.inf, "zero": 0.0, "minus zero": -0.0}.items():
        for side in (0, 1):
            pair = [each.copy() for each in dense]
            for block in range(0, 23, 3):
                rows, columns = pair[side].shape[1:]
                pair[side][block, block % rows, (block // rows) % columns] = value
            found[f"{name} in {'AB'[side]}"] = pair[0], pair[1]
    scales = {
        "huge": (top - 24, 10),
        "huge A": (top - 3, 0),
        "huge products": (top // 2, top // 2),
        "near overflow": (top // 2 - 8, top // 2 - 8),
        "tiny products": (low // 2 - 20, low // 2 - 5),
        "subnormal A": (low - 3, 0),
        "subnormal results": (low // 2, low // 2 - 3),
    }
    for name, (ea, eb) in scales.items():
        found[name] = np.ldexp(1.0, 0) * _scaled(dense[0], ea), _scaled(dense[1], eb)
        mixed = [each.copy() for each in dense]
        mixed[0][5:9], mixed[1][5:9] = _scaled(dense[0][5:9], ea), _scaled(dense[1][5:9], eb)
        found[f"{name} among others"] = mixed[0], mixed[1]
    infinite = dense[0].copy()
    infinite[3] = np.inf
    zeros = dense[1].copy()
    zeros[3] = 0
    found["inf times zero"] = infinite, zeros
    cancelling = np.empty_like(dense[0])
    cancelling[...] = np.resize([1, -1, 1, 1], k) * np.dtype(dtype).type(2.0) ** (top - 24)
    found["overflow on the way"] = cancelling, _scaled(dense[1], 22)
    return found


def _scaled(x: Array, exponent: int) -> Array:
    if x.dtype.kind == "c":
        parts = x.view(x.real.dtype)
        with np.errstate(all="ignore"):
            return np.ldexp(parts, exponent).view(x.dtype)
    with np.errstate(all="ignore"):
        return np.ldexp(x, exponent)


KERNELS_AND_SHAPES = [
    ("alphatensor49", (4, 4, 4)),
    *(("direct", shape) for shape in ((4, 4, 4), (3, 5, 2), (1, 4, 6), (7, 6, 1), (5, 16, 9), (16, 16, 16))),
]


@pytest.mark.parametrize(("kernel", "shape"), KERNELS_AND_SHAPES)
@pytest.mark.parametrize("dtype", REAL + COMPLEX)
def test_special_values_survive(isa: str, kernel: str, shape: tuple[int, int, int], dtype: str) -> None:
    for name, (a, b) in special_stacks(dtype, *shape).items():
        with np.errstate(all="ignore"):
            c, expected = product(a, b, kernel), stock(a, b)
        np.testing.assert_array_equal(pattern(c), pattern(expected), err_msg=name)
        finite = np.isfinite(expected)
        tolerance = 400 * np.finfo(c.dtype).eps
        scale = np.max(np.abs(expected), axis=(-2, -1), keepdims=True, where=finite, initial=0)
        absolute = 64 * np.finfo(c.dtype).smallest_subnormal
        with np.errstate(all="ignore"):
            error = np.abs(np.where(finite, c, 0) - np.where(finite, expected, 0))
        assert np.all(error <= tolerance * np.broadcast_to(scale, error.shape) + absolute), name


@pytest.mark.parametrize(("kernel", "shape"), KERNELS_AND_SHAPES)
@pytest.mark.parametrize("dtype", REAL + COMPLEX)
def test_errstate_raises_as_stock(isa: str, kernel: str, shape: tuple[int, int, int], dtype: str) -> None:
    def flags(call: Any) -> list[str]:
        raised = []
        for flag in ("over", "invalid", "divide", "under"):
            with np.errstate(all="ignore", **{flag: "raise"}):
                try:
                    call()
                except FloatingPointError:
                    raised.append(flag)
        return raised

    for name, (a, b) in special_stacks(dtype, *shape).items():
        ours = flags(lambda a=a, b=b: product(a, b, kernel))
        theirs = flags(lambda a=a, b=b: stock(a, b))
        assert ours == theirs, (name, ours, theirs)


@pytest.mark.parametrize("dtype", REAL)
def test_the_guard_hands_single_blocks_to_direct(dtype: str) -> None:
    a, b = filled((100, 4, 4), dtype, "dense", 0, 12), filled((100, 4, 4), dtype, "dense", 0, 13)
    a[17, 2, 2], b[40, 0, 1], a[41, 3, 3] = 0, np.inf, 2.0**30
    with (
        lapack_ai.set_backend(force={"numpy.matmul": "alphatensor49"}),
        lapack_ai.trace() as t,
        np.errstate(all="ignore"),
    ):
        a @ b
    (decision,) = t.decisions
    assert (decision.alphatensor_blocks, decision.direct_blocks + decision.stock_blocks) == (97, 3)


def test_rigid_transforms_are_exact_in_their_last_row() -> None:
    a, b = filled((50, 4, 4), "float64", "rigid", 0, 14), filled((50, 4, 4), "float64", "rigid", 0, 15)
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        c = a @ b
    assert t.decisions[0].direct_blocks == 50
    np.testing.assert_array_equal(c[:, 3], np.tile([0.0, 0.0, 0.0, 1.0], (50, 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_repetition_give_the_same_bits(kind: str) -> None:
    a, b = filled((500, 4, 4), "float64", kind, 0, 16), filled((500, 4, 4), "float64", kind, 0, 17)
    first = product(a, b, "alphatensor49")
    np.testing.assert_array_equal(product(a, b, "alphatensor49"), first)
    np.testing.assert_array_equal(
        np.stack([product(x[None], y[None], "alphatensor49")[0] for x, y in zip(a, b, strict=True)]), first
    )


# ---- threads, and stores past the caches ----------------------------------------------------------


@pytest.fixture
def threads() -> Any:
    """Sets the limit of threads; two of them even where one was asked for."""
    before = native.lib.lai_use_threads(2)
    yield native.lib.lai_use_threads
    native.lib.lai_use_threads(before)


@pytest.mark.parametrize("kernel", ["direct", "alphatensor49"])
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int64"])
def test_large_stacks_are_the_same_on_any_number_of_threads(threads: Any, dtype: str, kernel: str) -> None:
    a, b = filled((30011, 4, 4), dtype, "dense", 0, 19), filled((30011, 4, 4), dtype, "dense", 0, 20)
    together = product(a, b, kernel)
    threads(1)
    np.testing.assert_array_equal(product(a, b, kernel), together)
    np.testing.assert_array_equal(
        np.concatenate([product(x, y, kernel) for x, y in zip(a[:9, None], b[:9, None], strict=True)]), together[:9]
    )


@pytest.mark.parametrize(("kernel", "place"), [("direct", 0), ("direct", 30010), ("alphatensor49", 30010)])
def test_flags_and_counts_of_every_thread_arrive(threads: Any, kernel: str, place: int) -> None:
    a, b = np.ones((30011, 4, 4)), np.ones((30011, 4, 4))
    a[place] = b[place] = 1e200
    with (
        lapack_ai.set_backend(force={"numpy.matmul": kernel}),
        lapack_ai.trace() as t,
        np.errstate(over="raise"),
        pytest.raises(FloatingPointError),
    ):
        a @ b
    (decision,) = t.decisions
    assert decision.alphatensor_blocks + decision.direct_blocks == 30010
    assert decision.stock_blocks == 1


@pytest.mark.parametrize("kernel", ["direct", "alphatensor49"])
def test_stacks_larger_than_the_caches_go_into_used_memory(isa: str, threads: Any, kernel: str) -> None:
    few = filled((2, 33, 4, 4), "float32", "integral", 0, 21)
    a, b = (np.tile(each, (16384, 1, 1)) for each in few)
    room = np.full(16 * len(a) + 15, 77, "float32")
    for offset in (0, 1, 15):  # of the first line
        out = room[offset : offset + 16 * len(a)].reshape(a.shape)
        with lapack_ai.set_backend(force={"numpy.matmul": kernel}):
            np.matmul(a, b, out=out)
        np.testing.assert_array_equal(out.reshape(16384, 33, 4, 4), np.broadcast_to(stock(*few), (16384, 33, 4, 4)))
        out[...] = 77
        assert np.all(room == 77)


# ---- memory -----------------------------------------------------------------------------------


def test_without_memory_stock_runs_and_is_counted() -> None:
    a = filled((64, 64), "int64", "dense", 0, 18)
    expected = stock(a, a)
    native.lib.lai_fail_allocations(1)
    try:
        with lapack_ai.set_backend(force={"numpy.matmul": "integer"}), lapack_ai.trace() as t:
            lapack_ai.reset_stats()
            c = a @ a
    finally:
        native.lib.lai_fail_allocations(0)
    np.testing.assert_array_equal(c, expected)
    assert (t.decisions[0].kernel, t.decisions[0].reason_code) == ("stock", "memory")
    assert lapack_ai.stats()["numpy.matmul", "stock"].fallbacks == {"memory": 1}
