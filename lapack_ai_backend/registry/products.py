"""Kernels of ``numpy.matmul``: compiled, csrc/products/ and fortran/, but for the one on a device, linalg/gemm.py."""

from __future__ import annotations

from typing import Any

from lapack_ai_backend.multimethods import MATMUL
from lapack_ai_backend.native import lib
from lapack_ai_backend.registry import COMPONENTWISE, EXACT, NORMWISE, OPENCL, Kernel, Limits, register


def _on_device(*args: Any) -> Any:
    from lapack_ai_backend.linalg.gemm import gemm

    return gemm(*args)


INTEGERS = dict.fromkeys(("int32", "int64", "uint32", "uint64"), (EXACT, 0.0))
NARROW_INTEGERS = dict.fromkeys(("int8", "int16", "uint8", "uint16"), (EXACT, 0.0))

# The 49 products: a first-order proof gives 1176 for the worst signs of all roundings at once
# (tests/test_fortran.py derives it from the table); the worst ever drawn is 18, and 50 is declared.
NORMWISE_49 = (NORMWISE, 50.0)
NORMWISE_49_COMPLEX = (NORMWISE, 100.0)  # each product is two real ones summed

register(
    Kernel(
        "alphatensor49",
        (MATMUL,),
        lib.LAI_ALPHATENSOR49,
        dict.fromkeys(("float32", "float64"), NORMWISE_49)
        | dict.fromkeys(("complex64", "complex128"), NORMWISE_49_COMPLEX)
        | INTEGERS,
        Limits(square=True, symmetric=False, min_dim=4, max_dim=4),
        source="Fawzi et al., Nature 610, 47-53 (2022): 49 products, coefficients -1, 0, 1",
    )
)
register(
    Kernel(
        "direct",
        (MATMUL,),
        lib.LAI_DIRECT,
        dict.fromkeys(("float32", "float64"), (COMPONENTWISE, 1.0))
        # A complex product is two real ones summed: 2k terms.
        | dict.fromkeys(("complex64", "complex128"), (COMPONENTWISE, 2.0))
        | INTEGERS
        | NARROW_INTEGERS,
        Limits(max_dim=16),
        source="Sums of k products in order, fused where the CPU fuses",
    )
)
register(
    Kernel(
        "integer",
        (MATMUL,),
        lib.LAI_INTEGER,
        INTEGERS | NARROW_INTEGERS,
        source="Blocked and packed, exact modulo 2^w",
    ),
)
register(
    Kernel(
        "alphatensor49_blocked",
        (MATMUL,),
        lib.LAI_ALPHATENSOR49_BLOCKED,
        # Terms of one sign add up in one register over a whole slice of k: worst seen 50 (complex 118), where k is 4
        # slices and entries are positive; docs/numerics.md has the proof's larger one.
        dict.fromkeys(("float32", "float64"), (NORMWISE, 100.0))
        | dict.fromkeys(("complex64", "complex128"), (NORMWISE, 250.0)),
        Limits(symmetric=False, min_dim=32),  # below, the panels are mostly padding
        source="4 x 4 blocks by the 49 products of Fawzi et al. (2022); complex products are three real ones",
    )
)
register(
    Kernel(
        "opencl_gemm",
        (MATMUL,),
        lib.LAI_OPENCL_GEMM,
        dict.fromkeys(("float32", "float64"), (COMPONENTWISE, 1.0)),
        # Below, launches are all there is to measure.
        Limits(symmetric=False, min_dim=256, max_batch=1),
        where=OPENCL,
        source="Tiles in registers, NVIDIA's fp64 matrix unit where it proves exact; sums of k products in any order",
        run={MATMUL: _on_device},
    )
)
register(
    Kernel(
        "gemm_alpha",
        (MATMUL,),
        lib.LAI_GEMM_ALPHA,
        dict.fromkeys(("float32", "float64"), NORMWISE_49),
        Limits(symmetric=False, min_dim=4),
        source="fortran/dgemm_alpha.f90: 4x4 tiles by the 49 products of Fawzi et al. (2022)",
    )
)
