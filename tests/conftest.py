"""What every test starts from and leaves behind: a process in which the backend is off."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import hypothesis
import pytest

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import activation, environment, registry

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


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Off before, off afterwards; a test that leaves a context open fails."""
    variables = dict(os.environ)
    log = logging.getLogger("lapack_ai_backend")
    handlers, level = list(log.handlers), log.level
    for name in [name for name in variables if name.startswith("LAPACK_") and name != "LAPACK_AI_ISA"]:
        del os.environ[name]  # a developer's own settings are no part of a test
    yield
    left = activation.ACTIVE.get()
    activation.ACTIVE.set(None)
    lapack_ai.disable()
    lapack_ai.reset_stats()
    registry.FAILURES.clear()
    environment._read.cache_clear()
    log.handlers[:] = handlers
    log.setLevel(level)
    os.environ.clear()
    os.environ.update(variables)
    assert left is None, f"left open: {left}"
