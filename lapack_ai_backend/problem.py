"""What the policy sees of a call: function, dtype and sizes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lapack_ai_backend.multimethods import MATMUL


class Problem(NamedTuple):
    """One call as the rules look at it.

    Of a product: (m, k) times (k, n). Of a function of one matrix: m x n, and k is 0.
    `batch` counts the matrices of a stack, 1 for a single one.
    """

    function: str
    dtype: str
    m: int
    k: int
    n: int
    batch: int
    symmetric: bool = False  # A @ A.T: the same data with swapped strides


def of_matrix(function: str, a: Any) -> Problem | None:
    """The problem of ``scipy.linalg`` calls on `a`; None unless `a` is plainly an array of matrices.

    Subclasses, masked arrays and nested lists are SciPy's to interpret; so is everything empty.
    """
    if type(a) is not np.ndarray or a.ndim < 2 or a.size == 0 or not a.dtype.isnative:
        return None
    return Problem(function, a.dtype.name, a.shape[-2], 0, a.shape[-1], math.prod(a.shape[:-2]))


def of_product(x1: Any, x2: Any, dtype: Any = None) -> Problem | None:
    """The problem that NumPy's loop will see for ``x1 @ x2``; None where no loop runs.

    Raises what ``numpy.matmul`` raises for operands that do not fit.
    """
    a, b = np.asanyarray(x1), np.asanyarray(x2)
    operands = (a.dtype, b.dtype, None)
    if dtype is None:
        loop = np.matmul.resolve_dtypes(operands)[0]
    else:
        loop = np.matmul.resolve_dtypes(operands, signature=(None, None, np.dtype(dtype).type))[0]
    columns = b[..., np.newaxis] if b.ndim == 1 else b
    rows = a[np.newaxis] if a.ndim == 1 else a
    if a.ndim == 0 or b.ndim == 0 or rows.shape[-1] != columns.shape[-2]:
        np.matmul(a, b)  # raises NumPy's own error
    batch = math.prod(np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2]))
    (m, k), n = rows.shape[-2:], columns.shape[-1]
    if 0 in (batch, m, n):
        return None
    return Problem(MATMUL, loop.name, m, k, n, batch, _same_transposed(rows, columns))


def _same_transposed(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """As ``is_symmetric`` of csrc/matmul_hook.c."""
    same = a.ctypes.data == b.ctypes.data and a.dtype == b.dtype and a.shape[-2] == b.shape[-1]
    return same and a.strides[-2:] == b.strides[-2:][::-1] and a.strides[:-2] == b.strides[:-2]
