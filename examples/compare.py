"""Run example programs on stock NumPy and under ``lapack-ai run``; compare results and times.

    python compare.py [--size S] [--rounds R] [--repeat N] [script.py ...]

Each program runs unchanged in fresh processes, in turn stock and accelerated, R rounds of it;
the best time of each counts. A program writes its result arrays and the time of its numerical
part to the file that ``--save`` names. Integer results must be equal; a float result X must
agree within X_bound, the error bound that the program itself declares.

The exit status is 1, and a line says why, where results differ, where a program fails, where no
call of a program was accelerated, or where AlphaTensor served no block of a program whose
matrices are dense. Times never fail the comparison: the report says where the route does not pay.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).resolve().parent
SCRIPTS = [HERE / name for name in ("robot_kinematics.py", "macro_connectedness.py", "graph_walks.py")]
DENSE = {"macro_connectedness.py"}  # programs whose 4x4 blocks AlphaTensor must serve
RUNNER = [sys.executable, "-m", "lapack_ai_backend", "run"]
HOT_SHARE = 0.02  # calls with less of a program's multiplications are left out of the table

Results = dict[str, np.ndarray]


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
    """One program: times, differences, the report of the accelerated run and what is wrong."""

    script: Path
    stock_times: list[float]  # one a round
    times: list[float]
    differences: list[Difference]
    report: dict[str, Any]
    faults: list[str]

    @property
    def ratio(self) -> float:
        """How many times as fast as stock, by the best of each."""
        return min(self.stock_times) / min(self.times)


def run_program(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ProgramError(f"exit status {done.returncode}: {last}")


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
    run_program([sys.executable, str(script), "--save", str(saved), *options])
    return load(saved)


def run_accelerated(script: Path, options: list[str], folder: Path) -> tuple[Results, dict[str, Any]]:
    saved, report = folder / "accelerated.npz", folder / "report.json"
    run_program([*RUNNER, "--report", str(report), str(script), "--save", str(saved), *options])
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


def find_faults(script: Path, report: dict[str, Any]) -> list[str]:
    """What the accelerated run should have done and did not."""
    faults = []
    if not any(call["kernel"] != "stock" for call in report["calls"]):
        faults.append("no call was accelerated")
    if script.name in DENSE and report["blocks"]["alphatensor"] == 0:
        faults.append("its matrices are dense, and AlphaTensor served no block")
    return faults


def compare(script: Path, options: list[str], rounds: int) -> Comparison:
    stock_times: list[float] = []
    times: list[float] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(rounds):
            # Each goes first in every other round, so that neither always meets a warmer machine.
            if number % 2:
                found, report = run_accelerated(script, options, folder)
                expected = run_stock(script, options, folder)
            else:
                expected = run_stock(script, options, folder)
                found, report = run_accelerated(script, options, folder)
            stock_times.append(float(expected["seconds"]))
            times.append(float(found["seconds"]))
            differences = compare_results(expected, found)
            faults += [fault for fault in (d.fault for d in differences) if fault and fault not in faults]
            faults += [fault for fault in find_faults(script, report) if fault not in faults]
    return Comparison(script, stock_times, times, differences, report, faults)


# ---- the report ----------------------------------------------------------------------------


def shown(times: list[float]) -> str:
    return f"{min(times):.4f} to {max(times):.4f}"


def times_table(comparisons: list[Comparison]) -> Table:
    table = Table(title="Seconds of the numerical part, best and worst round; blocks of one whole accelerated run")
    table.add_column("program", no_wrap=True)
    for title in ("stock", "accelerated", "best stock / accelerated", "AlphaTensor blocks", "direct", "stock blocks"):
        table.add_column(title, justify="right")
    for c in comparisons:
        blocks = c.report["blocks"]
        table.add_row(
            c.script.name,
            shown(c.stock_times),
            shown(c.times),
            f"{c.ratio:.2f}",
            *(f"{blocks[kind]:,}" for kind in ("alphatensor", "direct", "stock")),
        )
    return table


def results_table(comparisons: list[Comparison]) -> Table:
    table = Table(title="Results: largest difference from stock")
    for title in ("program", "array", "dtype"):
        table.add_column(title)
    for title in ("entries", "absolute", "of declared bound"):
        table.add_column(title, justify="right")
    for c in comparisons:
        for d in c.differences:
            exactly = "equal" if d.error == 0.0 else f"{d.error:.2e}"
            of_bound = "exact wanted" if d.of_bound is None else f"{d.of_bound:.2e}"
            table.add_row(c.script.name, d.name, d.dtype.name, f"{d.size:,}", exactly, of_bound)
    return table


def work(call: dict[str, Any]) -> float:
    """Multiplications of a textbook product; a function of one matrix has no k."""
    return float(call["m"] * call["n"] * max(1, call["k"]) * call["batch"] * call["calls"])


def calls_table(comparison: Comparison) -> Table:
    table = Table(title=f"Hot calls of {comparison.script.name}")
    for title in ("function", "dtype", "m x k x n"):
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
            f"{call['m']} x {call['k']} x {call['n']}",
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


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare example programs with and without acceleration.")
    parser.add_argument("scripts", nargs="*", type=Path, default=SCRIPTS, help="programs (default: the three here)")
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
            comparison = compare(script, options, max(1, arguments.rounds))
        except ProgramError as error:
            failures.append(f"{script.name}: {error}")
            continue
        comparisons.append(comparison)
        failures += [f"{script.name}: {fault}" for fault in comparison.faults]

    if comparisons:
        console.print(times_table(comparisons))
        console.print(results_table(comparisons))
    for comparison in comparisons:
        console.print(calls_table(comparison))
    for c in comparisons:
        if c.ratio < 1.0:
            console.print(
                f"{c.script.name}: the route does not pay on this machine; it runs at {c.ratio:.2f} of stock's speed."
            )
    for failure in failures:
        console.print(f"[bold red]FAILED[/] {escape(failure)}", soft_wrap=True)
    if not failures:
        console.print(f"All results of {len(comparisons)} programs agree.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
