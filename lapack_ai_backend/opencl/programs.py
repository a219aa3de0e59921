"""The programs of ``cl/``: found in the package, built once per device and dtype, handed to C as handles."""

from __future__ import annotations

import functools
import logging
import threading
import time
import warnings
from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.native import DTYPES, ffi, lib
from lapack_ai_backend.opencl import devices

if TYPE_CHECKING:
    import pyopencl

    from lapack_ai_backend.opencl.session import Session

log = logging.getLogger("lapack_ai_backend")

OPTIONS = {
    "float32": "-DPRECISION=32",
    "float64": "-DPRECISION=64",
    "complex64": "-DPRECISION=32 -DCOMPLEX",
    "complex128": "-DPRECISION=64 -DCOMPLEX",
}
REAL = {"complex64": "float32", "complex128": "float64"}  # the dtype of a number's parts

# After everything in common/, in this order: later files use what earlier ones define.
SOURCES = (
    "gemm/product.cl",
    "gemm/tiled.cl",
    "svd/reduction.cl",
    "svd/sweep.cl",
    "svd/iteration.cl",
    "svd/divide.cl",
    "svd/postprocess.cl",
    "svd/cholesky.cl",
    "svd/jacobi.cl",
    "svd/jacobi.cl",  # first for matrices in local memory, then for those in global memory
)

# Of complex matrices; all other kernels are those of their parts.
COMPLEX_SOURCES = ("gemm/complex.cl", "svd/reduction.cl", "svd/sweep.cl", "svd/postprocess.cl", "svd/cholesky.cl")

MATRIX_UNIT_SOURCES = ("gemm/product.cl", "gemm/matrix_unit.cl")

# Rows and columns of a product that a work-group computes, as multiples of its 16 x 16 items.
EACH = {"float32": (8, 4), "float64": (4, 4)}


OF_COMPLEX = ("lacp2", "real_form")  # kernels that programs of real dtypes have not
OF_WAITING_GROUPS = tuple(f"sweep_panel_{rows}" for rows in (2, 4, 8, 16, 32))  # that only some devices have


class Tile(NamedTuple):
    """How a kernel of products divides them: ``lai_gemm_tile``, but for the number of compute units."""

    rows: int
    columns: int
    items: int
    groups: int  # that a compute unit runs at a time, about

    def on(self, session: Session) -> tuple[int, ...]:
        return (*self[:3], self.groups * devices.handle(session.device).max_compute_units)


# The matrix units of NVIDIA's GPUs, the better one first; see cl/gemm/matrix_unit.cl.
MATRIX_UNITS = ("-DMATRIX_UNIT=16", "-DMATRIX_UNIT=8")

# Kernels for them, which were the fastest of many on an H100: of any products; of large ones, beside the former.
SMALL = "-DWARPS_M=2 -DWARPS_N=2", Tile(64, 64, 128, 3)
LARGE = "-DWARPS_M=2 -DWARPS_N=4 -DBLOCKS_M=4 -DSTEP=8 -DDEPTH=2 -DSTAGES=3", Tile(128, 128, 256, 1)

_building = threading.Lock()


class _Program:
    """A built program: `handles` is what csrc/opencl takes; the objects behind it live as long as it does."""

    def __init__(self, session: Session, dtype: str) -> None:
        rows, columns = EACH[dtype]
        groups = waiting_groups(session)
        options = f"{_options(dtype, groups)} -DEACH_M={rows} -DEACH_N={columns}"
        self.program = build(session, source(), options)
        self.gemm_large: pyopencl.Kernel | None = None
        self.handles = ffi.new("lai_opencl *", {"dtype": DTYPES[dtype]})
        self.kept = ffi.new("lai_kept_arguments[]", lib.LAI_CL_KERNELS + 1)
        self.handles.kept = self.kept
        self.handles.queue = ffi.cast("void *", session.queue.int_ptr)
        self.handles.gemm_tile[0] = Tile(16 * rows, 16 * columns, 256, 3).on(session)
        self.handles.waiting_groups = groups
        self.kernels = self._take(
            name for name in kernel_names() if name not in OF_COMPLEX and (groups or name not in OF_WAITING_GROUPS)
        )
        if dtype == "float64" and "NVIDIA" in session.device.platform:
            any(use_matrix_unit(session, self, unit) for unit in MATRIX_UNITS)

    def _take(self, names: Iterable[str]) -> dict[int, pyopencl.Kernel]:
        """Kernels of the program by their numbers; C has them, too."""
        found = {kernel_names()[name]: _kernel(self.program, name) for name in names}
        for number, kernel in found.items():
            self.handles.kernels[number] = ffi.cast("void *", kernel.int_ptr)
        return found


class _ComplexProgram(_Program):
    """That of a complex dtype, beside the one of its parts."""

    def __init__(self, session: Session, dtype: str, of_parts: _Program) -> None:
        self.of_parts = of_parts
        options = _options(dtype, of_parts.handles.waiting_groups)
        self.program = build(session, source(COMPLEX_SOURCES), options)
        self.handles = ffi.new("lai_opencl *", of_parts.handles[0])
        self.handles.dtype = DTYPES[dtype]
        self.kernels = self._take(set(_kernels_of(self.program)) & set(kernel_names()))


def kernels(session: Session, dtype: str) -> Any:
    """The ``lai_opencl *`` of a session for a float or complex dtype, built at the first request.

    Raises
    ------
    DeviceError
        When the build fails, with the compiler's log; the same error again at every later request.
    """
    return _built(session, dtype).handles


def _built(session: Session, dtype: str) -> Any:
    if dtype not in session.programs:
        of_parts = _built(session, REAL[dtype]) if dtype in REAL else None
        with _building:
            if dtype not in session.programs:
                try:
                    load_library()
                    session.programs[dtype] = (
                        _ComplexProgram(session, dtype, of_parts) if of_parts else _Program(session, dtype)
                    )
                except DeviceError as error:
                    session.programs[dtype] = str(error)
    built = session.programs[dtype]
    if isinstance(built, str):
        raise DeviceError(built)
    return built


def waiting_groups(session: Session) -> int:
    """How many work-groups may wait for each other: one a compute unit, where a device is known to run them at once."""
    if session.device.kind != "gpu" or "NVIDIA" not in session.device.platform:
        return 0
    return int(devices.handle(session.device).max_compute_units)


def _options(dtype: str, groups: int) -> str:
    return OPTIONS[dtype] + (" -DGRID_BARRIER" if groups else "")


def kernel_names() -> dict[str, int]:
    """Each kernel's name in ``cl/`` and its place in ``enum lai_cl_kernel``."""
    members: dict[str, int] = ffi.typeof("enum lai_cl_kernel").relements
    return {
        name.removeprefix("LAI_CL_").lower(): number for name, number in members.items() if name != "LAI_CL_KERNELS"
    }


def use_matrix_unit(session: Session, program: _Program, unit: str) -> bool:
    """Let a matrix unit make the products of a program in double precision, if it makes them right."""
    small = _matrix_unit_kernel(session, program, f"{unit} {SMALL[0]}", SMALL[1])
    if small is None:
        return False
    program.kernels[lib.LAI_CL_GEMM] = small
    program.handles.kernels[lib.LAI_CL_GEMM] = ffi.cast("void *", small.int_ptr)
    program.handles.gemm_tile[0] = SMALL[1].on(session)
    large = _matrix_unit_kernel(session, program, f"{unit} {LARGE[0]}", LARGE[1])
    if large is not None:
        program.gemm_large = large
        program.handles.gemm_large = ffi.cast("void *", large.int_ptr)
        program.handles.gemm_tile[1] = LARGE[1].on(session)
    return True


def _matrix_unit_kernel(session: Session, program: _Program, options: str, tile: Tile) -> pyopencl.Kernel | None:
    """A kernel for a matrix unit, or None where it cannot be built or errs."""
    try:
        built = build(session, source(MATRIX_UNIT_SOURCES), f"-DPRECISION=64 {options}", logging.INFO)
        kernel = _kernel(built, "gemm_matrix_unit")
    except DeviceError:  # it is in the log; the device has other kernels
        return None
    candidate = ffi.new("lai_opencl *", program.handles[0])
    candidate.kernels[lib.LAI_CL_GEMM] = ffi.cast("void *", kernel.int_ptr)
    candidate.gemm_tile[0] = tile.on(session)
    right = _is_exact(session, candidate, tile)
    log.info("%s: the matrix unit (%s) %s", session.device.name, options, "is used" if right else "errs")
    return kernel if right else None


def _is_exact(session: Session, candidate: Any, tile: Tile) -> bool:
    """Whether products are exact whose terms have more digits than single precision, their sums fewer than double."""
    import numpy as np
    import pyopencl as cl

    m, n, k = tile.rows + 19, tile.columns + 10, 37
    rng = np.random.default_rng(0)

    def operand(rows: int, columns: int, digits: int) -> Any:
        head, tail = rng.integers(-1, 2, (2, columns, rows))  # column-major
        return head + tail * 2.0**-digits

    def native(a: Any) -> tuple[pyopencl.Buffer, Any]:
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        buffer = cl.Buffer(session.context, flags, hostbuf=np.ascontiguousarray(a))
        pointer = ffi.cast("void *", buffer.int_ptr)
        return buffer, ffi.new("lai_matrix *", (pointer, 0, a.shape[1], a.shape[1], a.shape[0]))

    for transa in (False, True):
        for transb in (False, True):
            a, b, c = operand(m, k, 25), operand(k, n, 20), operand(m, n, 45)
            held, matrices = zip(*map(native, (a.T if transa else a, b.T if transb else b, c)), strict=True)
            left, right, target = matrices
            lib.lai_cl_forget_arguments(candidate)
            if lib.lai_cl_gemm(candidate, transa, transb, -1, left, right, 1, target, ffi.NULL) != 0:
                return False
            found = np.empty_like(c)
            cl.enqueue_copy(session.queue, found, held[2])
            if not (found == c - np.einsum("pi,jp->ji", a, b)).all():
                return False
    return True


def source(names: tuple[str, ...] = SOURCES) -> str:
    """These files of ``cl/`` after the common ones, as one text; ``#line`` keeps their names in messages."""
    folder = resources.files("lapack_ai_backend") / "cl"
    common = sorted(each.name for each in (folder / "common").iterdir() if each.name.endswith(".cl"))
    files = [*(f"common/{name}" for name in common), *names]
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}\n' for name in files)


def build(session: Session, text: str, options: str, failure: int = logging.ERROR) -> pyopencl.Program:
    """Compile for the session's device; DeviceError with the compiler's log when that fails.

    `failure` is the level at which that is logged.
    """
    import pyopencl as cl

    started = time.perf_counter()
    try:
        with warnings.catch_warnings():  # of remarks in the log, which is kept below
            warnings.simplefilter("ignore", cl.CompilerWarning)
            program = cl.Program(session.context, text)
            program.build([options])
    except cl.Error as error:
        message = f"{session.device.name}: the build with {options} failed: {error}"
        log.log(failure, "%s", message)
        raise DeviceError(message) from error
    log.info("%s: built with %s in %.2f s", session.device.name, options, time.perf_counter() - started)
    if remarks := _compilers_log(session, program):
        log.debug("%s: the compiler's log: %s", session.device.name, remarks)
    return program


def _compilers_log(session: Session, program: Any) -> str:
    import pyopencl as cl

    return str(program.get_build_info(devices.handle(session.device), cl.program_build_info.LOG)).strip()


def _kernels_of(program: pyopencl.Program) -> list[str]:
    import pyopencl as cl

    return str(program.get_info(cl.program_info.KERNEL_NAMES)).split(";")


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
