"""Singular vectors of a bidiagonal matrix on the host: LAPACK's divide and conquer, as SciPy carries it.

SciPy offers ``bdsdc`` to Cython only; its capsule holds the address of the routine.
The call does not hold the GIL.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

ROUTINES = {"float32": "sbdsdc", "float64": "dbdsdc"}
MAX_ORDER = 26_754  # 3 n^2 + 4 n, the length of the workspace, must fit LAPACK's 32-bit integers


def workspace_bytes(n: int, dtype: str) -> int:
    """Host memory of `bdsdc` beside its results."""
    return (3 * n * n + 4 * n) * np.dtype(dtype).itemsize + 8 * n * np.dtype(np.intc).itemsize


def bdsdc(d: np.ndarray[Any, Any], e: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
    """SVD of the upper bidiagonal matrix with diagonal `d` and superdiagonal `e`.

    Returns
    -------
    u, s, vt : ndarray
        (n, n) in Fortran order, (n,) in decreasing order, (n, n) in Fortran order.

    Raises
    ------
    RuntimeError
        Where LAPACK's iteration does not converge.
    """
    n, dtype = len(d), d.dtype
    s, superdiagonal = d.copy(), np.zeros(n, dtype)  # both are overwritten
    superdiagonal[: n - 1] = e
    u, vt = np.empty((n, n), dtype, "F"), np.empty((n, n), dtype, "F")
    work, integers = np.empty(3 * n * n + 4 * n, dtype), np.empty(8 * n, np.intc)
    unused, info = np.empty(1, dtype), ctypes.c_int(0)
    order = ctypes.c_int(n)
    _routine(ROUTINES[dtype.name])(
        b"U",
        b"I",
        ctypes.byref(order),
        s.ctypes.data,
        superdiagonal.ctypes.data,
        u.ctypes.data,
        ctypes.byref(order),
        vt.ctypes.data,
        ctypes.byref(order),
        unused.ctypes.data,
        integers.ctypes.data,
        work.ctypes.data,
        integers.ctypes.data,
        ctypes.byref(info),
    )
    if info.value:
        raise RuntimeError(f"bdsdc did not converge: info = {info.value}")
    return u, s, vt


@functools.cache
def _routine(name: str) -> Any:
    """A routine of LAPACK, every argument by reference."""
    from scipy.linalg import cython_lapack

    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = cython_lapack.__pyx_capi__[name]
    signature = api.PyCapsule_GetName(capsule)
    arguments = [ctypes.c_char_p, ctypes.c_char_p, *[ctypes.c_void_p] * (signature.count(b",") - 1)]
    return ctypes.CFUNCTYPE(None, *arguments)(api.PyCapsule_GetPointer(capsule, signature))
