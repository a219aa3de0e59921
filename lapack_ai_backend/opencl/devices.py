"""OpenCL devices, as pyopencl finds them, and which one an option means.

Nothing here runs before a device is asked for: asking loads drivers, which can be slow. It
happens once a process; a forked child must not touch what its parent's drivers have made,
so there OpenCL is off unless the parent had never asked.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lapack_ai_backend.environment import PROCESS_VARIABLES, from_environment
from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.opencl import drivers

if TYPE_CHECKING:
    import pyopencl

log = logging.getLogger("lapack_ai_backend")

T = TypeVar("T")

FORKED = "OpenCL was in use before this process was forked; its devices serve the parent alone"

# What the kernels of cl/ are written for.
LEAST_WORK_GROUP = 256
LEAST_LOCAL_MEMORY = 32 * 2**10

CPUS = Path("/sys/devices/system/cpu")


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
    max_allocation : int
        Largest buffer in bytes.
    local_memory : int
        Bytes that the work-items of a group share.
    max_work_group : int
        Most work-items in a group.
    denormals_single : bool
        Whether float32 keeps subnormal numbers.
    available : bool
        Whether it is ready and has a compiler.
    """

    selector: str
    platform: str
    name: str
    driver: str
    kind: str
    memory: int
    fp64: bool
    max_allocation: int
    local_memory: int
    max_work_group: int
    denormals_single: bool
    available: bool


# ---- which device an option means ---------------------------------------------------------------


def choose(option: str, dtype: str = "float32") -> Device | None:
    """The device that ``device=option`` means for a dtype; None: `why_not` tells the reason."""
    if why_none() or is_forked():
        return None
    fitting = [device for device in _meant(option) if not unfit(device) and serves(device, dtype)]
    return max(fitting, key=lambda device: (device.fp64, device.memory), default=None)  # the first of equals


def why_not(option: str, dtype: str = "float32") -> str:
    """Why ``device=option`` gives no device for a dtype; "" when it gives one."""
    if why_none() or is_forked():
        return why_none() or FORKED
    if choose(option, dtype) is not None:
        return ""
    if meant := _meant(option):
        return "; ".join(f"{device.name} {unfit(device) or f'computes no {dtype}'}" for device in meant)
    wanted = {"auto": "GPU", "gpu": "GPU", "cpu": "CPU device"}.get(option, f"device {option!r}")
    others = ", ".join(f'{device.name} (device="{device.selector}")' for device in found())
    return f"there is no OpenCL {wanted}; used only when asked for: {others}"


def serves(device: Device, dtype: str) -> bool:
    """Whether a device computes in a dtype: double precision needs fp64, and single never stands in for it."""
    return dtype in ("float32", "complex64") or (dtype in ("float64", "complex128") and device.fp64)


def unfit(device: Device) -> str:
    """What keeps the kernels from running on a device, as its name's predicate; "" when nothing does."""
    if device in _given_up:
        return _given_up[device]
    if not device.available:
        return "is not available"
    if device.max_work_group < LEAST_WORK_GROUP:
        return f"has work-groups of {device.max_work_group} at most, {LEAST_WORK_GROUP} are needed"
    if device.local_memory < LEAST_LOCAL_MEMORY:
        return f"has {device.local_memory} bytes of local memory, {LEAST_LOCAL_MEMORY} are needed"
    return ""


def give_up(device: Device, why: str) -> None:
    """Use a device no more in this process; `why` is its name's predicate."""
    _given_up[device] = why


def use(device: Device) -> str:
    """What a device is used for, or why it is not, for people."""
    if is_forked() or unfit(device):
        return f"not used: {FORKED if is_forked() else f'it {unfit(device)}'}"
    dtypes = "single and double precision" if device.fp64 else "single precision only: it has no fp64"
    if any(choose("auto", dtype) == device for dtype in ("float32", "float64")):
        return f"used for {dtypes}"
    if device == choose("cpu"):
        return f'an OpenCL device on the CPU, used only when asked for (device="cpu"), for {dtypes}'
    return f'used only when asked for (device="{device.selector}"), for {dtypes}'


def _meant(option: str) -> list[Device]:
    # An OpenCL device on the CPU has to be asked for, one of another kind by its selector.
    kind = {"auto": "gpu", "gpu": "gpu", "cpu": "cpu"}.get(option)
    return [device for device in found() if device.selector == option or device.kind == kind]


# ---- what is there ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inventory:
    devices: tuple[Device, ...] = ()
    handles: tuple[pyopencl.Device, ...] = ()  # in the same order
    why_none: str = ""
    drivers: tuple[drivers.Unknown, ...] = ()


_asked_by: int | None = None  # the process that asked OpenCL; its forked children inherit the number
_inventory: _Inventory | None = None
_asking = threading.Lock()
_given_up: dict[Device, str] = {}


def found() -> tuple[Device, ...]:
    """Every OpenCL device; none without an OpenCL driver, or with ``LAPACK_GPU_ENABLED=0``."""
    return _take_inventory().devices


def why_none() -> str:
    """Why there is no device, "" when there is one."""
    return _take_inventory().why_none


def drivers_without_icd() -> tuple[drivers.Unknown, ...]:
    """GPU drivers that are installed without the file from which OpenCL learns of them."""
    return _take_inventory().drivers


def handle(device: Device) -> pyopencl.Device:
    """pyopencl's object for a device."""
    inventory = _take_inventory()
    if device not in inventory.devices:
        raise DeviceError(f"no OpenCL device {device.selector} here")
    return inventory.handles[inventory.devices.index(device)]


def is_forked() -> bool:
    """Whether this is a forked child of a process that had asked OpenCL for something."""
    return _asked_by not in (None, os.getpid())


def _take_inventory() -> _Inventory:
    global _asked_by, _inventory
    if not from_environment(PROCESS_VARIABLES["gpu_enabled"])[0]:
        return _Inventory(why_none="LAPACK_GPU_ENABLED=0")
    if is_forked():
        return _inventory or _Inventory(why_none=FORKED)
    if _inventory is None:
        _asked_by = os.getpid()  # before the lock: a child forked meanwhile must not wait for it
        with _asking:
            if _inventory is None:
                try:
                    _inventory = keep_through_fork(_ask_opencl())
                except Exception as error:  # a driver's oddity must not fail the user's call
                    _inventory = _Inventory(why_none=f"OpenCL could not be asked: {error!r}")
    return _inventory


def _ask_opencl() -> _Inventory:
    if not CPUS.is_dir():
        return _Inventory(why_none=f"{CPUS} is missing, without which some OpenCL drivers abort the process")
    try:
        import pyopencl as cl
    except Exception as error:  # a missing loader surfaces as ImportError or OSError
        return _Inventory(why_none=f"pyopencl does not load: {error}")
    with drivers.registered() as unknown:
        try:
            platforms, why_none = cl.get_platforms(), "OpenCL platforms without devices"
        except cl.Error as error:
            platforms, why_none = [], f"no OpenCL platform: {error}"
    for each in unknown:
        outcome = f"is left out: {each.why_not}" if each.why_not else "was registered for this process"
        log.info("%s's OpenCL driver %s has no ICD file and %s", each.vendor, each.library, outcome)
    described: dict[Device, pyopencl.Device] = {}
    for p, platform in enumerate(platforms):
        try:
            members = platform.get_devices()
        except cl.Error:  # a platform without devices is an error in OpenCL
            continue
        for d, device in enumerate(members):
            try:
                described[_describe(f"{p}:{d}", platform, device)] = device
            except cl.Error as error:
                log.warning("OpenCL device %d:%d is left out: %s", p, d, error)
    return _Inventory(tuple(described), tuple(described.values()), "" if described else why_none, tuple(unknown))


def _describe(selector: str, platform: pyopencl.Platform, device: pyopencl.Device) -> Device:
    import pyopencl as cl

    kinds = {cl.device_type.GPU: "gpu", cl.device_type.CPU: "cpu"}
    return Device(
        selector,
        platform.name.strip(),
        device.name.strip(),
        device.driver_version.strip(),
        next((name for bit, name in kinds.items() if device.type & bit), "other"),
        device.global_mem_size,
        "cl_khr_fp64" in device.extensions.split(),
        device.max_mem_alloc_size,
        device.local_mem_size,
        device.max_work_group_size,
        bool(device.single_fp_config & cl.device_fp_config.DENORM),
        bool(device.available and device.compiler_available),
    )


def keep_through_fork(owner: T) -> T:
    """Never free an object that holds OpenCL handles, nor what it refers to.

    A forked child would free them as it ends, and a driver whose threads are not there hangs then.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
    return owner
