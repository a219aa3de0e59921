"""What the policy sees of a call: function, dtype and sizes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lapack_ai_backend.multimethods import ARRAYS, MATMUL

# Arguments (place, name) that make a call another problem unless they have one of these values; None: not given.
ACCEPTED: dict[str, dict[tuple[int, str], tuple[object, ...]]] = {
    "scipy.linalg.svd": {(5, "lapack_driver"): (None, "gesdd")},
    "scipy.linalg.lstsq": {(6, "lapack_driver"): (None, "gelsd")},
    "numpy.linalg.cond": {(1, "p"): (None, 2, -2)},  # of the singular values
    "numpy.linalg.svd": {(3, "hermitian"): (None, False)},  # True: of eigenvalues
    "scipy.linalg.norm": {(1, "ord"): (2, -2, "nuc"), (2, "axis"): (None,)},  # functions of the singular values
}


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
    """The problem of calls on the matrix `a`; None unless `a` is plainly an array of matrices.

    Subclasses, masked arrays and nested lists are the stock function's to interpret; so is everything empty.
    The byte order is the kernels' to look at: they take a copy anyway.
    """
    if type(a) is not np.ndarray or a.ndim < 2 or a.size == 0:
        return None
    return Problem(function, a.dtype.name, a.shape[-2], 0, a.shape[-1], math.prod(a.shape[:-2]))


def of_call(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Problem | None:
    """The problem of a call of ``scipy.linalg`` or ``numpy.linalg``: that of its first array."""
    for where, accepted in ACCEPTED.get(function, {}).items():
        value = _argument(args, kwargs, *where)
        # Other objects might compare in ways of their own.
        if not isinstance(value, (int, float, str, type(None))) or value not in accepted:
            return None
    name = ARRAYS[function].split()[0]
    return of_matrix(function, _argument(args, kwargs, 0, name))


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def of_product(
    x1: Any, x2: Any, dtype: Any = None, axes: Any = None, casting: Any = "same_kind", signature: Any = None
) -> Problem | None:
    """The problem that NumPy's loop will see for ``np.matmul(x1, x2, ...)``; None where no loop runs.

    Raises what ``numpy.matmul`` raises for operands that do not fit.
    """
    a, b = np.asanyarray(x1), np.asanyarray(x2)
    if dtype is not None:
        signature = (None, None, np.dtype(dtype).type)
    given = {} if signature is None else {"signature": signature}
    loop = np.matmul.resolve_dtypes((a.dtype, b.dtype, None), casting=casting, **given)[0]
    if axes is not None:
        a, b = _core_last(a, axes[0]), _core_last(b, axes[1])
    if a.ndim == 0 or b.ndim == 0:
        np.matmul(a, b)  # raises NumPy's own error
    rows = a[np.newaxis] if a.ndim == 1 else a
    columns = b[..., np.newaxis] if b.ndim == 1 else b
    if rows.shape[-1] != columns.shape[-2]:
        np.matmul(a, b)  # the same
    try:
        batch = math.prod(np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2]))
    except ValueError:
        np.matmul(a, b)  # the same, in NumPy's words for it
        raise
    (m, k), n = rows.shape[-2:], columns.shape[-1]
    if batch == 0:
        return None
    # As is_symmetric of csrc/matmul_hook.h; where NumPy casts or aligns an operand, the loop sees a copy.
    as_is = all(x.dtype == loop and x.flags.aligned for x in (a, b))
    swapped = rows.strides[-2:] == columns.strides[-2:][::-1] and m == n
    symmetric = as_is and swapped and rows.ctypes.data == columns.ctypes.data
    return Problem(MATMUL, loop.name, m, k, n, batch, symmetric)


def speaks_for_itself(x: Any) -> bool:
    """Whether an operand computes products its own way, so that NumPy's loops never see them."""
    kind = type(x)
    override = getattr(kind, "__array_ufunc__", np.ndarray.__array_ufunc__)
    return override is not np.ndarray.__array_ufunc__ or (not isinstance(x, np.ndarray) and hasattr(kind, "__matmul__"))


def _core_last(x: np.ndarray[Any, Any], axes: Any) -> np.ndarray[Any, Any]:
    """The view whose last axes are the matrix's, as argument ``axes`` of ufuncs names them."""
    core = (axes,) if isinstance(axes, int) else tuple(axes)
    return np.moveaxis(x, core, range(-len(core), 0)) if x.ndim else x
