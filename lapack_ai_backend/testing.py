"""pytest plugin: ``pytest -p lapack_ai_backend.testing ...`` runs any test suite with the backend on.

Every size threshold is at zero and OpenCL kernels run on a CPU device, so that the
kernels and not the routing limits are tested. Tests that known_differences.toml names
are expected to fail. Counts of calls by kernel end the report.
"""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

import lapack_ai_backend
from lapack_ai_backend import activation, running
from lapack_ai_backend.opencl import devices


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lapack_ai_backend")
    group.addoption(
        "--expect-kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="fail unless this kernel was reached at least once; may be given several times",
    )
    group.addoption(
        "--opencl-device",
        default="cpu",
        metavar="NAME",
        help="device of the OpenCL kernels as option device= names it; by default an OpenCL device on the CPU (PoCL)",
    )


def pytest_configure(config: pytest.Config) -> None:
    known = lapack_ai_backend.kernels()
    for name in config.getoption("--expect-kernel"):
        if name not in known:
            raise pytest.UsageError(f"--expect-kernel {name}: valid are {', '.join(known)}")
    lapack_ai_backend.enable(policy="static", device=config.getoption("--opencl-device"))
    assert activation.PROCESS.options is not None
    activation.switch_process(replace(activation.PROCESS.options, any_size=True))


def known_differences() -> list[dict[str, Any]]:
    """The shipped list: each `test` is a pattern of names, with its `reason`."""
    text = (resources.files("lapack_ai_backend") / "known_differences.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text).get("difference", [])
    return found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    differences = known_differences()
    if devices.choose(config.getoption("--opencl-device"), "float64") is None:
        differences = [each for each in differences if each.get("device") == "none"]
    for item in items:
        module, _, rest = item.nodeid.partition("::")
        name = f"{getattr(getattr(item, 'module', None), '__name__', module)}::{rest}"
        for each in differences:
            # Brackets are parameters here, not sets of characters.
            if fnmatch.fnmatchcase(name, each["test"].replace("[", "[[]")):
                item.add_marker(pytest.mark.xfail(reason=each["reason"], strict=each.get("strict", True)))


def _missed(config: pytest.Config) -> list[str]:
    """Kernels that were expected and never reached."""
    reached = {kernel for _, kernel in lapack_ai_backend.stats()}
    return [name for name in config.getoption("--expect-kernel") if name not in reached]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _missed(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    terminalreporter.section("lapack_ai_backend: calls by kernel")
    terminalreporter.write_line(running.summary())
    for name in _missed(config):
        terminalreporter.write_line(f"ERROR: kernel {name} was never reached", red=True)
