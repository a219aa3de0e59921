"""Matrices on which singular value decompositions go wrong, and the ratios that tell whether one did.

Complex matrices have random complex entries or unitary factors, where real ones have random entries or orthogonal
factors, and random phases in every row and column.

The ratios are those of LAPACK's own tests (TESTING/EIG/ddrvbd.f: dbdt01, dort01), with its norms:
an error over the norm, the size and eps. LAPACK's limit is 50; codes that are well stay below 5.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lapack_ai_backend as lapack_ai

Array = np.ndarray[Any, Any]

# What the tests of the OpenCL SVD run on, by its selector in `lapack-ai info`; "gpu" would keep its size threshold.
DEVICE = os.environ.get("OPENCL_TEST_DEVICE", "cpu")

# Long tests leave one of the four to the second run, under PoCL's other method.
DTYPES = ("float32", "float64", "complex64", "complex128")
MOST_DTYPES = [pytest.param(each, marks=[pytest.mark.second_run] * (each == "complex64")) for each in DTYPES]

LIMIT = 50.0  # LAPACK's
ALARM = 5.0  # ours

# ---- matrices with a known spectrum --------------------------------------------------------------


def is_complex(dtype: Any) -> bool:
    """Whether numbers of this dtype have two parts."""
    return np.issubdtype(dtype, np.complexfloating)


def real(dtype: Any) -> str:
    """The dtype of a number's parts."""
    return np.finfo(dtype).dtype.name


def normal(m: int, n: int, dtype: Any, rng: np.random.Generator) -> Array:
    """Gaussian entries, in double precision."""
    a = rng.standard_normal((m, n))
    return a + 1j * rng.standard_normal((m, n)) if is_complex(dtype) else a


def haar(n: int, rng: np.random.Generator, dtype: Any = float) -> Array:
    """A random orthogonal matrix, uniformly distributed."""
    q, r = np.linalg.qr(normal(n, n, dtype, rng))
    return q * np.sign(np.diag(r))


def with_spectrum(s: Array, m: int, n: int, rng: np.random.Generator, dtype: Any = float) -> Array:
    """An m x n matrix with these singular values."""
    rank = min(m, n)
    return haar(m, rng, dtype)[:, :rank] * s @ haar(n, rng, dtype)[:rank]


def _mode(mode: int, rank: int, condition: float, rng: np.random.Generator) -> Array:
    """Spectra 1 to 6 of LAPACK's dlatm1."""
    k = np.arange(rank) / max(rank - 1, 1)
    spectra = {
        1: np.r_[1.0, np.full(rank - 1, 1 / condition)],
        2: np.r_[np.ones(rank - 1), 1 / condition],
        3: condition**-k,
        4: 1 - k * (1 - 1 / condition),
        5: condition ** -rng.random(rank),
        6: rng.standard_normal(rank),
    }
    return np.asarray(spectra[mode][:rank])


def _graded(rows: bool, columns: bool, reverse: bool) -> Callable[..., Array]:
    def build(m: int, n: int, dtype: Any, rng: np.random.Generator) -> Array:
        least = 1e-40 if real(dtype) == "float64" else 1e-20
        scale = [least ** (np.arange(k) / max(k - 1, 1)) for k in (m, n)]
        scale = [each[::-1] if reverse else each for each in scale]
        a = normal(m, n, dtype, rng)
        return (a * scale[0][:, None] if rows else a) * (scale[1] if columns else 1.0)

    return build


def _spectrum(mode: int, condition: dict[str, float]) -> Callable[..., Array]:
    def build(m: int, n: int, dtype: Any, rng: np.random.Generator) -> Array:
        s = _mode(mode, min(m, n), condition[real(dtype)], rng)
        return with_spectrum(s, m, n, rng, dtype)

    return build


def _rank(of: Callable[[int], int]) -> Callable[..., Array]:
    def build(m: int, n: int, dtype: Any, rng: np.random.Generator) -> Array:
        rank = of(min(m, n))
        return normal(m, rank, dtype, rng) @ normal(rank, n, dtype, rng)

    return build


def _bidiagonal(kind: str) -> Callable[..., Array]:
    """Demmel and Kahan's hard cases: an upper bidiagonal matrix, zeros below and to the right."""

    def build(m: int, n: int, dtype: Any, rng: np.random.Generator) -> Array:
        rank = min(m, n)
        tiny = 1e-30 if real(dtype) == "float64" else 1e-12
        d, e = np.ones(rank), np.ones(max(rank - 1, 0))
        if kind == "falling":
            d = tiny ** (np.arange(rank) / max(rank - 1, 1))
            e = d[:-1].copy()
        elif kind == "rising":
            d = tiny ** (np.arange(rank)[::-1] / max(rank - 1, 1))
            e = d[:-1].copy()
        elif kind == "zeros on d":
            d[[0, rank // 2, -1]] = 0
        elif kind == "zeros on e":
            e[::2] = 0
            e[1::4] = 1e-17
        elif kind == "chi":  # the bidiagonal form of a Gaussian matrix (Dumitriu and Edelman)
            d, e = np.sqrt(rng.chisquare(np.arange(rank, 0, -1))), np.sqrt(rng.chisquare(np.arange(rank - 1, 0, -1)))
        elif kind == "log-random":
            eps = np.finfo(dtype).eps
            d, e = eps ** rng.uniform(-1, 1, rank), eps ** rng.uniform(-1, 1, max(rank - 1, 0))
        a = np.zeros((m, n))
        a[np.arange(rank), np.arange(rank)] = d
        a[np.arange(rank - 1), np.arange(1, rank)] = e
        return a

    return build


def _ones(m: int, n: int, dtype: Any, rng: np.random.Generator) -> Array:
    return np.ones((m, n))


def _kahan(theta: float) -> Callable[..., Array]:
    def build(m: int, n: int, dtype: Any, rng: np.random.Generator) -> Array:
        s, c = np.sin(theta), np.cos(theta)
        r = np.diag(s ** np.arange(n)) @ (np.eye(n) - c * np.triu(np.ones((n, n)), 1))
        return np.r_[r, np.zeros((m, n))][:m]

    return build


CONDITION = {"float64": 1e16, "float32": 1e7}
MILD = {"float64": 1e4, "float32": 1e3}

# name -> build(m, n, dtype, rng), in double precision
MATRICES: dict[str, Callable[..., Array]] = {
    "zero": lambda m, n, dtype, rng: np.zeros((m, n)),
    "identity": lambda m, n, dtype, rng: np.eye(m, n),
    "negative identity": lambda m, n, dtype, rng: -np.eye(m, n),
    "gauss": normal,
    "uniform": lambda m, n, dtype, rng: rng.uniform(-1, 1, (m, n)),
    "ones": _ones,
    "duplicated columns": lambda m, n, dtype, rng: np.repeat(normal(m, (n + 1) // 2, dtype, rng), 2, axis=1)[:, :n],
    "orthogonal": lambda m, n, dtype, rng: haar(max(m, n), rng, dtype)[:m, :n],
    "rank 1": _rank(lambda rank: 1),
    "rank n/2": _rank(lambda rank: max(rank // 2, 1)),
    "rank n-1": _rank(lambda rank: max(rank - 1, 1)),
    "one huge value": lambda m, n, dtype, rng: with_spectrum(np.r_[1e10, np.ones(min(m, n) - 1)], m, n, rng, dtype),
    "repeated values": lambda m, n, dtype, rng: with_spectrum(np.arange(min(m, n))[::-1] // 5 + 1.0, m, n, rng, dtype),
    **{f"mode {mode}": _spectrum(mode, CONDITION) for mode in range(1, 7)},
    **{f"mode {mode}, mild": _spectrum(mode, MILD) for mode in (1, 3, 4)},
    "graded rows": _graded(True, False, False),
    "graded columns": _graded(False, True, False),
    "graded both": _graded(True, True, False),
    "graded rows, rising": _graded(True, False, True),
    "graded columns, rising": _graded(False, True, True),
    "triangular": lambda m, n, dtype, rng: np.triu(normal(m, n, dtype, rng)),
    "lower triangular": lambda m, n, dtype, rng: np.tril(normal(m, n, dtype, rng)),
    "hilbert": lambda m, n, dtype, rng: 1.0 / (1 + np.arange(m)[:, None] + np.arange(n)),
    "kahan 0.6": _kahan(0.6),
    "kahan 1.2": _kahan(1.2),
    "vandermonde": lambda m, n, dtype, rng: np.vander(np.linspace(-1, 1, m), n),
    "toeplitz": lambda m, n, dtype, rng: np.eye(m, n) * 2 - np.eye(m, n, 1) - np.eye(m, n, -1),
    "wilkinson": lambda m, n, dtype, rng: (
        np.diag(np.abs(np.arange(max(m, n)) - max(m, n) // 2) * 1.0)[:m, :n] + np.eye(m, n, 1) + np.eye(m, n, -1)
    ),
    **{
        f"bidiagonal, {kind}": _bidiagonal(kind)
        for kind in ("ones", "falling", "rising", "zeros on d", "zeros on e", "chi", "log-random")
    },
}


def matrix(name: str, m: int, n: int, dtype: Any, seed: int = 0) -> Array:
    """One matrix of the set; log-random entries may be as large as 1/eps."""
    rng = np.random.default_rng(seed)
    a = MATRICES[name](m, n, np.dtype(dtype), rng)
    if is_complex(dtype):
        rows, columns = (np.exp(2j * np.pi * rng.random(k)) for k in (m, n))
        a = rows[:, None] * a * columns
    return np.asarray(a).astype(dtype)


def ldexp(a: Array, exponent: int) -> Array:
    """``a * 2**exponent``, of complex numbers, too."""
    if not is_complex(a.dtype):
        return np.asarray(np.ldexp(a, exponent))
    return np.asarray(np.ldexp(np.ascontiguousarray(a).view(real(a.dtype)), exponent).view(a.dtype))


# ---- ratios ---------------------------------------------------------------------------------------


def _norm1(a: Array) -> float:
    return float(np.abs(a).sum(axis=0).max()) if a.size else 0.0


def _over(error: float, norm: float, size: int, dtype: Any) -> float:
    info = np.finfo(dtype)
    if not error > 0:
        return error  # 0, or NaN
    return error / (max(norm, float(info.tiny)) * size * float(info.eps))


def residual(a: Array, u: Array, s: Array, vh: Array) -> float:
    """``|A - U S V'| / (|A| max(m, n) eps)``; of huge and tiny matrices after scaling by a power of two."""
    rank, double, wide = len(s), np.result_type(a.dtype, float), np.longdouble
    _, exponent = np.frexp(np.abs(a).max() if a.size else 0.0)
    scaled, values = a * np.ldexp(wide(1), -exponent), np.ldexp(s.astype(wide), -exponent)
    product = (u[:, :rank].astype(double) * values.astype(float)) @ vh[:rank].astype(double)
    error = (scaled - product).astype(double)
    return _over(_norm1(error), _norm1(scaled.astype(double)), max(a.shape), a.dtype)


def orthogonality(q: Array) -> float:
    """``|I - Q'Q| / (m eps)`` of a matrix with orthonormal columns."""
    wide = q.astype(np.result_type(q.dtype, float))
    return _over(_norm1(np.eye(q.shape[1]) - wide.conj().T @ wide), 1.0, len(q), q.dtype)


def difference(s: Array, t: Array, size: int) -> float:
    """``|S - T| / (|S| n eps)``: singular values computed in two ways, in the precision of the first."""
    wide = np.longdouble
    error = np.abs(s.astype(wide) - t.astype(wide)).max() if len(s) else 0.0
    norm = max(s[0], t[0]) if len(s) else 0.0
    return float(error / max(norm, np.finfo(s.dtype).tiny)) / (size * float(np.finfo(s.dtype).eps))


def ratios(a: Array, u: Array, s: Array, vh: Array) -> dict[str, float]:
    """All ratios of a decomposition with vectors."""
    return {"residual": residual(a, u, s, vh), "U": orthogonality(u), "V": orthogonality(vh.T)}


def is_sorted(s: Array) -> bool:
    """Finite, in decreasing order, not negative."""
    return bool(np.isfinite(s).all() and (s[1:] <= s[:-1]).all() and (s >= 0).all())


def stock_values(a: Array) -> Array:
    """Singular values by LAPACK in double precision, of the matrix scaled to entries of at most 1."""
    _, exponent = np.frexp(np.abs(a).max())
    scaled = (a * np.ldexp(np.longdouble(1), -exponent)).astype(np.result_type(a.dtype, float))
    with lapack_ai.skip_backend():
        return np.ldexp(np.linalg.svd(scaled, compute_uv=False).astype(np.longdouble), exponent)
