"""The programs of ``cl/``: found in the package, built once per device and dtype, handed to C as handles."""

from __future__ import annotations

import functools
import logging
import threading
import time
import warnings
from importlib import resources
from typing import TYPE_CHECKING, Any

from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.native import ffi, lib
from lapack_ai_backend.opencl import devices

if TYPE_CHECKING:
    import pyopencl

    from lapack_ai_backend.opencl.session import Session

log = logging.getLogger("lapack_ai_backend")

PRECISIONS = {"float32": 32, "float64": 64}

# After everything in common/, in this order: later files use what earlier ones define.
SOURCES = ("gemm/tiled.cl", "svd/reduction.cl", "svd/iteration.cl", "svd/postprocess.cl", "svd/cholesky.cl")

_building = threading.Lock()


class _Program:
    """A built program: `handles` is what csrc/opencl takes; the objects behind it live as long as it does."""

    def __init__(self, session: Session, dtype: str) -> None:
        self.program = build(session, source(), f"-DPRECISION={PRECISIONS[dtype]}")
        self.kernels = {number: _kernel(self.program, name) for name, number in kernel_names().items()}
        self.handles = ffi.new("lai_opencl *")
        self.handles.queue = ffi.cast("void *", session.queue.int_ptr)
        for number, kernel in self.kernels.items():
            self.handles.kernels[number] = ffi.cast("void *", kernel.int_ptr)


def kernels(session: Session, dtype: str) -> Any:
    """The ``lai_opencl *`` of a session for "float32" or "float64", built at the first request.

    Raises
    ------
    DeviceError
        When the build fails, with the compiler's log; the same error again at every later request.
    """
    if dtype not in session.programs:
        with _building:
            if dtype not in session.programs:
                try:
                    load_library()
                    session.programs[dtype] = _Program(session, dtype)
                except DeviceError as error:
                    session.programs[dtype] = str(error)
    built = session.programs[dtype]
    if isinstance(built, str):
        raise DeviceError(built)
    return built.handles


def kernel_names() -> dict[str, int]:
    """Each kernel's name in ``cl/`` and its place in ``enum lai_cl_kernel``."""
    members: dict[str, int] = ffi.typeof("enum lai_cl_kernel").relements
    return {
        name.removeprefix("LAI_CL_").lower(): number for name, number in members.items() if name != "LAI_CL_KERNELS"
    }


def source() -> str:
    """All of ``cl/`` as one text; ``#line`` keeps file names in the compiler's messages."""
    folder = resources.files("lapack_ai_backend") / "cl"
    common = sorted(each.name for each in (folder / "common").iterdir() if each.name.endswith(".cl"))
    names = [*(f"common/{name}" for name in common), *SOURCES]
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}\n' for name in names)


def build(session: Session, text: str, options: str) -> pyopencl.Program:
    """Compile for the session's device; DeviceError with the compiler's log when that fails."""
    import pyopencl as cl

    started = time.perf_counter()
    try:
        with warnings.catch_warnings():  # of remarks in the log, which is kept below
            warnings.simplefilter("ignore", cl.CompilerWarning)
            program = cl.Program(session.context, text)
            program.build([options])
    except cl.Error as error:
        message = f"{session.device.name}: the build with {options} failed: {error}"
        log.error("%s", message)
        raise DeviceError(message) from error
    log.info("%s: built with %s in %.2f s", session.device.name, options, time.perf_counter() - started)
    if remarks := _compilers_log(session, program):
        log.debug("%s: the compiler's log: %s", session.device.name, remarks)
    return program


def _compilers_log(session: Session, program: Any) -> str:
    import pyopencl as cl

    return str(program.get_build_info(devices.handle(session.device), cl.program_build_info.LOG)).strip()


def _kernel(program: pyopencl.Program, name: str) -> pyopencl.Kernel:
    import pyopencl as cl

    try:
        return cl.Kernel(program, name)
    except cl.Error as error:
        raise DeviceError(f"no kernel {name}: {error}") from error


@functools.cache
def load_library() -> None:
    """Let csrc/opencl call the very OpenCL loader that pyopencl is linked with."""
    from pyopencl import _cl

    if lib.lai_opencl_load(str(_cl.__file__).encode()) != 0:
        raise DeviceError(f"{_cl.__file__} lacks functions of OpenCL 1.2")
