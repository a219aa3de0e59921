"""The multimethods: one uarray function for each array function of ``scipy.linalg``, and ``matmul``.

``LINALG`` is the whole table: name -> the parameters that hold arrays. Functions
that take no array (``hilbert``, ``dft``, ``get_lapack_funcs`` ...) are not in it.
Signatures and docstrings come from SciPy itself.

The multimethods of ``scipy.linalg`` have no uarray default: after a backend has
declined, uarray would run the default at once and never ask the backends below
it. The interception runs the stock function once all have declined.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from lapack_ai_backend.uarray_adapter import Dispatchable, generate_multimethod

DOMAIN = "numpy.scipy.linalg"
MATMUL = "numpy.matmul"

LINALG = {
    "bandwidth": "a",
    "block_diag": "arrs",
    "cdf2rdf": "w v",
    "cho_factor": "a",
    "cho_solve": "c_and_lower b",
    "cho_solve_banded": "cb_and_lower b",
    "cholesky": "a",
    "cholesky_banded": "ab",
    "circulant": "c",
    "clarkson_woodruff_transform": "input_matrix",
    "companion": "a",
    "convolution_matrix": "a",
    "coshm": "A",
    "cosm": "A",
    "cossin": "X",
    "det": "a",
    "diagsvd": "s",
    "eig": "a b",
    "eig_banded": "a_band",
    "eigh": "a b",
    "eigh_tridiagonal": "d e",
    "eigvals": "a b",
    "eigvals_banded": "a_band",
    "eigvalsh": "a b",
    "eigvalsh_tridiagonal": "d e",
    "expm": "A",
    "expm_cond": "A",
    "expm_frechet": "A E",
    "fiedler": "a",
    "fiedler_companion": "a",
    "fractional_matrix_power": "A",
    "funm": "A",
    "hankel": "c r",
    "hessenberg": "a",
    "inv": "a",
    "ishermitian": "a",
    "issymmetric": "a",
    "khatri_rao": "a b",
    "ldl": "A",
    "leslie": "f s",
    "logm": "A",
    "lstsq": "a b",
    "lu": "a",
    "lu_factor": "a",
    "lu_solve": "lu_and_piv b",
    "matmul_toeplitz": "c_or_cr x",
    "matrix_balance": "A",
    "norm": "a",
    "null_space": "A",
    "ordqz": "A B",
    "orth": "A",
    "orthogonal_procrustes": "A B",
    "pinv": "a",
    "pinvh": "a",
    "polar": "a",
    "qr": "a",
    "qr_delete": "Q R",
    "qr_insert": "Q R u",
    "qr_multiply": "a c",
    "qr_update": "Q R u v",
    "qz": "A B",
    "rq": "a",
    "rsf2csf": "T Z",
    "schur": "a",
    "signm": "A",
    "sinhm": "A",
    "sinm": "A",
    "solve": "a b",
    "solve_banded": "ab b",
    "solve_circulant": "c b",
    "solve_continuous_are": "a b q r e s",
    "solve_continuous_lyapunov": "a q",
    "solve_discrete_are": "a b q r e s",
    "solve_discrete_lyapunov": "a q",
    "solve_sylvester": "a b q",
    "solve_toeplitz": "c_or_cr b",
    "solve_triangular": "a b",
    "solveh_banded": "ab b",
    "sqrtm": "A",
    "subspace_angles": "A B",
    "svd": "a",
    "svdvals": "a",
    "tanhm": "A",
    "tanm": "A",
    "toeplitz": "c r",
}

# Of numpy.linalg, what others there are made of: pinv, matrix_rank, norm and svdvals call svd, and so did cond before
# NumPy 2.5. They ask this package only, as `@` does: uarray backends of the domain know SciPy's functions.
NUMPY_LINALG = {"cond": "x", "svd": "a"}

# Public dotted name -> the parameters that hold arrays.
ARRAYS = {f"scipy.linalg.{name}": arrays for name, arrays in LINALG.items()}
ARRAYS |= {f"numpy.linalg.{name}": arrays for name, arrays in NUMPY_LINALG.items()}

# Public dotted names in the order of their numbers in the compiled policy; matmul is LAI_MATMUL = 0.
FUNCTIONS = (MATMUL, *ARRAYS)
ALIASES = {"scipy.linalg.solve_lyapunov": "scipy.linalg.solve_continuous_lyapunov"}  # one function object
NUMBERS = {name: number for number, name in enumerate(FUNCTIONS)}


def multimethod(
    function: Callable[..., Any], module: str, arrays: str, default: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """The uarray multimethod that dispatches `function`.

    Parameters
    ----------
    function : callable
        The stock function; name, signature and docstring are taken from it.
    module : str
        Where the multimethod is importable from, for pickling.
    arrays : str
        Names of the array parameters, separated by spaces.
    default : callable, optional
        What uarray runs when no backend is set.
    """
    signature = inspect.signature(function)
    names = arrays.split()

    @functools.wraps(function)
    def extract(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        given = signature.bind(*args, **kwargs).arguments
        values: list[Any] = []
        for name in names:
            value = given.get(name)
            # block_diag(*arrs): each of the arrays is one
            values.extend(value if isinstance(value, tuple) and name == "arrs" else [value])
        return tuple(Dispatchable(value, np.ndarray) for value in values if value is not None)

    def replace(args: Any, kwargs: Any, dispatchables: tuple[Any, ...]) -> tuple[Any, Any]:
        bound = signature.bind(*args, **kwargs)
        remaining = iter(dispatchables)
        for name in names:
            value = bound.arguments.get(name)
            if isinstance(value, tuple) and name == "arrs":
                bound.arguments[name] = tuple(next(remaining) for _ in value)
            elif value is not None:
                bound.arguments[name] = next(remaining)
        return bound.args, bound.kwargs

    extract.__module__ = module
    return generate_multimethod(extract, replace, DOMAIN, default)  # type: ignore[no-any-return]  # uarray is untyped


def _matmul(x1: Any, x2: Any, /, out: Any = None, **kwargs: Any) -> Any:
    """Matrix product, as ``numpy.matmul``, dispatched to uarray backends of domain "numpy.scipy.linalg".

    Parameters
    ----------
    x1, x2 : array_like
        Operands, as for ``numpy.matmul``: (..., m, k) and (..., k, n) of any dtype.
    out : ndarray, optional
        Where the result goes.
    **kwargs
        As for ``numpy.matmul``: axes, axis, keepdims, casting, order, dtype, subok, signature.

    Returns
    -------
    ndarray
        The product, (..., m, n); what ``numpy.matmul`` returns where no backend takes the call.

    Notes
    -----
    ``x1 @ x2`` and ``numpy.matmul`` are accelerated too, but ask this package only,
    never other uarray backends.
    """
    return np.matmul(x1, x2, out=out, **kwargs)


_matmul.__name__ = _matmul.__qualname__ = "matmul"
matmul = multimethod(_matmul, "lapack_ai_backend", "x1 x2", default=_matmul)
