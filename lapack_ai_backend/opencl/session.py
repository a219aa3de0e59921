"""One context and queue for each device that is used, made at its first use and kept until the process ends."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lapack_ai_backend.environment import PROCESS_VARIABLES, from_environment
from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.opencl import devices

if TYPE_CHECKING:
    import pyopencl


# Between two looks at an event: this part of the time waited so far, within these limits, in seconds.
PAUSE, LEAST_PAUSE, MOST_PAUSE = 1 / 16, 30e-6, 0.02


@dataclass(eq=False)  # one object each: compared and hashed by identity
class Session:
    """What computing on a device needs.

    Attributes
    ----------
    device : Device
        Whose session it is.
    context : pyopencl.Context
        For buffers and programs.
    queue : pyopencl.CommandQueue
        In order, without profiling, which would double the cost of a launch.
    lock : threading.Lock
        Held during a computation: the arguments of a kernel belong to the kernel, not to a launch.
    programs : dict
        What programs.py has built here, by dtype.
    staging : Staging or None
        Pinned memory that transfer.py has taken.
    """

    device: devices.Device
    context: pyopencl.Context
    queue: pyopencl.CommandQueue
    lock: threading.Lock = field(default_factory=threading.Lock)
    programs: dict[str, Any] = field(default_factory=dict)
    staging: Any = None
    _beside: dict[str, Session] = field(default_factory=dict)

    def beside(self, purpose: str) -> Session:
        """The same device with a queue, pinned memory and threads of its own: for copies beside other work."""
        import pyopencl as cl

        if purpose not in self._beside:
            queue = cl.CommandQueue(self.context)
            self._beside[purpose] = Session(self.device, self.context, queue, self.lock, self.programs)
        return self._beside[purpose]

    def wait(self, event: pyopencl.Event | None = None) -> None:
        """Return once an event, or all that is enqueued, is over. Signals are handled meanwhile, Ctrl-C for one.

        Raises
        ------
        DeviceError
            When the device fails, or has not answered for `LAPACK_GPU_TIMEOUT` seconds; it is not used again then.
        """
        import pyopencl as cl

        event = event or cl.enqueue_marker(self.queue)
        self.queue.flush()
        allowed, _ = from_environment(PROCESS_VARIABLES["gpu_timeout"])
        started = time.perf_counter()
        while (status := event.command_execution_status) > cl.command_execution_status.COMPLETE:
            waited = time.perf_counter() - started
            if allowed and waited > allowed:
                devices.give_up(self.device, f"has not answered for {allowed} s (LAPACK_GPU_TIMEOUT)")
                raise DeviceError(f"{self.device.name} {devices.unfit(self.device)}")
            if waited > LEAST_PAUSE:
                time.sleep(min(waited * PAUSE + LEAST_PAUSE, MOST_PAUSE))
        if status < cl.command_execution_status.COMPLETE:
            raise DeviceError(f"{self.device.name}: a command ended with status {status}")

    def release(self) -> None:
        """Give back what is kept between calls and can be had again: pinned memory and threads."""
        staging, self.staging = self.staging, None
        if staging is not None:
            staging.close()
        for each in self._beside.values():
            each.release()


_sessions: dict[str, Session] = {}  # by selector
_opening = threading.Lock()


def open_session(device: devices.Device) -> Session:
    """The session of a device, the same one for every thread of this process.

    Raises
    ------
    DeviceError
        When the driver makes no context or queue, and in a child forked from a process that used OpenCL.
    """
    if devices.is_forked():  # before the lock, which the parent may have held
        raise DeviceError(devices.FORKED)
    with _opening:
        if device.selector not in _sessions:
            _sessions[device.selector] = devices.keep_through_fork(_open(device))
        return _sessions[device.selector]


def release() -> None:
    """Give back what sessions keep between calls and can have again."""
    if devices.is_forked():  # it is the parent's
        return
    for session in list(_sessions.values()):
        session.release()


def _open(device: devices.Device) -> Session:
    import pyopencl as cl

    try:
        context = cl.Context([devices.handle(device)])
        return Session(device, context, cl.CommandQueue(context))
    except cl.Error as error:
        raise DeviceError(f"{device.name}: no context: {error}") from error
