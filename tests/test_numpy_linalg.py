"""``numpy.linalg.svd``, and what NumPy builds on it, on an OpenCL device (PoCL here)."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from outcomes import outcome
from svd_cases import ALARM, DEVICE, difference, matrix, ratios, stock_values

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import interception

SVD = "numpy.linalg.svd"
A = matrix("gauss", 40, 30, "float64")
STACK = np.stack([matrix("gauss", 12, 9, "float64", seed=k) for k in range(4)]).reshape(2, 2, 12, 9)


@pytest.fixture(autouse=True)
def on_the_device() -> Iterator[None]:
    with lapack_ai.set_backend(lapack_ai, device=DEVICE, strict=True):
        yield


def kernels(call: Callable[[], Any]) -> list[tuple[str, str]]:
    """What decided the calls inside, by function and kernel, but for products."""
    with lapack_ai.trace() as t:
        call()
    return [(each.function, each.kernel) for each in t.decisions if each.function != "numpy.matmul"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(40, 40), (60, 25), (25, 60), (1, 3)])
def test_svd(shape: tuple[int, int], full: bool, dtype: str) -> None:
    a = matrix("gauss", *shape, dtype)
    stock = interception.STOCK[SVD](a, full_matrices=full)
    assert kernels(lambda: np.linalg.svd(a, full_matrices=full)) == [(SVD, "opencl_svd")]
    found = np.linalg.svd(a, full_matrices=full)
    assert type(found) is type(stock)
    for ours, theirs in zip(found, stock, strict=True):
        assert (ours.shape, ours.dtype, ours.flags.c_contiguous) == (theirs.shape, theirs.dtype, True)
        assert ours.flags.writeable
    assert max(ratios(a, *found).values()) <= ALARM
    values = np.linalg.svd(a, full, compute_uv=False)
    assert type(values) is np.ndarray
    assert difference(values, stock_values(a), max(shape)) <= ALARM


def test_stacks() -> None:
    found = np.linalg.svd(STACK, full_matrices=False)
    assert [part.shape for part in found] == [(2, 2, 12, 9), (2, 2, 9), (2, 2, 9, 9)]
    for index in np.ndindex(2, 2):
        assert max(ratios(STACK[index], *(part[index] for part in found)).values()) <= ALARM
    np.testing.assert_allclose(np.linalg.svdvals(STACK), found.S, rtol=1e-13)


BUILT_ON_SVD: dict[str, Callable[[], Any]] = {
    "svdvals": lambda: np.linalg.svdvals(A),
    "pinv": lambda: np.linalg.pinv(A),
    "matrix_rank": lambda: np.linalg.matrix_rank(A),
    "cond": lambda: np.linalg.cond(A),
    "cond -2": lambda: np.linalg.cond(A, -2),
    "norm": lambda: np.linalg.norm(A, 2),
    "norm nuc": lambda: np.linalg.norm(A, "nuc"),
    "norm of a stack": lambda: np.linalg.norm(STACK, -2, axis=(2, 3)),
}


@pytest.mark.parametrize("name", BUILT_ON_SVD)
def test_what_numpy_builds_on_svd(name: str) -> None:
    call = BUILT_ON_SVD[name]
    assert kernels(call) == [("numpy.linalg.cond" if "cond" in name else SVD, "opencl_svd")]
    with lapack_ai.skip_backend():
        wanted = call()
    np.testing.assert_allclose(call(), wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("p", [None, 2, -2, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_cond_is_numpys_kind(dtype: str, p: Any) -> None:
    a = matrix("gauss", 5, 5, dtype)
    for x in (a, np.zeros_like(a), np.stack([a, np.zeros_like(a)]), np.ones((2, 3), dtype)):
        with lapack_ai.trace() as t:
            found = np.linalg.cond(x, p)
        assert t.decisions[0].kernel == "opencl_svd"
        wanted = interception.STOCK["numpy.linalg.cond"](x, p)
        assert type(found) is type(wanted)
        assert found.dtype == wanted.dtype
        ends = [np.clip(each, 1e-6, 1e6) for each in (found, wanted)]  # of singular matrices: any large number
        np.testing.assert_allclose(*ends, rtol=1e-4)
    assert np.isinf(np.linalg.cond(np.zeros_like(a), p))


class Subclass(np.ndarray):
    """Of an array."""


DECLINED: dict[str, Callable[[], Any]] = {
    "list": lambda: np.linalg.svd([[1.0, 2.0], [3.0, 4.0]]),
    "subclass": lambda: np.linalg.svd(A.view(Subclass)),
    "masked": lambda: np.linalg.svd(np.ma.masked_array(A)),
    "integers": lambda: np.linalg.svd(np.arange(6).reshape(2, 3)),
    "cond of order 1": lambda: np.linalg.cond(A[:30], 1),
    "cond of NaN": lambda: np.linalg.cond(np.where(A > 2, np.nan, A)),
    "cond of nothing": lambda: np.linalg.cond(np.ones((0, 3))),
    "hermitian": lambda: np.linalg.svd(A @ A.T, hermitian=True),
    "vector": lambda: np.linalg.svd(np.ones(3)),
    "half": lambda: np.linalg.svd(A.astype("f2")),
    "empty": lambda: np.linalg.svd(np.ones((0, 3))),
    "NaN": lambda: np.linalg.svd(np.where(A > 2, np.nan, A)),
    "infinity": lambda: np.linalg.svdvals(np.array([[np.inf, 1.0], [1.0, 2.0]])),
    "unknown argument": lambda: np.linalg.svd(A, driver="gesvd"),  # type: ignore[call-overload]  # that is the point
    "no array": lambda: np.linalg.svd("text"),  # type: ignore[call-overload]  # likewise
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's own, of infinity
@pytest.mark.parametrize("name", DECLINED)
def test_declined_calls_are_numpys(name: str) -> None:
    with lapack_ai.trace() as t:
        found = outcome(DECLINED[name])
    assert all(each.kernel != "opencl_svd" for each in t.decisions)
    with lapack_ai.skip_backend():
        assert found == outcome(DECLINED[name])


def test_results_check_themselves_against_lapack() -> None:
    """verify="always" must not come back to the function that it checks."""
    with lapack_ai.set_backend(lapack_ai, device=DEVICE, strict=True, verify="always"):
        assert kernels(lambda: np.linalg.svd(A)) == [(SVD, "opencl_svd")]


def test_functions_keep_their_face() -> None:
    svd, implementation = np.linalg.svd, np.linalg.svd._implementation  # type: ignore[attr-defined]  # of NumPy's dispatcher
    with lapack_ai.skip_backend():
        assert implementation.__code__.co_filename == interception.FILE_NAME
    assert np.linalg.svd is svd
    assert pickle.loads(pickle.dumps(svd)) is svd
    assert list(inspect.signature(svd).parameters) == ["a", "full_matrices", "compute_uv", "hermitian"]


def test_other_array_types_answer_first() -> None:
    class Other:
        def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> str:
            return "other"

    assert np.linalg.svd(Other()) == "other"  # type: ignore[call-overload,comparison-overlap]  # that is the point


def test_explain() -> None:
    assert lapack_ai.explain(np.linalg.svd, A).kernel == "opencl_svd"
    assert lapack_ai.explain(SVD, A).function == SVD
    assert lapack_ai.explain("svd", A).function == "scipy.linalg.svd"
    assert lapack_ai.explain(np.linalg.svd, A, hermitian=True).reason_code == "input"
    assert lapack_ai.explain(np.linalg.svd, A, options={"device": "auto"}).kernel == "stock"  # below the threshold
    disabled = lapack_ai.explain(np.linalg.svd, A, options={"disable": [SVD]})
    assert (disabled.kernel, disabled.reason_code) == ("stock", "disabled")


def test_off_is_off() -> None:
    with lapack_ai.skip_backend(), lapack_ai.trace() as t:
        np.linalg.svd(A)
    assert [(each.kernel, each.active) for each in t.decisions] == [("stock", False)]
