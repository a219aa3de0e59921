"""Every result of a device is checked: what the checks let pass, what they catch, what then happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
from svd_cases import DEVICE, DTYPES, MATRICES, ldexp, matrix, real

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import registry
from lapack_ai_backend.errors import Decline
from lapack_ai_backend.linalg import verification
from lapack_ai_backend.linalg.verification import Verification

A = matrix("gauss", 40, 30, "float64")
C = matrix("gauss", 40, 30, "complex128")


def decomposed(a: np.ndarray[Any, Any], full: bool = False) -> tuple[Any, Any, Any]:
    with lapack_ai.skip_backend():
        u, s, vh = np.linalg.svd(a, full_matrices=full)
    return u, s, vh


# ---- the checks themselves ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MATRICES)
def test_healthy_results_pass_with_room(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAPACK's own results stay far below the limit, which says that no healthy one will be refused."""
    monkeypatch.setattr(verification, "LIMIT", (30.0, 2.0))
    for m, n, full in ((70, 70, False), (150, 20, True), (20, 150, True)):
        a = matrix(name, m, n, dtype)
        a = a / np.maximum(np.abs(a).max(), 1).astype(real(dtype))
        u, s, vh = decomposed(a, full)
        Verification(a, 0).probe(u, s, vh)
        Verification(a, 0).reference(s, u, vh)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-1015, -500, -20, 0, 20, 500, 1015])
def test_scaled_problems_pass(dtype: str, exponent: int) -> None:
    """The checks neither overflow nor lose digits at the ends of the range."""
    if real(dtype) == "float32":
        exponent //= 9
    a = ldexp(matrix("mode 4, mild", 30, 20, dtype), -exponent)
    scaled = ldexp(a, exponent)
    u, s, vh = decomposed(scaled)
    with np.errstate(over="raise", invalid="raise"):
        Verification(a, exponent).probe(u, s, vh)
        Verification(a, exponent).reference(s, u, vh)


def spoiled(a: np.ndarray[Any, Any] = A, **changes: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    parts = dict(zip("usv", decomposed(a), strict=True))
    for name, change in changes.items():
        parts[name] = change(parts[name].copy())
    return parts["u"], parts["s"], parts["v"]


def with_entry(value: float, place: int = 7) -> Callable[[Any], Any]:
    def change(x: Any) -> Any:
        x.flat[place] = value
        return x

    return change


WRONG = {
    "NaN in U": spoiled(u=with_entry(np.nan)),
    "NaN in s": spoiled(s=with_entry(np.nan)),
    "Inf in V": spoiled(v=with_entry(np.inf)),
    "unsorted": spoiled(s=lambda s: s[::-1]),
    "negative": spoiled(s=with_entry(-1e-3, -1)),
    "one value off by 1e-9": spoiled(s=lambda s: s * np.r_[1 + 1e-9, np.ones(29)]),
    "all zero": spoiled(u=np.zeros_like, s=np.zeros_like, v=np.zeros_like),
    "two columns of U swapped": spoiled(u=lambda u: u[:, [1, 0, *range(2, 30)]]),
    "a sign": spoiled(u=lambda u: u * np.r_[-1.0, np.ones(29)]),
    "U not orthogonal, the product right": spoiled(u=lambda u: u * 2, v=lambda v: v / 2),
    "last tile not written": spoiled(u=lambda u: np.where(np.arange(40)[:, None] < 32, u, 0)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_results_are_caught(name: str) -> None:
    u, s, vh = WRONG[name]
    checks = Verification(A, 0)
    for check in (lambda: checks.probe(u, s, vh), lambda: checks.reference(s, u, vh)):
        with pytest.raises(Decline) as caught, np.errstate(invalid="ignore"):
            check()
        assert caught.value.reason_code == "wrong_result"


WRONG_COMPLEX = {
    "U conjugated": spoiled(C, u=np.conj),
    "V conjugated": spoiled(C, v=np.conj),
    "a phase": spoiled(C, u=lambda u: u * np.r_[1j, np.ones(29)]),
    "no imaginary parts": spoiled(C, u=lambda u: u.real + 0j, v=lambda v: v.real + 0j),
    "transpose in place of conjugate transpose": spoiled(C, u=lambda u: np.linalg.svd(C.T)[2].T[:, :30]),
    "NaN in an imaginary part": spoiled(C, u=with_entry(1j * np.nan)),
}


@pytest.mark.parametrize("name", WRONG_COMPLEX)
def test_wrong_complex_results_are_caught(name: str) -> None:
    u, s, vh = WRONG_COMPLEX[name]
    checks = Verification(C, 0)
    for check in (lambda: checks.probe(u, s, vh), lambda: checks.reference(s, u, vh)):
        with pytest.raises(Decline) as caught, np.errstate(invalid="ignore"):
            check()
        assert caught.value.reason_code == "wrong_result"


def check_values(checks: Verification, s: np.ndarray[Any, Any], d: np.ndarray[Any, Any]) -> None:
    """All that is checked of values alone."""
    checks.values(s)
    checks.determinant(s, d)


def test_small_errors_in_large_and_tall_matrices_are_caught() -> None:
    for a, spoil in (
        (matrix("gauss", 600, 600, "float32"), lambda s: np.where(np.arange(600) < 568, s, 0)),  # a group not written
        (matrix("gauss", 600, 600, "float32"), lambda s: np.where(np.arange(600) < 599, s, s / 2)),
        (matrix("gauss", 600, 600, "float64"), lambda s: np.where(np.arange(600) < 599, s, s * (1 + 1e-9))),
        (np.random.default_rng(0).standard_normal((200_000, 2)).astype("float32"), lambda s: s * np.float32(1.0005)),
    ):
        checks = Verification(a, 0)
        r = np.linalg.qr(a, mode="r")  # its diagonal has the determinant's absolute value, as that of a bidiagonal one
        s = np.linalg.svd(r.astype(float), compute_uv=False)  # LAPACK's in float32 has no small values to many digits
        check_values(checks, s.astype(a.dtype), np.diag(r))
        with pytest.raises(Decline):
            check_values(checks, spoil(s).astype(a.dtype), np.diag(r))


@pytest.mark.parametrize(
    ("s", "d"),
    [
        ([2.0, 0.5], [1.0, 1.0]),
        ([2.0, 0.0], [1.0, 0.0]),
        ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        ([1.0, 1e-320], [1e-160, 1e-160]),
        ([1.0, 0.0], [1e-165, 1e-165]),
        ([0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_determinants_that_agree(s: list[float], d: list[float]) -> None:
    Verification(np.eye(3), 0).determinant(np.array(s), np.array(d))


@pytest.mark.parametrize(
    ("s", "d"),
    [([2.0, 0.0], [1.0, 1.0]), ([2.0, 1.0], [1.0, 1.0]), ([1.0, 1e-20], [1.0, 0.0]), ([1.0, 0.0], [1.0, 1e-200])],
)
def test_determinants_that_do_not_agree(s: list[float], d: list[float]) -> None:
    with pytest.raises(Decline, match="product of the singular values"):
        Verification(np.eye(3), 0).determinant(np.array(s), np.array(d))


@pytest.mark.parametrize("name", ["NaN in s", "unsorted", "negative", "one value off by 1e-9", "all zero"])
def test_wrong_values_alone_are_caught(name: str) -> None:
    with pytest.raises(Decline):
        Verification(A, 0).values(WRONG[name][1])


def test_reference_catches_what_the_sum_of_squares_cannot() -> None:
    """Two values moved so that their squares keep their sum."""
    s = decomposed(A)[1]
    s[3] = np.sqrt(s[3] ** 2 + 1e-3)
    s[4] = np.sqrt(s[4] ** 2 - 1e-3)
    Verification(A, 0).values(s)
    with pytest.raises(Decline, match="difference of singular values"):
        Verification(A, 0).reference(s)


# ---- in a call -----------------------------------------------------------------------------------------


@pytest.fixture
def garbage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device that returns vectors and values of another matrix."""
    from lapack_ai_backend.linalg import gesdd

    decompose = gesdd.decompose

    def wrong(*args: Any, **kwargs: Any) -> Any:
        u, s, v = decompose(*args, **kwargs)
        return u, s * np.float64(1.001), v

    monkeypatch.setattr(gesdd, "decompose", wrong)
    return iter(())


@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("verify", ["probe", "always"])
@pytest.mark.parametrize("function", [sl.svd, sl.svdvals])
def test_wrong_result_is_replaced_and_counted(function: Any, verify: str, caplog: pytest.LogCaptureFixture) -> None:
    name = f"scipy.linalg.{function.__name__}"
    wanted = function(A)
    with lapack_ai.set_backend(device=DEVICE, verify=verify), lapack_ai.trace() as t:
        for _ in range(4):
            np.testing.assert_equal(function(A), wanted)
    codes = [each.reason_code for each in t.decisions]
    assert codes == ["wrong_result"] * registry.FAILURES_BEFORE_BREAK + ["broken"] * (len(codes) - 3)
    assert lapack_ai.stats()[name, "stock"].fallbacks["wrong_result"] >= 2  # SciPy's svdvals calls svd
    assert "are allowed" in caplog.text


@pytest.mark.usefixtures("garbage")
def test_strict_raises_on_a_wrong_result() -> None:
    with (
        lapack_ai.set_backend(device=DEVICE, strict=True),
        pytest.raises(lapack_ai.KernelError, match="opencl_svd failed"),
    ):
        sl.svd(A)


@pytest.mark.usefixtures("garbage")
def test_verify_off_checks_nothing() -> None:
    with lapack_ai.set_backend(device=DEVICE, verify="off"):
        np.testing.assert_allclose(sl.svd(A)[1], decomposed(A)[1] * 1.001, rtol=1e-12)


@pytest.mark.parametrize("verify", ["probe", "off", "always"])
def test_right_results_pass(verify: str) -> None:
    with lapack_ai.set_backend(device=DEVICE, verify=verify, strict=True), lapack_ai.trace() as t:
        for a in (
            A,
            A.T,
            C,
            C.T,
            C[:, :5],
            A[:, :5],
            np.zeros((4, 3)),
            np.full((3, 3), 1e300),
            np.full((3, 3), 1e-310),
        ):
            sl.svd(a)
            sl.svdvals(a)
    assert {each.kernel for each in t.decisions} == {"opencl_svd"}


@pytest.mark.parametrize("layout", ["C", "F", "rows of C", "columns of C", "rows of F", "steps", "reverse"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_with_vectors(dtype: str, layout: str) -> None:
    """The checks' own products, in double precision, of whatever layout a result has."""
    whole = np.array(matrix("gauss", 150, 90, dtype), order="F" if layout[-1] == "F" else "C")
    a = {
        "rows of C": whole[3:-4],
        "columns of C": whole[:, 2:-5],
        "rows of F": whole[3:-4],
        "steps": whole[::2, ::3],
        "reverse": whole[::-1, ::-1],
    }.get(layout, whole)
    wide = np.tile(whole[:3], (1, 100))  # whose columns the threads share
    for each in (a, a.T, a[:1], a[:, :1], np.array(wide, order="F")):
        x = np.random.default_rng(1).standard_normal(each.shape[1])
        for vector in (x, x + 2j * x[::-1]):
            found, wanted = verification.times(each, vector), np.dot(each.astype(complex), vector)
            assert found.dtype == (complex if "complex" in dtype or vector.dtype == complex else float)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14 * np.abs(each).sum() * np.abs(vector).max())
