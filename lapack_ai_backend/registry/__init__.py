"""The kernels: what exists, for which function and dtypes, how exact, where it runs.

Registered means tested and benchmarked (both iterate ``KERNELS``); routed means
that a row of ``rules.RULES`` names it. The two are separate changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lapack_ai_backend.native import lib

EXACT = "exact"
COMPONENTWISE = "componentwise"
NORMWISE = "normwise"
OPENCL = "opencl"  # where a kernel runs, if not on the CPU
UNLIMITED = 2**62


@dataclass(frozen=True)
class Limits:
    """Which problems fit: the columns that rules and kernels share."""

    square: bool = False
    symmetric: bool = True
    min_dim: int = 1
    max_dim: int = UNLIMITED
    min_work: int = 0
    min_batch: int = 1
    max_batch: int = UNLIMITED
    min_isa: int = lib.LAI_BASELINE
    as_blas: bool = False  # wants as many threads as NumPy's BLAS uses, and `min_work` for each of them


@dataclass(frozen=True)
class Kernel:
    """One way to compute one function.

    Attributes
    ----------
    name : str
        Public name, as ``force=`` takes it.
    functions : tuple of str
        Public dotted names of the functions that it computes.
    number : int
        Its number in the compiled policy.
    errors : mapping of str to (str, float)
        dtype -> error class and constant. ``exact``: no rounding, integers wrap as NumPy's.
        ``componentwise``: ``|C - Ĉ| <= constant * k * eps * |A| |B|``, k the inner size.
        ``normwise``: ``max|C - Ĉ| <= constant * k * eps * max|A| * max|B|``, k the inner size;
        of a decomposition: every ratio of LAPACK's test programs (residual, orthogonality,
        difference of singular values, each over its norm, size and eps) is <= constant.
        Its keys are the dtypes that the kernel takes.
    limits : Limits
        What it can do at all, whether or not that pays.
    where : str
        "cpu" or "opencl".
    source : str
        Where the algorithm comes from.
    run : mapping of str to callable
        Takes the options in force, then the stock function's own arguments; returns its own
        kind of result, or ``NotImplemented`` to decline, or raises `Decline`. Products run in
        compiled code; on a device they take two matrices and room for the third.
    """

    name: str
    functions: tuple[str, ...]
    number: int
    errors: Mapping[str, tuple[str, float]]
    limits: Limits = field(default_factory=Limits)
    where: str = "cpu"
    source: str = ""
    run: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def function(self) -> str:
        """The first of `functions`."""
        return self.functions[0]

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Names of the dtypes that the kernel takes."""
        return tuple(self.errors)

    def error_class(self, dtype: str) -> str:
        """One of "exact", "componentwise" and "normwise"."""
        return self.errors[dtype][0]

    def error_constant(self, dtype: str) -> float:
        """The constant of that class's bound; 0 where results are exact."""
        return self.errors[dtype][1]


STOCK = Kernel("stock", ("",), lib.LAI_STOCK, {}, where="cpu", source="NumPy and SciPy themselves")

KERNELS: dict[str, Kernel] = {}


def register(kernel: Kernel) -> Kernel:
    """Add a kernel; names and numbers are unique."""
    taken = [
        other for other in (STOCK, *KERNELS.values()) if other.name == kernel.name or other.number == kernel.number
    ]
    if taken:
        raise ValueError(f"kernel {kernel.name!r} (number {kernel.number}) meets {taken[0].name!r} ({taken[0].number})")
    if not 0 < kernel.number < lib.LAI_MAX_KERNELS:
        raise ValueError(f"kernel number {kernel.number} is outside 1..{lib.LAI_MAX_KERNELS - 1}")
    KERNELS[kernel.name] = kernel
    return kernel


# ---- kernels that fail --------------------------------------------------------------------------

FAILURES_BEFORE_BREAK = 3
FAILURES: dict[str, int] = {}  # of this process, by kernel name


def count_failure(kernel: Kernel) -> None:
    """A kernel has raised; after `FAILURES_BEFORE_BREAK` times it is switched off for this process."""
    FAILURES[kernel.name] = FAILURES.get(kernel.name, 0) + 1


def is_broken(kernel: Kernel) -> bool:
    """Whether a kernel has failed so often that it is switched off."""
    return FAILURES.get(kernel.name, 0) >= FAILURES_BEFORE_BREAK


def of_function(function: str) -> list[Kernel]:
    """Kernels that compute a function, in the order of their registration."""
    return [kernel for kernel in KERNELS.values() if function in kernel.functions]


def by_number(number: int) -> Kernel:
    """The kernel of a number in the compiled policy."""
    return next((kernel for kernel in KERNELS.values() if kernel.number == number), STOCK)


from lapack_ai_backend.registry import decompositions, products  # noqa: E402, F401  # importing registers
