"""``lapack-ai tune``: measure the kernels of products against stock, and decide which serves what.

Measuring (`measure`) and deciding (`decide`, a function of the measurements alone) are apart.
Sizes that were not measured take the verdict of the nearest smaller ones that were.
"""

from __future__ import annotations

import functools
import itertools
import operator
import statistics
import timeit
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import lapack_ai_backend
from lapack_ai_backend import native
from lapack_ai_backend.multimethods import MATMUL
from lapack_ai_backend.options import Options
from lapack_ai_backend.policy import candidates
from lapack_ai_backend.problem import Problem
from lapack_ai_backend.registry import COMPONENTWISE, EXACT, KERNELS, STOCK, UNLIMITED, Limits, of_function
from lapack_ai_backend.rules import Rule
from lapack_ai_backend.tuned_rules import NOT_TUNED, Measurement

# ---- what is measured ---------------------------------------------------------------------------

# Unsigned integers share the kernels of signed ones, and NumPy's loops for both are alike.
MEASURED_DTYPES = ("float64", "float32", "complex128", "complex64", "int64", "int32", "int16", "int8")


@dataclass(frozen=True)
class Grid:
    """The sizes that are measured, and how long.

    Attributes
    ----------
    squares : tuple of (sizes, batches)
        n x n products, alone and in stacks.
    rectangles : tuple of (largest, least, batches)
        Products of the shapes `_rectangles` makes of two dimensions.
    longest_call : float
        Sizes at which stock is expected to take more seconds than this are left out.
    burst : float
        Seconds that one timing takes, where one call does not take more; short, so that those of one round
        meet the same clock.
    rounds : int
        Timings of each kernel, where it is not soon clear what they will say.
    """

    squares: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    rectangles: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...]
    longest_call: float
    burst: float
    rounds: int


FULL = Grid(
    squares=(
        (tuple(range(2, 17)), (1, 2, 8, 100, 10_000)),
        ((2, 3, 4), (100_000,)),  # beyond most caches
        ((24, 32, 48, 64, 128), (1, 16)),
        ((256, 512, 1024, 2048), (1,)),
    ),
    rectangles=(
        ((2, 4, 8, 16), (1, 2, 8), (1, 1000)),
        ((64, 512), (1, 8, 32), (1,)),
        ((1024, 2048), (1, 8, 32, 128, 1024), (1,)),
    ),
    longest_call=0.3,
    burst=0.4e-3,
    rounds=13,
)
QUICK = Grid(
    squares=(((2, 3, 4, 5, 8, 12, 16), (1, 2, 10, 100)), ((32, 64, 128, 256, 512, 1024, 2048), (1,))),
    rectangles=(((4, 16), (1, 2, 8), (1, 100)), ((64, 512), (1, 8, 32), (1,)), ((1024,), (1, 32, 128), (1,))),
    longest_call=0.1,
    burst=0.4e-3,
    rounds=9,
)

LARGEST_OPERANDS = 64 << 20  # bytes of a, b and the product; larger stacks behave as these, and take long to fill


@dataclass(frozen=True)
class Point:
    """One problem to measure. Points of one `line` differ in size alone, and grow."""

    dtype: str
    m: int
    k: int
    n: int
    batch: int
    line: tuple[object, ...] = field(compare=False)

    def __str__(self) -> str:
        stack = f"{self.batch} x " if self.batch > 1 else ""
        return f"{self.dtype} {stack}({self.m}, {self.k}) @ ({self.k}, {self.n})"

    @property
    def work(self) -> int:
        return self.m * self.k * self.n * self.batch

    @property
    def bytes(self) -> int:
        elements = self.m * self.k + self.k * self.n + self.m * self.n
        return self.batch * elements * np.dtype(self.dtype).itemsize


def points(grid: Grid) -> list[Point]:
    """Everything that a grid asks for, small before large."""
    found = [point for dtype in MEASURED_DTYPES if _dtype_has_kernels(dtype) for point in _points(grid, dtype)]
    return [point for point in found if point.batch == 1 or point.bytes <= LARGEST_OPERANDS]


def _points(grid: Grid, dtype: str) -> Iterator[Point]:
    for sizes, batches in grid.squares:
        for n, batch in itertools.product(sizes, batches):
            yield Point(dtype, n, n, n, batch, (dtype, "square", batch))
    for largest, least, batches in grid.rectangles:
        for large, small, batch in itertools.product(largest, least, batches):
            if small < large:
                for shape, (m, k, n) in enumerate(_rectangles(small, large)):
                    yield Point(dtype, m, k, n, batch, (dtype, shape, small, batch))


def _rectangles(small: int, large: int) -> tuple[tuple[int, int, int], ...]:
    """A rule of rectangles cannot tell these shapes apart, so its kernel must win on each: (m, k, n)."""
    return (large, large, small), (small, large, large), (large, small, large), (small, large, small)


def _dtype_has_kernels(dtype: str) -> bool:
    return any(dtype in kernel.dtypes for kernel in of_function(MATMUL))


# ---- measuring ----------------------------------------------------------------------------------

LOST = 2.0  # a kernel that takes this many times stock's is not measured further, nor at larger sizes that take long
SETTLED = 3.0  # where an exact kernel gains this much, or all have lost, larger sizes that take long are left out
LONG = 0.01  # seconds of a call that takes long
LONG_ENOUGH = 0.15  # seconds of stock's time at a point, after which there is no further round
CLEAR = 1.5  # factor between two times that is no chance where it is seen
FEW = 5  # times in succession,
FEW_LONG = 3  # or so many where a call takes long
CLOSE = (0.95, 1.15)  # gains that are measured again,
CLOSE_CALL = 4  # in so many times the rounds


def measure(grid: Grid, advance: Callable[[Point], None]) -> list[Measurement]:
    """Measure a grid through the public path; `advance` is told of each point that is done."""
    lines: dict[tuple[object, ...], tuple[Point, dict[str, float]]] = {}  # the last point of each, and its times
    found = []
    with lapack_ai_backend.set_backend():  # intercepts; what is timed switches itself
        for point in points(grid):
            names = _able(point)
            expected = _expected(point, names, lines.get(point.line) or lines.get(_other_line(point)))
            names = _worth_measuring(names, expected, grid, exact=_is_exact(point.dtype))
            seconds = _measure_point(point, names, grid) if names else {}
            if len(seconds) > 1:
                lines[point.line] = point, expected | seconds
                found.append(Measurement(point.dtype, point.m, point.k, point.n, point.batch, seconds))
            advance(point)
    return found


def _able(point: Point) -> list[str]:
    """Kernels to tune whose own limits take the problem."""
    problem = Problem(MATMUL, point.dtype, point.m, point.k, point.n, point.batch)
    return [each.name for each in candidates(MATMUL, problem, Options()) if each.allowed and each.name not in NOT_TUNED]


def _other_line(point: Point) -> tuple[object, ...]:
    """The line that tells about the first point of another; not single products of stacks: those are mostly call."""
    return (point.dtype, "square", point.batch)


def _is_exact(dtype: str) -> bool:
    """Whether no kernel rounds. Stock is a plain loop then, which larger sizes do not make faster; BLAS they do."""
    return all(kernel.error_class(dtype) == EXACT for kernel in of_function(MATMUL) if dtype in kernel.dtypes)


def _expected(point: Point, names: list[str], before: tuple[Point, dict[str, float]] | None) -> dict[str, float]:
    """Times of stock and of these kernels as those of another point promise them."""
    if before is None:
        return {}
    other, seconds = before
    growth = point.work / other.work
    return {name: each * growth for name, each in seconds.items() if name in (STOCK.name, *names)}


def _worth_measuring(names: list[str], expected: dict[str, float], grid: Grid, *, exact: bool) -> list[str]:
    """Those of the kernels that are to be measured; none where the point is left out."""
    if not expected:
        return names
    stock = expected[STOCK.name]
    gain = max((stock / seconds for name, seconds in expected.items() if name != STOCK.name), default=1.0)
    settled = exact and stock > LONG and not 1 / LOST < gain < SETTLED
    if settled or stock > grid.longest_call:
        return []
    return [name for name in names if expected.get(name, 0.0) <= max(LONG, LOST * stock)]


def _measure_point(point: Point, names: Iterable[str], grid: Grid) -> dict[str, float]:
    """Times of stock and of the kernels, from rounds in which each has its turn."""
    a, b = (_operand(point, shape, seed) for seed, shape in enumerate(((point.m, point.k), (point.k, point.n))))
    timer = timeit.Timer("multiply(a, b)", globals={"multiply": operator.matmul, "a": a, "b": b})
    switches = {name: _switch(name) for name in (STOCK.name, *names)}
    # What these calls take is no time of theirs: the first one pays for the memory that the next ones find.
    switches = {name: switch for name, switch in switches.items() if _reaches(name, switch, a, b)}
    first = {name: _timed(timer, switch, 1) for name, switch in switches.items()}
    numbers = {name: max(1, int(grid.burst / seconds)) for name, seconds in first.items()}
    live = [name for name in first if first[name] <= max(LOST * first[STOCK.name], LONG)]
    takes_long = first[STOCK.name] > LONG
    rounds = {name: [] if name in live and not takes_long else [seconds] for name, seconds in first.items()}
    while not _is_enough({name: rounds[name] for name in live}, grid, takes_long=takes_long):
        for name in live:
            rounds[name].append(_timed(timer, switches[name], numbers[name]))
        if len(rounds[STOCK.name]) >= FEW_LONG:  # one may have been disturbed
            live = [name for name in live if _gain(rounds[STOCK.name], rounds[name]) * LOST >= 1]
    stock = min(rounds[STOCK.name])
    return {name: stock / _gain(rounds[STOCK.name], rounds[name]) for name in first}


def _is_enough(rounds: Mapping[str, list[float]], grid: Grid, *, takes_long: bool) -> bool:
    """Whether these rounds decide between stock and the kernels that have not lost, or cost enough."""
    stock = rounds[STOCK.name]
    if not stock or len(rounds) == 1:
        return bool(stock)
    if len(stock) >= (FEW_LONG if takes_long else FEW) and _is_clear(rounds):
        return True
    gains = [_gain(stock, times) for name, times in rounds.items() if name != STOCK.name]
    close = any(CLOSE[0] < gain < CLOSE[1] for gain in gains)
    spent = sum(stock) if takes_long else len(stock) * max(grid.burst, stock[0])
    return len(stock) >= grid.rounds * (CLOSE_CALL if close else 1) or (len(stock) >= FEW_LONG and spent > LONG_ENOUGH)


def _is_clear(rounds: Mapping[str, list[float]]) -> bool:
    """Whether each round says the same: which one is the fastest by far, and which are faster than stock by far."""
    fastest = min(rounds, key=lambda name: statistics.median(rounds[name]))
    pairs = [(fastest, name) for name in rounds if name != fastest]
    pairs += [(STOCK.name, name) for name in rounds if name not in (fastest, STOCK.name)]
    ratios = ([other / one for one, other in zip(rounds[one], rounds[other], strict=True)] for one, other in pairs)
    return all(min(each) > CLEAR or max(each) < 1 / CLEAR for each in ratios)


def _gain(stock: list[float], kernel: list[float]) -> float:
    """How many times faster than stock a kernel is: the median of the rounds that both were in.

    Not the ratio of the best times: on a shared machine the clock jumps by a factor of two, and where it does so
    in the last round, those kernels look fast that come after the jump.
    """
    return statistics.median(one / other for one, other in zip(stock, kernel, strict=False))


def _switch(name: str) -> AbstractContextManager[Any]:
    if name == STOCK.name:
        return lapack_ai_backend.skip_backend()
    options: dict[str, object] = {"policy": "static", "accuracy": "normwise", "disable": ()}
    return lapack_ai_backend.set_backend(force={MATMUL: name}, **options)


def _reaches(name: str, switch: AbstractContextManager[Any], a: Any, b: Any) -> bool:
    """Whether the call runs on the kernel: it may decline layouts and sizes that its limits do not tell."""
    with switch, lapack_ai_backend.trace() as trace:
        operator.matmul(a, b)
    return [each.kernel for each in trace.decisions] == [name]


def _timed(timer: timeit.Timer, switch: AbstractContextManager[Any], number: int) -> float:
    with switch:
        return max(timer.timeit(number) / number, 1e-9)


def _operand(point: Point, shape: tuple[int, int], seed: int) -> np.ndarray[Any, Any]:
    """Dense data without zeros; a large operand repeats values, which takes less time than to draw them."""
    whole = (point.batch, *shape) if point.batch > 1 else shape
    return np.resize(_values(point.dtype, seed), whole)


@functools.cache
def _values(name: str, seed: int) -> np.ndarray[Any, Any]:
    """As many as a prime, so that no rows of the operand are equal."""
    rng = np.random.default_rng(seed)
    dtype, size = np.dtype(name), 65537
    values: np.ndarray[Any, Any] = rng.uniform(0.5, 2.0, size) * rng.choice([-1.0, 1.0], size)
    if dtype.kind == "i":
        values = rng.integers(1, 100, size)
    elif dtype.kind == "c":
        values = values + 1j * rng.uniform(0.5, 2.0, size)
    return values.astype(dtype)


# ---- deciding -----------------------------------------------------------------------------------

WORTH_IT = 1.05  # a kernel is routed where it gains this much over stock on every sample
CREDIBLE = 3.0  # a kernel that rounds does not gain more over BLAS: where it seems to, stock was disturbed;
SMALL = 16  # but not in products of this size, most of whose time is NumPy's call
TIE = 1.05  # within this of the fastest, a kernel with the stronger bound is preferred


Gain = tuple[float, float]  # times stock's speed: the least and the most of several samples


@dataclass(frozen=True)
class Verdict:
    """Kernels in the order in which they should serve a class of problems, and what each gained."""

    ranking: tuple[str, ...]
    gains: Mapping[str, Gain] = field(compare=False, default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A verdict for stacks of `low` to `high` matrices."""

    low: int
    high: int
    verdict: Verdict


def decide(measurements: Iterable[Measurement], date: str) -> tuple[Rule, ...]:
    """Rules in which each class of problems goes to the fastest kernel, or to stock where none gains 5 %.

    Kernels that gain less follow the fastest, for options and problems that exclude it
    (accuracy="componentwise", A @ A.T). The last rules say that stock was the fastest.
    """
    found = list(measurements)
    dtypes = tuple(dict.fromkeys(each.dtype for each in found))
    rules: list[Rule] = []
    for dtype in dtypes:
        writer = _Writer(dtype, date)
        own = [each for each in found if each.dtype == dtype]
        _square_rules(writer, [each for each in own if each.m == each.k == each.n])
        _rectangular_rules(writer, [each for each in own if not each.m == each.k == each.n])
        writer.stock(square=False, high=UNLIMITED)
        rules += writer.written()
    return tuple(rules)


def _verdict(dtype: str, samples: list[Measurement]) -> Verdict:
    """One verdict for several samples: what a kernel gains is what it gains on the worst of them."""
    of_samples = [
        {name: each.seconds[STOCK.name] / seconds for name, seconds in each.seconds.items() if name != STOCK.name}
        for each in samples
    ]
    everywhere = set(of_samples[0]).intersection(*of_samples)
    if any(max(each.m, each.k, each.n) > SMALL for each in samples):
        everywhere -= {
            name
            for name in everywhere
            if KERNELS[name].error_class(dtype) != EXACT and any(each[name] > CREDIBLE for each in of_samples)
        }
    gains = {
        name: (min(each[name] for each in of_samples), max(each[name] for each in of_samples)) for name in everywhere
    }
    good = sorted((name for name in everywhere if gains[name][0] >= WORTH_IT), key=lambda name: -gains[name][0])
    strong = [name for name in good if _serves_all(name, dtype) and gains[name][0] * TIE >= gains[good[0]][0]]
    good = strong[:1] or good
    needed = [name for place, name in enumerate(good) if not any(_serves_all(each, dtype) for each in good[:place])]
    return Verdict(tuple(needed), gains)


def _serves_all(name: str, dtype: str) -> bool:
    """Whether no option for accuracy and no symmetric product passes the kernel by."""
    kernel = KERNELS[name]
    return kernel.limits.symmetric and kernel.error_class(dtype) in (COMPONENTWISE, EXACT)


def _runs(dtype: str, by_batch: Mapping[int, list[Measurement]]) -> tuple[Run, ...]:
    """Verdicts along the lengths of stacks; equal neighbours are one."""
    runs: list[Run] = []
    for batch, after in _with_next(sorted(by_batch)):
        verdict = _verdict(dtype, by_batch[batch])
        if runs and runs[-1].verdict == verdict:
            before = runs.pop()
            batch, verdict = before.low, _joined(before.verdict, verdict)
        runs.append(Run(batch, after, verdict))
    return tuple(runs)


def _joined(one: Verdict, other: Verdict) -> Verdict:
    return Verdict(one.ranking, _both(one.gains, other.gains))


def _joined_runs(one: tuple[Run, ...], other: tuple[Run, ...]) -> tuple[Run, ...]:
    """Runs that differ in their gains alone, as one."""
    pairs = zip(one, other, strict=True)
    return tuple(Run(run.low, run.high, _joined(run.verdict, same.verdict)) for run, same in pairs)


def _both(one: Mapping[str, Gain], other: Mapping[str, Gain]) -> dict[str, Gain]:
    return {name: (min(one[name][0], other[name][0]), max(one[name][1], other[name][1])) for name in {*one} & {*other}}


def _with_next(values: list[int]) -> Iterator[tuple[int, int]]:
    """Each value with the last one that takes its verdict."""
    for value, after in itertools.zip_longest(values, values[1:]):
        yield value, UNLIMITED if after is None else after - 1


def _grouped(measurements: Iterable[Measurement], of: Callable[[Measurement], int]) -> dict[int, list[Measurement]]:
    groups: dict[int, list[Measurement]] = {}
    for each in measurements:
        groups.setdefault(of(each), []).append(each)
    return groups


def _square_rules(writer: _Writer, measurements: list[Measurement]) -> None:
    """Rectangles of sizes and stack lengths with one ranking."""
    by_size = _grouped(measurements, lambda each: each.n)
    open_runs: dict[Run, tuple[int, Mapping[str, Gain]]] = {}  # first size, and the gains since
    for size in sorted(by_size):
        runs = _runs(writer.dtype, _grouped(by_size[size], lambda each: each.batch))
        for run in [run for run in open_runs if run not in runs]:
            low, gains = open_runs.pop(run)
            writer.kernels(True, (low, size - 1), run, gains)
        for run in runs:
            low, gains = open_runs.get(run, (size, run.verdict.gains))
            open_runs[run] = low, _both(gains, run.verdict.gains)
    for run, (low, gains) in open_runs.items():
        writer.kernels(True, (low, UNLIMITED), run, gains)


@dataclass(frozen=True)
class Cell:
    """Verdicts for rectangles whose smallest dimension is `least` or more."""

    least: int
    runs: tuple[Run, ...]


def _rectangular_rules(writer: _Writer, measurements: list[Measurement]) -> None:
    """Bands of the largest dimension, in ascending order; in each the smallest dimension, in descending order.

    A row bounds the smallest dimension from below and the largest from above. What bounds
    them from the other side are the rows before, which must take everything, stock rows included.
    """
    bands: list[tuple[int, list[Cell]]] = []
    by_largest = _grouped(measurements, lambda each: max(each.m, each.k, each.n))
    classes: dict[int, tuple[Run, ...]] = {1: ()}  # by the smallest dimension; without a verdict, stock
    for largest, high in _with_next(sorted(by_largest)):
        classes = _classes(writer.dtype, largest, by_largest[largest], classes)
        cells = _cells(classes)
        if bands and bands[-1][1] == cells:
            _, before = bands.pop()
            cells = [
                Cell(cell.least, _joined_runs(cell.runs, same.runs)) for cell, same in zip(cells, before, strict=True)
            ]
        bands.append((high, cells))
    if not any(run.verdict.ranking for _, cells in bands for cell in cells for run in cell.runs):
        return
    writer.stock(square=True, high=UNLIMITED)
    for high, cells in bands:
        for cell in cells:
            for run in cell.runs:
                writer.kernels(False, (cell.least, high), run, run.verdict.gains)
            writer.stock(square=False, high=high, least=cell.least)


def _classes(
    dtype: str, largest: int, measurements: list[Measurement], smaller: Mapping[int, tuple[Run, ...]]
) -> dict[int, tuple[Run, ...]]:
    """Verdicts of a band by the smallest dimension; what was not measured on all shapes is as in the smaller band.

    A kernel that cannot do the band's products is left out of what the smaller band says.
    """
    found = {least: tuple(_within(run, largest) for run in runs) for least, runs in smaller.items()}
    by_least = _grouped(measurements, lambda each: min(each.m, each.k, each.n))
    for least, own in by_least.items():
        shapes = set(_rectangles(least, largest))
        by_batch = _grouped(own, lambda each: each.batch)
        whole = {batch: each for batch, each in by_batch.items() if {(one.m, one.k, one.n) for one in each} == shapes}
        if whole == by_batch:
            found[least] = _runs(dtype, whole)
    return found


def _within(run: Run, largest: int) -> Run:
    able = tuple(name for name in run.verdict.ranking if KERNELS[name].limits.max_dim >= largest)
    return Run(run.low, run.high, Verdict(able, run.verdict.gains))


def _cells(classes: Mapping[int, tuple[Run, ...]]) -> list[Cell]:
    """Cells of a band; neighbours with one ranking are one."""
    cells: list[Cell] = []
    for cell in (Cell(least, classes[least]) for least in sorted(classes, reverse=True)):
        if cells and cells[-1].runs == cell.runs:
            cell = Cell(cell.least, _joined_runs(cells.pop().runs, cell.runs))
        cells.append(cell)
    return cells


class _Writer:
    """Writes the rules of one dtype."""

    def __init__(self, dtype: str, date: str) -> None:
        self.dtype = dtype
        self._date = date
        self._rules: list[Rule] = []

    def kernels(self, square: bool, dims: tuple[int, int], run: Run, gains: Mapping[str, Gain]) -> None:
        """A row for each kernel of the ranking, within what it can do."""
        for name in run.verdict.ranking:
            its = KERNELS[name].limits
            limits = replace(  # what else the kernel wants stays
                its,
                square=square,
                min_dim=max(dims[0], its.min_dim),
                max_dim=min(dims[1], its.max_dim),
                min_batch=max(run.low, its.min_batch),
                max_batch=min(run.high, its.max_batch),
            )
            self._add(limits, name, _text(gains[name]))

    def stock(self, square: bool, high: int, least: int = 1) -> None:
        """A row for whatever of these dimensions no row above takes; it makes stock rows just above needless."""
        limits = Limits(square, True, least, high)
        while self._rules and self._rules[-1].kernel == STOCK.name and _contains(limits, self._rules[-1].limits):
            self._rules.pop()
        self._add(limits, STOCK.name, "no kernel named above gains 5 % here")

    def _add(self, limits: Limits, kernel: str, gain: str) -> None:
        dims = f"{limits.min_dim}-{_bound(limits.max_dim)}"
        stack = f"-stack-{limits.min_batch}-{_bound(limits.max_batch)}" if _bounds_batch(limits) else ""
        name = f"tuned-{self.dtype}-{'square' if limits.square else 'any'}-{dims}{stack}-{kernel}"
        because = f"lapack-ai tune, {self._date}: {gain}"
        self._rules.append(Rule(name, MATMUL, _dtypes(self.dtype, kernel), limits, kernel, because))

    def written(self) -> list[Rule]:
        return self._rules


def _text(gain: Gain) -> str:
    low, high = (f"{value:.3g}" for value in gain)
    return f"{low if low == high else f'{low} to {high}'} times stock's speed"


def _contains(outer: Limits, inner: Limits) -> bool:
    return outer.square <= inner.square and outer.min_dim <= inner.min_dim and inner.max_dim <= outer.max_dim


def _bound(limit: int) -> str:
    return "up" if limit == UNLIMITED else str(limit)


def _bounds_batch(limits: Limits) -> bool:
    return (limits.min_batch, limits.max_batch) != (1, UNLIMITED)


def _dtypes(dtype: str, kernel: str) -> tuple[str, ...]:
    """The dtype and its unsigned twin."""
    known = native.DTYPES if kernel == STOCK.name else KERNELS[kernel].dtypes
    return tuple(name for name in (dtype, f"u{dtype}") if name in known)
