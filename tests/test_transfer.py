"""Copies between host and device: through pinned memory in pieces, by the driver, and what may go wrong on the way."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import faulty_device
import numpy as np
import pyopencl as cl
import pytest
import scipy.linalg as sl
from scripts import passes
from svd_cases import DEVICE

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import registry
from lapack_ai_backend.opencl import devices, lapack, transfer
from lapack_ai_backend.opencl import session as sessions
from lapack_ai_backend.opencl.session import Session, open_session

Array = np.ndarray[Any, Any]

PIECE, LEAST_PIECE, THREADS = 16384, 8192, 3
LEAST = 20000


@pytest.fixture
def session() -> Iterator[Session]:
    device = devices.choose(DEVICE)
    assert device is not None, devices.why_not(DEVICE)
    opened = open_session(device)
    with opened.lock:
        yield opened


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned memory on every device, and pieces so small that small arrays have many."""
    sessions.release()
    monkeypatch.setenv("LAPACK_AI_PINNED", "1")
    for name, value in (("LEAST", LEAST), ("PIECE", PIECE), ("LEAST_PIECE", LEAST_PIECE)):
        monkeypatch.setattr(transfer, name, value)
    monkeypatch.setattr(transfer, "threads", lambda: THREADS)


def random(count: int) -> Array:
    """Any bits; as numbers some of them are NaN."""
    return np.random.default_rng(count).integers(0, 2**64, count, np.uint64).view(np.float64)


def there_and_back(session: Session, a: Array) -> Array:
    """What comes back of an array, the bytes of its buffer behind it having been left alone."""
    behind = random(5)
    whole = np.concatenate([np.zeros(a.size), behind])
    buffer = lapack.allocate(session, "float64", whole.size).buffer
    cl.enqueue_copy(session.queue, buffer, whole)
    transfer.write(session, a, buffer)
    found = np.empty_like(a)
    transfer.read(session, buffer, found)
    cl.enqueue_copy(session.queue, whole, buffer)
    assert whole[a.size :].tobytes() == behind.tobytes()
    return found


SIZES = sorted(
    {1, *(size // 8 + off for size in (LEAST, LEAST_PIECE, PIECE, 5 * PIECE, 12 * PIECE) for off in (-1, 0, 1))}
)


@pytest.mark.parametrize("count", SIZES)
def test_every_byte_arrives(session: Session, pinned: None, count: int) -> None:
    a = random(count)
    for _ in range(2):  # the second time the lanes are there
        assert there_and_back(session, a).tobytes() == a.tobytes()
    assert (session.staging is not None) is (a.nbytes >= LEAST)
    if session.staging:
        assert len(session.staging.lanes) * 2 * PIECE == transfer.pinned_bytes(session, a.nbytes)
        assert len(session.staging.lanes) <= THREADS


def test_arrays_by_columns_and_read_only(session: Session, pinned: None) -> None:
    for a in (np.asfortranarray(random(5000).reshape(50, 100)), random(5000).reshape(50, 100)):
        a.flags.writeable = False
        assert there_and_back(session, a).tobytes("A") == a.tobytes("A")


def test_one_thread_is_enough(session: Session, pinned: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "threads", lambda: 1)
    a = random(20 * PIECE // 8 + 3)
    assert there_and_back(session, a).tobytes() == a.tobytes()
    assert len(session.staging.lanes) == 1


# ---- whether ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "unified", "variable", "used"),
    [
        ("gpu", False, "", True),
        ("gpu", True, "", False),
        ("cpu", True, "", False),
        ("other", False, "", False),
        ("gpu", False, "0", False),
        ("cpu", True, "1", True),
    ],
)
def test_where_pinned_memory_is_used(
    session: Session, monkeypatch: pytest.MonkeyPatch, kind: str, unified: bool, variable: str, used: bool
) -> None:
    class Handle:
        host_unified_memory = unified

    monkeypatch.setattr(devices, "handle", lambda device: Handle)
    os.environ["LAPACK_AI_PINNED"] = variable
    other = replace(session, device=replace(session.device, kind=kind))
    assert transfer.is_used(other) is used
    assert (transfer.pinned_bytes(other, 2**30) > 0) is used


def test_the_driver_copies_where_memory_is_shared(session: Session) -> None:
    session.staging = None
    a = random(2**20)
    assert there_and_back(session, a).tobytes() == a.tobytes()
    assert transfer.Room(session, np.empty((2**10, 2**10), order="F")).take().shape == (2**10, 2**10)
    assert session.staging is None


def test_threads_are_bounded() -> None:
    assert 1 <= transfer.threads() <= transfer.LANES


# ---- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [0, 1, 2])
def test_shortage_of_pinned_memory(session: Session, pinned: None, monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """As many lanes as there are; without one the driver copies."""
    make = transfer.Lane

    def scarce(session: Session) -> transfer.Lane:
        if len(session.staging.lanes) == lanes:
            raise faulty_device.error("OUT_OF_HOST_MEMORY")
        return make(session)

    monkeypatch.setattr(transfer, "Lane", scarce)
    a = random(9 * PIECE // 8)
    assert there_and_back(session, a).tobytes() == a.tobytes()
    assert len(session.staging.lanes) == lanes


def test_failure_of_any_copy_is_raised_and_nothing_goes_on(session: Session, pinned: None) -> None:
    a = random(13 * PIECE // 8)
    buffer = lapack.allocate(session, "float64", a.size).buffer
    for copy in (transfer.write, transfer.read):
        arguments = (session, a, buffer) if copy is transfer.write else (session, buffer, a)
        with faulty_device.failing("transfer") as calls:
            copy(*arguments)  # type: ignore[operator]  # one of two
        assert calls.count == 13
        for call in range(calls.count):
            with faulty_device.failing("transfer", call), pytest.raises(cl.MemoryError):
                copy(*arguments)  # type: ignore[operator]
            assert session.staging.threads._work_queue.empty()
        assert there_and_back(session, a).tobytes() == a.tobytes()


def test_failing_device_leaves_the_call_to_stock(pinned: None) -> None:
    a = np.random.default_rng(0).standard_normal((150, 60))
    stock = sl.svd(a)

    def svd() -> tuple[Any, str]:
        with lapack_ai.set_backend(device=DEVICE), lapack_ai.trace() as t:
            return sl.svd(a), t.decisions[0].kernel

    with faulty_device.failing("transfer") as calls:
        assert svd()[1] == "opencl_svd"
    for call in range(calls.count):
        registry.FAILURES.clear()
        with faulty_device.failing("transfer", call):
            results, kernel = svd()
        assert kernel == "stock"
        assert all(map(np.array_equal, results, stock))


def test_threads_that_cannot_be_started(session: Session, pinned: None) -> None:
    """As at the end of the interpreter."""
    a = random(9 * PIECE // 8)
    there_and_back(session, a)
    session.staging.threads.shutdown()
    assert there_and_back(session, a).tobytes() == a.tobytes()
    transfer.Room(session, np.empty((300, 300), order="F")).take()


def test_release_gives_the_memory_back(session: Session, pinned: None, monkeypatch: pytest.MonkeyPatch) -> None:
    a = random(9 * PIECE // 8)
    there_and_back(session, a)
    lanes = [weakref.ref(lane) for lane in session.staging.lanes]
    staging, threads = session.staging, [*session.staging.threads._threads]
    with monkeypatch.context() as patch:
        patch.setattr(devices, "is_forked", lambda: True)
        sessions.release()
        assert session.staging is staging  # the parent's
    del staging
    lapack_ai.disable()
    assert session.staging is None
    for thread in threads:
        thread.join(10)
    assert [lane() for lane in lanes] == [None] * len(lanes)
    assert there_and_back(session, a).tobytes() == a.tobytes()


# ---- results -----------------------------------------------------------------------------------------------


def test_room_is_written_to_by_nobody_else(session: Session, pinned: None) -> None:
    """What its threads have not begun when it is taken, they do not begin later."""
    transfer.Room(session, np.empty((300, 300), order="F")).take()  # makes the threads
    begun, go = threading.Event(), threading.Event()
    session.staging.threads.shutdown()
    session.staging.threads = ThreadPoolExecutor(1)
    session.staging.submit(lambda: (begun.set(), go.wait(10), None)[2])
    begun.wait(10)
    found = transfer.Room(session, np.empty((400, 300), "f4", "F")).take()
    assert (found.shape, found.dtype, found.flags.f_contiguous) == ((400, 300), np.float32, True)
    found.fill(7)
    go.set()
    session.staging.threads.shutdown()
    assert (found == 7).all()


SHAPES = [(90, 80), (80, 90), (300, 40), (40, 300), (2, 70, 60), (1, 1), (5000, 1)]


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_svd_is_the_same_either_way(pinned: None, shape: tuple[int, ...], full: bool) -> None:
    full = full and max(shape) < 1000
    a = np.random.default_rng(1).standard_normal(shape)
    with lapack_ai.set_backend(device=DEVICE, strict=True):
        ours = sl.svd(a, full_matrices=full)
        os.environ["LAPACK_AI_PINNED"] = "0"
        plain = sl.svd(a, full_matrices=full)
    for one, other in zip(ours, plain, strict=True):
        assert (one.strides, one.tobytes()) == (other.strides, other.tobytes())


def test_results_are_the_callers_own(pinned: None) -> None:
    a = np.random.default_rng(1).standard_normal((90, 80))
    with lapack_ai.set_backend(device=DEVICE, strict=True):
        first = sl.svd(a)
        before = [part.copy() for part in first]
        sl.svd(a[::-1] * 2)
    assert all(map(np.array_equal, first, before))


# ---- the process -------------------------------------------------------------------------------------------

PINNED_THEN = f"""
import os, sys, warnings
import numpy as np
import scipy.linalg as sl
import lapack_ai_backend as lapack_ai
from lapack_ai_backend.opencl import transfer

warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork: PoCL has started threads
transfer.LEAST = 1000
a = np.random.default_rng(0).standard_normal((110, 110))
lapack_ai.enable(device="{DEVICE}", strict=True)
u, s, vh = sl.svd(a)
assert lapack_ai.stats()["scipy.linalg.svd", "opencl_svd"].calls == 1
"""


def test_end_of_the_interpreter() -> None:
    last = "import atexit; atexit.register(lambda: print(np.allclose(sl.svd(a)[1], s)))"
    assert passes(PINNED_THEN + last, variables={"LAPACK_AI_PINNED": "1"}) == "True\n"


def test_fork_with_pinned_memory_in_use() -> None:
    """The child has the results, its own copy of them; what is pinned is the parent's, also at the child's end."""
    rest = """
child = os.fork()
if child == 0:
    assert np.allclose(u * s @ vh, a)
    u[:] = 0
    lapack_ai.disable()
    sys.exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
assert np.allclose(u * s @ vh, a)
assert np.allclose(sl.svd(a)[1], s)
lapack_ai.disable()
"""
    passes(PINNED_THEN + rest, variables={"LAPACK_AI_PINNED": "1"})
