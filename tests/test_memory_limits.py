"""How much memory a call may take, on the device and on the host, and what running short of it looks like."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import faulty_device
import pytest

from lapack_ai_backend.errors import Decline, DeviceError
from lapack_ai_backend.opencl import devices, memory
from lapack_ai_backend.opencl.session import Session, open_session

MIB, GIB = 2**20, 2**30


@pytest.fixture
def session() -> Session:
    device = devices.choose("cpu")
    assert device is not None, devices.why_not("cpu")
    return open_session(device)


def with_device(session: Session, **changes: object) -> Session:
    """The session, of a device of other properties."""
    return replace(session, device=replace(session.device, **changes))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for / of a machine with 8 GiB available."""
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    write(tmp_path / "proc/meminfo", "MemTotal: 99999999 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# ---- the host -----------------------------------------------------------------------------------


def test_machine_without_control_groups(root: Path) -> None:
    assert memory.host_available() == 8 * GIB


def test_no_limit_where_nothing_tells(root: Path) -> None:
    (root / "proc/meminfo").unlink()
    assert memory.host_available() > 2**48


def version_2(root: Path, group: str, limit: str, current: int, inactive: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / group
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{current}\n")
    write(folder / "memory.stat", f"anon 5\ninactive_file {inactive}\nactive_file 7\n")


def test_container_of_version_2(root: Path) -> None:
    """The group's own path belongs to the host; in the container its files are at the top."""
    write(root / "proc/self/cgroup", "0::/docker/1f0c:with:colons\n")
    version_2(root, "", str(2 * GIB), 1 * GIB)
    assert memory.host_available() == 1 * GIB


def test_pages_that_the_kernel_can_take_back_are_available(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/\n")
    version_2(root, "", str(2 * GIB), 2 * GIB - 5, inactive=GIB)
    assert memory.host_available() == GIB + 5


def test_the_tightest_of_nested_groups_counts(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/user.slice/job/step\n")
    version_2(root, "user.slice/job/step", "max", 0)
    version_2(root, "user.slice/job", str(3 * GIB), 1 * GIB)
    version_2(root, "user.slice", str(4 * GIB), 1 * GIB)
    assert memory.host_available() == 2 * GIB


def test_group_that_is_full(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/\n")
    version_2(root, "", str(GIB), GIB + MIB)
    assert memory.host_available() == 0


@pytest.mark.parametrize("place", ["", "slurm/job_7"])
def test_version_1(root: Path, place: str) -> None:
    write(root / "proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/slurm/job_7\n1:cpuset:/\n0::/\n")
    folder = root / "sys/fs/cgroup/memory" / place
    write(folder / "memory.limit_in_bytes", f"{3 * GIB}\n")
    write(folder / "memory.usage_in_bytes", f"{2 * GIB}\n")
    write(folder / "memory.stat", f"inactive_file 11\ntotal_inactive_file {GIB}\n")
    assert memory.host_available() == 2 * GIB


def test_version_1_without_limit(root: Path) -> None:
    write(root / "proc/self/cgroup", "4:memory:/\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory.host_available() == 8 * GIB


def test_this_machine() -> None:
    assert MIB < memory.host_available() < 2**50


# ---- what a call may take -----------------------------------------------------------------------


def gpu(session: Session) -> Session:
    return with_device(session, kind="gpu", name="GPU", memory=10 * GIB, max_allocation=3 * GIB)


def test_what_fits_passes(session: Session, root: Path) -> None:
    memory.check(gpu(session), [3 * GIB, 3 * GIB, 2 * GIB], host=8 * GIB)
    memory.check(gpu(session), [], host=0)


@pytest.mark.parametrize(
    ("sizes", "host", "text"),
    [
        ([3 * GIB, 3 * GIB, 2 * GIB + 1], 0, "8.00 GiB on the device, 8.00 GiB are allowed (80 % of GPU's memory)"),
        ([3 * GIB + 1], 0, "3.00 GiB in one buffer, 3.00 GiB are allowed (the most that GPU gives)"),
        ([], 8 * GIB + 1, "8.00 GiB on the host, 8.00 GiB are allowed (what is available)"),
        ([2**60], 2**60, "1073741824.00 GiB on the device"),
    ],
)
def test_what_does_not_fit_is_declined(session: Session, root: Path, sizes: list[int], host: int, text: str) -> None:
    with pytest.raises(Decline) as raised:
        memory.check(gpu(session), sizes, host)
    assert raised.value.reason_code == "memory"
    assert text in str(raised.value)


def test_device_on_the_cpu_takes_the_hosts_memory(session: Session, root: Path) -> None:
    cpu = with_device(session, kind="cpu", name="CPU", memory=100 * GIB, max_allocation=100 * GIB)
    memory.check(cpu, [5 * GIB], host=3 * GIB)
    with pytest.raises(Decline, match=r"8\.00 GiB on the host"):
        memory.check(cpu, [5 * GIB], host=3 * GIB + 1)


def test_limit_from_the_environment(session: Session, root: Path) -> None:
    os.environ["LAPACK_GPU_MEMORY_LIMIT"] = "10"
    memory.check(gpu(session), [GIB], host=0)
    with pytest.raises(Decline, match=r"1\.00 GiB are allowed \(10 % of GPU's memory, LAPACK_GPU_MEMORY_LIMIT\)"):
        memory.check(gpu(session), [GIB + 1], host=0)
    assert memory.device_limit(gpu(session).device) == GIB


# ---- allocation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "dtype", "size"), [(0, "float32", 4), (3, "float32", 12), (5, "float64", 40)])
def test_allocate(session: Session, count: int, dtype: str, size: int) -> None:
    assert memory.allocate(session, count, dtype).size == size


@pytest.mark.parametrize("point", ["allocation", "first use"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("MEM_OBJECT_ALLOCATION_FAILURE", Decline),
        ("OUT_OF_RESOURCES", Decline),
        ("OUT_OF_HOST_MEMORY", Decline),
        ("INVALID_BUFFER_SIZE", Decline),
        ("INVALID_CONTEXT", DeviceError),
        ("INVALID_COMMAND_QUEUE", DeviceError),
    ],
)
def test_failing_allocation(session: Session, point: str, status: str, expected: type[Exception]) -> None:
    with faulty_device.failing(point, 0, status), pytest.raises(expected, match=f"128.00 MiB on .*{status}") as raised:
        memory.allocate(session, 2**24, "float64")
    if isinstance(raised.value, Decline):
        assert raised.value.reason_code == "memory"


def test_more_than_the_driver_gives(session: Session) -> None:
    with pytest.raises(Decline, match="no buffer of"):
        memory.allocate(session, 2 * session.device.memory, "float32")
