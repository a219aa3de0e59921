"""Kernels of decompositions; linalg/ holds their functions, which are imported when one is called."""

from __future__ import annotations

from typing import Any

from lapack_ai_backend.native import lib
from lapack_ai_backend.registry import NORMWISE, OPENCL, Kernel, register


def _svd(*args: Any, **kwargs: Any) -> Any:
    from lapack_ai_backend.linalg.svd import svd

    return svd(*args, **kwargs)


def _svdvals(*args: Any, **kwargs: Any) -> Any:
    from lapack_ai_backend.linalg.svd import svdvals

    return svdvals(*args, **kwargs)


def _norm(*args: Any, **kwargs: Any) -> Any:
    from lapack_ai_backend.linalg.svd import norm

    return norm(*args, **kwargs)


def _numpy_svd(*args: Any, **kwargs: Any) -> Any:
    from lapack_ai_backend.linalg.svd import numpy_svd

    return numpy_svd(*args, **kwargs)


def _numpy_cond(*args: Any, **kwargs: Any) -> Any:
    from lapack_ai_backend.linalg.svd import numpy_cond

    return numpy_cond(*args, **kwargs)


def _lstsq(*args: Any, **kwargs: Any) -> Any:
    from lapack_ai_backend.linalg.lstsq import lstsq

    return lstsq(*args, **kwargs)


SVD = {
    "scipy.linalg.svd": _svd,
    "scipy.linalg.svdvals": _svdvals,
    "scipy.linalg.norm": _norm,
    "scipy.linalg.lstsq": _lstsq,
    "numpy.linalg.cond": _numpy_cond,
    "numpy.linalg.svd": _numpy_svd,
}

register(
    Kernel(
        "opencl_svd",
        tuple(SVD),
        lib.LAI_OPENCL_SVD,
        # LAPACK's own threshold for the ratios of its SVD tests (svd.in); tests alarm at 5.
        dict.fromkeys(("float32", "float64", "complex64", "complex128"), (NORMWISE, 50.0)),
        where=OPENCL,
        source="Golub and Kahan (1965), blocked as LAPACK's labrd and gebrd; divide and conquer (bdsdc) for vectors, "
        "Sturm multisection for values alone; stacks up to 64x64: Jacobi rotations as Drmac and Veselic (2008)",
        run=SVD,
    )
)
