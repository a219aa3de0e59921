"""Run example programs on stock NumPy and under ``lapack-ai run``; compare results and times.

    python compare.py [--size S] [--rounds R] [--repeat N] [script.py ...]

Each program runs unchanged in fresh processes, in turn stock and accelerated, R rounds of it;
the best time of each counts. A program writes its result arrays and the time of its numerical
part to the file that ``--save`` names. Integer results must be equal; a float result X must
agree within X_bound, the error bound that the program itself declares.

A program that calls ``scipy.linalg.svd`` is accelerated in two ways: as the policy says, which takes
an OpenCL GPU where there is one, and then, one round of it, with ``--device cpu``, which takes OpenCL
on the CPU. That shows the route on a machine without a GPU; it is slower than stock.

The exit status is 1, and a line says why, where results differ, where a program or a kernel
fails, where no call of a program without decompositions was accelerated, where AlphaTensor served no
block of one whose matrices are dense, or where a decomposition with ``--device cpu`` stayed stock
although there is such a device. Times never fail the comparison: the report says where the route
does not pay.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).resolve().parent
SCRIPTS = [HERE / f"{name}.py" for name in ("robot_kinematics", "macro_connectedness", "graph_walks", "low_rank")]
DENSE = {"macro_connectedness.py"}  # programs whose 4x4 blocks AlphaTensor must serve
SVD = "scipy.linalg.svd"
FAILURES = {"kernel_failed", "wrong_result", "broken"}  # reasons that speak against a kernel
RUNNER = [sys.executable, "-m", "lapack_ai_backend", "run", "--quiet"]
HOT_SHARE = 0.02  # calls with less of a program's multiplications are left out of the table

Results = dict[str, np.ndarray]


@dataclass(frozen=True)
class Route:
    """A way of running a program accelerated: the options of ``lapack-ai run``."""

    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(("lapack-ai run", *self.options))


POLICY = Route()
ON_CPU = Route(("--device", "cpu"))


class ProgramError(Exception):
    """A program did not run to its end, or did not leave what it should."""


@dataclass
class Difference:
    """How far one result array is from stock."""

    name: str
    dtype: np.dtype[Any]
    size: int
    error: float  # the largest, absolute
    of_bound: float | None  # the largest, in units of the declared bound; None of integers
    fault: str = ""


@dataclass
class Comparison:
    """One program by one route: times, differences, the report of the accelerated run and what is wrong."""

    script: Path
    route: Route
    stock_times: list[float]  # one a round
    times: list[float]
    differences: list[Difference]
    report: dict[str, Any]
    faults: list[str]

    @property
    def ratio(self) -> float:
        """How many times as fast as stock, by the best of each."""
        return min(self.stock_times) / min(self.times)

    @property
    def decompositions(self) -> list[dict[str, Any]]:
        """The report's lines of singular value decompositions."""
        return [call for call in self.report["calls"] if call["function"] == SVD]


def run_program(how: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ProgramError(f"{how}: exit status {done.returncode}: {last}")


def load(path: Path) -> Results:
    try:
        with np.load(path) as file:
            results = dict(file)
    except FileNotFoundError:
        raise ProgramError("it saved no results") from None
    if "seconds" not in results:
        raise ProgramError("it saved no array 'seconds'")
    return results


def run_stock(script: Path, options: list[str], folder: Path) -> Results:
    saved = folder / "stock.npz"
    run_program("stock", [sys.executable, str(script), "--save", str(saved), *options])
    return load(saved)


def run_accelerated(script: Path, route: Route, options: list[str], folder: Path) -> tuple[Results, dict[str, Any]]:
    saved, report = folder / "accelerated.npz", folder / "report.json"
    command = [*RUNNER, *route.options, "--report", str(report), str(script), "--save", str(saved), *options]
    run_program(str(route), command)
    if not report.exists():
        raise ProgramError("the run left no report")
    return load(saved), json.loads(report.read_text(encoding="utf-8"))


def compare_floats(name: str, expected: np.ndarray, found: np.ndarray, bound: np.ndarray | None) -> Difference:
    difference = Difference(name, expected.dtype, expected.size, 0.0, None)
    if bound is None:
        difference.fault = f"the program declares no {name}_bound"
        return difference
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.where(same, 0.0, np.abs(expected - found))
        of_bound = np.where(same, 0.0, error / bound)
    difference.error = float(np.max(error, initial=0.0))
    difference.of_bound = float(np.max(of_bound, initial=0.0))
    if not difference.of_bound <= 1.0:  # NaN too
        difference.fault = f"{name} differs by {difference.error:.3g}, {difference.of_bound:.3g} times its bound"
    return difference


def compare_exactly(name: str, expected: np.ndarray, found: np.ndarray) -> Difference:
    difference = Difference(name, expected.dtype, expected.size, 0.0, None)
    unequal = np.flatnonzero(expected.ravel() != found.ravel())
    if unequal.size:
        largest = max(abs(int(expected.flat[i]) - int(found.flat[i])) for i in unequal)
        difference.error = float(largest)
        difference.fault = f"{name} differs in {unequal.size} of {expected.size} integers"
    return difference


def compare_results(expected: Results, found: Results) -> list[Difference]:
    names = [name for name in expected if name != "seconds" and not name.endswith("_bound")]
    differences = []
    for name in names:
        x, y = expected[name], found.get(name)
        if y is None or x.dtype != y.dtype or x.shape != y.shape:
            fault = f"{name} is missing or has another dtype or shape"
            differences.append(Difference(name, x.dtype, x.size, np.inf, None, fault))
        elif np.issubdtype(x.dtype, np.inexact):
            differences.append(compare_floats(name, x, y, expected.get(f"{name}_bound")))
        else:
            differences.append(compare_exactly(name, x, y))
    return differences


def find_faults(script: Path, route: Route, report: dict[str, Any]) -> list[str]:
    """What the accelerated run should have done and did not."""
    calls = report["calls"]
    stock = [call for call in calls if call["kernel"] == "stock"]
    faults = [f"{call['function']}: {call['reason']}" for call in stock if call["reason_code"] in FAILURES]
    if route is ON_CPU:
        left = [call for call in stock if call["function"] == SVD and call["reason_code"] != "device"]
        faults += [f"a decomposition stayed stock: {call['reason']}" for call in left]
    elif len(stock) == len(calls) and not any(call["function"] == SVD for call in calls):
        faults.append("no call was accelerated")
    if script.name in DENSE and report["blocks"]["alphatensor"] == 0:
        faults.append("its matrices are dense, and AlphaTensor served no block")
    return list(dict.fromkeys(faults))


def compare(script: Path, route: Route, options: list[str], rounds: int) -> Comparison:
    stock_times: list[float] = []
    times: list[float] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(rounds):
            # Each goes first in every other round, so that neither always meets a warmer machine.
            if number % 2:
                found, report = run_accelerated(script, route, options, folder)
                expected = run_stock(script, options, folder)
            else:
                expected = run_stock(script, options, folder)
                found, report = run_accelerated(script, route, options, folder)
            stock_times.append(float(expected["seconds"]))
            times.append(float(found["seconds"]))
            differences = compare_results(expected, found)
            faults += [fault for fault in (d.fault for d in differences) if fault and fault not in faults]
            faults += [fault for fault in find_faults(script, route, report) if fault not in faults]
    return Comparison(script, route, stock_times, times, differences, report, faults)


def compare_routes(script: Path, options: list[str], rounds: int) -> Iterator[Comparison]:
    routed = compare(script, POLICY, options, rounds)
    yield routed
    if routed.decompositions:
        on_cpu = compare(script, ON_CPU, options, 1)
        on_cpu.stock_times += routed.stock_times
        yield on_cpu


# ---- the report ----------------------------------------------------------------------------


def shown(times: list[float]) -> str:
    return f"{min(times):.3f} to {max(times):.3f}"


def calls_by_kernel(report: dict[str, Any]) -> str:
    """A line for each function and kernel: how many calls."""
    counts: Counter[str] = Counter()
    for call in report["calls"]:
        counts[f"{call['function'].rpartition('.')[2]} on {call['kernel']}"] += call["calls"]
    return "\n".join(f"{where}: {count:,}" for where, count in sorted(counts.items()))


def blocks_by_way(report: dict[str, Any]) -> str:
    """A line for each way in which blocks were computed."""
    return "\n".join(f"{way}: {count:,}" for way, count in report["blocks"].items() if count)


def times_table(comparisons: list[Comparison]) -> Table:
    table = Table(title="Seconds of the numerical part, best and worst round; calls and blocks of one whole run")
    table.add_column("program", no_wrap=True)
    table.add_column("accelerated by")
    for title in ("stock", "accelerated"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("best stock / accelerated", justify="right")
    for title in ("calls", "blocks of products"):
        table.add_column(title, no_wrap=True)
    for c in comparisons:
        table.add_row(
            c.script.name,
            str(c.route),
            shown(c.stock_times),
            shown(c.times),
            f"{c.ratio:.2f}",
            calls_by_kernel(c.report),
            blocks_by_way(c.report),
        )
    return table


def results_table(comparisons: list[Comparison]) -> Table:
    table = Table(title="Results: largest difference from stock")
    for title in ("program", "accelerated by", "array", "dtype"):
        table.add_column(title)
    for title in ("entries", "absolute", "of declared bound"):
        table.add_column(title, justify="right")
    for c in comparisons:
        for d in c.differences:
            exactly = "equal" if d.error == 0.0 else f"{d.error:.2e}"
            of_bound = "exact wanted" if d.of_bound is None else f"{d.of_bound:.2e}"
            table.add_row(c.script.name, str(c.route), d.name, d.dtype.name, f"{d.size:,}", exactly, of_bound)
    return table


def work(call: dict[str, Any]) -> float:
    """Multiplications of a textbook product; of a function of one matrix, which has no k, roughly as many as of ten."""
    m, k, n = call["m"], call["k"], call["n"]
    return float(m * n * (k or 10 * min(m, n)) * call["batch"] * call["calls"])


def calls_table(comparison: Comparison) -> Table:
    table = Table(title=f"Hot calls of {comparison.script.name}, {comparison.route}")
    for title in ("function", "dtype", "size"):
        table.add_column(title, no_wrap=True)
    for title in ("batch", "calls", "of work"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("kernel", "rule", "blocks ran on"):
        table.add_column(title, overflow="fold")
    calls = sorted(comparison.report["calls"], key=work, reverse=True)
    total = sum(map(work, calls)) or 1.0
    reasons: dict[str, None] = {}
    for call in calls:
        if work(call) < HOT_SHARE * total:
            break
        table.add_row(
            call["function"],
            call["dtype"],
            " x ".join(str(size) for size in (call["m"], call["k"], call["n"]) if size),
            f"{call['batch']:,}",
            f"{call['calls']:,}",
            f"{100.0 * work(call) / total:.0f} %",
            call["kernel"],
            escape(str(call.get("rule") or "")),
            ", ".join(way for way in ("alphatensor", "direct", "stock") if call.get(way)),
        )
        reasons[f"{call['rule'] or call['kernel']}: {call['reason_code']}: {call['reason']}"] = None
    table.caption = escape("\n".join(reasons))
    table.caption_justify = "left"
    return table


def remark(c: Comparison) -> str:
    """What the times do not say by themselves."""
    name = f"{c.script.name}, {c.route}"
    if c.decompositions and all(call["kernel"] == "stock" for call in c.decompositions):
        why = "; ".join(dict.fromkeys(call["reason"] for call in c.decompositions))
        return f"{name}: every decomposition ran stock ({why}); the times differ by chance."
    if c.route is ON_CPU:
        return (
            f"{name}: this shows the route, not a gain: OpenCL on the CPU, where the program took "
            f"{1.0 / c.ratio:.1f} times as long as with stock LAPACK."
        )
    if c.ratio < 1.0:
        return f"{name}: the route does not pay on this machine; it runs at {c.ratio:.2f} of stock's speed."
    return ""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare example programs with and without acceleration.")
    parser.add_argument("scripts", nargs="*", type=Path, default=SCRIPTS, help="programs (default: all those here)")
    parser.add_argument("--size", type=float, default=1.0, help="scale factor that the programs get (default 1)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each kind (default 2)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions within a run (default 3)")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    options = ["--size", str(arguments.size), "--repeat", str(arguments.repeat)]
    console = Console()
    comparisons: list[Comparison] = []
    failures: list[str] = []
    for script in arguments.scripts:
        try:
            for comparison in compare_routes(script, options, max(1, arguments.rounds)):
                comparisons.append(comparison)
                failures += [f"{script.name}, {comparison.route}: {fault}" for fault in comparison.faults]
        except ProgramError as error:
            failures.append(f"{script.name}: {error}")

    if comparisons:
        console.print(times_table(comparisons))
        console.print(results_table(comparisons))
    for comparison in comparisons:
        console.print(calls_table(comparison))
    for text in filter(None, map(remark, comparisons)):
        console.print(escape(text), soft_wrap=True)
    for failure in failures:
        console.print(f"[bold red]FAILED[/] {escape(failure)}", soft_wrap=True)
    if not failures:
        console.print(f"All results of {len({c.script for c in comparisons})} programs agree.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
