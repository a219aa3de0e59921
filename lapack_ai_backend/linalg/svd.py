"""``scipy.linalg.svd``, ``svdvals`` and ``norm``, ``numpy.linalg.svd`` and ``cond`` on an OpenCL device.

Their arguments in, their results out. The decomposition of one matrix is in gesdd.py, that of a stack of small ones in
stacks.py; here are arguments, other stacks, checks and layouts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy
from numpy.linalg import _linalg  # for the type of numpy.linalg.svd's results, which has no public name

from lapack_ai_backend.errors import Decline
from lapack_ai_backend.linalg import Settings, gesdd, stacks
from lapack_ai_backend.linalg.verification import Verification
from lapack_ai_backend.opencl import devices, memory, transfer
from lapack_ai_backend.opencl.session import Session, open_session

Array = np.ndarray[Any, Any]

# Long sides over short ones: beyond, all but a few items of each work-group would wait, and LAPACK is faster anywhere.
MOST_SLENDER = 2**16

SCIPY = np.lib.NumpyVersion(scipy.__version__)
STACKS = SCIPY >= "1.16.0"  # before, SciPy refuses more than two dimensions
SVDResult: Any = _linalg.SVDResult
ORDER = "C" if SCIPY >= "1.18.0" else "F"  # of U and Vh


def svd(
    options: Settings,
    a: Array,
    full_matrices: bool = True,
    compute_uv: bool = True,
    overwrite_a: bool = False,  # allows what is of no use here
    check_finite: bool = True,
    lapack_driver: str = "gesdd",
) -> Any:
    """As ``scipy.linalg.svd``, for stacks (..., M, N) of float or complex matrices that are not empty."""
    if lapack_driver != "gesdd" or not are_flags(full_matrices, compute_uv, overwrite_a, check_finite):
        return NotImplemented
    if a.ndim > 2 and not STACKS:
        return NotImplemented
    found = _decompose(options, a, ORDER if compute_uv else None, bool(full_matrices), check_finite)
    if found is NotImplemented:
        return NotImplemented
    if not compute_uv:
        return found[1]
    return list(found) if a.ndim > 2 and SCIPY < "1.18.0" else found  # as SciPy does


def svdvals(
    options: Settings,
    a: Array,
    overwrite_a: bool = False,
    check_finite: bool = True,
) -> Any:
    """As ``scipy.linalg.svdvals``."""
    return svd(options, a, compute_uv=False, overwrite_a=overwrite_a, check_finite=check_finite)


def norm(
    options: Settings,
    a: Array,
    ord: Any = None,  # noqa: A002  # SciPy's name
    axis: Any = None,
    keepdims: bool = False,
    check_finite: bool = True,
) -> Any:
    """As ``scipy.linalg.norm``, of the orders that are functions of the singular values: 2, -2, "nuc"."""
    if axis is not None or a.ndim != 2 or not are_flags(keepdims, check_finite):
        return NotImplemented
    s = svd(options, a, compute_uv=False, check_finite=check_finite)
    if s is NotImplemented:
        return NotImplemented
    value = s.sum() if ord == "nuc" else s[0] if ord == 2 else s[-1]
    return value.reshape(1, 1) if keepdims else value


def numpy_svd(
    options: Settings, a: Array, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    """As ``numpy.linalg.svd``; what is not finite is NumPy's to report."""
    if hermitian or not are_flags(full_matrices, compute_uv):
        return NotImplemented
    found = _decompose(options, a, "C" if compute_uv else None, bool(full_matrices), check_finite=True)
    if found is NotImplemented:
        return NotImplemented
    return SVDResult(*found) if compute_uv else found[1]


def numpy_cond(options: Settings, x: Array, p: Any = None) -> Any:
    """As ``numpy.linalg.cond``, of the orders that are ratios of singular values: None, 2, -2."""
    s = numpy_svd(options, x, compute_uv=False)
    if s is NotImplemented:
        return NotImplemented
    ends = s[..., -1], s[..., 0]
    ratio = np.divide(*(ends if p == -2 else ends[::-1]))
    return np.where(np.isnan(ratio), ratio.dtype.type(np.inf), ratio)[()]  # 0 / 0: of a zero matrix


def session_of(options: Settings, dtype: str) -> Session:
    """The session of the device that the options mean; Decline, "device", where there is none."""
    device = devices.choose(options.device, dtype)
    if device is None:
        raise Decline("device", devices.why_not(options.device, dtype))
    return open_session(device)


def are_flags(*values: object) -> bool:
    """Whether these are plain truth values; what the stock function makes of others is its own to say."""
    return all(isinstance(value, (bool, int, type(None), np.bool_)) for value in values)


def _decompose(options: Settings, a: Array, order: str | None, full: bool, check_finite: bool) -> Any:
    """Every matrix of a stack, unless they are small one after the other; ``NotImplemented`` leaves all to stock.

    `order`: U's and Vh's in memory; None for the singular values alone.
    """
    vectors, dtype = order is not None, a.dtype.newbyteorder("=")
    session = session_of(options, dtype.name)
    if stacks.serves(a):
        with session.lock:
            return stacks.decompose(
                session, a, vectors=vectors, full=full, check_finite=check_finite, verify=options.verify
            )
    if max(a.shape[-2:]) > MOST_SLENDER * min(a.shape[-2:]):
        return NotImplemented
    plan = gesdd.plan(a.shape[-2], a.shape[-1], dtype.name, vectors=vectors, full=full)
    stack = a.shape[:-2]
    host = plan.host_bytes(math.prod(stack), compared=options.verify == "always")
    with session.lock:
        memory.check(session, plan.device_bytes(), host + transfer.pinned_bytes(session, plan.most_bytes))
        workspace = gesdd.Workspace(session, plan)
        results: tuple[Any, ...] = ()
        for index in np.ndindex(stack):
            result = _one(workspace, contiguous(a[index], dtype), order or "C", options.verify)
            if result is NotImplemented and (check_finite or np.isnan(a).any()):
                return NotImplemented  # stock's errors
            if result is NotImplemented:
                result = _nan(plan, wide=a.shape[-2] < a.shape[-1])
            results = _kept(results, stack, index, result)
        del workspace  # the next call's memory check counts on it
    return results


def _kept(results: tuple[Any, ...], stack: tuple[int, ...], index: tuple[int, ...], result: Any) -> tuple[Any, ...]:
    """The results of a stack with those of one matrix put in their place; of a single matrix they are all."""
    if not stack:
        return tuple(result)
    if not results:
        results = tuple(None if part is None else np.empty((*stack, *part.shape), part.dtype) for part in result)
    for whole, part in zip(results, result, strict=True):
        if whole is not None:
            whole[index] = part
    return results


def _one(workspace: gesdd.Workspace, a: Array, order: str, verify: str) -> Any:
    """U, s, Vh of one matrix, checked; ``NotImplemented`` if it is not finite."""
    wide = a.shape[0] < a.shape[1]
    tall = a.T if wide else a
    exponent = gesdd.upload(workspace, tall)
    if exponent is None:
        return NotImplemented
    # Of a wide matrix U is V here, and Vh is U.T: by columns where Vh is to be by rows.
    u_order, v_order = ("C", "F") if (order == "C") != wide else ("F", "C")
    gesdd.prepare(workspace, u_order)
    u, s, v = gesdd.decompose(workspace, u_order, v_order)  # of tall * 2^exponent
    if verify != "off":
        checks = Verification(tall, exponent)
        if u is None:
            checks.values(s)
            checks.determinant(s, gesdd.diagonal(workspace))
        else:
            checks.probe(u, s, v.T)
        if verify == "always":
            checks.reference(s, u, None if v is None else v.T)
    s = np.abs(np.ldexp(s, -exponent))  # LAPACK's zeros may have a sign
    if u is None:
        return None, s, None
    return (v, s, u.T) if wide else (u, s, v.T)


def _nan(plan: gesdd.Plan, *, wide: bool) -> tuple[Any, Array, Any]:
    """What comes of Inf that is not looked for: NaN. LAPACK may iterate for ever on it."""
    s = np.full(plan.n, np.nan, plan.real)
    if not plan.vectors:
        return None, s, None
    u, v = np.full((plan.m, plan.left), np.nan, plan.dtype), np.full((plan.n, plan.n), np.nan, plan.dtype)
    return (v, s, u.T) if wide else (u, s, v)


def contiguous(a: Array, dtype: np.dtype[Any]) -> Array:
    """The matrix in native byte order and without gaps, by rows or by columns; a copy only where it must be."""
    plain = a.dtype == dtype and a.flags.aligned and (a.flags.c_contiguous or a.flags.f_contiguous)
    return a if plain else np.array(a, dtype, order="K")
