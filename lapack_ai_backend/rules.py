"""The shipped routing table (``policy="static"``): rows, first match wins, no match is stock.

A row is a measurement written down: `because` names the benchmark and what it
showed. Behaviour changes by adding or changing a row here, never by an ``if``.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapack_ai_backend.multimethods import MATMUL
from lapack_ai_backend.native import lib
from lapack_ai_backend.registry import Limits

MACHINE = "2026-11-22, 2 shared cores of a Xeon with AVX-512, NumPy 2.5.5, one thread"

H100 = "NVIDIA H100 beside 16 Xeon cores, NumPy 2.5.2, SciPy 1.18.1"
GPU = "2026-11-23, " + H100

# Of the smaller dimension. Slower GPUs break even later than the one measured, which does so below 512.
LARGE = Limits(min_dim=1024)

FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int32", "int64", "uint32", "uint64")
NARROW_INTEGERS = ("int8", "int16", "uint8", "uint16")


@dataclass(frozen=True)
class Rule:
    """One row: problems of `function` with these dtypes and sizes go to `kernel`."""

    name: str
    function: str
    dtypes: tuple[str, ...]
    limits: Limits
    kernel: str
    because: str


RULES = (
    Rule(
        "matmul-4x4-stack",
        MATMUL,
        FLOATS + COMPLEX + INTEGERS,
        Limits(square=True, symmetric=False, min_dim=4, max_dim=4, min_batch=2),
        "alphatensor49",
        "asv StackRatio, 1000 matrices: 2.1 times NumPy (float64), 3.0 (float32), 3.5 (complex128), 3.4 (int64); "
        "2 to 4 matrices: 0.9 of it, 5 break even. `direct` is faster still: this is the project's own algorithm. "
        + MACHINE,
    ),
    Rule(
        "matmul-single",
        MATMUL,
        FLOATS,
        Limits(max_dim=16, max_batch=1),
        "direct",
        "asv SingleRatio, x @ y: 6.1 times NumPy (4x4 float64), 5.8 (8x8), 6.0 (4x4 float32); np.matmul(x, y), which "
        "goes through the ufunc, 0.90 to 1.0. " + MACHINE,
    ),
    Rule(
        "matmul-single-complex",
        MATMUL,
        COMPLEX,
        Limits(min_dim=2, max_dim=16, max_batch=1),
        "direct",
        "asv SingleRatio, x @ y: 6.5 times NumPy (4x4 complex128), 4.0 (8x8), 6.3 (4x4 complex64). " + MACHINE,
    ),
    Rule(
        "matmul-small-stack",
        MATMUL,
        FLOATS,
        Limits(max_dim=8, min_batch=2),
        "direct",
        "asv StackRatio, 1000 matrices: 4.6 times NumPy (4x4 float64), 7.5 (4x4 float32), 2.0 (8x8 float64), 4.6 (4x4 "
        "with 4x1); stacks of 2 break even. Beyond 8: 1.1 (12x12 float64), 0.95 (16x16 float64). " + MACHINE,
    ),
    Rule(
        "matmul-small-stack-complex",
        MATMUL,
        COMPLEX,
        Limits(min_dim=2, max_dim=16, min_batch=2),
        "direct",
        "asv StackRatio, 1000 matrices: 8.2 times NumPy (4x4 complex128), 2.1 (8x8), 1.1 (16x16); 1.2 for stacks of 2. "
        "Vectors lose (0.5 at 16x16 with 16x1). " + MACHINE,
    ),
    Rule(
        "matmul-small-integer",
        MATMUL,
        INTEGERS + NARROW_INTEGERS,
        Limits(min_dim=4, max_dim=16),
        "direct",
        "asv StackRatio, 1000 matrices: 6.8 times NumPy (4x4 int64), 5.1 (16x16), 13 (4x4 int32), 2.4 (4x4 int8), "
        "15 (16x16 int8). " + MACHINE,
    ),
    Rule(
        "matmul-tiny-integer",
        MATMUL,
        INTEGERS + NARROW_INTEGERS,
        Limits(square=True, min_dim=2, max_dim=3),
        "direct",
        "asv StackRatio, 1000 matrices: 4.3 times NumPy (2x2 int64), 5.6 (2x2 int32). " + MACHINE,
    ),
    Rule(
        "matmul-integer",
        MATMUL,
        ("int8", "int16", "int32", "uint8", "uint16", "uint32"),
        Limits(min_dim=8, min_work=16**3),
        "integer",
        "asv IntegerRatio, 1 thread: 13 times NumPy (int32, n = 64), 54 (256), 197 (1024); int16 32 (64), 283 (1024); "
        "int8 39 (64), 314 (1024). " + MACHINE,
    ),
    Rule(
        "matmul-int64",
        MATMUL,
        ("int64", "uint64"),
        Limits(min_dim=12, min_work=16**3, min_isa=lib.LAI_AVX2),
        "integer",
        "asv IntegerRatio, one thread: 1.5 times NumPy (n = 16), 5.3 (64), 16 (256), 52 (1024); with SSE2 alone it "
        "loses below n = 100. " + MACHINE,
    ),
    Rule(
        "matmul-device",
        MATMUL,
        FLOATS,
        Limits(min_dim=3072, max_batch=1, symmetric=False),
        "opencl_gemm",
        "arrays in and out: 2.5 times NumPy (float64, n = 3072), 5.6 (4096), 17 (8192); float32 1.8, 2.2, 9.9; at 2048 "
        "0.9 to 1.4 and 0.5 to 0.7. gpu_compare.py, product. " + GPU,
    ),
    Rule(
        "matmul-large",
        MATMUL,
        ("float64",),
        Limits(min_dim=4096, min_work=2**35, symmetric=False, min_isa=lib.LAI_AVX512, as_blas=True),
        "alphatensor49_blocked",
        "asv BlockedRatio, two threads against BLAS's two, on two machines: 1.07 and 0.99 times NumPy (n = 4096), "
        "1.06 and 1.04 (6144), 1.10 and 1.04 (8192); sixteen: 0.7 (4096), 0.98 (6144), 1.07 (8192). " + MACHINE,
    ),
    Rule(
        "matmul-large-float32",
        MATMUL,
        ("float32",),
        Limits(min_dim=6144, min_work=2**35, symmetric=False, min_isa=lib.LAI_AVX512, as_blas=True),
        "alphatensor49_blocked",
        "asv BlockedRatio, two threads against BLAS's two, on two machines: 1.03 and 1.07 times NumPy (n = 4096), "
        "1.09 and 1.11 (6144), 1.13 and 1.23 (8192); sixteen: 0.95 (6144), 1.08 (8192). " + MACHINE,
    ),
    Rule(
        "matmul-large-complex",
        MATMUL,
        COMPLEX,
        Limits(min_dim=3072, min_work=3 * 2**32, symmetric=False, min_isa=lib.LAI_AVX512, as_blas=True),
        "alphatensor49_blocked",
        "asv BlockedRatio, two threads against BLAS's two, on two machines: 1.24 and 1.30 times NumPy (complex128, "
        "3072), 1.30 and 1.33 (4096); 1.15 and 1.08 (complex64, 3072), 1.40 and 1.16 (6144); sixteen: 1.17 (6144). "
        + MACHINE,
    ),
    Rule(
        "svd-large",
        "scipy.linalg.svd",
        ("float32", "float64"),
        LARGE,
        "opencl_svd",
        "gpu_compare.py, U and V, arrays in and out: 8.9 times SciPy (float64, n = 1024), 28 (2048), 43 (4096); at 512 "
        "4. " + GPU,
    ),
    *(
        Rule(
            f"numpy-{name}-large",
            f"numpy.linalg.{name}",
            FLOATS + COMPLEX,
            LARGE,
            "opencl_svd",
            "arrays in and out: svd 12 times NumPy (float64, n = 1024), 15 (float32); cond by asv RatioGpu, before the "
            "reduction became faster, 6.7; of complex matrices as scipy.linalg's. " + GPU,
        )
        for name in ("svd", "cond")
    ),
    Rule(
        "lstsq-large",
        "scipy.linalg.lstsq",
        FLOATS,
        LARGE,
        "opencl_svd",
        "three right-hand sides, arrays in and out: 11 times SciPy (float64, n = 1024), 7 (float32), 21 (float64, "
        "20000 x 1000). " + GPU,
    ),
    *(
        Rule(
            f"{name}-large",
            f"scipy.linalg.{name}",
            FLOATS,
            LARGE,
            "opencl_svd",
            "values alone, arrays in and out: 13 times SciPy (float64, n = 1024), 9 (float32); before the reduction "
            "became faster, by asv RatioGpu, 10 (float64, n = 2048), 17 (4096). " + GPU,
        )
        for name in ("svdvals", "norm")
    ),
    *(
        Rule(
            f"{name}-large-complex",
            f"scipy.linalg.{name}",
            COMPLEX,
            LARGE,
            "opencl_svd",
            "gpu_compare.py, U and V, arrays in and out: 13 times SciPy (complex128, n = 1024), 31 (2048), 38 (4096); "
            "by asv RatioGpu complex64 3.7, 10, values alone complex128 9.4, 13. " + GPU,
        )
        for name in ("svd", "svdvals", "norm")
    ),
    *(
        Rule(
            f"{function.rpartition('.')[2]}-stack{'-numpy' * function.startswith('numpy')}",
            function,
            FLOATS,
            Limits(min_dim=32, max_dim=64, min_batch=1000),
            "opencl_svd",
            "gpu_compare.py, host stack, 10 000 matrices 32 x 32, arrays in and out: 12.5 times SciPy (float64); 1000 "
            "of 64 x 64 take 13 ms on the device. " + GPU,
        )
        for function in ("scipy.linalg.svd", "scipy.linalg.svdvals", "numpy.linalg.svd")
    ),
)
