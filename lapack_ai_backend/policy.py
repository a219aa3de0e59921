"""The one policy: rules and options compile into an immutable C table, which everybody asks.

The table is made once for each set of options and kept for the life of the
process: numpy.matmul's loop may still read it after its context has ended.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lapack_ai_backend import rules, tuned_rules
from lapack_ai_backend.multimethods import FUNCTIONS, MATMUL, NUMBERS
from lapack_ai_backend.native import address, dtype_code, ffi, lib
from lapack_ai_backend.opencl import devices
from lapack_ai_backend.options import Options
from lapack_ai_backend.problem import Problem
from lapack_ai_backend.reasons import CODES, TEXTS
from lapack_ai_backend.reasons import NUMBERS as REASONS
from lapack_ai_backend.registry import (
    COMPONENTWISE,
    EXACT,
    KERNELS,
    OPENCL,
    STOCK,
    Kernel,
    Limits,
    by_number,
    is_broken,
    of_function,
)
from lapack_ai_backend.rules import Rule


@dataclass(frozen=True)
class Table:
    """The compiled policy of one set of options."""

    options: Options
    rules: tuple[Rule, ...]
    c_table: Any
    c_rows: Any  # owned here: the C table points into it
    settled: dict[str, Any] = field(default_factory=dict)  # functions that stay stock whatever the call: decisions
    # Problems that stay stock by their sizes and dtype alone, as decided before; without a problem, by function.
    declined: dict[Problem | str, Any] = field(default_factory=dict)

    @property
    def address(self) -> int:
        return address(self.c_table)


@dataclass(frozen=True)
class Candidate:
    """A kernel that computes the function at hand, and whether it could serve this call."""

    name: str
    allowed: bool
    why_not: str


@dataclass(frozen=True)
class Decision:
    """What runs a call, and why.

    Attributes
    ----------
    function : str
        Public dotted name.
    kernel : str
        The kernel's name; "stock" when NumPy or SciPy themselves run it.
    active : bool
        Whether the backend is active where the question was asked.
    reason_code, reason : str
        Why, for programs and for people.
    rule : str
        Name of the rule that matched, "" without one; a tuned table has rules that say stock.
    problem : Problem or None
        What the policy looked at; None when the arguments were no plain arrays.
    candidates : tuple of Candidate
        All kernels for the function (``explain`` only).
    alphatensor_blocks, direct_blocks, stock_blocks : int
        Matrices of the stack by the way they took; of ``gemm_alpha`` tiles (products in a ``trace`` only).
    seconds : float
        Time in the kernel or the stock loop (products in a ``trace`` only).
    """

    function: str
    kernel: str
    active: bool
    reason_code: str
    reason: str
    rule: str
    problem: Problem | None = None
    candidates: tuple[Candidate, ...] = ()
    alphatensor_blocks: int = 0
    direct_blocks: int = 0
    stock_blocks: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        where = "" if self.active else " (not active here: stock runs now)"
        rule = f" [rule {self.rule}]" if self.rule else ""
        ways = {"AlphaTensor": self.alphatensor_blocks, "direct": self.direct_blocks, "stock": self.stock_blocks}
        ran = ", ".join(f"{count} by {way}" for way, count in ways.items() if count)
        return f"{self.function} -> {self.kernel}{where}: {self.reason}{rule}{f' (blocks: {ran})' if ran else ''}"


# ---- compiling -----------------------------------------------------------------------------


def _blocked(kernel: Kernel, dtype: str, options: Options) -> str:
    """Reason code for which the options take a kernel out, "routed" if they do not."""
    product = MATMUL in kernel.functions  # LAPACK's own decompositions are normwise, too
    if product and options.accuracy == COMPONENTWISE and kernel.error_class(dtype) not in (COMPONENTWISE, EXACT):
        return "accuracy"
    return "routed"


def _is_device_named(kernel: Kernel, options: Options) -> bool:
    """Whether the kernel runs on a device that was asked for by its name: then no size is too small."""
    return kernel.where == OPENCL and options.device not in ("auto", "gpu")


def _limits(rule: Rule, kernel: Kernel, options: Options) -> Limits:
    """A rule's thresholds, or whatever the kernel can do at all where no threshold is wanted."""
    if options.any_size or _is_device_named(kernel, options):
        return replace(kernel.limits, symmetric=rule.limits.symmetric)
    return rule.limits


def _rows_of(
    rule: Rule, number: int, options: Options, dtypes: tuple[str, ...] | None = None
) -> Iterator[dict[str, Any]]:
    """C rows of a rule: one for the dtypes that the options allow, one for each reason against others."""
    kernel = _kernel(rule)
    by_reason: dict[str, int] = {}
    for dtype in dtypes or rule.dtypes:
        reason = _blocked(kernel, dtype, options)
        by_reason[reason] = by_reason.get(reason, 0) | 1 << dtype_code(dtype)
    limits = _limits(rule, kernel, options)
    for reason, bits in by_reason.items():
        yield {
            "function": NUMBERS[rule.function],
            "kernel": kernel.number,
            "rule": number,
            "blocked": REASONS[reason],
            "on_device": kernel.where == OPENCL,
            "dtypes": bits,
            **limits.__dict__,
        }


def _kernel(rule: Rule) -> Kernel:
    return STOCK if rule.kernel == STOCK.name else KERNELS[rule.kernel]


def _forced(function: str, kernel: Kernel) -> Rule:
    because = f"force names {kernel.name} for {function}"
    return Rule(f"forced-{kernel.name}", function, kernel.dtypes, kernel.limits, kernel.name, because)


def _effective_rules(options: Options) -> tuple[Rule, ...]:
    """The rules of the policy, where `force` replaces a function's rules by one row: all that the kernel can do."""
    forced = dict(options.force)
    kept = [rule for rule in _rules_of_policy(options) if rule.function not in forced]
    added = [_forced(function, KERNELS[name]) for function, name in forced.items() if name != STOCK.name]
    return tuple(sorted((*kept, *added), key=lambda rule: NUMBERS[rule.function]))


def _rules_of_policy(options: Options) -> tuple[Rule, ...]:
    """The shipped rules; those of products as they were measured here, where the policy wants that and it was done."""
    if options.policy == "static" or options.any_size:
        return rules.RULES
    tuned = tuned_rules.in_force(options.policy)
    if tuned is None:
        return rules.RULES
    # Tuning has no time for products as large as those that gain: they stay with the shipped rules, and no tuned one
    # names their kernel at sizes where it was measured to lose.
    large = [rule for rule in rules.RULES if rule.kernel in tuned_rules.NOT_TUNED]
    small = [rule for rule in tuned if rule.kernel not in tuned_rules.NOT_TUNED]
    return (*large, *small, *(rule for rule in rules.RULES if rule.function != MATMUL))


_BY_ADDRESS: dict[int, Table] = {}  # for decisions that come back from C


@functools.cache  # unbounded on purpose: tables are never freed
def table_for(options: Options) -> Table:
    """The compiled policy for a set of options."""
    effective = _effective_rules(options)
    rows = [row for number, rule in enumerate(effective) for row in _rows_of(rule, number, options)]
    placed = sorted(((place, row) for row in rows for place in _places(row)), key=lambda pair: pair[0])
    c_rows = ffi.new("lai_row[]", [row for _, row in placed])
    places = [place for place, _ in placed]
    first = [bisect.bisect_left(places, place) for place in range(lib.LAI_MAX_FUNCTIONS * lib.LAI_DTYPES + 1)]
    c_table = ffi.new("lai_table *", {"rows": c_rows, "first": first})
    for name, kernel in options.force:
        if kernel == STOCK.name:
            c_table.off[NUMBERS[name]] = REASONS["forced"]
    for name in options.disable:
        c_table.off[NUMBERS[name]] = REASONS["disabled"]
    table = Table(options, effective, c_table, c_rows)
    for name, number in NUMBERS.items():
        if c_table.off[number] or first[lib.LAI_DTYPES * number] == first[lib.LAI_DTYPES * (number + 1)]:
            table.settled[name] = decide(name, None, table)
    _BY_ADDRESS[table.address] = table
    return table


def _places(row: dict[str, Any]) -> list[int]:
    """Where a row stands in the table: once for each of its dtypes."""
    return [lib.LAI_DTYPES * row["function"] + dtype for dtype in range(lib.LAI_DTYPES) if row["dtypes"] >> dtype & 1]


def candidates(function: str, problem: Problem, options: Options) -> tuple[Candidate, ...]:
    """Every kernel for the function: could it serve this problem, and if not, why."""
    return tuple(Candidate(kernel.name, why == "", why) for kernel, why in _verdicts(function, problem, options))


def _verdicts(function: str, problem: Problem, options: Options) -> Iterator[tuple[Kernel, str]]:
    forced = dict(options.force).get(function)
    for kernel in of_function(function):
        code = _capable(kernel, problem, options)
        if code == "routed" and forced not in (None, kernel.name):
            code = "forced"
        if code == "routed":
            code = serves(kernel, problem.dtype, options)
        if function in options.disable:
            code = "disabled"
        yield kernel, "" if code == "routed" else _text(code, problem, options)


def _capable(kernel: Kernel, problem: Problem, options: Options) -> str:
    """The kernel's own limits, tested by the function that tests rules."""
    if problem.dtype not in kernel.dtypes:
        return "dtype"
    (row,) = _rows_of(_forced(problem.function, kernel), 0, options, (problem.dtype,))
    return CODES[lib.lai_match_row(ffi.new("lai_row *", row), ffi.new("lai_problem *", _c_problem(problem)))]


# ---- deciding ------------------------------------------------------------------------------


def _c_problem(problem: Problem) -> dict[str, Any]:
    values = problem._asdict()
    number = NUMPY_TYPES.get(problem.dtype, -1)
    return {**values, "function": NUMBERS[problem.function], "dtype": dtype_code(problem.dtype), "numpy_type": number}


def decide(function: str, problem: Problem | None, table: Table | None) -> Any:
    """The C decision for a call, made by the same function that numpy.matmul's loop calls.

    Without a problem (the arguments are no plain arrays) and without a table (the backend
    is off) it is "stock", and so it is when the kernel has failed too often.
    """
    seen = problem or Problem(function, "", 0, 0, 0, 0)
    c_table = table.c_table if table else ffi.NULL
    decision = ffi.new("lai_decision *", {"problem": _c_problem(seen), "table": c_table})
    lib.lai_decide(decision)
    if problem is None and decision.reason not in UNSEEN:
        decision.kernel, decision.rule, decision.reason = STOCK.number, -1, REASONS["input"]
    if is_broken(by_number(decision.kernel)):
        decision.kernel, decision.rule, decision.reason = STOCK.number, -1, REASONS["broken"]
    if table and decision.reason in LASTING:
        if len(table.declined) >= MOST_DECLINED:
            table.declined.clear()
        table.declined[problem or function] = decision
    return decision


def serves(kernel: Kernel, dtype: str, options: Options) -> str:
    """ "routed" where a kernel has the device that it wants and has not failed too often, else why it does not serve.

    Asks OpenCL for kernels that want a device only.
    """
    if is_broken(kernel):
        return "broken"
    if kernel.where == OPENCL and devices.choose(options.device, dtype) is None:
        return "device"
    return "routed"


def by_address(c_table: Any) -> Table:
    """The table of a C pointer."""
    return _BY_ADDRESS[address(c_table)]


def _text(code: str, problem: Problem, options: Options) -> str:
    """A reason for people."""
    detail = f": {devices.why_not(options.device, problem.dtype)}" if code == "device" else ""
    return TEXTS[code] + detail


# Reasons that hold for a problem for ever; a device may come, a kernel may break.
LASTING = [REASONS[code] for code in ("no_rule", "disabled", "dtype", "shape", "size", "batch", "input")]
MOST_DECLINED = 1000
# Reasons that hold whatever the arguments are.
UNSEEN = [REASONS[code] for code in ("inactive", "no_rule", "disabled", "forced")]
NUMPY_TYPES = {np.dtype(code).name: np.dtype(code).num for code in np.typecodes["All"] if code not in "SUVMm"}
NUMPY_NAMES = {np.dtype(code).num: np.dtype(code).name for code in np.typecodes["All"]}


def _problem_of(c: Any) -> Problem | None:
    if c.batch == 0 and c.function != lib.LAI_MATMUL:
        return None  # no plain array
    return Problem(FUNCTIONS[c.function], NUMPY_NAMES.get(c.numpy_type, ""), c.m, c.k, c.n, c.batch, bool(c.symmetric))


def readable(c_decision: Any, problem: Problem | None = None, *, active: bool = True) -> Decision:
    """A C decision in names and words."""
    table = _BY_ADDRESS.get(address(c_decision.table))
    rule = table.rules[c_decision.rule] if table and c_decision.rule >= 0 else None
    code = CODES[c_decision.reason]
    blocks = c_decision.blocks
    problem = problem or _problem_of(c_decision.problem)
    text = _text(code, problem, table.options) if table and problem else TEXTS[code]
    if rule and code in ("routed", "tuned"):
        text = rule.because
        if table and _is_device_named(_kernel(rule), table.options):  # the measurement was another device's
            text = f"device {table.options.device!r} was asked for, whatever it gains"
    return Decision(
        function=FUNCTIONS[c_decision.problem.function],
        kernel=by_number(c_decision.kernel).name,
        active=active,
        reason_code=code,
        reason=text,
        rule=rule.name if rule else "",
        problem=problem,
        alphatensor_blocks=blocks.alphatensor,
        direct_blocks=blocks.direct,
        stock_blocks=blocks.stock,
        seconds=c_decision.seconds,
    )
