"""The shipped routing table (``policy="static"``): rows, first match wins, no match is stock.

A row is a measurement written down: `because` names the benchmark and what it
showed. Behaviour changes by adding or changing a row here, never by an ``if``.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapack_ai_backend.multimethods import MATMUL
from lapack_ai_backend.registry import Limits

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
        "PLACEHOLDER",
    ),
    Rule(
        "matmul-small",
        MATMUL,
        FLOATS + INTEGERS,
        Limits(square=True, min_dim=2, max_dim=8),
        "direct",
        "PLACEHOLDER",
    ),
    Rule(
        "matmul-integer",
        MATMUL,
        INTEGERS,
        Limits(min_dim=1, min_work=16**3),
        "integer",
        "PLACEHOLDER",
    ),
)
