"""Stacks of small singular value decompositions, by one-sided Jacobi rotations on an OpenCL device (PoCL here)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import scipy.linalg as sl
from hypothesis import given
from hypothesis import strategies as st
from svd_cases import ALARM, DEVICE, MATRICES, difference, is_sorted, ldexp, matrix, orthogonality, ratios, stock_values

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import registry
from lapack_ai_backend.errors import Decline, DeviceError, KernelError
from lapack_ai_backend.interception import STOCK
from lapack_ai_backend.linalg import gesdd, stacks
from lapack_ai_backend.linalg.verification import StackVerification
from lapack_ai_backend.opencl import devices, lapack, memory
from lapack_ai_backend.opencl.session import open_session

Array = np.ndarray[Any, Any]

DTYPES = ("float32", "float64")
SVD = "scipy.linalg.svd"
PLAN = gesdd.plan


@pytest.fixture(autouse=True)
def on_the_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backend on, failures raised, and no way but that of stacks."""

    def one(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a stack was decomposed matrix by matrix")

    monkeypatch.setattr(gesdd, "plan", one)
    with lapack_ai.set_backend(lapack_ai, device=DEVICE, strict=True):
        yield


def computed(function: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of a call, and the assertion that the device computed it."""
    with lapack_ai.trace() as t:
        result = function(*args, **kwargs)
    assert [each.kernel for each in t.decisions] == ["opencl_svd"]
    return result


def gauss(*shape: int, dtype: str = "float64", seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_well(stack: Array, full: bool = False, alarm: float = ALARM) -> None:
    """All ratios of all matrices of a stack (count, m, n), and the values alone."""
    u, s, vh = computed(sl.svd, stack, full_matrices=full)
    alone = computed(sl.svdvals, stack)
    m, n = stack.shape[1:]
    assert u.shape[1:] == (m, m if full else min(m, n))
    assert vh.shape[1:] == (n if full else min(m, n), n)
    assert {u.dtype, s.dtype, vh.dtype} == {stack.dtype}
    for k, a in enumerate(stack):
        assert is_sorted(s[k])
        assert is_sorted(alone[k])
        wanted = stock_values(a)
        found = ratios(a, u[k], s[k], vh[k]) | {
            "values": difference(s[k], wanted, max(m, n)),
            "values alone": difference(alone[k], wanted, max(m, n)),
        }
        assert all(ratio <= alarm for ratio in found.values()), (k, found)


# ---- accuracy ----------------------------------------------------------------------------------------

SHAPES = [(32, 32), (64, 64), (33, 20), (64, 32), (7, 40), (5, 5), (64, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_ratios_on_the_matrix_set(shape: tuple[int, int], full: bool, dtype: str) -> None:
    """All of it in one stack; in local memory, beyond it, tall and wide."""
    assert_well(np.stack([matrix(name, *shape, dtype) for name in MATRICES]), full)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 3, 8, 17, 31, 32, 33, 48, 63, 64])
def test_ratios_on_shapes(m: int, dtype: str) -> None:
    """Several matrices in a work-group, and a last one that is not full."""
    for n in (1, 2, 3, 4, 5, 15, 16, 17, 32, 33, 64):
        assert_well(gauss(7, m, n, dtype=dtype, seed=n), full=(m + n) % 2 == 0)


@given(
    m=st.integers(1, 64),
    n=st.integers(1, 64),
    dtype=st.sampled_from(DTYPES),
    names=st.lists(st.sampled_from(sorted(MATRICES)), min_size=1, max_size=5),
    exponent=st.integers(-60, 60),
    full=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=40)
def test_ratios_on_drawn_stacks(
    m: int, n: int, dtype: str, names: list[str], exponent: int, full: bool, seed: int
) -> None:
    stack = ldexp(np.stack([matrix(name, m, n, dtype, seed + k) for k, name in enumerate(names)]), exponent)
    hypothesis.assume(np.isfinite(stack).all())
    assert_well(stack, full)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_matrix_has_its_own_scale(dtype: str) -> None:
    """From subnormal to nearly infinite entries in one stack, exact up to what is subnormal."""
    info = np.finfo(dtype)
    a = matrix("mode 4, mild", 20, 12, dtype)
    exponents = np.array([0, info.maxexp - 8, info.minexp + 30, info.minexp // 2, info.minexp - 5])
    u, s, vh = computed(sl.svd, np.stack([ldexp(a, each) for each in exponents]), full_matrices=False)
    for k, exponent in enumerate(exponents[:-1]):
        np.testing.assert_array_equal(s[k], np.ldexp(s[0], exponent))
        np.testing.assert_array_equal(u[k], u[0])
        np.testing.assert_array_equal(vh[k], vh[0])
    assert max(orthogonality(u[-1]), orthogonality(vh[-1].T)) <= ALARM
    few = 10 * float(info.smallest_subnormal)
    np.testing.assert_allclose(s[-1], np.ldexp(s[0], exponents[-1]), rtol=0, atol=few)


@pytest.mark.parametrize(("dtype", "least"), [("float64", 1e-290), ("float32", 1e-35)])
def test_values_beyond_the_squares_range(dtype: str, least: float) -> None:
    """Of columns whose squares vanish the lengths are right all the same, and U and V are orthogonal."""
    s = np.geomspace(1, least, 24)
    a = np.diag(s)[::-1][None].astype(dtype)
    u, found, vh = computed(sl.svd, a)
    np.testing.assert_allclose(found[0], s, rtol=4 * float(np.finfo(dtype).eps))
    assert max(ratios(a[0], u[0], found[0], vh[0]).values()) <= ALARM


# ---- batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 5), (30, 32), (40, 40)])
def test_results_do_not_depend_on_batches(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on neighbours that take more sweeps, to the bit."""
    stack = np.stack([matrix(name, *shape, "float64") for name in MATRICES])
    whole = computed(sl.svd, stack)
    launches: list[int] = []
    decompose = stacks.Workspace.decompose

    def watched(work: stacks.Workspace, count: int) -> None:
        launches.append(count)
        decompose(work, count)

    monkeypatch.setattr(stacks.Workspace, "decompose", watched)
    for limit in (1, 7, 10**6):
        monkeypatch.setenv("LAPACK_BATCH_SIZE_LIMIT", str(limit))
        launches.clear()
        for once, again in zip(whole, computed(sl.svd, stack), strict=True):
            np.testing.assert_array_equal(once, again)
        assert sum(launches) == len(stack)
        assert max(launches) == min(limit, len(stack))


def test_layouts_and_stacks_of_stacks() -> None:
    stack = gauss(3, 2, 12, 9)
    wanted = computed(sl.svd, stack)
    assert [each.shape for each in wanted] == [(3, 2, 12, 12), (3, 2, 9), (3, 2, 9, 9)]
    other = {
        "Fortran": np.asfortranarray(stack),
        "byte-swapped": stack.astype(">f8"),
        "strided": np.repeat(stack, 2, axis=3)[..., ::2],
        "reversed": stack[::-1].copy()[::-1],
        "transposed": np.ascontiguousarray(stack.swapaxes(2, 3)).swapaxes(2, 3),
    }
    for a in other.values():
        before = a.copy()
        for got, once in zip(computed(sl.svd, a), wanted, strict=True):
            np.testing.assert_array_equal(got, once)
        np.testing.assert_array_equal(a, before)
    for got, once in zip(computed(sl.svd, np.broadcast_to(stack[:1], (4, 2, 12, 9))), wanted, strict=True):
        np.testing.assert_array_equal(got[3], once[0])


@pytest.mark.parametrize("shape", [(4, 12, 9), (2, 2, 9, 12)])
def test_numpy_takes_the_same_way(shape: tuple[int, ...]) -> None:
    stack = gauss(*shape)
    for full in (True, False):
        found = computed(np.linalg.svd, stack, full_matrices=full)
        for ours, scipys in zip(found, computed(sl.svd, stack, full_matrices=full), strict=True):
            np.testing.assert_array_equal(ours, scipys)
    np.testing.assert_array_equal(computed(np.linalg.cond, stack), found.S[..., 0] / found.S[..., -1])


# ---- special values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 200, -1])
@pytest.mark.parametrize("shape", [(4, 9, 6), (3, 40, 40)])
def test_what_is_not_finite(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], place: int, value: float) -> None:
    """Is stock's to report; where Inf is not looked for, that matrix alone is NaN."""
    monkeypatch.setattr(gesdd, "plan", PLAN)  # SciPy before 1.18 calls itself for each matrix before it finds that one
    stack = gauss(*shape)
    well = computed(sl.svd, stack)
    stack.flat[place] = value
    for function in (sl.svd, sl.svdvals):
        with lapack_ai.trace() as t, pytest.raises(ValueError, match="infs or NaNs"):
            function(stack)
        assert (t.decisions[0].kernel, t.decisions[0].reason_code) == ("stock", "kernel_declined")
    if np.isnan(value):
        return
    bad = np.arange(len(stack)) == (len(stack) - 1 if place == -1 else place // stack[0].size)
    found = computed(sl.svd, stack, check_finite=False)
    for got, once in zip(found, well, strict=True):
        assert np.isnan(got[bad]).all()
        np.testing.assert_array_equal(got[~bad], once[~bad])
    np.testing.assert_array_equal(computed(sl.svdvals, stack, check_finite=False), found[1])


def test_zero_matrices_have_bases() -> None:
    u, s, vh = computed(sl.svd, np.zeros((3, 9, 5)))
    assert not s.any()
    for k in range(3):
        assert max(orthogonality(u[k]), orthogonality(vh[k].T)) <= ALARM


# ---- what is declined, and what fails ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "taken"),
    [
        ((2, 64, 64), "float64", True),
        ((2, 64, 65), "float64", False),
        ((2, 9, 9), "complex64", False),
        ((9, 9), "float64", False),
    ],
)
def test_which_stacks_take_this_way(shape: tuple[int, ...], dtype: str, taken: bool) -> None:
    assert stacks.serves(np.empty(shape, dtype)) is taken
    assert stacks.serves(np.empty(shape, np.dtype(dtype).newbyteorder())) is taken


def test_memory_is_checked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = np.ones((600, 10, 4))
    monkeypatch.setattr(memory, "host_available", lambda: 1_000_000)
    with pytest.raises(KernelError, match="on the host"):
        sl.svd(stack)
    monkeypatch.setenv("LAPACK_BATCH_SIZE_LIMIT", "10")  # less on the device, which shares memory here
    computed(sl.svd, stack, full_matrices=False)


def test_rotations_that_do_not_end_are_stocks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fetch = stacks.Workspace.fetch

    def unconverged(*args: Any) -> Array:
        info = fetch(*args)
        info[1, 1] = lapack.NOT_CONVERGED
        return info

    monkeypatch.setattr(stacks.Workspace, "fetch", unconverged)
    stack = gauss(3, 8, 6)
    with lapack_ai.set_backend(device=DEVICE, strict=False), lapack_ai.trace() as t:
        found = sl.svd(stack)
    assert (t.decisions[0].kernel, t.decisions[0].reason_code) == ("stock", "kernel_failed")
    assert "did not converge" in caplog.text
    for ours, stocks in zip(found, STOCK[SVD](stack), strict=True):
        np.testing.assert_array_equal(ours, stocks)
    with pytest.raises(KernelError, match="did not converge"):
        sl.svd(stack)
    registry.FAILURES.clear()


def test_sizes_that_the_kernels_have_not() -> None:
    device = devices.choose(DEVICE, "float64")
    assert device is not None
    session = open_session(device)
    with session.lock:
        room = lapack.allocate(session, "float64", 66 * 66, 1)
        for m, n in ((65, 3), (3, 4), (3, 0)):
            with pytest.raises(DeviceError, match="INVALID_VALUE"):
                lapack.gesvj(session, (m, n, n), False, room, room, room, room, room, room)


# ---- verification ------------------------------------------------------------------------------------------------


def decomposed(dtype: str) -> tuple[Array, Array, Array, Array]:
    """A stack scaled to entries below 1, and NumPy's decomposition."""
    stack = np.stack([matrix("mode 4, mild", 12, 7, dtype, seed=k) for k in range(6)])
    with lapack_ai.skip_backend():
        return stack, *np.linalg.svd(stack, full_matrices=False)


def check(stack: Array, u: Array, s: Array, vh: Array, exponents: Array | None = None) -> None:
    StackVerification(stack, np.zeros(len(stack), int) if exponents is None else exponents).probe(u, s, vh)


@pytest.mark.parametrize("dtype", DTYPES)
def test_verification_takes_right_results(dtype: str) -> None:
    stack, u, s, vh = decomposed(dtype)
    check(stack, u, s, vh)
    exponents = np.array([0, 3, -3, 90, -90, 1])  # beyond what single precision's squares bear
    check(np.ldexp(stack, -exponents[:, None, None]), u, s, vh, exponents)
    StackVerification(stack, np.zeros(6, int)).sample(s)
    StackVerification(stack, np.zeros(6, int)).reference(s, u, vh)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("which", "text"), [(0, "residual"), (1, "sum of squares|finite"), (2, "residual")])
@pytest.mark.parametrize("value", [1.3, np.nan])
def test_verification_finds_one_wrong_number(which: int, text: str, value: float, dtype: str) -> None:
    stack, *parts = decomposed(dtype)
    parts[which][4].flat[0] = value
    with pytest.raises(Decline, match=text):
        check(stack, *parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["U", "V"])
def test_verification_looks_at_vectors_of_the_null_space(name: str, dtype: str) -> None:
    stack = np.stack([matrix("rank 1", 8, 8, dtype, seed=k) for k in range(4)])
    with lapack_ai.skip_backend():
        u, s, vh = (part.copy() for part in np.linalg.svd(stack / 64))
    check(stack / 64, u, s, vh)
    last = u[2, :, -1] if name == "U" else vh[2, -1]
    last *= 1.01
    with pytest.raises(Decline, match=f"orthogonality of {name}"):
        check(stack / 64, u, s, vh)


@pytest.mark.parametrize("dtype", DTYPES)
def test_verification_finds_results_that_changed_places(dtype: str) -> None:
    stack, u, s, vh = decomposed(dtype)
    with pytest.raises(Decline, match=r"sum of squares|residual"):
        check(stack, u[::-1], s[::-1], vh[::-1])
    with pytest.raises(Decline, match="residual"):
        check(stack, np.ascontiguousarray(u[:, :, ::-1]), s, vh)
    with pytest.raises(Decline, match="not sorted"):
        check(stack, u, np.ascontiguousarray(s[:, ::-1]), vh)


@pytest.mark.parametrize("verify", ["probe", "always", "off"])
@pytest.mark.parametrize("function", [sl.svd, sl.svdvals])
def test_wrong_results_of_the_device_are_replaced(
    function: Any, verify: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fetch = stacks.Workspace.fetch

    def wrong(work: stacks.Workspace, u: Array, s: Array, vh: Array) -> Array:
        info = fetch(work, u, s, vh)
        s *= 1.001
        return info

    stack = gauss(5, 8, 6)
    monkeypatch.setattr(stacks.Workspace, "fetch", wrong)
    with lapack_ai.set_backend(device=DEVICE, strict=False, verify=verify), lapack_ai.trace() as t:
        found = function(stack)
    assert t.decisions[0].reason_code == ("routed" if verify == "off" else "wrong_result")
    assert ("are allowed" in caplog.text) == (verify != "off")
    with lapack_ai.skip_backend():
        wanted = np.linalg.svd(stack, compute_uv=False)
    np.testing.assert_allclose(found[1] if function is sl.svd else found, wanted * (1.001 if verify == "off" else 1))
    registry.FAILURES.clear()


@pytest.mark.parametrize("verify", ["probe", "always"])
def test_right_results_pass(verify: str) -> None:
    """Of every family, at any scale, with matrices that are not finite between them."""
    for dtype, exponent in (("float32", 0), ("float32", -100), ("float64", 0), ("float64", 900)):
        stack = ldexp(np.stack([matrix(name, 20, 13, dtype) for name in MATRICES]), exponent)
        stack[3, 2, 1] = np.inf
        with lapack_ai.set_backend(device=DEVICE, verify=verify, strict=True):
            computed(sl.svd, stack, check_finite=False)
            computed(sl.svdvals, stack, check_finite=False)


def test_checks_are_no_calls_of_the_user() -> None:
    with lapack_ai.trace() as t:
        sl.svd(gauss(4, 6, 6))
        np.linalg.svd(gauss(4, 6, 6))
    assert [each.function for each in t.decisions] == [SVD, "numpy.linalg.svd"]


def test_explain_names_the_kernel() -> None:
    told = lapack_ai.explain(sl.svd, gauss(4, 6, 6))
    assert (told.kernel, told.reason_code) == ("opencl_svd", "routed")
