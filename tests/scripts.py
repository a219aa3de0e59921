"""Runs source text in a fresh interpreter, for tests of a whole process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap

OFF_LIMITS = "LAPACK_"  # settings of the developer's shell


def run_script(source: str, *flags: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The finished process; it has the environment of this one without ``LAPACK_*``, plus `variables`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OFF_LIMITS)}
    environment.update(variables or {})
    command = [sys.executable, "-P", *flags, "-c", textwrap.dedent(source)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tempfile.gettempdir(), timeout=120, check=False
    )


def passes(source: str, *flags: str, variables: dict[str, str] | None = None) -> str:
    """Standard output of a script that must end well."""
    done = run_script(source, *flags, variables=variables)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
