"""The command ``lapack-ai``: run a program with the backend on, measure this machine, show what is here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import lapack_ai_backend
from lapack_ai_backend import running, tuned_rules
from lapack_ai_backend.errors import OptionError
from lapack_ai_backend.registry import STOCK, UNLIMITED

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Accelerate NumPy products and scipy.linalg in unchanged programs.",
)

STDERR = Console(stderr=True)

# Everything after the program's name belongs to the program.
PASS_ON = {"allow_interspersed_args": False, "ignore_unknown_options": False}


@app.command(context_settings=PASS_ON)
def run(
    target: Annotated[str, typer.Argument(metavar="SCRIPT", help="a script; with -m a module, with -c source text")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="the program's own arguments")
    ] = None,
    module: Annotated[bool, typer.Option("-m", help="run a module")] = False,
    command: Annotated[bool, typer.Option("-c", help="run source text")] = False,
    policy: Annotated[str | None, typer.Option(help="auto, static or tuned")] = None,
    accuracy: Annotated[str | None, typer.Option(help="normwise or componentwise")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, gpu or <platform>:<device>")] = None,
    force: Annotated[str | None, typer.Option(help="function=kernel,...")] = None,
    disable: Annotated[str | None, typer.Option(help="functions that stay stock")] = None,
    strict: Annotated[bool | None, typer.Option("--strict/--no-strict", help="raise where a kernel fails")] = None,
    verify: Annotated[str | None, typer.Option(help="probe, off or always")] = None,
    report: Annotated[
        Path | None, typer.Option(help="write the main thread's calls to this JSON file (kept in memory until the end)")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="no summary at the end")] = False,
) -> None:
    """Run a program with the backend switched on, unchanged."""
    given = {
        "policy": policy,
        "accuracy": accuracy,
        "device": device,
        "force": force,
        "disable": disable,
        "strict": strict,
        "verify": verify,
    }
    try:
        lapack_ai_backend.enable(**{name: value for name, value in given.items() if value is not None})
    except OptionError as error:
        raise typer.BadParameter(str(error)) from None
    if module and command:
        raise typer.BadParameter("-m and -c exclude each other")
    kind = "-m" if module else "-c" if command else "script"
    if kind == "script" and not Path(target).exists():
        raise typer.BadParameter(f"no such file: {target}")
    if report and not report.absolute().parent.is_dir():
        raise typer.BadParameter(f"no such folder: {report.absolute().parent}")
    recorded = running.Report(report) if report else None
    try:
        if recorded:
            with recorded:
                running.run_program(kind, target, arguments or [])
        else:
            running.run_program(kind, target, arguments or [])
    finally:  # also when the program ends by sys.exit or an exception
        if recorded:
            recorded.write()
        if not quiet:
            print(running.summary(), file=sys.stderr)


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> None:
    """Versions, CPU, OpenCL devices, effective options and where each came from."""
    found = lapack_ai_backend.info()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    for heading, values in found.items():
        table = Table(title=heading, title_justify="left", show_header=False)
        for name, value in _opencl_rows(values) if heading == "opencl" else _rows(values):
            table.add_row(name, value)
        console.print(table)


def _opencl_rows(opencl: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for device in opencl["devices"]:
        memory, limit, largest = (_gib(device[name]) for name in ("memory", "memory_limit", "max_allocation"))
        yield (
            device["selector"],
            f"{device['name']}\n{device['platform']}, driver {device['driver']}\n"
            f"{memory} memory: a call may take {limit}, {largest} in one buffer\n{device['use']}",
        )
    if opencl["why_none"]:
        yield "no device", opencl["why_none"]
    for driver in opencl["drivers_without_icd_file"]:
        outcome = f"not used: {driver['why_not']}" if driver["why_not"] else "registered for this process"
        yield f"{driver['vendor']}'s driver", f"{driver['library']} has no ICD file {driver['icd']}; {outcome}"
    yield "host memory", f"{_gib(opencl['host_memory_available'])} available"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _rows(values: Any) -> list[tuple[str, str]]:
    if not isinstance(values, dict):
        return [("", str(values))]
    return [(name, _shown(value)) for name, value in values.items()]


def _shown(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"value", "source"}:
        return f"{value['value']!r}  ({value['source']})"
    if isinstance(value, list):
        return "\n".join(_shown(each) for each in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items()) or "none"
    return str(value)


@app.command()
def tune(
    quick: Annotated[bool, typer.Option("--quick", help="fewer sizes, about 10 seconds")] = False,
    show: Annotated[bool, typer.Option("--show", help="show the table that is there, measure nothing")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="remove the table")] = False,
) -> None:
    """Measure every kernel of products against stock on this machine, and route by it (half a minute)."""
    if quick + show + reset > 1:
        raise typer.BadParameter("--quick, --show and --reset exclude each other")
    if reset:
        print("removed" if tuned_rules.remove() else "there was no tuned table", tuned_rules.path())
    elif show:
        _show_tuned()
    else:
        _tune(quick)


def _tune(quick: bool) -> None:
    from lapack_ai_backend import tuning

    grid = tuning.QUICK if quick else tuning.FULL
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=STDERR
    )
    try:
        with progress:
            task = progress.add_task("measuring", total=len(tuning.points(grid)))
            measurements = tuning.measure(grid, lambda point: progress.update(task, advance=1, description=str(point)))
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        table = tuned_rules.TunedTable(tuned_rules.key(), date, tuning.decide(measurements, date), tuple(measurements))
        target = tuned_rules.write(table)
    except KeyboardInterrupt:
        print(f"interrupted: this run's measurements are dropped; {_what_is_there()}", file=sys.stderr)
        raise typer.Exit(130) from None
    except OSError as error:
        print(f"lapack-ai: the table cannot be written: {error}; {_what_is_there()}", file=sys.stderr)
        raise typer.Exit(1) from None
    Console().print(_table_of_rules(table))
    print(f"{len(measurements)} problems measured; written to {target}")


def _what_is_there() -> str:
    try:
        return f"the table of {tuned_rules.read().date} stays"
    except (OSError, ValueError):
        return "there is no tuned table"


def _show_tuned() -> None:
    try:
        table = tuned_rules.read()
    except FileNotFoundError:
        print(f"no tuned table: {tuned_rules.path()}; lapack-ai tune makes one")
        return
    except (OSError, ValueError) as error:
        print(f"{tuned_rules.path()} is ignored: {error}")
        raise typer.Exit(1) from None
    Console().print(_table_of_rules(table))
    for name, value in table.key.items():
        print(f"{name}: {value}")
    print(tuned_rules.here().why_not or f"in use (policy auto and tuned): {tuned_rules.path()}")


def _table_of_rules(tuned: tuned_rules.TunedTable) -> Table:
    table = Table(title=f"Fastest kernels, first match wins; {tuned.date}", title_justify="left")
    for title in ("dtypes", "m, k, n", "stack", "kernel", "gain"):
        table.add_column(title)
    for rule in tuned.rules:
        limits = rule.limits
        dims = _range(limits.min_dim, limits.max_dim) + (", equal" if limits.square else "")
        stack, gain = _range(limits.min_batch, limits.max_batch), rule.because.partition(": ")[2]
        table.add_row(
            " ".join(rule.dtypes), dims, stack, rule.kernel, gain, style="dim" if rule.kernel == STOCK.name else ""
        )
    return table


def _range(low: int, high: int) -> str:
    if high == UNLIMITED:
        return f"{low} and more" if low > 1 else "any"
    return str(low) if low == high else f"{low} to {high}"


@app.command()
def kernels() -> None:
    """The registered kernels: function, dtypes, error class and constant, where each runs."""
    table = Table()
    for title in ("kernel", "function"):  # what option force takes
        table.add_column(title, no_wrap=True)
    for title in ("dtypes", "error", "runs on", "source"):
        table.add_column(title)
    for kernel in lapack_ai_backend.kernels().values():
        errors: dict[tuple[str, float], list[str]] = {}
        for dtype, bound in kernel.errors.items():
            errors.setdefault(bound, []).append(dtype)
        dtypes = "\n".join(" ".join(names) for names in errors.values())
        bounds = "\n".join(f"{kind} {constant:g}" if constant else kind for kind, constant in errors)
        table.add_row(kernel.name, "\n".join(kernel.functions), dtypes, bounds, kernel.where, kernel.source)
    Console().print(table)
