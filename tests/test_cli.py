"""The command ``lapack-ai``: programs run as Python would run them, with the backend on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

import lapack_ai_backend

PROGRAM = """
import sys
import textwrap
import numpy as np
import scipy.linalg

stack = np.full((10, 4, 4), 1.5)
for _ in range(3):
    product = stack @ stack
assert (product == 9).all()
scipy.linalg.svd(stack[0])
print(__name__, sys.argv[1:], sys.path[0])
"""


def lapack_ai(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAPACK_")}
    command = [sys.executable, "-m", "lapack_ai_backend", *arguments]
    environment = environment | {"COLUMNS": "200", "PYTHONPATH": str(cwd)} | variables
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


def test_script_gets_its_own_arguments(program: Path, tmp_path: Path) -> None:
    done = lapack_ai("run", "program.py", "--strict", "-q", "x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"__main__ ['--strict', '-q', 'x'] {tmp_path}"
    assert "numpy.matmul -> alphatensor49: 3 calls (30 blocks by alphatensor)" in done.stderr
    assert "scipy.linalg.svd -> stock: 1 calls (1 size)" in done.stderr


def test_module_and_source_text(program: Path, tmp_path: Path) -> None:
    done = lapack_ai("run", "-m", "program", "-m", "y", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("__main__ ['-m', 'y']")
    done = lapack_ai("run", "-q", "-c", PROGRAM, "z", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("__main__ ['z']")
    assert done.stderr == ""


def test_options_reach_the_program(program: Path, tmp_path: Path) -> None:
    done = lapack_ai("run", "--accuracy", "componentwise", "program.py", cwd=tmp_path)
    assert "numpy.matmul -> direct: 3 calls (30 blocks by direct)" in done.stderr
    done = lapack_ai("run", "--force", "matmul=direct", "--disable", "svd", "program.py", cwd=tmp_path)
    assert "numpy.matmul -> direct" in done.stderr
    assert "(1 disabled)" in done.stderr
    done = lapack_ai("run", "program.py", cwd=tmp_path, LAPACK_AI_DISABLE="numpy.matmul")
    assert "numpy.matmul -> stock: 3 calls (3 disabled)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "fast", "program.py"), "auto, static, tuned"),
        (("--force", "matmul=magic", "program.py"), "alphatensor49, direct, integer"),
        (("nowhere.py",), "no such file: nowhere.py"),
        (("-m", "-c", "program"), "exclude each other"),
    ],
)
def test_bad_command_lines_are_one_clear_error(
    program: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = lapack_ai("run", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_exit_status_and_errors_are_the_programs(tmp_path: Path) -> None:
    assert lapack_ai("run", "-c", "raise SystemExit(7)", cwd=tmp_path).returncode == 7
    done = lapack_ai("run", "-c", "raise KeyError('mine')", cwd=tmp_path)
    assert done.returncode == 1
    assert "KeyError: 'mine'" in done.stderr


def test_report(program: Path, tmp_path: Path) -> None:
    done = lapack_ai("run", "--report", "report.json", "program.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["blocks"] == {"alphatensor": 30, "direct": 0, "stock": 0}
    first = report["calls"][0]
    assert (first["function"], first["kernel"], first["calls"], first["batch"]) == (
        "numpy.matmul",
        "alphatensor49",
        3,
        10,
    )
    assert first["rule"] == "matmul-4x4-stack"
    assert report["seconds"] > sum(each["seconds"] for each in report["calls"]) > 0


def test_report_is_written_when_the_program_fails(tmp_path: Path) -> None:
    source = "import numpy as np; np.ones((5, 4, 4)) @ np.ones((5, 4, 4)); raise SystemExit(3)"
    done = lapack_ai("run", "--report", "report.json", "-c", source, cwd=tmp_path)
    assert done.returncode == 3
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["blocks"]["alphatensor"] == 5


def test_info_and_kernels(tmp_path: Path) -> None:
    found = json.loads(lapack_ai("info", "--json", cwd=tmp_path, LAPACK_AI_STRICT="yes").stdout)
    assert found["options"]["strict"] == {"value": True, "source": "LAPACK_AI_STRICT"}
    assert "instruction_set" in lapack_ai("info", cwd=tmp_path).stdout
    listed = lapack_ai("kernels", cwd=tmp_path).stdout
    for name in ("alphatensor49", "direct", "integer", "gemm_alpha", "opencl_svd"):
        assert name in listed


SUITE = """
import numpy as np
import scipy.linalg

def test_product():
    a = np.ones((4, 4), np.int32)
    assert (a @ a == 4).all()

def test_single():
    a = np.full((1, 3, 3), 2.0)
    assert (a @ a == 12).all()

def test_svd():
    assert scipy.linalg.svdvals(np.diag([2.0, 1.0])).tolist() == [2.0, 1.0]
"""


def plugin(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "lapack_ai_backend.testing", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)


def test_plugin_runs_a_suite_with_thresholds_at_zero(tmp_path: Path) -> None:
    expected = [word for name in ("alphatensor49", "direct", "opencl_svd") for word in ("--expect-kernel", name)]
    done = plugin(tmp_path, *expected)
    assert done.returncode == 0, done.stdout
    assert "numpy.matmul -> alphatensor49: 1 calls (1 blocks by alphatensor)" in done.stdout


def test_plugin_runs_opencl_kernels_where_it_is_told(tmp_path: Path) -> None:
    done = plugin(tmp_path, "--opencl-device", "auto", "--expect-kernel", "opencl_svd", "-W", "error")
    gpu = lapack_ai_backend.info()["opencl"]["devices"][0]["kind"] == "gpu"
    assert done.returncode == (0 if gpu else 1), done.stdout


def test_plugin_fails_where_a_kernel_is_never_reached(tmp_path: Path) -> None:
    done = plugin(tmp_path, "--expect-kernel", "integer")
    assert done.returncode == 1
    assert "kernel integer was never reached" in done.stdout


def test_source_text_is_compiled_as_python_compiles_it(tmp_path: Path) -> None:
    source = "def f(x: int): pass\nprint(f.__annotations__, 'typer' in globals(), '__file__' in globals())"
    done = lapack_ai("run", "-q", "-c", source, cwd=tmp_path)
    assert done.stdout.strip() == "{'x': <class 'int'>} False False"


@pytest.mark.parametrize("error", ["EOFError('mine')", "BrokenPipeError(32, 'mine')", "ValueError('mine')"])
def test_traceback_is_pythons_and_the_programs_alone(tmp_path: Path, error: str) -> None:
    (tmp_path / "failing.py").write_text(f"def f():\n    raise {error}\n\nf()\n", encoding="utf-8")
    done = lapack_ai("run", "-q", "failing.py", cwd=tmp_path)
    plain = subprocess.run([sys.executable, "failing.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == plain.returncode == 1
    assert done.stderr.replace(f"{tmp_path}/", "") == plain.stderr.replace(f"{tmp_path}/", "")


def test_report_goes_where_the_command_said(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = lapack_ai("run", "--report", "report.json", "-c", "import os; os.chdir('elsewhere')", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.json").exists()


def test_script_is_the_real_main_module(tmp_path: Path) -> None:
    source = """
    import atexit, os, pickle

    class Here:
        pass

    atexit.register(lambda: print(type(pickle.loads(pickle.dumps(Here()))).__name__))
    os.chdir("/")
    print(open(__file__).readline().strip())
    """
    (tmp_path / "moving.py").write_text("# first line\n" + textwrap.dedent(source), encoding="utf-8")
    done = lapack_ai("run", "-q", "moving.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["# first line", "Here", ""]


def test_folder_with_a_main_module_runs(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text("print('in the folder')", encoding="utf-8")
    assert lapack_ai("run", "-q", "folder", cwd=tmp_path).stdout == "in the folder\n"


def test_report_into_a_folder_that_is_not_there_is_refused_before_the_run(tmp_path: Path) -> None:
    done = lapack_ai("run", "--report", "nowhere/report.json", "-c", "print('ran')", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such folder" in done.stderr


def test_plugin_refuses_kernels_that_do_not_exist(tmp_path: Path) -> None:
    done = plugin(tmp_path, "--expect-kernel", "magic")
    assert done.returncode == 4
    assert "alphatensor49" in done.stderr


class Item:
    """A collected test, as far as the plugin looks at it."""

    def __init__(self, module: str, name: str) -> None:
        self.nodeid = f"anywhere/{module.rpartition('.')[2]}.py::{name}"
        self.module = types.ModuleType(module)
        self.markers: list[Any] = []

    def add_marker(self, marker: Any) -> None:
        self.markers.append(marker.mark)


def test_known_differences_are_strict_expected_failures() -> None:
    from lapack_ai_backend import testing

    differences = testing.known_differences()
    assert all(each["reason"] and each["test"].startswith(("scipy.", "numpy.")) for each in differences)
    named = Item("scipy.linalg.tests.test_decomp", "TestSVD_GESDD::test_overwrite[mn0-True-True-2-F-float]")
    others = [
        Item("scipy.linalg.tests.test_decomp", "TestSVD_GESDD::test_overwrite[mn0-True-False-2-F-float]"),
        Item("test_decomp", "TestSVD_GESDD::test_overwrite[mn0-True-True-2-F-float]"),
    ]
    config = types.SimpleNamespace(getoption={"--opencl-device": "cpu"}.get)
    testing.pytest_collection_modifyitems(config, [named, *others])  # type: ignore[arg-type, list-item] # stand-ins
    assert [(marker.name, marker.kwargs["strict"]) for marker in named.markers] == [("xfail", True)]
    assert named.markers[0].kwargs["reason"]
    assert [other.markers for other in others] == [[], []]
    os.environ["LAPACK_GPU_ENABLED"] = "0"
    stock = Item(named.module.__name__, named.nodeid.partition("::")[2])
    testing.pytest_collection_modifyitems(config, [stock])  # type: ignore[arg-type, list-item] # stand-ins
    assert stock.markers == []
