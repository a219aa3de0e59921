"""Memory: how much a call may take on a device and on the host, and the one place that allocates on the device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lapack_ai_backend.environment import PROCESS_VARIABLES, from_environment
from lapack_ai_backend.errors import Decline, DeviceError
from lapack_ai_backend.native import lib

if TYPE_CHECKING:
    import pyopencl

    from lapack_ai_backend.opencl.devices import Device
    from lapack_ai_backend.opencl.session import Session

ITEM_SIZES = {"float32": 4, "float64": 8, "complex64": 8, "complex128": 16}

SHORTAGES = ("MEM_OBJECT_ALLOCATION_FAILURE", "OUT_OF_RESOURCES", "OUT_OF_HOST_MEMORY", "INVALID_BUFFER_SIZE")

ROOT = Path("/")  # of the file system that tells


# ---- what is allowed ------------------------------------------------------------------------------


def device_limit(device: Device) -> int:
    """Bytes that a call may take on a device: ``LAPACK_GPU_MEMORY_LIMIT`` percent of its memory."""
    return device.memory * int(from_environment(PROCESS_VARIABLES["gpu_memory_limit"])[0]) // 100


def host_available() -> int:
    """Bytes that this process can still take: of the machine's memory, and of every control group around it."""
    return int(lib.lai_available_memory(os.fsencode(ROOT)))


def check(session: Session, sizes: Sequence[int], host: int) -> None:
    """Decline a call that memory does not suffice for, before anything is allocated or transferred.

    Parameters
    ----------
    session : Session
        Where it would run.
    sizes : sequence of int
        Bytes of each buffer on the device.
    host : int
        Bytes on the host.

    Raises
    ------
    Decline
        "memory".
    """
    device, total = session.device, sum(sizes)
    percent, source = from_environment(PROCESS_VARIABLES["gpu_memory_limit"])
    limit = f"{percent} % of {device.name}'s memory" + ("" if source == "default" else f", {source}")
    _compare("on the device", total, device_limit(device), limit)
    _compare("in one buffer", max(sizes, default=0), device.max_allocation, f"the most that {device.name} gives")
    shared = device.kind == "cpu"  # its memory is the host's
    _compare("on the host", host + (total if shared else 0), host_available(), "what is available")


def _compare(where: str, needed: int, allowed: int, limit: str) -> None:
    if needed > allowed:
        raise Decline("memory", f"needs {_readable(needed)} {where}, {_readable(allowed)} are allowed ({limit})")


def _readable(size: int) -> str:
    unit, name = next((each for each in ((2**30, "GiB"), (2**20, "MiB")) if size >= each[0]), (1, "bytes"))
    return f"{size / unit:.2f} {name}" if unit > 1 else f"{size} {name}"


# ---- allocation -----------------------------------------------------------------------------------


def allocate(session: Session, count: int, dtype: str) -> pyopencl.Buffer:
    """Device memory for `count` numbers, there as soon as this returns; freed when its last reference goes.

    Raises
    ------
    Decline
        "memory", when the device has not that much.
    DeviceError
        Any other failure.
    """
    import pyopencl as cl

    size = max(count, 1) * ITEM_SIZES[dtype]  # OpenCL has no empty buffers
    try:
        buffer = cl.Buffer(session.context, cl.mem_flags.READ_WRITE, size)
        # Drivers allocate at the first use, so use it here: a shortage shows before any work is done.
        cl.enqueue_fill_buffer(session.queue, buffer, b"\0", 0, 1)
    except cl.Error as error:
        message = f"no buffer of {_readable(size)} on {session.device.name}: {error}"
        if error.code in [getattr(cl.status_code, name) for name in SHORTAGES]:
            raise Decline("memory", message) from error
        raise DeviceError(message) from error
    return buffer
