"""Checks of singular value decompositions that a device has computed; on the host, on what the caller gets.

`Verification.probe` costs seven products of a matrix and a vector, against the many
sweeps of the decomposition itself. It is there for what tests cannot foresee: a
driver that returns garbage, a device that lost its memory, a transfer cut short.
Every comparison is written so that NaN fails it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import get_lapack_funcs

from lapack_ai_backend.errors import Decline

Array = np.ndarray[Any, Any]

# Errors are relative, in units of eps. Allowed are LIMIT[0] + LIMIT[1] sqrt(min(m, n)), and max(m, n) for the
# orthogonality of U, since its columns are that long. Decompositions that are well reach a tenth of the second part
# (tests/test_verification.py); the first is for LAPACK's iteration, which drops superdiagonals of up to 49 eps
# where n is at most 25.
LIMIT = (100.0, 10.0)

# Of sum(log s) against sum(log |d|): n (DETERMINANT_LIMIT + n) eps, since each value may be off by about n eps, though
# few are; below LEAST logarithms say nothing.
DETERMINANT_LIMIT = 50.0
LEAST = {"float32": 1e-30, "float64": 1e-280}

# Below these exponents neither products nor sums of squares overflow or vanish.
SAFE = {"float32": 30, "float64": 400}

CHUNK = 8192  # float32: longer sums lose more digits than the checks may


class Verification:
    """The checks of one matrix, contiguous, whose entries times ``2**exponent`` are at most 1."""

    def __init__(self, a: Array, exponent: int) -> None:
        info = np.finfo(a.dtype)
        if abs(exponent) > SAFE[info.dtype.name]:
            a, exponent = _ldexp(a, exponent), 0
        self.a = a
        self.factor = info.dtype.type(2.0) ** exponent

    def values(self, s: Array) -> None:
        """`s`, of the scaled matrix: finite, sorted, not negative, with the Frobenius norm of the matrix."""
        _assert(bool(np.isfinite(s).all()), "singular values are not finite")
        _assert(bool((s[1:] <= s[:-1]).all() and s[-1] >= 0), "singular values are not sorted, or negative")
        norm, wanted = _frobenius(s), _frobenius(self.a) * float(self.factor)
        self._assert_small(abs(norm - wanted), max(norm, wanted), "sum of squares of the singular values")

    def determinant(self, s: Array, d: Array) -> None:
        """``prod(s) = prod(|d|)``, d the bidiagonal matrix's diagonal: small values cannot hide behind large ones."""
        least = LEAST[s.dtype.name]
        with np.errstate(divide="ignore"):  # zeros: their logarithm says so
            of_s, of_d = np.log(s[s >= least].astype(float)), np.log(np.abs(d).astype(float))
        missing = float(of_d.sum() - of_s.sum())  # the logarithm of the product of the values below `least`
        largest = max((float(np.abs(of_s).max()) if of_s.size else 0.0), 1.0)
        allowed = len(s) * float(np.finfo(s.dtype).eps) * (DETERMINANT_LIMIT + len(s) + largest)
        hidden = len(s) - len(of_s)
        right = missing <= hidden * np.log(least) + allowed if hidden else abs(missing) <= allowed
        _assert(bool(right), f"product of the singular values: its logarithm is off by {missing:.3g}")

    def probe(self, u: Array, s: Array, vh: Array) -> None:
        """``A x = U (s * (Vh x))`` for a random x; U and V orthonormal on random vectors."""
        self.values(s)
        rank = len(s)  # further columns of full matrices only complete a basis
        rng = np.random.default_rng(self.a.shape)
        x, y, z = (rng.standard_normal(n).astype(self.a.dtype) for n in (self.a.shape[1], u.shape[1], len(vh)))
        # np.dot, not @: a product of ours would be the user's call in traces and counters.
        residual = np.dot(self.a, x * self.factor) - np.dot(u[:, :rank], s * np.dot(vh[:rank], x))
        self._assert_small(_frobenius(residual), float(s[0]) * _frobenius(x), "residual")
        self._assert_small(
            _frobenius(_transposed_times(u, np.dot(u, y)) - y), _frobenius(y), "orthogonality of U", len(u)
        )
        back = np.dot(vh, np.dot(vh.T, z.conj()).conj())  # no conjugate of a matrix, which would be a copy
        self._assert_small(_frobenius(back - z), _frobenius(z), "orthogonality of V", len(z))

    def least_squares(self, x: Array, b: Array, s: Array, rank: int, *, transposed: bool) -> None:
        """``A'(b - A x) = 0`` but for what the values that do not count leave, and ``|x| <= |b| / s[rank - 1]``.

        For a random combination of the columns of `x` and `b`. `transposed`: A is this matrix's transpose.
        """
        self.values(s)
        rng = np.random.default_rng(self.a.shape)
        weights = rng.standard_normal(b.shape[1]).astype(s.dtype)
        a, x, b = self.a.T if transposed else self.a, np.dot(x, weights), np.dot(b, weights)
        gradient = np.dot(a.T, (b - np.dot(a, x * self.factor)) * self.factor)
        left = float(s[rank]) * _frobenius(b) if rank < len(s) else 0.0
        scale = float(s[0]) * (_frobenius(b) + float(s[0]) * _frobenius(x))
        self._assert_small(_frobenius(gradient) - left, scale, "normal equations", max(self.a.shape))
        least = float(s[rank - 1]) if rank else 1.0
        most = _frobenius(b) if rank else 0.0
        self._assert_small(least * _frobenius(x) - most, most, "norm of the solution", max(self.a.shape))

    def reference(self, s: Array, u: Array | None = None, vh: Array | None = None) -> None:
        """Values against LAPACK as SciPy carries it; with vectors, every entry of the products."""
        self.values(s)
        a = self.a * self.factor
        _, wanted, _, info = get_lapack_funcs("gesdd", (a,))(a, compute_uv=0)  # numpy.linalg.svd might come back here
        _assert(info == 0, "LAPACK did not converge")
        self._assert_small(float(np.abs(wanted - s).max()), float(wanted[0]), "difference of singular values")
        if u is None or vh is None:
            return
        rank = len(s)
        residual = np.dot(u[:, :rank] * s, vh[:rank])
        residual -= a
        self._assert_small(_frobenius(residual), float(wanted[0]) * rank**0.5, "residual")
        for name, left, right in (("U", u.T.conj(), u), ("V", vh, vh.T.conj())):
            gram = np.dot(left, right)
            gram.flat[:: len(gram) + 1] -= 1
            self._assert_small(_frobenius(gram), len(gram) ** 0.5, f"orthogonality of {name}", right.shape[0])

    def _assert_small(self, error: float, norm: float, what: str, length: int | None = None) -> None:
        info = np.finfo(self.a.dtype)
        units = error / (max(norm, float(info.tiny)) * float(info.eps))  # the norm of a zero matrix is 0
        allowed = LIMIT[0] + LIMIT[1] * (length or min(self.a.shape)) ** 0.5
        _assert(units <= allowed, f"{what}: {units:.3g} eps, {allowed:.3g} are allowed")


class StackVerification:
    """The same for a stack of real matrices, (count, m, n), whose entries times ``2**exponents`` are at most 1.

    One random vector serves all of them.
    """

    def __init__(self, a: Array, exponents: Array) -> None:
        info = np.finfo(a.dtype)
        if np.abs(exponents).max() > SAFE[info.dtype.name]:
            a, exponents = np.ldexp(a, exponents[:, None, None]), np.zeros_like(exponents)
        self.a, self.exponents = a, exponents
        self.factors = np.ldexp(info.dtype.type(1), exponents)[:, None]

    def values(self, s: Array) -> None:
        """As `Verification.values`."""
        _assert(bool(np.isfinite(s).all()), "singular values are not finite")
        _assert(bool((s[:, 1:] <= s[:, :-1]).all() and (s >= 0).all()), "singular values are not sorted, or negative")
        norms = np.sqrt(np.einsum("bij,bij->b", self.a, self.a, dtype=float)) * self.factors[:, 0]
        found = np.sqrt(np.einsum("bi,bi->b", s, s, dtype=float))
        self._assert_small(norms - found, np.maximum(norms, found), "sum of squares of the singular values")

    def sample(self, s: Array) -> None:
        """Small values could hide behind large ones: those of one matrix against LAPACK's."""
        k = int(np.random.default_rng(self.a.shape).integers(len(s)))
        Verification(self.a[k], int(self.exponents[k])).reference(s[k])

    def probe(self, u: Array, s: Array, vh: Array) -> None:
        """As `Verification.probe`."""
        self.values(s)
        rank = s.shape[1]
        rng = np.random.default_rng(self.a.shape)
        x, y, z = (rng.standard_normal(n).astype(s.dtype) for n in (vh.shape[2], u.shape[2], vh.shape[1]))
        # No @, which would be the user's call in traces and counters; and no BLAS, whose threads take longer to wake.
        scaled = s * np.einsum("bij,j->bi", vh[:, :rank], x)
        residual = np.einsum("bij,j->bi", self.a, x) * self.factors - np.einsum("bij,bj->bi", u[:, :, :rank], scaled)
        self._assert_small(residual, s[:, 0] * np.sqrt(np.dot(x, x)), "residual")
        back = np.einsum("bij,bi->bj", u, np.einsum("bij,j->bi", u, y))
        self._assert_small(back - y, np.sqrt(np.dot(y, y)), "orthogonality of U", u.shape[1])
        back = np.einsum("bij,bj->bi", vh, np.einsum("bij,i->bj", vh, z))
        self._assert_small(back - z, np.sqrt(np.dot(z, z)), "orthogonality of V", len(z))

    def reference(self, s: Array, u: Array | None = None, vh: Array | None = None) -> None:
        """As `Verification.reference`, one matrix after the other."""
        for k, a in enumerate(self.a):
            vectors = () if u is None or vh is None else (u[k], vh[k])
            Verification(a, int(self.exponents[k])).reference(s[k], *vectors)

    def _assert_small(self, errors: Array, norms: Any, what: str, length: int | None = None) -> None:
        """`errors`: numbers, or vectors whose length is meant."""
        info = np.finfo(self.a.dtype)
        sizes = np.abs(errors) if errors.ndim == 1 else np.sqrt(np.einsum("bi,bi->b", errors, errors, dtype=float))
        units = float((sizes / (np.maximum(norms, info.tiny) * float(info.eps))).max())
        allowed = LIMIT[0] + LIMIT[1] * (length or min(self.a.shape[1:])) ** 0.5
        _assert(units <= allowed, f"{what}: {units:.3g} eps, {allowed:.3g} are allowed")


def _transposed_times(u: Array, x: Array) -> Array:
    """``U' x`` of a tall matrix, sums of chunks of rows in double precision."""
    chunks = (slice(start, start + CHUNK) for start in range(0, len(u), CHUNK))
    wide = np.result_type(u.dtype, float)
    return sum((np.dot(u[rows].T, x[rows].conj()).astype(wide) for rows in chunks), np.zeros(u.shape[1], wide)).conj()


def _frobenius(x: Array) -> float:
    """Square root of the sum of squares of a contiguous array, summed in double precision."""
    flat = x.ravel("K").view(np.finfo(x.dtype).dtype)  # real and imaginary parts
    chunks = (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))
    return float(sum(float(np.dot(chunk, chunk)) for chunk in chunks) ** 0.5)


def _ldexp(a: Array, exponent: int) -> Array:
    """``a * 2**exponent``, of a contiguous array in its memory order."""
    reals = np.ldexp(a.ravel("K").view(np.finfo(a.dtype).dtype), exponent)
    return np.asarray(reals.view(a.dtype).reshape(a.shape, order="F" if a.flags.f_contiguous else "C"))


def _assert(holds: bool, what: str) -> None:
    if not holds:
        raise Decline("wrong_result", what)
