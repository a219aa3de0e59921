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
from lapack_ai_backend.native import dtype_code, ffi, lib

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
        norm, wanted = _norm(s), _norm(self.a) * float(self.factor)
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
        x, y, z = (rng.standard_normal(n) for n in (self.a.shape[1], u.shape[1], len(vh)))
        residual = times(self.a, x * self.factor) - times(u[:, :rank], s * times(vh[:rank], x))
        self._assert_small(_norm(residual), float(s[0]) * _norm(x), "residual")
        self._assert_small(_norm(_adjoint_times(u, times(u, y)) - y), _norm(y), "orthogonality of U", len(u))
        self._assert_small(_norm(times(vh, _adjoint_times(vh, z)) - z), _norm(z), "orthogonality of V", len(z))

    def least_squares(self, x: Array, b: Array, s: Array, rank: int, *, transposed: bool) -> None:
        """``A'(b - A x) = 0`` but for what the values that do not count leave, and ``|x| <= |b| / s[rank - 1]``.

        For a random combination of the columns of `x` and `b`. `transposed`: A is this matrix's transpose.
        """
        self.values(s)
        rng = np.random.default_rng(self.a.shape)
        weights = rng.standard_normal(b.shape[1])
        a, x, b = self.a.T if transposed else self.a, times(x, weights), times(b, weights)
        gradient = times(a.T, (b - times(a, x * self.factor)) * self.factor)
        left = float(s[rank]) * _norm(b) if rank < len(s) else 0.0
        scale = float(s[0]) * (_norm(b) + float(s[0]) * _norm(x))
        self._assert_small(_norm(gradient) - left, scale, "normal equations", max(self.a.shape))
        least = float(s[rank - 1]) if rank else 1.0
        most = _norm(b) if rank else 0.0
        self._assert_small(least * _norm(x) - most, most, "norm of the solution", max(self.a.shape))

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
        self._assert_small(_norm(residual), float(wanted[0]) * rank**0.5, "residual")
        for name, left, right in (("U", u.T.conj(), u), ("V", vh, vh.T.conj())):
            gram = np.dot(left, right)
            gram.flat[:: len(gram) + 1] -= 1
            self._assert_small(_norm(gram), len(gram) ** 0.5, f"orthogonality of {name}", right.shape[0])

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


def times(a: Array, x: Array) -> Array:
    """``A x`` in double precision, of a matrix with neighbours in columns, or in rows, side by side.

    By csrc/gemv.c: not np.dot, whose threads would keep the CPUs busy after it.
    """
    if a.dtype.kind != "c":
        return _as_complex(_real_times(a, np.stack([x.real, x.imag]))) if x.dtype.kind == "c" else _real_times(a, x)[0]
    # Its real and imaginary parts are neighbours.
    reals = np.finfo(a.dtype).dtype
    if a.strides[0] == a.itemsize:
        return _as_complex(_real_times(a.T.view(reals).T, np.stack([x.real, x.imag])).view(complex))
    by_rows, x = a if a.strides[1] == a.itemsize else np.ascontiguousarray(a), x.astype(complex).conj()
    return _as_complex(_real_times(by_rows.view(reals), np.stack([x, 1j * x]).view(float)))


def _as_complex(parts: Array) -> Array:
    return np.asarray(parts[0] + 1j * parts[1])


def _real_times(a: Array, vectors: Array) -> Array:
    """Products of a real matrix and each row of `vectors`, or one vector, as rows."""
    transposed = a.strides[0] != a.itemsize
    stored = a.T if transposed else a  # by columns
    if stored.strides[0] != stored.itemsize:
        stored = np.asfortranarray(stored)
    x, y = np.ascontiguousarray(np.atleast_2d(vectors), float), np.empty((vectors.size // a.shape[1], len(a)))
    ld = stored.strides[1] // stored.itemsize
    pointers = ffi.cast("void *", stored.ctypes.data), ffi.from_buffer("double *", x), ffi.from_buffer("double *", y)
    lib.lai_gemv(dtype_code(a.dtype.name), transposed, *stored.shape, pointers[0], ld, len(x), *pointers[1:])
    return y


def _adjoint_times(u: Array, x: Array) -> Array:
    """``U' x``, without a conjugate of U, which would be a copy."""
    return times(u.T, x.conj()).conj()


def _norm(x: Array) -> float:
    """Square root of the sum of squares of a contiguous array, summed in double precision."""
    reals = x.ravel("K").view(np.finfo(x.dtype).dtype)  # real and imaginary parts
    return float(lib.lai_sum_of_squares(dtype_code(reals.dtype.name), reals.size, ffi.from_buffer(reals)) ** 0.5)


def _ldexp(a: Array, exponent: int) -> Array:
    """``a * 2**exponent``, of a contiguous array in its memory order."""
    reals = np.ldexp(a.ravel("K").view(np.finfo(a.dtype).dtype), exponent)
    return np.asarray(reals.view(a.dtype).reshape(a.shape, order="F" if a.flags.f_contiguous else "C"))


def _assert(holds: bool, what: str) -> None:
    if not holds:
        raise Decline("wrong_result", what)
