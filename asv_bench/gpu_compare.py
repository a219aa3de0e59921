"""Our singular value decompositions and products beside other libraries', in one run; wrong results have no time.

python asv_bench/gpu_compare.py                         everything: some minutes on a large GPU
python asv_bench/gpu_compare.py --quick                 n up to 2048
python asv_bench/gpu_compare.py --cases values tall     only cases whose name holds one of the words
python asv_bench/gpu_compare.py --out DIR               also DIR/gpu_compare.json, and .png with matplotlib
python asv_bench/gpu_compare.py --read FILE --out DIR   tables and plot of an earlier run

Each library's first result is checked, of a decomposition by LAPACK's ratios, before it is timed. Then all take turns,
so that a change of clocks meets each of them. Tables hold medians, and how many times as long as ours they are.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gpu_peers as peers
import numpy as np
import scipy

import lapack_ai_backend as lapack_ai
from lapack_ai_backend.opencl import devices

Array = np.ndarray[Any, Any]

OURS = "ours"
LIMIT = 50.0  # of the ratios, LAPACK's (TESTING/svd.in)
ROUNDS = 7
TOTAL = 360  # seconds after which no further case begins

# ---- cases -----------------------------------------------------------------------------------------

SQUARE: dict[str, peers.Maker] = {
    OURS: peers.ours_on_device,
    "torch": peers.of_torch(None),
    "cupy": peers.of_cupy,
    "gesvdp": peers.gesvdp,
}
DRIVERS = {driver: peers.of_torch(driver) for driver in ("gesvd", "gesvdj", "gesvda")}
HOST: dict[str, peers.Maker] = {
    OURS: peers.ours_through_scipy,
    "scipy": peers.stock_scipy,
    "torch": peers.torch_with_transfers,
}

# What a case's name begins with -> what it is, for people, and who takes part.
KINDS: dict[str, tuple[str, dict[str, peers.Maker]]] = {
    "device": ("Economy SVD, device to device, Gaussian matrices", SQUARE),
    "values": ("Singular values alone, device to device, Gaussian matrices", SQUARE),
    "host": ("`scipy.linalg.svd`, NumPy arrays in and out, Gaussian matrices", HOST),
    "tall": (
        "Economy SVD, device to device, tall Gaussian matrices",
        {OURS: peers.ours_on_device, **DRIVERS, "gesvdp": peers.gesvdp},
    ),
    "graded": ("Economy SVD, device to device, geometric spectrum of condition 1e10", SQUARE),
    "graded tall": (
        "Economy SVD, device to device, tall matrices with a geometric spectrum of condition 1e10",
        {OURS: peers.ours_on_device, **DRIVERS, "gesvdp": peers.gesvdp},
    ),
    "product": (
        "`A @ B`, NumPy arrays in and out, Gaussian matrices",
        {OURS: peers.our_product, "numpy": peers.stock_product, "torch": peers.torch_product},
    ),
    "stack": (  # PyTorch's gesvdj is gesvdjBatched up to 32 x 32 and a loop beyond; its gesvd would always be one
        "Economy SVDs of a stack of Gaussian matrices, device to device",
        {
            OURS: peers.ours_of_stack,
            "torch": peers.of_torch(None),
            "cupy": peers.of_cupy,
            "gesvdj": DRIVERS["gesvdj"],
            "gesvda": DRIVERS["gesvda"],
        },
    ),
    "host stack": ("`scipy.linalg.svd` of a stack of Gaussian matrices, NumPy arrays in and out", HOST),
}

CONDITION = 1e10
REFLECTORS = 8


@dataclass(frozen=True)
class Case:
    """A matrix or a stack of them, and what is asked of it."""

    kind: str
    dtype: str
    m: int
    n: int
    count: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind} {self.dtype} {self._times}{self.m}x{self.n}"

    @property
    def title(self) -> str:
        """In a table."""
        return f"{self._times}{self.m} x {self.n} {self.dtype}"

    @property
    def _times(self) -> str:
        return f"{self.count} x " if self.count > 1 else ""

    @property
    def work(self) -> float:
        """What times grow with."""
        return float(self.count) * self.m * self.n * self.n

    def matrix(self) -> Array:
        """By rows, the same in every run."""
        rng = np.random.default_rng(self.n)
        if "graded" not in self.kind:
            real, shape = np.finfo(self.dtype).dtype, (self.m, self.n)
            shape = (self.count, *shape) if self.count > 1 else shape
            a = rng.standard_normal(shape, real)
            return a if real == self.dtype else (a + 1j * rng.standard_normal(shape, real)).astype(self.dtype)
        a = np.zeros((self.m, self.n))
        np.fill_diagonal(a, CONDITION ** -np.linspace(0, 1, self.n))
        for _ in range(REFLECTORS):
            for b in (a, a.T):  # a view: from the left, then from the right
                x = rng.standard_normal(len(b))
                b -= np.outer(x, np.dot(x, b) * (2 / np.dot(x, x)))
        return a.astype(self.dtype)


def cases(size: str) -> Iterator[Case]:
    """The cases of a run: "full", "quick", or "tiny", with which the program can be tried anywhere."""
    n = {"full": (1024, 2048, 4096, 8192), "quick": (1024, 2048), "tiny": (33, 48)}[size]
    tall = ((130, 17),) if size == "tiny" else ((20_000, 1000), (100_000, 256))
    dtypes = "float64", "float32"
    for dtype in dtypes:
        yield from (Case("device", dtype, each, each) for each in n)
    yield from (Case("host", "float64", each, each) for each in n[:3])
    for dtype in dtypes:
        yield from (Case("values", dtype, each, each) for each in n[:3])
    yield from (Case("tall", "float64", *each) for each in tall)
    yield from (Case("graded", dtype, n[1], n[1]) for dtype in dtypes)
    yield Case("graded tall", "float64", *tall[0])
    for dtype in dtypes:
        yield from (Case("product", dtype, each, each) for each in ((300,) if size == "tiny" else n[1:]))
    for dtype in ("complex128", "complex64"):
        yield from (Case("device", dtype, each, each) for each in n[:3])
        yield from (Case("values", dtype, each, each) for each in n[:3])
    yield from (Case("host", "complex128", each, each) for each in n[:3])
    yield Case("tall", "complex128", *tall[-1])
    for dtype in dtypes:
        for m, count in ((8, 9), (40, 3)) if size == "tiny" else ((8, 100_000), (16, 30_000), (32, 10_000), (64, 1000)):
            yield Case("stack", dtype, m, m, count)
    yield Case("host stack", "float64", 8, 8, 9) if size == "tiny" else Case("host stack", "float64", 32, 32, 10_000)


# ---- checks ----------------------------------------------------------------------------------------


class Checks:
    """LAPACK's ratios (TESTING/EIG/ddrvbd.f) of decompositions of one matrix, the worst of a stack.

    They are formed in double precision, by PyTorch on the GPU where that is there, by NumPy otherwise: never by what
    is under test.
    """

    def __init__(self, a: Array) -> None:
        self.a, self.eps = _widened(a), float(np.finfo(a.dtype).eps)

    def ratios(self, u: Any, s: Any, vh: Any) -> dict[str, float]:
        """Errors over the norm, the size and eps; "order" alone where the values are no finite sequence down to 0."""
        return self._ratios(u, s, vh, self.eps)

    def _ratios(self, u: Any, s: Any, vh: Any, eps: float) -> dict[str, float]:
        (m, n), s = self.a.shape[-2:], _widened(s)
        falls = bool((s[..., 1:] <= s[..., :-1]).all())
        if not (falls and bool((s[..., 0] < math.inf).all()) and bool((s[..., -1] >= 0).all())):
            return {"order": math.inf}
        if u is None:
            errors = _largest(abs(s - self.reference)) / self.reference[..., 0]
            return {"values": float(errors.max()) / (n * eps)}
        u, vh = _widened(u), _widened(vh)
        residuals = _norm1(self.a - (u * s[..., None, :]) @ vh) / _norm1(self.a)
        found = {"U": _orthogonality(u), "V": _orthogonality(vh.swapaxes(-1, -2))}
        return {"residual": float(residuals.max()) / (m * eps)} | {name: each / eps for name, each in found.items()}

    @functools.cached_property
    def reference(self) -> Any:
        """The values in double precision: cuSOLVER's by QR iteration if right with their vectors, else NumPy's."""
        if isinstance(self.a, np.ndarray):
            return np.linalg.svd(self.a, compute_uv=False)
        u, s, vh = peers.torch_on_gpu().linalg.svd(self.a, full_matrices=False, driver="gesvd")
        if is_right(self._ratios(u, s, vh, float(np.finfo(float).eps))):
            return s
        return _widened(np.linalg.svd(self.a.cpu().numpy(), compute_uv=False))


class ProductChecks:
    """Of the product of a square matrix and `peers.second_operand` of it, in double precision."""

    def __init__(self, a: Array) -> None:
        b = peers.second_operand(a)
        self.rows = np.linspace(0, len(a) - 1, 64).astype(int)
        self.wanted = _widened(np.ascontiguousarray(a[self.rows])) @ _widened(b)
        self.scale = float(np.linalg.norm(a[self.rows])) * float(np.linalg.norm(b)) * float(np.finfo(a.dtype).eps)

    def ratios(self, c: Array) -> dict[str, float]:
        """``|C - A B| / (|A| |B| eps)`` in the Frobenius norm, of some rows."""
        error = _widened(np.ascontiguousarray(c[self.rows])) - self.wanted
        return {"product": float((error * error).sum()) ** 0.5 / self.scale}


def is_right(ratios: dict[str, float]) -> bool:
    """Whether a result passes; NaN does not."""
    return all(each <= LIMIT for each in ratios.values())


def _widened(x: Any) -> Any:
    try:
        torch = peers.torch_on_gpu()
    except peers.AbsentError:
        x = np.asarray(x.get() if hasattr(x, "get") else x)
        return x.astype(np.result_type(x, float))
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x)
    elif not isinstance(x, torch.Tensor):
        x = torch.from_dlpack(x)
    return x.to("cuda", torch.complex128 if x.is_complex() else torch.float64)


def _orthogonality(q: Any) -> float:
    gram = q.conj().swapaxes(-1, -2) @ q
    diagonal = list(range(gram.shape[-1]))
    gram[..., diagonal, diagonal] -= 1
    return float(_norm1(gram).max()) / q.shape[-2]


def _norm1(a: Any) -> Any:
    return _largest(abs(a).sum(-2))


def _largest(x: Any) -> Any:
    """Of the last dimension."""
    return x.max(-1) if isinstance(x, np.ndarray) else x.amax(-1)


# ---- measuring -------------------------------------------------------------------------------------


@dataclass
class Entry:
    """What became of one library in one case.

    Attributes
    ----------
    state : str
        "right", "wrong", "absent", "skipped" or "failed".
    note : str
        Why, or what the library says.
    ratios : dict
        Of the first result.
    first : float or None
        Seconds of the first call, which builds and allocates.
    seconds : list
        Of the later ones; the first instead, where a library that ran before takes too long for more.
    """

    state: str
    note: str = ""
    ratios: dict[str, float] = field(default_factory=dict)
    first: float | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Run:
    """One run of the program, and what it has found."""

    def __init__(self, option: str, budget: float) -> None:
        self.option, self.budget = option, budget
        self.started = time.perf_counter()
        self.found: list[tuple[Case, dict[str, Entry]]] = []
        self._rates: dict[tuple[str, str, str], float] = {}  # seconds for a case's work of 1

    def add(self, case: Case) -> dict[str, Entry]:
        """Check and time everyone's decomposition in a case."""
        makers = KINDS[case.kind][1]
        if time.perf_counter() - self.started > TOTAL:
            entries = {name: Entry("skipped", f"the run has taken {TOTAL} s") for name in makers}
        else:
            entries = self._measure(case, makers)
        self.found.append((case, entries))
        peers.free_memory()
        return entries

    def _measure(self, case: Case, makers: dict[str, peers.Maker]) -> dict[str, Entry]:
        a = case.matrix()
        checks = ProductChecks(a) if case.kind == "product" else Checks(a)
        entries: dict[str, Entry] = {}
        calls: dict[str, peers.Call] = {}
        for name, make in makers.items():
            rate = self._rates.get((name, case.kind, case.dtype), 0.0)
            if rate * case.work > self.budget:
                entries[name] = Entry("skipped", f"would take about {rate * case.work:.0f} s")
                continue
            entries[name], call = self._begin(make, a, case, checks)
            if call and rate and (entries[name].first or 0.0) > self.budget / 10:
                entries[name].seconds.append(entries[name].first or 0.0)
            elif call:
                calls[name] = call
            del call  # and its memory, which the next may need
            peers.free_memory()
        del checks
        self._take_turns(entries, calls)
        for name, entry in entries.items():
            if entry.first is not None:
                self._rates[name, case.kind, case.dtype] = min(entry.seconds or [entry.first]) / case.work
        return entries

    def _begin(
        self, make: peers.Maker, a: Array, case: Case, checks: Checks | ProductChecks
    ) -> tuple[Entry, peers.Call | None]:
        """The call that warms up, checked; the call for more of them where it is right."""
        try:
            call = make(a, case.kind != "values", self.option)
            seconds, result = _timed(call)
            ratios = checks.ratios(*call.factors(result))
            right = is_right(ratios)
            return Entry("right" if right else "wrong", call.note(result), ratios, seconds), call if right else None
        except Exception as error:  # one library's failure is one entry of the table
            return _failure(error), None

    def _take_turns(self, entries: dict[str, Entry], calls: dict[str, peers.Call]) -> None:
        started = time.perf_counter()
        for _ in range(ROUNDS):
            for name, call in calls.items():
                if entries[name].state == "right":
                    try:
                        entries[name].seconds.append(_timed(call)[0])
                    except Exception as error:
                        entries[name] = _failure(error)
            if time.perf_counter() - started > self.budget / 3:
                break


def _failure(error: Exception) -> Entry:
    if isinstance(error, peers.AbsentError):
        return Entry("absent", str(error))
    lines = str(error).splitlines() or [""]
    return Entry("failed", f"{type(error).__name__}: {lines[0][:200]}")


def _timed(call: peers.Call) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call.run()
    return time.perf_counter() - started, result


# ---- what is told ----------------------------------------------------------------------------------


def surroundings(option: str) -> dict[str, str]:
    """Date, devices and versions."""
    device = devices.choose(option)
    threads = [f"{name}={os.environ[name]}" for name in os.environ if name.endswith("_NUM_THREADS")]
    found = {
        "date": str(datetime.date.today()),
        "OpenCL device": f"{device.name}, {device.platform}, driver {device.driver}" if device else "none",
        "CPU": f"{_cpu()}, {os.cpu_count()} cores{''.join(f', {each}' for each in threads)}",
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"lapack_ai_backend {lapack_ai.__version__}",
    }
    describe: dict[str, Callable[[], str]] = {
        "PyTorch": lambda: f"{peers.torch_on_gpu().__version__} on {peers.torch_on_gpu().cuda.get_device_name()}",
        "cuSOLVER": lambda: f"{peers.cusolver_version()}, PyTorch's",  # before CuPy brings its own
        "CuPy": lambda: str(peers.cupy_on_gpu().__version__),
    }
    for name, text in describe.items():
        try:
            found[name] = text()
        except peers.AbsentError as error:
            found[name] = f"absent: {error}"
        except Exception as error:  # the run goes on without this line
            found[name] = f"unknown: {error}"
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def details(entries: dict[str, Entry]) -> Iterator[str]:
    """A line for each library that is there: best time, ratios, its own words."""
    for name, entry in entries.items():
        if entry.state != "absent":
            ratios = ", ".join(f"{key} {value:.2g}" for key, value in entry.ratios.items())
            best = f"best {1e3 * min(entry.seconds):.4g} ms of {len(entry.seconds)}" if entry.seconds else ""
            first = "" if entry.first is None else f"first {1e3 * entry.first:.4g} ms"
            yield f"    {name:7} {entry.state:8} {'; '.join(filter(None, (best, first, ratios, entry.note)))}"


def cell(entry: Entry, ours: Entry) -> str:
    """An entry as a table has it: median, and how many times as long as ours."""
    if entry.state == "wrong":
        worst = max(entry.ratios, key=lambda name: (math.isnan(entry.ratios[name]), entry.ratios[name]))
        return f"wrong: {worst} {entry.ratios[worst]:.2g}"
    if entry.state != "right":
        return entry.state
    milliseconds = 1e3 * entry.median
    text = f"{milliseconds:.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"
    return text if entry is ours or ours.state != "right" else f"{text} ({entry.median / ours.median:.2f}x)"


Found = Sequence[tuple[Case, dict[str, Entry]]]


def tables(found: Found) -> Iterator[str]:
    """The lines of a Markdown table for each kind of case."""
    for kind, (title, makers) in KINDS.items():
        rows = [(case, entries) for case, entries in found if case.kind == kind]
        if rows:
            yield f"\n{title}:\n\n| matrix | {' | '.join(makers)} |\n| --- {'| --- ' * len(makers)}|"
        for case, entries in rows:
            cells = (cell(entries[name], entries[OURS]) for name in makers)
            yield f"| {case.title} | {' | '.join(cells)} |"


def write(path: Path, facts: dict[str, str], found: Found) -> None:
    """Everything as JSON."""
    rows = [{**asdict(case), "entries": {name: asdict(each) for name, each in of.items()}} for case, of in found]
    path.write_text(json.dumps({"surroundings": facts, "cases": rows}, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[dict[str, str], Found]:
    """What `write` wrote."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    found = []
    for row in whole["cases"]:
        entries = {name: Entry(**each) for name, each in row.pop("entries").items()}
        found.append((Case(**row), entries))
    return whole["surroundings"], found


def plot(path: Path, facts: dict[str, str], found: Found) -> str:
    """Times over n, a panel for each kind and dtype that has several sizes; says what became of it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no plot: matplotlib is not installed"
    panels: dict[str, list[tuple[Case, dict[str, Entry]]]] = {}
    for case, entries in found:
        if case.kind in ("device", "values", "host"):
            panels.setdefault(f"{case.kind}, {case.dtype}", []).append((case, entries))
    if not panels:
        return "no plot: no case of several sizes"
    names = list(dict.fromkeys(itertools.chain(*(entries for rows in panels.values() for _, entries in rows))))
    figure = Figure(figsize=(4 * len(panels), 4), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for color, name in enumerate(names):
            right = [(case.n, 1e3 * of[name].median) for case, of in rows if name in of and of[name].state == "right"]
            if right:
                style = {"color": f"C{color}", "linewidth": 3 if name == OURS else 1, "marker": "o"}
                axes.loglog(*zip(*right, strict=True), label=name, **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks([case.n for case, _ in rows], [str(case.n) for case, _ in rows])
        axes.set(title=title, xlabel="n", ylabel="ms")
        if axes.lines:
            axes.legend()
    figure.suptitle(f"{facts['OpenCL device']}, {facts['date']}")
    figure.savefig(path, dpi=150)
    return f"plot: {path}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 1 where a result of ours is wrong or missing."""
    parser = argparse.ArgumentParser(description="Compare our SVDs with those of other libraries.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", help="n up to 2048")
    size.add_argument("--tiny", dest="size", action="store_const", const="tiny", help="to see whether everything runs")
    parser.add_argument("--device", default="gpu", help="the OpenCL device, as the option of that name (gpu)")
    parser.add_argument("--cases", nargs="+", default=[""], metavar="WORD", help="cases whose name holds one of these")
    parser.add_argument("--budget", type=float, default=30, metavar="SECONDS", help="the most for one call (30)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where gpu_compare.json and .png go")
    parser.add_argument("--read", type=Path, metavar="FILE", help="a gpu_compare.json, in place of a run")
    given = parser.parse_args(arguments)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    run = Run(given.device, given.budget)
    facts, found = read(given.read) if given.read else (surroundings(given.device), run.found)
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), flush=True)
    for case in () if given.read else cases(given.size or "full"):
        if any(word in case.name for word in given.cases):
            print(case.name, flush=True)
            print("\n".join(details(run.add(case))), flush=True)
            if given.out:  # after each case: what a killed run has found is kept
                write(given.out / "gpu_compare.json", facts, found)
    print("\n".join(tables(found)))
    if given.out:
        print(plot(given.out / "gpu_compare.png", facts, found))
    bad = [case.name for case, entries in found if entries[OURS].state != "right"]
    print(f"\nours is not right: {', '.join(bad)}" if bad else f"\n{len(found)} cases, ours is right in all")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
