"""The kernel of integer products: exact modulo 2^w for every dtype, shape, layout, instruction set, on any thread."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from product_cases import LAYOUTS, filled, laid_out

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import native
from lapack_ai_backend.native import lib

Array = np.ndarray[Any, Any]
DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
SIGNED = DTYPES[:4]
# What the kernel has code for: the levels, and at the highest one with and without IFMA and VNNI.
VARIANTS = ("baseline", "avx2", "avx512", "avx512 with IFMA and VNNI")


def use(variant: str) -> bool:
    """Compute by this variant; False where the CPU lacks it."""
    return native.use_isa(variant.split()[0]) and lib.lai_use_vnni("VNNI" in variant) == 0


@pytest.fixture(scope="module")
def variants() -> Iterator[list[str]]:
    """Those that this CPU has; what was in use before comes back at the end."""
    isa, vnni = native.isa(), lib.lai_has_vnni()
    with lapack_ai.set_backend():
        found = [variant for variant in VARIANTS if use(variant)]
    yield found
    native.use_isa(isa)
    lib.lai_use_vnni(vnni)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, variants: list[str]) -> str:
    name: str = request.param
    if not use(name):
        pytest.skip(f"this CPU has no {name}")
    return name


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = lib.lai_use_threads(request.param)
    yield request.param
    lib.lai_use_threads(before)


def product(a: Array, b: Array, **arguments: Any) -> Array:
    """``a @ b`` by the kernel; fails unless that is what ran."""
    with lapack_ai.set_backend(force={"numpy.matmul": "integer"}), lapack_ai.trace() as t:
        c: Array = np.matmul(a, b, **arguments)
    assert [decision.kernel for decision in t.decisions] == ["integer"], t.decisions
    return c


def reference(a: Array, b: Array) -> Array:
    """By stock; where that takes long, in parts of 11 bits that BLAS multiplies exactly."""
    with lapack_ai.skip_backend():
        if a.shape[-2] * a.shape[-1] * b.shape[-1] < 1 << 18:
            return np.matmul(a, b)
        result = np.zeros((*a.shape[:-1], b.shape[-1]), np.uint64)
        wide_a, wide_b = (x.astype(np.int64).astype(np.uint64) for x in (a, b))
        parts = [(i, j) for i, j in itertools.product(range(0, 8 * a.itemsize, 11), repeat=2) if i + j < 8 * a.itemsize]
        for i, j in parts:
            left, right = ((x >> np.uint64(shift)) & np.uint64(2047) for x, shift in ((wide_a, i), (wide_b, j)))
            exact = np.matmul(left.astype(np.float64), right.astype(np.float64))
            result += exact.astype(np.uint64) << np.uint64(i + j)
        return result.astype(a.dtype)


def operands(shape: tuple[int, int, int], dtype: str, layouts: tuple[str, str], seed: int) -> tuple[Array, Array]:
    m, k, n = shape
    a = laid_out(filled((m, k), dtype, "dense", 0, seed), layouts[0])
    return a, laid_out(filled((k, n), dtype, "dense", 0, seed + 1), layouts[1])


@given(
    st.tuples(st.integers(1, 70), st.integers(1, 300), st.integers(1, 70)),
    st.sampled_from(DTYPES),
    st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    st.integers(0, 2**32 - 1),
)
def test_every_shape_and_layout(
    variants: list[str], shape: tuple[int, int, int], dtype: str, layouts: tuple[str, str], seed: int
) -> None:
    a, b = operands(shape, dtype, layouts, seed)
    expected = reference(a, b)
    for variant in variants:
        assert use(variant)
        np.testing.assert_array_equal(product(a, b), expected, err_msg=variant)


# Just below, at and just above what the kernels cut: register tiles, slices of k, blocks, tiles of threads.
EDGES = ((257, 129, 130), (131, 769, 129), (256, 1024, 64), (129, 2050, 33), (700, 65, 300), (65, 48, 2100))


@pytest.mark.parametrize("shape", EDGES, ids=str)
@pytest.mark.parametrize("dtype", SIGNED)
def test_the_edges_of_blocks(variant: str, threads: int, dtype: str, shape: tuple[int, int, int]) -> None:
    a, b = operands(shape, dtype, ("contiguous", "contiguous"), 3)
    np.testing.assert_array_equal(product(a, b), reference(a, b))


@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes_wrap(variant: str, dtype: str) -> None:
    limits = np.iinfo(dtype)
    half = 1 << (limits.bits // 2 - 1)
    values = {limits.min, limits.max, limits.max - half, half, half - 1, 2 * half, 2 * half - 1, 1}
    for left, right in itertools.product(values, repeat=2):
        a, b = np.full((13, 301), left, dtype), np.full((301, 35), right, dtype)
        wrapped = left * right * 301 % (1 << limits.bits)
        expected = wrapped - (1 << limits.bits) if wrapped > limits.max else wrapped
        assert np.unique(product(a, b)).tolist() == [expected], (left, right)


@pytest.mark.parametrize("dtype", SIGNED)
def test_stacks(variant: str, threads: int, dtype: str) -> None:
    a, b = filled((5, 33, 70), dtype, "dense", 0, 4), filled((5, 70, 41), dtype, "dense", 0, 5)
    np.testing.assert_array_equal(product(a, b), reference(a, b))
    np.testing.assert_array_equal(product(a, b[:1]), reference(a, b[:1]))
    large = filled((3, 200, 160), dtype, "dense", 0, 6), filled((3, 160, 210), dtype, "dense", 0, 7)
    np.testing.assert_array_equal(product(*large), reference(*large))


@pytest.mark.parametrize("dtype", SIGNED)
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "broadcast"])
def test_any_out(variant: str, dtype: str, layout: str) -> None:
    a, b = operands((45, 90, 37), dtype, ("contiguous", "transposed"), 8)
    out = laid_out(np.ones((45, 37), dtype), layout)
    assert product(a, b, out=out) is out
    np.testing.assert_array_equal(out, reference(a, b))


@settings(max_examples=20)
@given(st.sampled_from(SIGNED), st.integers(0, 2**32 - 1))
def test_what_lies_around_out_is_not_touched(variants: list[str], dtype: str, seed: int) -> None:
    a, b = operands((31, 40, 37), dtype, ("contiguous", "contiguous"), seed)
    expected = reference(a, b)
    for variant in variants:
        assert use(variant)
        room = np.full((33, 39), 7, dtype)
        product(a, b, out=room[1:-1, 1:-1])
        np.testing.assert_array_equal(room[1:-1, 1:-1], expected)
        room[1:-1, 1:-1] = 7
        assert np.all(room == 7), variant


@pytest.mark.parametrize("dtype", SIGNED)
def test_without_memory_stock_runs(variant: str, threads: int, dtype: str) -> None:
    a, b = operands((200, 130, 190), dtype, ("contiguous", "contiguous"), 9)
    lib.lai_fail_allocations(1)
    try:
        with lapack_ai.set_backend(force={"numpy.matmul": "integer"}), lapack_ai.trace() as t:
            c = a @ b
    finally:
        lib.lai_fail_allocations(0)
    np.testing.assert_array_equal(c, reference(a, b))
    assert (t.decisions[0].kernel, t.decisions[0].reason_code) == ("stock", "memory")


def test_a_variant_that_the_cpu_lacks_is_refused() -> None:
    before = lib.lai_has_vnni()
    available = lib.lai_use_vnni(1) == 0
    assert lib.lai_has_vnni() == (available or before)
    assert lib.lai_use_vnni(0) == 0
    assert lib.lai_has_vnni() == 0
    lib.lai_use_vnni(before)
