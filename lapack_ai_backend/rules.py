"""The shipped routing table (``policy="static"``): rows, first match wins, no match is stock.

A row is a measurement written down: `because` names the benchmark and what it
showed. Behaviour changes by adding or changing a row here, never by an ``if``.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapack_ai_backend.multimethods import MATMUL
from lapack_ai_backend.registry import Limits

MACHINE = "2026-11-22, 2 shared cores of a Xeon with AVX-512, NumPy 2.5.5, one thread"

GPU = "2026-11-22, NVIDIA H100 beside 16 Xeon cores, NumPy 2.5.2, SciPy 1.18.1"

# Of the smaller dimension. Slower GPUs break even later than the one measured, which does so below 512.
LARGE = Limits(min_dim=1024)

FLOATS = ("float32", "float64", "complex64", "complex128")
INTEGERS = ("int32", "int64", "uint32", "uint64")


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
        FLOATS + INTEGERS,
        Limits(square=True, symmetric=False, min_dim=4, max_dim=4, min_batch=2),
        "alphatensor49",
        "asv StackRatio, 1000 matrices: 2.1 times NumPy (float64), 3.0 (float32), 3.5 (complex128), 3.4 (int64); "
        "2 to 4 matrices: 0.9 of it, 5 break even. `direct` is faster still: this is the project's own algorithm. "
        + MACHINE,
    ),
    Rule(
        "matmul-small",
        MATMUL,
        FLOATS + INTEGERS,
        Limits(square=True, min_dim=2, max_dim=8),
        "direct",
        "asv StackRatio, 1000 matrices: 4.6 times NumPy (4x4 float64), 2.1 (8x8 float64), 6.7 (4x4 float32), "
        "5.6 (4x4 int64); single products break even. " + MACHINE,
    ),
    Rule(
        "matmul-integer",
        MATMUL,
        INTEGERS,
        Limits(min_dim=8, min_work=16**3),
        "integer",
        "asv IntegerRatio: 1.8 times NumPy (n = 16), 4.3 (64, int64), 10 (256, int64), 28 (256, int32). " + MACHINE,
    ),
    Rule(
        "svd-large",
        "scipy.linalg.svd",
        ("float32", "float64"),
        LARGE,
        "opencl_svd",
        "asv RatioGpu.track_svd, U and V: 1.6 times SciPy (float64, n = 1024), 2.6 (2048), 2.9 (4096); "
        "float32 1.2, 2.4, 3.3; at 512 1.3 and 1.2. " + GPU,
    ),
    *(
        Rule(
            f"{name}-large",
            f"scipy.linalg.{name}",
            ("float32", "float64"),
            LARGE,
            "opencl_svd",
            "asv RatioGpu.track_svdvals, values alone: 4.9 times SciPy (float64, n = 1024), 10 (2048), 17 (4096); "
            "float32 3.6, 8.0, 15; at 512 1.7 and 1.2. " + GPU,
        )
        for name in ("svdvals", "norm")
    ),
)
