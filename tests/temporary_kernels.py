"""A kernel and a rule that exist for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lapack_ai_backend import policy, rules
from lapack_ai_backend.native import lib
from lapack_ai_backend.registry import KERNELS, NORMWISE, Kernel, Limits, register

NAME = "temporary"
RULE = "temporary-rule"
DTYPES = ("float32", "float64", "complex64", "complex128")


@contextmanager
def temporary_kernel(function: str, run: Callable[..., Any], limits: Limits | None = None) -> Iterator[Kernel]:
    """Register and route a kernel of `function`, by its public dotted name."""

    def without_options(options: Any, *args: Any, **kwargs: Any) -> Any:
        return run(*args, **kwargs)

    limits = limits or Limits()
    errors = dict.fromkeys(DTYPES, (NORMWISE, 1.0))
    runs = {function: without_options}
    kernel = register(Kernel(NAME, (function,), lib.LAI_MAX_KERNELS - 1, errors, limits, run=runs))
    shipped = rules.RULES
    rules.RULES = (*shipped, rules.Rule(RULE, function, DTYPES, limits, NAME, "a test wants it"))
    policy.table_for.cache_clear()
    try:
        yield kernel
    finally:
        del KERNELS[NAME]
        rules.RULES = shipped
        policy.table_for.cache_clear()
