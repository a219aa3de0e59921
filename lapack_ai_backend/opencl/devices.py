"""OpenCL devices, as pyopencl finds them. Nothing here runs before a device is asked for."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from lapack_ai_backend.environment import PROCESS_VARIABLES, from_environment


@dataclass(frozen=True)
class Device:
    """One OpenCL device.

    Attributes
    ----------
    selector : str
        "<platform>:<device>", as option ``device=`` takes it.
    platform, name, driver : str
        As OpenCL names them.
    kind : str
        "gpu", "cpu" or "other".
    memory : int
        Global memory in bytes.
    fp64 : bool
        Whether it computes in double precision.
    """

    selector: str
    platform: str
    name: str
    driver: str
    kind: str
    memory: int
    fp64: bool


def found() -> tuple[Device, ...]:
    """Every OpenCL device; none without an OpenCL driver, or with ``LAPACK_GPU_ENABLED=0``."""
    if not from_environment(PROCESS_VARIABLES["gpu_enabled"])[0]:
        return ()
    return _found(os.getpid())[0]


def why_none() -> str:
    """Why there is no device, "" when there is one."""
    if not from_environment(PROCESS_VARIABLES["gpu_enabled"])[0]:
        return "LAPACK_GPU_ENABLED=0"
    return _found(os.getpid())[1]


@functools.lru_cache(maxsize=1)  # by process: a fork starts anew
def _found(process: int) -> tuple[tuple[Device, ...], str]:
    del process
    try:
        import pyopencl as cl
    except Exception as error:  # a missing loader surfaces as ImportError or OSError
        return (), f"pyopencl does not load: {error}"
    try:
        platforms = cl.get_platforms()
    except cl.Error as error:
        return (), f"no OpenCL platform: {error}"
    kinds = {cl.device_type.GPU: "gpu", cl.device_type.CPU: "cpu"}
    devices = []
    for p, platform in enumerate(platforms):
        try:
            members = platform.get_devices()
        except cl.Error:  # a platform without devices is an error in OpenCL
            continue
        for d, device in enumerate(members):
            kind = next((name for bit, name in kinds.items() if device.type & bit), "other")
            fp64 = "cl_khr_fp64" in device.extensions
            memory = device.global_mem_size
            name, driver = device.name.strip(), device.driver_version.strip()
            devices.append(Device(f"{p}:{d}", platform.name.strip(), name, driver, kind, memory, fp64))
    return tuple(devices), "" if devices else "OpenCL platforms without devices"
