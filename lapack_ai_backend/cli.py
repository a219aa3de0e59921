"""The command ``lapack-ai``: run a program with the backend on, show what is here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import lapack_ai_backend
from lapack_ai_backend import running
from lapack_ai_backend.errors import OptionError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Accelerate NumPy products and scipy.linalg in unchanged programs.",
)

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
