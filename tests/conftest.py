"""What every test starts from and leaves behind: a process in which the backend is off."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import platformdirs
import pytest

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import activation, environment, policy, registry, tuned_rules

hypothesis.settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "nondeterministic", parent=hypothesis.settings.get_profile("deterministic"), derandomize=False, max_examples=500
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder without this package's own: a developer's tuned table is no part of a test.

    Everything else in it is the user's: building OpenCL programs anew in each test takes long.
    """
    folder, users = tmp_path_factory.mktemp("caches"), platformdirs.user_cache_path()
    for name in ("pocl", "pyopencl", "pytools"):
        with contextlib.suppress(OSError):  # a home that cannot be written
            (users / name).mkdir(parents=True, exist_ok=True)
    for each in users.glob("*"):
        if each.name != "lapack_ai_backend":
            (folder / each.name).symlink_to(each)
    return folder


@pytest.fixture(autouse=True)
def nothing_left_behind(caches: Path) -> Iterator[None]:
    """Off before, off afterwards; a test that leaves a context open fails."""
    variables = dict(os.environ)
    log = logging.getLogger("lapack_ai_backend")
    handlers, level = list(log.handlers), log.level
    for name in [name for name in variables if name.startswith("LAPACK_") and name != "LAPACK_AI_ISA"]:
        del os.environ[name]  # a developer's own settings are no part of a test
    os.environ["XDG_CACHE_HOME"] = str(caches)
    yield
    left = activation.ACTIVE.get()
    activation.ACTIVE.set(None)
    lapack_ai.disable()
    lapack_ai.reset_stats()
    registry.FAILURES.clear()
    environment._read.cache_clear()
    if (caches / "lapack_ai_backend").exists():
        shutil.rmtree(caches / "lapack_ai_backend")
        tuned_rules.here.cache_clear()
        tuned_rules._log_once.cache_clear()
        policy.table_for.cache_clear()
    log.handlers[:] = handlers
    log.setLevel(level)
    os.environ.clear()
    os.environ.update(variables)
    assert left is None, f"left open: {left}"
