"""examples/compare.py: what it accepts, what it reports, what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

COMPARE = Path(__file__).parents[1] / "examples" / "compare.py"

PROGRAM = """
import sys
import numpy as np
import scipy.linalg

stack = np.arange(16.0).reshape(4, 4) + np.ones((20, 1, 1))
{computation}
np.savez(sys.argv[sys.argv.index("--save") + 1], seconds=0.1, **saved)
"""
PRODUCTS = "saved = {'C': stack @ stack, 'C_bound': 1e-9}"
VALUES = "saved = {'s': scipy.linalg.svd(stack[0])[1], 's_bound': 1e-9}"


def compare(folder: Path, computation: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The comparison of a program that fills `saved`."""
    program = folder / "program.py"
    program.write_text(PROGRAM.format(computation=textwrap.dedent(computation)), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAPACK_")}
    return subprocess.run(
        [sys.executable, str(COMPARE), "--rounds", "1", str(program)],
        capture_output=True,
        text=True,
        env=environment | {"COLUMNS": "200"} | variables,
        timeout=240,
        check=False,
    )


def test_products_that_agree(tmp_path: Path) -> None:
    done = compare(tmp_path, PRODUCTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "matmul on alphatensor49: 1" in done.stdout
    assert "--device cpu" not in done.stdout
    assert "All results of 1 programs agree." in done.stdout


@pytest.mark.parametrize(
    ("computation", "message"),
    [
        (PRODUCTS + "; saved['C'][0, 0, 0] = np.random.default_rng().random()", "C differs by"),
        (PRODUCTS + "; saved['count'] = np.random.default_rng().integers(2**60, size=5)", "differs in 5 of 5 integers"),
        (PRODUCTS + "; del saved['C_bound']", "declares no C_bound"),
        ("saved = {'n': np.arange(3)}", "no call was accelerated"),
        (PRODUCTS + "; assert 'lapack_ai_backend' not in sys.modules, 'seen'", "exit status 1: AssertionError: seen"),
    ],
)
def test_what_is_refused(tmp_path: Path, computation: str, message: str) -> None:
    done = compare(tmp_path, computation)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED program.py" in done.stdout
    assert message in done.stdout


def test_decompositions_where_no_device_is(tmp_path: Path) -> None:
    done = compare(tmp_path, VALUES, LAPACK_GPU_ENABLED="0")
    assert done.returncode == 0, done.stdout + done.stderr
    for route in ("lapack-ai run", "lapack-ai run --device cpu"):
        assert f"program.py, {route}: every decomposition ran stock (" in done.stdout


def test_decompositions_on_the_cpu_say_what_they_cost(tmp_path: Path) -> None:
    done = compare(tmp_path, VALUES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "svd on opencl_svd: 1" in done.stdout
    assert "program.py, lapack-ai run --device cpu: this shows the route, not a gain" in done.stdout


def test_failing_kernels_are_refused(tmp_path: Path) -> None:
    done = compare(
        tmp_path,
        VALUES
        + """
if 'lapack_ai_backend' in sys.modules:
    import lapack_ai_backend.linalg.svd as functions
    functions.svd = None
    scipy.linalg.svd(stack[0])
""",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "scipy.linalg.svd: the kernel failed" in done.stdout
