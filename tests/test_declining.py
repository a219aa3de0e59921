"""Declining is exact: what no kernel claims gives SciPy's and NumPy's own results, errors and warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.sparse
from outcomes import outcome
from temporary_kernels import temporary_kernel

import lapack_ai_backend as lapack_ai

A = np.diag([4.0, 3.0, 2.0, 1.0]) + np.arange(16.0).reshape(4, 4) / 50
SINGULAR = np.ones((3, 3))
ILL = sl.hilbert(14)
LARGE = sl.hilbert(20)
NAN = np.array([[1.0, np.nan], [2.0, 3.0]])
MASKED = np.ma.masked_array(A, mask=A > 3)
OBJECTS = np.array([[1, 2.5], [3, "x"]], dtype=object)
EMPTY = np.empty((0, 0))
SYMMETRIC = A + A.T
FORTRAN = np.asfortranarray(A)
STACK = np.arange(1.0, 28.0).reshape(3, 3, 3) + 5 * np.eye(3)


class Subclass(np.ndarray[Any, Any]):
    """A subclass that SciPy turns into a plain array."""


class NotAnArray:
    """Something with ``__array__``."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.array(A, dtype=dtype)


def read_only(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    a = a.copy()
    a.flags.writeable = False
    return a


FUNCTIONS: dict[str, Callable[[], Any]] = {
    # plain
    "svd": lambda: sl.svd(A),
    "svd of a stack": lambda: sl.svd(STACK),
    "svd, Fortran order": lambda: sl.svd(FORTRAN),
    "svd, strided": lambda: sl.svd(A[::-2, ::2]),
    "svd, byte-swapped": lambda: sl.svd(A.astype(">f8")),
    "svd, thin": lambda: sl.svd(A[:, :2], full_matrices=False),
    "svd, values": lambda: sl.svd(A, compute_uv=False),
    "svd, gesvd": lambda: sl.svd(A, lapack_driver="gesvd"),
    "svd, lists": lambda: sl.svd(A.tolist()),
    "svd, __array__": lambda: sl.svd(NotAnArray()),
    "svd, int": lambda: sl.svd(A.astype(int)),
    "svd, read-only": lambda: sl.svd(read_only(A), overwrite_a=True),
    "solve": lambda: sl.solve(A, b=np.ones(4)),
    "solve, transposed": lambda: sl.solve(A, np.ones((4, 2)), transposed=True),
    "lu": lambda: sl.lu(A, permute_l=True),
    "lu_factor": lambda: sl.lu_factor(STACK[0]),
    "qr": lambda: sl.qr(A, mode="economic", pivoting=True),
    "eigh": lambda: sl.eigh(SYMMETRIC, subset_by_index=[0, 1]),
    "eig": lambda: sl.eig(A, left=True, homogeneous_eigvals=True),
    "expm": lambda: sl.expm(STACK / 30),
    "logm": lambda: sl.logm(A),
    "sqrtm": lambda: sl.sqrtm(A),
    "norm": lambda: sl.norm(A, "fro", axis=(0, 1), keepdims=True),
    "block_diag": lambda: sl.block_diag(A, [[1]], 2),
    "block_diag of nothing": lambda: sl.block_diag(),
    "toeplitz": lambda: sl.toeplitz([1.0, 2.0], r=[1.0, 3.0]),
    "issymmetric": lambda: sl.issymmetric(A, atol=1e-3),
    "bandwidth": lambda: sl.bandwidth(A),
    "lstsq": lambda: sl.lstsq(A[:, :2], np.ones(4)),
    "cho_solve": lambda: sl.cho_solve(sl.cho_factor(SYMMETRIC), np.ones(4)),
    # kinds of arrays
    "subclass": lambda: sl.svd(A.view(Subclass)),
    "subclass, inv": lambda: sl.inv(A.view(Subclass)),
    "np.matrix": lambda: sl.inv(np.asmatrix(A)),
    "np.matrix, expm": lambda: sl.expm(np.asmatrix(A)),
    "masked": lambda: sl.svd(MASKED),
    "masked, norm": lambda: sl.norm(MASKED),
    "object": lambda: sl.det(OBJECTS),
    "object numbers": lambda: sl.inv(np.array([[2, 1], [1, 3]], dtype=object)),
    "sparse": lambda: sl.svd(scipy.sparse.eye_array(3)),
    "sparse, inv": lambda: sl.inv(scipy.sparse.eye_array(3)),
    "text": lambda: sl.inv(np.array([["a", "b"], ["c", "d"]])),
    "None": lambda: sl.svd(None),
    "ragged": lambda: sl.svd([[1, 2], [3]]),
    "bool": lambda: sl.svd(A > 3),
    "float16": lambda: sl.svd(A.astype(np.float16)),
    "longdouble": lambda: sl.inv(A.astype(np.longdouble)),
    "complex64": lambda: sl.svd(A.astype(np.complex64)),
    # sizes
    "empty": lambda: sl.svd(EMPTY),
    "empty, det": lambda: sl.det(EMPTY),
    "empty, inv": lambda: sl.inv(EMPTY),
    "empty, rows": lambda: sl.svd(np.empty((0, 3))),
    "empty stack": lambda: sl.svd(np.empty((0, 3, 4))),
    "empty solve": lambda: sl.solve(EMPTY, np.empty(0)),
    "1-d": lambda: sl.svd(np.ones(3)),
    "1-d, inv": lambda: sl.inv(np.ones(3)),
    "0-d": lambda: sl.det(np.float64(3)),
    "not square": lambda: sl.inv(np.ones((2, 3))),
    "not square, det": lambda: sl.det(np.ones((2, 3))),
    "not square, eig": lambda: sl.eig(np.ones((2, 3))),
    "not square, cholesky": lambda: sl.cholesky(np.ones((2, 3))),
    "not square, expm": lambda: sl.expm(np.ones((2, 3))),
    "sizes differ": lambda: sl.solve(A, np.ones(3)),
    "sizes differ, lstsq": lambda: sl.lstsq(A, np.ones(3)),
    # values
    "NaN": lambda: sl.svd(NAN),
    "NaN, inv": lambda: sl.inv(NAN),
    "NaN unchecked": lambda: sl.det(NAN, check_finite=False),
    "NaN unchecked, svd": lambda: sl.svd(NAN, check_finite=False),
    "NaN unchecked, solve": lambda: sl.solve(NAN, np.ones(2), check_finite=False),
    "Inf": lambda: sl.eigh(np.array([[np.inf, 0.0], [0.0, 1.0]])),
    "singular": lambda: sl.inv(SINGULAR),
    "singular solve": lambda: sl.solve(SINGULAR, np.ones(3)),
    "singular lu": lambda: sl.lu_factor(SINGULAR),
    "singular triangular": lambda: sl.solve_triangular(np.triu(SINGULAR, 1), np.ones(3)),
    "singular stack": lambda: sl.inv(np.stack([np.eye(3), SINGULAR])),
    "ill-conditioned": lambda: sl.solve(ILL, np.ones(14)),
    "ill-conditioned inv": lambda: sl.inv(ILL),
    "indefinite": lambda: sl.cholesky(-np.eye(3)),
    "indefinite, banded": lambda: sl.cholesky_banded(-np.ones((2, 3))),
    "logm warns": lambda: sl.logm(np.diag([1.0, 0.0])),
    "sqrtm warns": lambda: sl.sqrtm(np.array([[0.0, 1.0], [0.0, 0.0]])),
    "overflow": lambda: sl.norm(np.full((2, 2), 1e200)),
    "overflow in expm": lambda: sl.expm(np.full((9, 9), 1e4)),
    # arguments
    "unknown driver": lambda: sl.svd(A, lapack_driver="gesdx"),
    "unknown mode": lambda: sl.qr(A, mode="thin"),
    "unknown keyword": lambda: sl.svd(A, full=True),  # type: ignore[call-arg]
    "no argument": lambda: sl.svd(),  # type: ignore[call-arg]
    "twice": lambda: sl.svd(A, a=A),  # type: ignore[misc]
    "too many": lambda: sl.det(A, True, True, True),  # type: ignore[call-arg]
    "unknown structure": lambda: sl.solve(A, np.ones(4), assume_a="round"),
    "bad subset": lambda: sl.eigh(SYMMETRIC, subset_by_index=[3, 1]),
    "bad order": lambda: sl.norm(A, ord="x"),
    "deprecated keyword": lambda: sl.eigh(SYMMETRIC, eigvals=(0, 1)),  # type: ignore[call-arg]
    "deprecated: 1-d in toeplitz": lambda: sl.toeplitz(np.ones((2, 2))),
    "deprecated: disp": lambda: sl.logm(A, disp=False),
    "deprecated: kron": lambda: sl.khatri_rao(A, A),
}

PRODUCTS: dict[str, Callable[[], Any]] = {
    "bool": lambda: (A > 3) @ (A > 2),
    "object": lambda: np.array([[1, 2], [3, 4]], object) @ np.array([[1, 2], [3, 4]], object),
    "object error": lambda: OBJECTS @ OBJECTS,
    "float16": lambda: A.astype("f2") @ A.astype("f2"),
    "longdouble": lambda: A.astype(np.longdouble) @ A,
    "int8": lambda: A.astype("i1") @ A.astype("i1"),
    "uint16": lambda: A.astype("u2") @ A.astype("i2"),
    "large": lambda: LARGE @ LARGE,
    "vector": lambda: LARGE @ LARGE[0],
    "vectors": lambda: A[0] @ A[1],
    "empty": lambda: EMPTY @ EMPTY,
    "no inner": lambda: np.empty((2, 0)) @ np.empty((0, 3)),
    "empty stack": lambda: np.empty((0, 4, 4)) @ A,
    "no rows": lambda: np.empty((0, 4)) @ A,
    "0-d": lambda: A @ np.float64(2),
    "0-d left": lambda: np.float64(2) @ A,  # type: ignore[operator]
    "sizes differ": lambda: A @ np.ones((3, 4)),
    "stacks differ": lambda: np.ones((2, 4, 4)) @ np.ones((3, 4, 4)),
    "text": lambda: np.array(["a"]) @ np.array(["b"]),
    "dates": lambda: np.array([["2020"]], "M8[Y]") @ np.array([["2020"]], "M8[Y]"),
    "None": lambda: A @ None,  # type: ignore[operator]
    "lists": lambda: np.matmul([[1, 2]], [[3], [4, 5]]),  # type: ignore[list-item]
    "out of another shape": lambda: np.matmul(A, A, out=np.empty((3, 3))),
    "out of another dtype": lambda: np.matmul(A, A, out=np.empty((4, 4), int)),
    "out read-only": lambda: np.matmul(A, A, out=read_only(A)),
    "casting": lambda: np.matmul(A, A, dtype=np.int64, casting="safe"),
    "axes wrong": lambda: np.matmul(A, A, axes=[(0, 1)]),
    "unknown keyword": lambda: np.matmul(A, A, other=1),  # type: ignore[call-overload]
    "sparse": lambda: scipy.sparse.csr_array(A) @ A,
    "sparse right": lambda: A @ scipy.sparse.csr_array(A),
    "masked": lambda: MASKED @ MASKED[:, :3],
    "np.matrix": lambda: np.asmatrix(A) @ np.asmatrix(A[:, :3]),
    "overflow": lambda: np.full((9, 9), 1e300) @ np.full((9, 9), 1e300),
    "invalid": lambda: np.full((9, 9), np.inf) @ np.zeros((9, 9)),
    "NaN": lambda: np.full((9, 9), np.nan) @ np.zeros((9, 9)),
    "overflow, stack": lambda: np.full((3, 4, 4), 1e300) @ np.full((3, 4, 4), 1e300),
    "invalid, stack": lambda: np.full((3, 4, 4), np.inf) @ np.zeros((3, 4, 4)),
    "underflow, stack": lambda: np.full((3, 4, 4), 1e-300) @ np.full((3, 4, 4), 1e-300),
    "integers wrap": lambda: np.full((3, 4, 4), 2**62) @ np.full((3, 4, 4), 3),
}


@pytest.fixture(autouse=True)
def quiet_matrices() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the matrix subclass")
        yield


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_without_rules(case: str) -> None:
    stock = outcome(FUNCTIONS[case])
    with lapack_ai.set_backend():
        assert outcome(FUNCTIONS[case]) == stock
    assert outcome(FUNCTIONS[case]) == stock, "hooks in place, context inactive"


ROUTED = ("svd", "inv", "det", "solve", "eigh", "cholesky", "qr", "lu_factor", "expm", "logm", "norm")


@pytest.mark.parametrize("name", ROUTED)
def test_functions_whose_kernel_declines(name: str) -> None:
    cases = [case for case, call in FUNCTIONS.items() if name in call.__code__.co_names]
    assert cases
    stock = {case: outcome(FUNCTIONS[case]) for case in cases}
    with temporary_kernel(f"scipy.linalg.{name}", lambda *args, **kwargs: NotImplemented), lapack_ai.set_backend():
        for case in cases:
            assert outcome(FUNCTIONS[case]) == stock[case], case


@pytest.mark.parametrize("case", PRODUCTS)
def test_products(case: str) -> None:
    stock = outcome(PRODUCTS[case])
    with lapack_ai.set_backend():
        assert outcome(PRODUCTS[case]) == stock
    assert outcome(PRODUCTS[case]) == stock, "hooks in place, context inactive"


def test_cases_cover_errors_and_warnings() -> None:
    outcomes = [outcome(call) for call in (*FUNCTIONS.values(), *PRODUCTS.values())]
    assert sum(each.error is not None for each in outcomes) > 40
    assert sum(bool(each.warnings) for each in outcomes) >= 8
    assert {each.warnings[0][2] for each in outcomes if each.warnings} >= {__file__}


def test_warning_points_at_the_users_line() -> None:
    """What a warning filter by module sees, too: the user's module, once for each line."""
    with lapack_ai.set_backend(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            sl.solve(ILL, np.ones(14))
    assert len(caught) == 1
    stock = outcome(lambda: sl.solve(ILL, np.ones(14))).warnings
    with lapack_ai.set_backend():
        again = outcome(lambda: sl.solve(ILL, np.ones(14))).warnings
    assert [each[:3] for each in again] == [each[:3] for each in stock]


def test_warnings_as_errors_come_from_the_same_place() -> None:
    def call() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return sl.solve(ILL, np.ones(14))

    stock = outcome(call)
    assert stock.error is not None
    with lapack_ai.set_backend():
        assert outcome(call) == stock


def test_errors_show_one_frame_of_ours_and_no_cause() -> None:
    with lapack_ai.set_backend(), pytest.raises(ValueError) as caught:
        sl.svd(NAN)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    names = [entry.path for entry in caught.traceback]
    assert sum("lapack_ai_backend" in str(name) for name in names) == 1


@pytest.mark.parametrize("switch", ["over", "invalid", "under"])
def test_errstate_raises_as_stock_does(switch: str) -> None:
    cases = {"over": ("overflow", "overflow, stack"), "invalid": ("invalid", "invalid, stack"), "under": ("NaN",)}[
        switch
    ]
    for case in cases:
        with np.errstate(all="ignore", **{switch: "raise"}):
            stock = outcome(PRODUCTS[case])
            with lapack_ai.set_backend():
                assert outcome(PRODUCTS[case]) == stock, case


INPUTS = {
    "C order": A.copy(),
    "Fortran order": np.asfortranarray(A),
    "strided": np.repeat(A, 2, 0)[::2],
    "stack": np.stack([A, A.T, SYMMETRIC]),
}


@pytest.mark.parametrize("layout", INPUTS)
@pytest.mark.parametrize("writeable", [True, False])
def test_inputs_are_never_written(layout: str, writeable: bool) -> None:
    a = INPUTS[layout].copy(order="K")
    a.flags.writeable = writeable
    before = a.copy()
    with lapack_ai.set_backend():
        a @ a
        a @ a.swapaxes(-1, -2)
        for name in ("svd", "inv", "det", "expm", "qr", "lu", "eig"):
            if a.ndim == 2 or name in ("det", "expm", "lu"):
                getattr(sl, name)(a)
    np.testing.assert_array_equal(a, before)


def test_overwrite_a_is_passed_on() -> None:
    """SciPy may use a Fortran-ordered array as scratch when told so; then it does here, too."""
    stock = FORTRAN.copy(order="F")
    sl.inv(stock, overwrite_a=True)
    ours = FORTRAN.copy(order="F")
    with lapack_ai.set_backend():
        sl.inv(ours, overwrite_a=True)
    np.testing.assert_array_equal(ours, stock)
