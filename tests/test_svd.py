"""``scipy.linalg.svd`` on an OpenCL device (PoCL here): LAPACK's ratios on hard matrices, layouts, special values."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import scipy.linalg as sl
from hypothesis import given
from hypothesis import strategies as st
from outcomes import outcome
from svd_cases import (
    ALARM,
    DEVICE,
    DTYPES,
    MATRICES,
    MOST_DTYPES,
    difference,
    is_sorted,
    ldexp,
    matrix,
    orthogonality,
    ratios,
    real,
    stock_values,
)

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import observation, registry
from lapack_ai_backend.errors import Decline, KernelError
from lapack_ai_backend.interception import STOCK
from lapack_ai_backend.linalg import gesdd
from lapack_ai_backend.opencl import memory

SVD = "scipy.linalg.svd"


@pytest.fixture(autouse=True)
def on_the_device() -> Iterator[None]:
    """The backend on, the device named, failures raised: a test of the stock path is no test."""
    with lapack_ai.set_backend(lapack_ai, device=DEVICE, strict=True):
        yield


def computed(function: Any, *args: Any, kernel: str = "opencl_svd", **kwargs: Any) -> Any:
    """The result of a call, and the assertion that this kernel computed it."""
    with lapack_ai.trace() as t:
        result = function(*args, **kwargs)
    assert t.decisions[0].kernel == kernel, t.decisions[0]
    return result


def worst(a: np.ndarray[Any, Any], full_matrices: bool = False) -> dict[str, float]:
    """All ratios of one matrix: residual, orthogonality, values with and without vectors against LAPACK's."""
    u, s, vh = computed(sl.svd, a, full_matrices=full_matrices)
    alone = computed(sl.svdvals, a)
    m, n = a.shape
    assert u.shape == (m, m if full_matrices else min(m, n))
    assert vh.shape == (n if full_matrices else min(m, n), n)
    assert {u.dtype, vh.dtype} == {a.dtype}
    assert {s.dtype, alone.dtype} == {np.dtype(real(a.dtype))}
    assert is_sorted(s)
    assert is_sorted(alone)
    wanted = stock_values(a)
    return ratios(a, u, s, vh) | {
        "values": difference(s, wanted, max(m, n)),
        "values alone": difference(alone, wanted, max(m, n)),
    }


def assert_well(found: dict[str, float], alarm: float = ALARM) -> None:
    assert all(ratio <= alarm for ratio in found.values()), found


# ---- the matrix set --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", MOST_DTYPES)
@pytest.mark.parametrize("name", MATRICES)
def test_ratios_on_the_matrix_set(name: str, dtype: str) -> None:
    """Square, tall enough for QR first, wide, and one with full matrices."""
    for (m, n), full in (((67, 67), False), ((90, 40), True), ((33, 75), False)):
        assert_well(worst(matrix(name, m, n, dtype), full))


SIDES = (1, 2, 3, 31, 32, 33, 64, 65, 127, 130)


@pytest.mark.parametrize("dtype", MOST_DTYPES)
@pytest.mark.parametrize("m", SIDES)
def test_ratios_on_shapes(m: int, dtype: str) -> None:
    for n in SIDES:
        assert_well(worst(matrix("gauss", m, n, dtype, seed=n), full_matrices=(m + n) % 2 == 0))


@pytest.mark.parametrize("dtype", MOST_DTYPES)
@pytest.mark.parametrize("shape", [(5000, 3), (3, 5000), (2000, 17), (159, 100), (160, 100), (161, 100)])
def test_ratios_on_tall_wide_and_around_the_switch_to_qr(shape: tuple[int, int], dtype: str) -> None:
    assert_well(worst(matrix("gauss", *shape, dtype)))


def whether_explicit(monkeypatch: pytest.MonkeyPatch, a: np.ndarray[Any, Any], full_matrices: bool) -> bool:
    """Whether QR came by Cholesky factorizations; the decomposition is checked."""
    found: list[bool] = []
    qr = gesdd._qr

    def watched(work: gesdd.Workspace) -> None:
        qr(work)
        found.append(work.explicit)

    with monkeypatch.context() as patch:
        patch.setattr(gesdd, "_qr", watched)
        assert_well(worst(a, full_matrices))
    assert len(found) > 1  # with vectors and without
    assert full_matrices or len(set(found)) == 1
    return found[0]


@pytest.mark.parametrize("dtype", MOST_DTYPES)
@pytest.mark.parametrize("wide", [False, True])
def test_both_ways_of_the_first_qr(monkeypatch: pytest.MonkeyPatch, dtype: str, wide: bool) -> None:
    """Cholesky's for well-conditioned matrices; reflectors for the others, and for bases of the whole space."""
    for name, explicit in (
        ("gauss", True),
        ("mode 3, mild", True),
        ("mode 3", False),
        ("ones", False),
        ("zero", False),
    ):
        a = matrix(name, 200, 70, dtype)
        a = a.T if wide else a
        assert whether_explicit(monkeypatch, a, False) is explicit, name
        assert not whether_explicit(monkeypatch, a, True), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_stack_of_both_ways(dtype: str) -> None:
    """What one matrix leaves in the workspace is nothing to the next."""
    stack = np.stack([matrix(name, 90, 30, dtype) for name in ("gauss", "ones", "gauss", "rank 1", "uniform")])
    u, s, vh = computed(sl.svd, stack, full_matrices=False)
    for k, a in enumerate(stack):
        assert_well(ratios(a, u[k], s[k], vh[k]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tall_matrix_whose_entries_all_err_alike(dtype: str) -> None:
    """Errors of equal summands add up; the verification must not take that for a failure (strict raises here)."""
    assert_well(worst(matrix("ones", 60_000, 16, dtype)))


def test_larger_matrix() -> None:
    assert_well(worst(matrix("mode 3", 257, 255, "float64")))
    assert_well(worst(matrix("ones", 256, 257, "float32")))
    assert_well(worst(matrix("mode 3", 256, 257, "complex128")))
    assert_well(worst(matrix("gauss", 257, 255, "complex64"), full_matrices=True))


@given(
    m=st.integers(1, 70),
    n=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
    name=st.sampled_from(sorted(MATRICES)),
    exponent=st.integers(-60, 60),
    layout=st.sampled_from(["C", "F", "strided", "reversed"]),
    full=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=40)
def test_ratios_on_drawn_matrices(
    m: int, n: int, dtype: str, name: str, exponent: int, layout: str, full: bool, seed: int
) -> None:
    a = in_layout(ldexp(matrix(name, m, n, dtype, seed), exponent), layout)
    hypothesis.assume(np.isfinite(a).all())
    found = worst(a, full)
    hypothesis.target(max(found.values()))
    u, s, vh = STOCK["scipy.linalg.svd"](a, full_matrices=full)
    assert_well(found, max(ALARM, 2 * max(ratios(a, u, s, vh).values())))  # LAPACK drops 49 eps where n <= 25


# ---- plans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 8, 32, 100])
def test_tall_matrices_need_little_more_than_themselves(n: int, dtype: str) -> None:
    plan = gesdd.plan(10**6, n, dtype, vectors=False, full=False)
    assert sum(plan.device_bytes()) < 5 * np.dtype(dtype).itemsize * 10**6 * n


def test_sizes_beyond_32_bits_are_declined_and_others_count_in_64() -> None:
    shapes = gesdd.plan(40_000_000, 33, "float64", vectors=True, full=False).shapes().values()
    assert max(rows * columns for rows, columns in shapes) > 2**31
    assert max(max(shape) for shape in shapes) < 2**31
    for m, n, vectors in ((2**31 - 1, 1, False), (1, 2**31 - 1, False), (2**20 + 1, 2**20 + 1, True)):
        with pytest.raises(Decline, match="32-bit sizes"):
            gesdd.plan(m, n, "float32", vectors=vectors, full=False)


# ---- scale -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "exponents"),
    [
        ("float64", (-1000, -500, 500, 1000)),
        ("float32", (-100, -60, 60, 110)),
        ("complex128", (-1000, -500, 500, 1000)),
        ("complex64", (-100, -60, 60, 110)),
    ],
)
def test_scaling_by_powers_of_two_is_exact(dtype: str, exponents: tuple[int, ...]) -> None:
    a = matrix("mode 4, mild", 40, 30, dtype)
    u, s, vh = computed(sl.svd, a)
    for exponent in exponents:
        su, ss, svh = computed(sl.svd, ldexp(a, exponent))
        np.testing.assert_array_equal(ss, np.ldexp(s, exponent))
        np.testing.assert_array_equal(su, u)
        np.testing.assert_array_equal(svh, vh)
        np.testing.assert_array_equal(computed(sl.svdvals, ldexp(a, exponent)), np.ldexp(sl.svdvals(a), exponent))


@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_at_the_ends_of_the_range(dtype: str) -> None:
    info = np.finfo(dtype)
    gauss = matrix("uniform", 30, 20, dtype)
    for scale in (info.max / 100, info.tiny * 4, info.tiny / 1024, info.smallest_subnormal * 8):
        a = (gauss * scale).astype(dtype)
        assert_well(worst(a) if scale > info.tiny else {})
        u, s, vh = computed(sl.svd, a)
        assert_well(ratios(a, u, s, vh) if scale > info.tiny else {"U": orthogonality(u), "V": orthogonality(vh.T)})
        wanted = stock_values(a).astype(float)
        rounding = float(info.smallest_subnormal)  # of values that are subnormal themselves
        np.testing.assert_allclose(s, wanted, rtol=0, atol=30 * ALARM * float(info.eps) * wanted[0] + rounding)


HARD_ON_FLAGS = {
    "wide spread": np.diag(10.0 ** -np.arange(0, 320, 8)),
    "subnormal": np.full((5, 4), 1e-320),
    "values beyond the range": np.full((5, 5), 1.7e308),
}


@pytest.mark.parametrize("name", HARD_ON_FLAGS)
def test_floating_point_flags_are_nobodys_business(name: str) -> None:
    """Warnings are errors here; LAPACK sets no flags that NumPy sees, so neither does the kernel."""
    with np.errstate(all="raise"):
        s = computed(sl.svd, HARD_ON_FLAGS[name])[1]
        computed(sl.svdvals, HARD_ON_FLAGS[name])
    wanted = STOCK["scipy.linalg.svd"](HARD_ON_FLAGS[name])[1]
    np.testing.assert_allclose(s, wanted, rtol=1e-14, atol=1e-14 * min(s[0], 1e308))


# ---- layouts ---------------------------------------------------------------------------------------


def in_layout(a: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """The same values behind other strides, byte order or flags."""
    if layout == "F":
        return np.asfortranarray(a)
    if layout == "strided":
        room = np.zeros((a.shape[0] * 2, a.shape[1] * 3), a.dtype)
        room[::2, ::3] = a
        return room[::2, ::3]
    if layout == "reversed":
        return np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]
    if layout == "byte-swapped":
        return a.astype(a.dtype.newbyteorder())
    if layout == "unaligned":
        room = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        room[...] = a
        return room
    if layout == "broadcast":
        return np.broadcast_to(a[:1], a.shape)
    if layout == "read-only":
        a = a.copy()
        a.flags.writeable = False
    return a


LAYOUTS = ("C", "F", "strided", "reversed", "byte-swapped", "unaligned", "broadcast", "read-only")


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(30, 30), (50, 20), (20, 50), (30, 25)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, shape: tuple[int, int], dtype: str) -> None:
    a = in_layout(matrix("gauss", *shape, dtype), layout)
    before = a.tobytes()
    plain = np.ascontiguousarray(a.astype(dtype))
    for full in (True, False):
        for got, wanted in zip(computed(sl.svd, a, full_matrices=full), sl.svd(plain, full_matrices=full), strict=True):
            np.testing.assert_array_equal(got, wanted)  # the same kernels on the same values
    assert a.tobytes() == before


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (4, 9), (1, 6), (6, 1), (1, 1), (2, 5, 3)])
def test_result_is_of_stocks_kind(shape: tuple[int, ...], full: bool) -> None:
    """Types, shapes, dtypes, memory layout; real and complex, single and double precision."""
    for dtype in DTYPES:
        a = (np.random.default_rng(1).standard_normal(shape) * (1j if dtype[0] == "c" else 1)).astype(dtype)
        got, wanted = computed(sl.svd, a, full_matrices=full), STOCK["scipy.linalg.svd"](a, full_matrices=full)
        assert type(got) is type(wanted)
        for ours, stocks in zip(got, wanted, strict=True):
            assert (type(ours), ours.dtype, ours.shape) == (type(stocks), stocks.dtype, stocks.shape)
            assert ours.flags.writeable
            if len(shape) == 2:
                assert ours.strides == stocks.strides or 1 in ours.shape
        values, stock_s = (
            computed(sl.svd, a, compute_uv=False),
            STOCK["scipy.linalg.svd"](a, compute_uv=False),
        )
        assert (type(values), values.dtype, values.shape) == (type(stock_s), stock_s.dtype, stock_s.shape)


def test_overwrite_a_leaves_the_array_alone() -> None:
    """It allows to overwrite; nothing is gained by doing so, and a failing device could need the original."""
    for order in ("C", "F"):
        a = np.array(matrix("gauss", 20, 20, "float64"), order=order)  # type: ignore[call-overload]  # a str, not a literal
        before = a.copy()
        computed(sl.svd, a, overwrite_a=True)
        computed(sl.svdvals, a, overwrite_a=True)
        np.testing.assert_array_equal(a, before)


# ---- stacks, repetition, threads -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_stack_loops_the_same_kernel(dtype: str) -> None:
    """Of matrices that are not small; for those see test_svd_stacks.py."""
    parts = np.random.default_rng(3).standard_normal((2, 2, 3, 70, 8))
    stack = (parts[0] + 1j * parts[1] if dtype[0] == "c" else parts[0]).astype(dtype)
    u, s, vh = computed(sl.svd, stack, full_matrices=False)
    values = computed(sl.svdvals, stack)
    for index in np.ndindex(2, 3):
        for whole, single in zip((u, s, vh), sl.svd(stack[index], full_matrices=False), strict=True):
            np.testing.assert_array_equal(whole[index], single)
        np.testing.assert_array_equal(values[index], sl.svdvals(stack[index]))


def test_results_of_a_stack_count_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = np.ones((60, 100, 4))
    monkeypatch.setattr(memory, "host_available", lambda: 3_000_000)  # U of all matrices: 60 * 100 * 100 * 8
    computed(sl.svd, stack, full_matrices=False)
    with pytest.raises(KernelError, match="on the host"):
        sl.svd(stack)


def test_runs_repeat_bit_for_bit() -> None:
    a = matrix("gauss", 70, 70, "float64")
    first = computed(sl.svd, a)
    for _ in range(10):
        for once, again in zip(first, sl.svd(a), strict=True):
            np.testing.assert_array_equal(once, again)


def test_two_threads_at_once() -> None:
    matrices = [matrix("gauss", 40 + k, 40, "float64", seed=k) for k in range(4)]
    wanted = [sl.svd(a) for a in matrices]
    found: dict[int, Any] = {}

    def work(k: int) -> None:
        with lapack_ai.set_backend(device=DEVICE, strict=True):
            for _ in range(3):
                found[k] = sl.svd(matrices[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(matrices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, one in enumerate(wanted):
        for ours, theirs in zip(found[k], one, strict=True):
            np.testing.assert_array_equal(ours, theirs)


# ---- what stays SciPy's ------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "check_finite"), [(np.nan, True), (np.nan, False), (np.inf, True), (-np.inf, True)])
@pytest.mark.parametrize("place", [0, 350, -1])
def test_non_finite_input_is_scipys_error(value: float, check_finite: bool, place: int) -> None:
    for shape in ((30, 30), (90, 10), (2, 30, 15)):
        a = np.random.default_rng(0).standard_normal(shape)
        a.flat[place] = value
        for function in (sl.svd, sl.svdvals):
            stock = functools.partial(STOCK[f"scipy.linalg.{function.__name__}"], a, check_finite=check_finite)
            ours, stocks = outcome(functools.partial(function, a, check_finite=check_finite)), outcome(stock)
            assert ours.result == stocks.result
            assert (ours.error or ())[:2] == (stocks.error or ())[:2]  # without the frames of the call


@pytest.mark.parametrize("place", [0, 350, -1])
def test_unchecked_infinity_ends(place: int) -> None:
    """In NaN, as LAPACK's does where it ends; SciPy 1.18 never returns from svdvals of such a 90 x 10 matrix."""
    for shape in ((30, 30), (90, 10), (10, 90), (2, 30, 15)):
        a = np.random.default_rng(0).standard_normal(shape)
        a.flat[place] = np.inf
        u, s, vh = computed(sl.svd, a, check_finite=False)
        bad = (-1 if place == -1 else 0) if a.ndim > 2 else ...
        assert all(np.isnan(part[bad]).all() for part in (u, s, vh, computed(sl.svdvals, a, check_finite=False)))
        assert u.shape[-2:] == (a.shape[-2],) * 2
        if a.ndim > 2:
            assert np.isfinite(s).any()


DECLINED: dict[str, Any] = {
    "gesvd": lambda a: sl.svd(a, lapack_driver="gesvd"),
    "complex gesvd": lambda a: sl.svd(a + 1j, lapack_driver="gesvd"),
    "long double": lambda a: sl.svd(a.astype(np.longdouble)),
    "integers": lambda a: sl.svd(a.astype(int)),
    "list": lambda a: sl.svd(a.tolist()),
    "empty": lambda a: sl.svd(a[:0]),
    "empty stack": lambda a: sl.svd(a.reshape(2, 3, 4)[:0]),
    "subclass": lambda a: sl.svd(a.view(np.matrix)),
    "Frobenius norm": lambda a: sl.norm(a),
    "norm of rows": lambda a: sl.norm(a, 2, axis=1),
}


@pytest.mark.parametrize("name", DECLINED)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_declined_calls_are_stocks(name: str) -> None:
    a = np.random.default_rng(0).standard_normal((6, 4))
    with lapack_ai.trace() as t:
        ours = outcome(lambda: DECLINED[name](a))
    assert t.decisions[0].kernel == "stock"  # SciPy's own code may call svd on something else
    with lapack_ai.skip_backend():
        stocks = outcome(lambda: DECLINED[name](a))
    assert ours.result == stocks.result
    assert (ours.error or ())[:2] == (stocks.error or ())[:2]


TWO = np.array([1, 2])
WRONG: dict[str, tuple[Any, dict[str, Any]]] = {
    "unknown driver": (sl.svd, {"lapack_driver": "foo"}),
    "driver of another type": (sl.svd, {"lapack_driver": 1.0}),
    "no driver": (sl.svd, {"lapack_driver": None}),
    "two truth values": (sl.svd, {"full_matrices": TWO}),
    "two truth values for compute_uv": (sl.svd, {"compute_uv": TWO}),
    "two truth values for check_finite": (sl.svdvals, {"check_finite": TWO}),
    "two orders": (sl.norm, {"ord": TWO}),
    "two orders and an axis": (sl.norm, {"ord": TWO, "axis": TWO}),
    "two truth values for keepdims": (sl.norm, {"ord": 2, "keepdims": TWO}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_stocks_errors(name: str) -> None:
    """And no failures of the kernel."""
    function, arguments = WRONG[name]
    a = np.eye(3)
    ours = outcome(functools.partial(function, a, **arguments))
    stocks = outcome(functools.partial(STOCK[f"scipy.linalg.{function.__name__}"], a, **arguments))
    assert stocks.error is not None
    assert ours.error[:2] == stocks.error[:2]
    assert registry.FAILURES == {}


# ---- what SciPy builds on svd -------------------------------------------------------------------------

A = np.random.default_rng(5).standard_normal((40, 12)) @ np.random.default_rng(6).standard_normal((12, 25))
B = np.random.default_rng(7).standard_normal((40, 9))

BUILT_ON_SVD: dict[str, Any] = {
    "pinv": lambda: sl.pinv(A),
    "orth": lambda: (lambda q: q @ q.T)(sl.orth(A)),
    "null_space": lambda: (lambda q: q @ q.T)(sl.null_space(A)),
    "polar": lambda: sl.polar(B)[1],
    "subspace_angles": lambda: sl.subspace_angles(A[:, :6], B),
    "norm(2)": lambda: sl.norm(A, 2),
    "norm(-2)": lambda: sl.norm(B, -2),
    "norm(nuc)": lambda: sl.norm(A, "nuc", keepdims=True),
    "orthogonal_procrustes": lambda: sl.orthogonal_procrustes(B, B[::-1])[0],
}


@pytest.mark.parametrize("name", BUILT_ON_SVD)
def test_functions_that_scipy_builds_on_svd_reach_it(name: str) -> None:
    """Through SciPy's internal calls; ``lstsq`` calls LAPACK's gelsd itself and has no svd to route."""
    with lapack_ai.trace() as t:
        got = BUILT_ON_SVD[name]()
    assert "opencl_svd" in {each.kernel for each in t.decisions}, t.decisions
    with lapack_ai.skip_backend():
        wanted = BUILT_ON_SVD[name]()
    assert type(got) is type(wanted)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


# ---- asking ---------------------------------------------------------------------------------------------


def test_explain_and_stats_name_the_kernel() -> None:
    a = matrix("gauss", 20, 20, "float64")
    for function in (sl.svd, sl.svdvals):
        told = lapack_ai.explain(function, a)
        assert (told.kernel, told.reason_code, told.active) == ("opencl_svd", "routed", True)
        function(a)
    counted = lapack_ai.stats()
    assert counted[SVD, "opencl_svd"].calls == 1
    assert counted["scipy.linalg.svdvals", "opencl_svd"].calls == 1
    assert lapack_ai.explain(sl.norm, a).reason_code == "input"
    assert lapack_ai.explain(sl.norm, a, 2).kernel == "opencl_svd"


def test_a_cpu_is_never_chosen_for_speed() -> None:
    a = np.ones((4000, 4000), "float32")
    for device in ("auto", "gpu"):
        told = lapack_ai.explain(sl.svd, a, options={"device": device})
        if told.kernel != "opencl_svd":  # else a GPU is here
            assert told.reason_code == "device"
            assert "GPU" in told.reason
        small = lapack_ai.explain(sl.svd, a[:50, :50], options={"device": device})
        assert (small.kernel, small.reason_code) == ("stock", "batch")  # a stack of so small ones would be routed


def test_explain_knows_forms_of_the_call_that_no_kernel_takes() -> None:
    a = np.eye(4)
    for told in (
        lapack_ai.explain(sl.svd, a, lapack_driver="gesvd"),
        lapack_ai.explain(sl.svd, a, True, True, False, True, "gesvd"),
        lapack_ai.explain(sl.norm, a, 2, axis=(0, 1)),
        lapack_ai.explain(sl.norm, a),
    ):
        assert (told.kernel, told.reason_code) == ("stock", "input")


def test_device_that_is_asked_for_and_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Stock runs and a warning is logged once; strict raises. Without a device named nothing is missing."""
    monkeypatch.setenv("LAPACK_GPU_ENABLED", "0")
    a = np.ones((1200, 1200), "float32")
    a[:] = np.eye(1200)
    for device, levels in (("auto", {"INFO"}), (DEVICE, {"WARNING"}), ("7:0", {"WARNING"})):
        observation.log_once.cache_clear()
        caplog.clear()
        with caplog.at_level("INFO", "lapack_ai_backend"), lapack_ai.set_backend(device=device, strict=False):
            computed(sl.svdvals, a[:1100, :1100], kernel="stock")
        assert {record.levelname for record in caplog.records} == levels
        assert "LAPACK_GPU_ENABLED=0" in caplog.text
        with lapack_ai.set_backend(device=device, strict=True):
            if device == "auto":
                sl.norm(a, 2)
            else:
                with pytest.raises(KernelError, match="LAPACK_GPU_ENABLED=0"):
                    sl.norm(a, 2)


def test_trace_shows_the_svd_inside_pinv() -> None:
    with lapack_ai.trace() as t:
        sl.pinv(A)
    assert [(each.function, each.kernel) for each in t.decisions[:2]] == [
        ("scipy.linalg.pinv", "stock"),
        (SVD, "opencl_svd"),
    ]
