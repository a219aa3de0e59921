"""A device in trouble, and company: time-outs, Ctrl-C in the middle of a call, several processes on one device."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyopencl as cl
import pytest
import scipy.linalg as sl
from svd_cases import ALARM, DEVICE, ratios

import lapack_ai_backend as lapack_ai
from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.opencl import devices
from lapack_ai_backend.opencl.session import Session, open_session

Array = np.ndarray[Any, Any]


@pytest.fixture
def session() -> Iterator[Session]:
    device = devices.choose(DEVICE, "float64")
    if device is None:
        pytest.skip(devices.why_not(DEVICE, "float64"))
    opened = open_session(device)
    yield opened
    devices._given_up.clear()


def random(m: int, n: int) -> Array:
    return np.random.default_rng(0).standard_normal((m, n))


def assert_right_now() -> None:
    """The device takes a call and computes it well."""
    a = random(90, 60)
    with lapack_ai.set_backend(device=DEVICE, strict=True), lapack_ai.trace() as t:
        u, s, vh = sl.svd(a)
    assert [each.kernel for each in t.decisions] == ["opencl_svd"]
    assert max(ratios(a, u, s, vh).values()) <= ALARM


# ---- a device that does not answer -----------------------------------------------------------------------


@pytest.fixture
def hanging(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its queue waits for an event that comes with the end of the test."""
    monkeypatch.setenv("LAPACK_GPU_TIMEOUT", "1")
    event = cl.UserEvent(session.context)
    cl.enqueue_barrier(session.queue, wait_for=[event])
    yield
    event.set_status(cl.command_execution_status.COMPLETE)
    session.queue.finish()


@pytest.mark.parametrize("call", [sl.svd, sl.svdvals, np.linalg.svd, lambda a: a @ a])
def test_device_that_hangs_is_given_up(
    hanging: None, call: Callable[[Array], Any], caplog: pytest.LogCaptureFixture
) -> None:
    a = random(300, 300)
    with lapack_ai.skip_backend():
        wanted = call(a)
    with lapack_ai.set_backend(device=DEVICE), lapack_ai.trace() as t, caplog.at_level(logging.WARNING):
        started = time.perf_counter()
        found = call(a)
        assert 1 < time.perf_counter() - started < 30
        call(a)
        assert lapack_ai.explain("svd", a).kernel == "stock"
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "has not answered for 1 s" in caplog.text
    assert {each.reason_code for each in t.decisions} == {"kernel_failed", "device"}
    assert "has not answered" in devices.why_not(DEVICE)


def test_patience_has_no_end_where_it_is_asked_for(
    session: Session, hanging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPACK_GPU_TIMEOUT", "0")
    event = cl.UserEvent(session.context)
    threading.Timer(1.5, event.set_status, [cl.command_execution_status.COMPLETE]).start()
    started = time.perf_counter()
    session.wait(event)
    assert time.perf_counter() - started >= 1.4


def test_failed_command_is_an_error(session: Session) -> None:
    event = cl.UserEvent(session.context)
    event.set_status(-5)
    with pytest.raises(DeviceError, match="status -5"):
        session.wait(event)


# ---- Ctrl-C ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda a: sl.svd(a, full_matrices=False),
        lambda a: sl.svdvals(a),
        lambda a: np.linalg.svd(a),
        lambda a: sl.lstsq(a, a[:, 0]),
        lambda a: a @ a,
    ],
    ids=["svd", "svdvals", "numpy svd", "lstsq", "matmul"],
)
def test_interrupt_in_the_middle_leaves_everything_usable(session: Session, call: Callable[[Array], Any]) -> None:
    """Whenever it comes: KeyboardInterrupt reaches the caller, and the next call is right."""
    a = random(300, 300)
    with lapack_ai.set_backend(device=DEVICE):
        for delay in (0.02, 0.2):
            timer = threading.Timer(delay, os.kill, [os.getpid(), signal.SIGINT])
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # it may also come after the call
                timer.start()
                call(a)
                for _ in range(3000):
                    time.sleep(0.01)
            assert not session.lock.locked()
            assert_right_now()


# ---- company -----------------------------------------------------------------------------------------------

COMPANION = f"""
import numpy as np, scipy.linalg as sl, lapack_ai_backend as lapack_ai
with lapack_ai.set_backend(device={DEVICE!r}, strict=True):
    for seed in range(3):
        a = np.random.default_rng(seed).standard_normal((150, 120))
        u, s, vh = sl.svd(a, full_matrices=False)
        assert abs(u * s @ vh - a).max() < 1e-12
        assert abs(a.T @ a - vh.T * s**2 @ vh).max() < 1e-10
print("right")
"""


def test_several_processes_on_one_device(session: Session) -> None:
    command = [sys.executable, "-P", "-c", COMPANION]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [each.communicate(timeout=200)[0] for each in started] == ["right\n"] * 3
    assert_right_now()


def test_several_threads_on_one_device(session: Session) -> None:
    wrong: list[str] = []

    def compute(seed: int) -> None:
        a = np.random.default_rng(seed).standard_normal((80 + seed, 60))
        with lapack_ai.set_backend(device=DEVICE, strict=True):
            for _ in range(3):
                u, s, vh = sl.svd(a, full_matrices=False)
                if abs(u * s @ vh - a).max() > 1e-12:
                    wrong.append(f"thread {seed}")

    threads = [threading.Thread(target=compute, args=(seed,)) for seed in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
