"""A device that fails anywhere never fails the call: stock runs, on the untouched input, and the reason is told."""

from __future__ import annotations

import logging
from typing import Any

import faulty_device
import numpy as np
import pytest
import scipy.linalg as sl

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import registry
from lapack_ai_backend.errors import KernelError

A = np.random.default_rng(0).standard_normal((23, 9))  # tall: QR, reduction, iteration, back-transformation

MEMORY = ("allocation", "first use")


def svd(a: np.ndarray[Any, Any], strict: bool = False) -> tuple[Any, Any]:
    """Results and decision of a call on PoCL."""
    with lapack_ai.set_backend(device="cpu", strict=strict, verify="always"), lapack_ai.trace() as t:
        return sl.svd(a, full_matrices=False), t.decisions[0]


def test_the_call_reaches_every_point() -> None:
    for point in faulty_device.POINTS:
        with faulty_device.failing(point) as calls:
            assert svd(A, strict=True)[1].kernel == "opencl_svd"
        assert calls.count >= 1, point


@pytest.mark.parametrize("point", faulty_device.POINTS)
def test_failure_at_every_call(point: str, caplog: pytest.LogCaptureFixture) -> None:
    stock, before = sl.svd(A, full_matrices=False), A.copy()
    with faulty_device.failing(point) as calls:
        svd(A)
    for call in range(calls.count):
        registry.FAILURES.clear()
        caplog.clear()
        with faulty_device.failing(point, call):
            results, decision = svd(A)
        assert decision.kernel == "stock", (point, call)
        assert decision.reason_code == ("memory" if point in MEMORY else "kernel_failed"), (point, call)
        assert all(map(np.array_equal, results, stock)), (point, call)
        assert np.array_equal(A, before)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert bool(registry.FAILURES) is (point not in MEMORY)  # a shortage may pass and switches nothing off
    registry.FAILURES.clear()
    assert svd(A, strict=True)[1].kernel == "opencl_svd"  # the device serves again


@pytest.mark.parametrize("point", faulty_device.POINTS)
def test_strict_raises(point: str) -> None:
    with faulty_device.failing(point, 0), pytest.raises(KernelError, match="opencl_svd failed: "):
        svd(A, strict=True)
