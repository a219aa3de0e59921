"""``scipy.linalg.lstsq`` on an OpenCL device (PoCL here): against LAPACK's gelsd, and the normal equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
from outcomes import outcome
from svd_cases import DEVICE, matrix

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import interception
from lapack_ai_backend.errors import Decline
from lapack_ai_backend.linalg.verification import Verification

LSTSQ = "scipy.linalg.lstsq"
STOCK: dict[str, Any] = interception.STOCK


@pytest.fixture(autouse=True)
def on_the_device() -> Iterator[None]:
    with lapack_ai.set_backend(lapack_ai, device=DEVICE, strict=True):
        yield


def computed(*args: Any, **kwargs: Any) -> Any:
    """The result of lstsq, and the assertion that the kernel computed it."""
    with lapack_ai.trace() as t:
        result = sl.lstsq(*args, **kwargs)
    assert [each.kernel for each in t.decisions if each.function == LSTSQ] == ["opencl_svd"]
    return result


def sides(m: int, count: int | None, dtype: str, seed: int = 1) -> Any:
    b = np.random.default_rng(seed).standard_normal((m, count or 1)).astype(dtype)
    return b if count else b[:, 0]


SHAPES = [(60, 60), (90, 31), (31, 90), (5, 1), (1, 5), (1, 1), (200, 40)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [None, 1, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_as_lapack(shape: tuple[int, int], count: int | None, dtype: str) -> None:
    """Kinds of results too: shapes, dtypes, order, the type of the rank."""
    a, b = matrix("mode 3, mild", *shape, dtype), sides(shape[0], count, dtype)
    found, wanted = computed(a, b), STOCK[LSTSQ](a, b)
    eps = float(np.finfo(dtype).eps)
    for ours, theirs in zip(found, wanted, strict=True):
        assert type(ours) is type(theirs)
        assert np.shape(ours) == np.shape(theirs)
    x, squares, rank, s = found
    assert (x.dtype, s.dtype, np.asarray(squares).dtype) == (a.dtype, a.dtype, a.dtype)
    stock = wanted[0]
    if stock.flags.c_contiguous or stock.flags.f_contiguous:  # SciPy 1.17's may be a part of another array
        assert (x.flags.c_contiguous, x.flags.f_contiguous) == (stock.flags.c_contiguous, stock.flags.f_contiguous)
    assert rank == wanted[2] == min(shape)
    condition = float(s[0] / s[-1])
    np.testing.assert_allclose(s, wanted[3], rtol=0, atol=10 * eps * max(shape) ** 0.5 * s[0])
    # The solution's error grows with the condition, its square where there is a residual.
    growth = condition * (1 + condition * float(np.sqrt(np.max(np.r_[squares.ravel(), 0]) if np.size(squares) else 0)))
    assert np.abs(x - wanted[0]).max() <= 20 * eps * max(shape) ** 0.5 * growth * max(1, np.abs(wanted[0]).max())
    np.testing.assert_allclose(squares, wanted[1], rtol=50 * eps * max(shape))


@pytest.mark.parametrize("cond", [None, 1e-3, 0.5, 0.0, -1.0, 2.0, 1])
@pytest.mark.parametrize("name", ["rank 1", "rank n/2", "mode 4", "zero", "mode 1", "duplicated columns"])
def test_rank_and_cutoff(name: str, cond: float | None) -> None:
    """As many values count as for LAPACK, and the solution is the one of least norm."""
    for shape in ((50, 30), (30, 50), (40, 40)):
        a, b = matrix(name, *shape, "float64"), sides(shape[0], 2, "float64")
        if cond is None or 0 < cond < 1:
            x, squares, rank, s = computed(a, b, cond)
            wanted = STOCK[LSTSQ](a, b, cond)
            if cond is None and name != "zero":  # in LAPACK's last digit a value counts or not
                assert rank == (s > np.finfo(float).eps * s[0]).sum()
                continue
            assert rank == wanted[2]
            assert np.shape(squares) == np.shape(wanted[1])
            np.testing.assert_array_equal(np.isnan(squares), np.isnan(wanted[1]))
            kept = s[:rank]
            condition = float(kept[0] / kept[-1]) if rank else 1.0
            np.testing.assert_allclose(
                x, wanted[0], rtol=0, atol=1e-12 * condition**2 * max(1, np.abs(wanted[0]).max())
            )
        else:  # by eps
            assert np.isfinite(computed(matrix("gauss", *shape, "float64"), b, cond)[0]).all()


@pytest.mark.parametrize("exponents", [(0, 900), (900, 0), (-900, 0), (-500, 500), (900, 900), (0, -1000)])
def test_scales(exponents: tuple[int, int]) -> None:
    """Powers of two change the solution by powers of two, and nothing else."""
    a, b = matrix("gauss", 30, 20, "float64"), sides(30, 3, "float64")
    x, squares, rank, s = computed(a, b)
    with np.errstate(all="ignore"):
        scaled = computed(np.ldexp(a, exponents[0]), np.ldexp(b, exponents[1]))
        np.testing.assert_array_equal(scaled[0], np.ldexp(x, exponents[1] - exponents[0]))
        np.testing.assert_array_equal(scaled[1], np.ldexp(squares, 2 * exponents[1]))
        np.testing.assert_array_equal(scaled[3], np.ldexp(s, exponents[0]))
    assert scaled[2] == rank


@pytest.mark.parametrize("order", ["C", "F", "strided", "swapped"])
def test_layouts(order: str) -> None:
    a, b = matrix("gauss", 30, 20, "float64"), sides(30, 4, "float64")
    x = computed(a, b)[0]
    for which in (0, 1):
        operands = [a, b]
        each = operands[which]
        operands[which] = (
            np.repeat(each, 2, axis=0)[::2]
            if order == "strided"
            else each.astype(">f8")
            if order == "swapped"
            else np.array(each, order="F" if order == "F" else "C")
        )
        before = operands[which].copy()
        np.testing.assert_array_equal(computed(*operands, overwrite_a=True, overwrite_b=True)[0], x)
        np.testing.assert_array_equal(operands[which], before)


A, B = matrix("gauss", 12, 7, "float64"), sides(12, 2, "float64")
DECLINED: dict[str, Callable[[], Any]] = {
    "list": lambda: sl.lstsq(A, B.tolist()),
    "other dtype": lambda: sl.lstsq(A, B.astype("f4")),
    "complex": lambda: sl.lstsq(A, B + 1j),
    "both complex": lambda: sl.lstsq(A + 1j, B + 1j),
    "gelsy": lambda: sl.lstsq(A, B, lapack_driver="gelsy"),
    "gelss": lambda: sl.lstsq(A, B, lapack_driver="gelss"),
    "rows": lambda: sl.lstsq(A, B[1:]),
    "no sides": lambda: sl.lstsq(A, B[:, :0]),
    "NaN in a": lambda: sl.lstsq(np.where(A > 1, np.nan, A), B),
    "NaN in b": lambda: sl.lstsq(A, np.where(B > 1, np.nan, B)),
    "cond": lambda: sl.lstsq(A, B, cond="small"),
    "driver": lambda: sl.lstsq(A, B, lapack_driver="gels"),
    "stack": lambda: sl.lstsq(np.stack([A, A]), np.stack([B, B])),
    "masked": lambda: sl.lstsq(A, np.ma.masked_array(B)),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined_calls_are_scipys(name: str) -> None:
    with lapack_ai.trace() as t:
        found = outcome(DECLINED[name])
    assert all(each.kernel != "opencl_svd" for each in t.decisions if each.function == LSTSQ)
    with lapack_ai.skip_backend():
        assert found == outcome(DECLINED[name])


def test_complex_matrices_are_scipys_even_if_forced() -> None:
    with lapack_ai.set_backend(force={"lstsq": "opencl_svd"}), lapack_ai.trace() as t:
        x = sl.lstsq(A + 1j, B + 1j)[0]
    assert [each.reason_code for each in t.decisions if each.function == LSTSQ] == ["kernel_declined"]
    np.testing.assert_array_equal(x, STOCK[LSTSQ](A + 1j, B + 1j)[0])


def test_default_driver_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sl.lstsq, "default_lapack_driver", "gelsy")
    with lapack_ai.trace() as t:
        assert sl.lstsq(A, B)[3] is None or sl.lstsq(A, B)[2] == 7
    assert all(each.kernel == "stock" for each in t.decisions if each.function == LSTSQ)


def test_wrong_solutions_are_found() -> None:
    """The check sees each part of a solution that is off, and passes what is right."""
    a, b = np.asfortranarray(matrix("gauss", 30, 20, "float64")), sides(30, 2, "float64")
    u, s, vh = STOCK["scipy.linalg.svd"](a, full_matrices=False)
    x = vh.T @ ((u.T @ b) / s[:, None])
    checks = Verification(a, 0)
    checks.least_squares(x, b, s, 20, transposed=False)
    for wrong in (x * (1 + 1e-9), x + 1e-9, np.full_like(x, np.nan), x[::-1]):
        with pytest.raises(Decline, match="normal equations"):
            checks.least_squares(wrong, b, s, 20, transposed=False)
    short = vh.T[:, :10] @ ((u.T[:10] @ b) / s[:10, None])  # of the ten largest values
    checks.least_squares(short, b, s, 10, transposed=False)
    with pytest.raises(Decline, match="normal equations"):
        checks.least_squares(short, b, s, 20, transposed=False)
    wide = np.ascontiguousarray(a.T)  # min |b - A x| has many solutions
    x = u @ ((vh @ b[:20]) / s[:, None])
    checks.least_squares(x, b[:20], s, 20, transposed=True)
    longer = x + 1e3 * STOCK["scipy.linalg.null_space"](wide)[:, :2]
    with pytest.raises(Decline, match="norm of the solution"):
        checks.least_squares(longer, b[:20], s, 20, transposed=True)
    of_zero = Verification(np.zeros((3, 2)), 0)
    with pytest.raises(Decline, match="norm of the solution"):
        of_zero.least_squares(np.ones((2, 1)), np.ones((3, 1)), np.zeros(2), 0, transposed=False)
