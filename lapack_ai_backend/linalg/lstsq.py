"""``scipy.linalg.lstsq`` on an OpenCL device, as LAPACK's gelsd: x = V diag(1/s) U'b, of the values that count.

The decomposition is that of gesdd.py; U and V stay on the device. Both A and b are scaled by powers of two.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from lapack_ai_backend.linalg import Settings, gesdd
from lapack_ai_backend.linalg.svd import MOST_SLENDER, SCIPY, are_flags, contiguous, session_of
from lapack_ai_backend.linalg.verification import Verification
from lapack_ai_backend.opencl import lapack, memory, transfer
from lapack_ai_backend.opencl.session import Session

Array = np.ndarray[Any, Any]

FROM_1_18 = SCIPY >= "1.18.0"


def lstsq(
    options: Settings,
    a: Array,
    b: Any,
    cond: Any = None,
    overwrite_a: bool = False,  # both allow what is of no use here
    overwrite_b: bool = False,
    check_finite: bool = True,
    lapack_driver: str | None = None,
) -> Any:
    """As ``scipy.linalg.lstsq``, for one float32 or float64 matrix and right-hand sides of the same dtype."""
    driver = lapack_driver or scipy.linalg.lstsq.default_lapack_driver
    if driver != "gelsd" or not are_flags(overwrite_a, overwrite_b, check_finite) or not _fits(a, b, cond):
        return NotImplemented
    dtype = a.dtype.newbyteorder("=")
    sides = b if b.ndim == 2 else b[:, np.newaxis]
    largest = float(np.abs(sides).max())
    if not math.isfinite(largest):
        return NotImplemented  # SciPy's errors
    exponent = -math.frexp(largest)[1]
    scaled = np.ldexp(sides.astype(dtype, copy=False), exponent, order="F")
    found = _solve(options, contiguous(a, dtype), scaled, _cutoff(cond, dtype))
    if found is NotImplemented:
        return NotImplemented
    x = np.ldexp(found.x, found.exponent - exponent)
    squares = None if found.residual is None else np.ldexp((found.residual**2).sum(axis=0), -2 * exponent)
    return _as_scipy(a.shape, x, squares, found, one_side=b.ndim == 1)


def _fits(a: Array, b: Any, cond: Any) -> bool:
    """Whether these are a matrix and right-hand sides as the device takes them."""
    if a.dtype.kind != "f" or not isinstance(cond, (float, int, type(None))):
        return False
    if type(b) is not np.ndarray or b.ndim not in (1, 2) or b.size == 0:
        return False
    same = a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=")
    return a.ndim == 2 and same and len(a) == len(b) and max(a.shape) <= MOST_SLENDER * min(a.shape)


def _cutoff(cond: float | None, dtype: np.dtype[Any]) -> float:
    """Below which part of the largest singular value others do not count: as SciPy and gelsd (dlalsd) choose it."""
    eps = float(np.finfo(dtype).eps)
    if cond is None:
        return eps
    return float(cond) if 0 < cond < 1 else eps / 2


class Solution(NamedTuple):
    """Of ``min |b - A 2^exponent x|``.

    Attributes
    ----------
    x : ndarray
        n x right-hand sides, by columns.
    residual : ndarray or None
        ``b - A 2^exponent x`` where A has more rows than columns, and full rank.
    s : ndarray
        Singular values of A, as they are.
    rank, exponent : int
    """

    x: Array
    residual: Array | None
    s: Array
    rank: int
    exponent: int


def _solve(options: Settings, a: Array, b: Array, cutoff: float) -> Any:
    """The `Solution`; ``NotImplemented`` where A is not finite."""
    (m, n), sides = a.shape, b.shape[1]
    wide, least = m < n, min(m, n)
    tall = a.T if wide else a
    session = session_of(options, a.dtype.name)
    plan = gesdd.plan(m, n, a.dtype.name, vectors=True, full=False)
    shapes = {"b": (m, sides), "c": (least, sides), "x": (n, sides)}
    shapes["work"] = (
        max(lapack.gemm_work(a.dtype.name, least, sides, m), lapack.gemm_work(a.dtype.name, n, sides, least), 1),
        1,
    )
    sizes = [rows * columns * a.dtype.itemsize for rows, columns in shapes.values()]
    with session.lock:
        host = plan.host_bytes(0) + 3 * sum(sizes)
        memory.check(session, [*plan.device_bytes(), *sizes], host + transfer.pinned_bytes(session, plan.most_bytes))
        work = gesdd.Workspace(session, plan)
        exponent = gesdd.upload(work, tall)
        if exponent is None:
            return NotImplemented
        s = gesdd.decompose_on_device(work)
        left, right = (work["v"], work["u"]) if wide else (work["u"], work["v"])
        room = {name: lapack.allocate(session, a.dtype.name, *shape) for name, shape in shapes.items()}
        transfer.write(session, b, room["b"].buffer)
        lapack.gemm(session, True, False, 1, left, room["b"], 0, room["c"], room["work"])
        counts = s > cutoff * s[0]
        rank = int(counts.sum())
        residual = None
        if m > n and rank == n:
            lapack.gemm(session, False, False, -1, left, room["c"], 1, room["b"], room["work"])
            residual = _read(session, room["b"])
        c = _read(session, room["c"])
        c /= np.where(counts, s, 1)[:, np.newaxis]
        c[~counts] = 0
        transfer.write(session, c, room["c"].buffer)
        lapack.gemm(session, False, False, 1, right, room["c"], 0, room["x"], room["work"])
        x = _read(session, room["x"])
        del work, room  # the next call's memory check counts on it
    if options.verify != "off":
        checks = Verification(tall, exponent)
        checks.least_squares(x, b, s, rank, transposed=wide)
        if options.verify == "always":
            checks.reference(s)
    return Solution(x, residual, np.abs(np.ldexp(s, -exponent)), rank, exponent)


def _read(session: Session, source: lapack.Matrix) -> Array:
    found = np.empty((source.rows, source.columns), source.dtype, "F")
    transfer.read(session, source.buffer, found)
    return found


def _as_scipy(shape: tuple[int, ...], x: Array, squares: Array | None, found: Solution, *, one_side: bool) -> Any:
    """x, residues, rank, s as the installed SciPy returns them."""
    m, n = shape
    if squares is None and FROM_1_18 and m > n:
        squares = np.full(x.shape[1], np.nan, x.dtype)  # deficient rank
    if squares is None:
        squares = np.zeros(0, x.dtype)
    elif one_side:
        squares = squares[..., 0] if FROM_1_18 else squares[0]  # an array without axes, a number
    if one_side:
        x = x[:, 0]
    if FROM_1_18:
        return np.ascontiguousarray(x), squares, np.int64(found.rank), found.s
    return x, squares, found.rank, found.s
