"""The libraries that gpu_compare.py compares, each behind the same three functions."""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

import lapack_ai_backend as lapack_ai
from lapack_ai_backend.linalg import gesdd, stacks
from lapack_ai_backend.opencl import devices, lapack, transfer
from lapack_ai_backend.opencl.session import Session, open_session

Array = np.ndarray[Any, Any]


class AbsentError(Exception):
    """A library or a device that is not here; its text says which."""


class Call(NamedTuple):
    """A decomposition whose input lies where it has to.

    Attributes
    ----------
    run : callable
        Decomposes, and returns when the results are there.
    factors : callable
        U, S, Vh of what `run` returned, of any array library; U and Vh are None of values alone.
    note : callable
        What the library says of what `run` returned.
    """

    run: Callable[[], Any]
    factors: Callable[[Any], tuple[Any, Any, Any]] = tuple
    note: Callable[[Any], str] = lambda result: ""


Maker = Callable[[Array, bool, str], Call]  # of a matrix or stack by rows, whether with vectors, the option device=


# ---- ours ------------------------------------------------------------------------------------------


def ours_on_device(a: Array, vectors: bool, option: str) -> Call:
    """From a matrix in device memory, which is kept, to U and V in device memory; the values end on the host."""
    import pyopencl as cl

    session, (m, n), dtype = _session(a, option), a.shape, a.dtype.name
    work = gesdd.Workspace(session, gesdd.plan(m, n, dtype, vectors=vectors, full=False))
    source = lapack.allocate(session, dtype, m, n)
    cl.enqueue_copy(session.queue, source.buffer, np.asfortranarray(a))
    on_device = getattr(gesdd, "decompose_on_device", None)

    def run() -> tuple[Any, Array, Any]:
        with session.lock:
            lapack.max_abs(session, source, work["largest"], work["work"])
            largest = np.empty(1, np.finfo(dtype).dtype)
            cl.enqueue_copy(session.queue, largest, work["largest"].buffer)
            exponent = -math.frexp(float(largest[0]))[1]
            lapack.lascl(session, source, work["a"], exponent)
            u, s, v = (None, on_device(work), None) if on_device else gesdd.decompose(work, "F", "F")
            session.queue.finish()
            return u, np.abs(np.ldexp(s, -exponent)), v

    def factors(result: tuple[Any, Array, Any]) -> tuple[Any, Array, Any]:
        u, s, v = result
        if vectors and on_device:
            u, v = np.empty((m, n), dtype, "F"), np.empty((n, n), dtype, "F")
            cl.enqueue_copy(session.queue, u, work["u"].buffer)
            cl.enqueue_copy(session.queue, v, work["v"].buffer)
        return u, s, None if v is None else v.T

    note = "U and V fetched by the host, too" if vectors and not on_device else ""
    return Call(run, factors, lambda result: note)


def second_operand(a: Array) -> Array:
    """What products multiply a matrix by."""
    return np.ascontiguousarray(a[::-1])


def our_product(a: Array, vectors: bool, option: str) -> Call:
    """``A @ B`` with the backend on, its check of results included."""
    _session(a, option)
    b = second_operand(a)

    def run() -> Any:
        lapack_ai.reset_stats()
        with lapack_ai.set_backend(device=option, force={"numpy.matmul": "opencl_gemm"}, strict=True):
            result = (a @ b,)
        if ("numpy.matmul", "opencl_gemm") not in lapack_ai.stats():
            raise RuntimeError("the backend left it to others")
        return result

    return Call(run)


def stock_product(a: Array, vectors: bool, option: str) -> Call:
    """NumPy without us, on every core."""
    b = second_operand(a)

    def run() -> Any:
        with lapack_ai.skip_backend():
            return (a @ b,)

    return Call(run)


def torch_product(a: Array, vectors: bool, option: str) -> Call:
    """PyTorch from NumPy arrays to NumPy arrays; in single precision without TF32, its default."""
    torch, b = torch_on_gpu(), second_operand(a)

    def run() -> Any:
        return ((torch.from_numpy(a).cuda() @ torch.from_numpy(b).cuda()).cpu().numpy(),)

    return Call(run)


def ours_of_stack(a: Array, vectors: bool, option: str) -> Call:
    """From small matrices in device memory, which are kept, to U, S and V in device memory, by one launch."""
    session, (count, m, n) = _session(a, option), a.shape
    plan = replace(stacks.plan(m, n, a.dtype.name, count, vectors=vectors, full=False), batch=count)
    work = stacks.Workspace(session, plan)
    transfer.write(session, a, work["a"].buffer)

    def run() -> None:
        with session.lock:
            work.decompose(count)
            session.queue.finish()

    def factors(result: None) -> tuple[Any, Array, Any]:
        u, s, vh = plan.results(count)
        exponents = work.fetch(u, s, vh)[:, :1].astype(int)
        return (u if vectors else None), np.ldexp(s, -exponents), (vh if vectors else None)

    return Call(run, factors)


def ours_through_scipy(a: Array, vectors: bool, option: str) -> Call:
    """``scipy.linalg.svd`` with the backend on, its check of results included."""
    _session(a, option)

    def run() -> Any:
        lapack_ai.reset_stats()
        with lapack_ai.set_backend(device=option, force={"scipy.linalg.svd": "opencl_svd"}, strict=True):
            result = scipy.linalg.svd(a, full_matrices=False)
        if ("scipy.linalg.svd", "opencl_svd") not in lapack_ai.stats():
            raise RuntimeError("the backend left it to stock SciPy")
        return result

    return Call(run)


def _session(a: Array, option: str) -> Session:
    device = devices.choose(option, a.dtype.name)
    if device is None:
        raise AbsentError(devices.why_not(option, a.dtype.name))
    return open_session(device)


# ---- PyTorch, CuPy, SciPy --------------------------------------------------------------------------


@functools.cache
def torch_on_gpu() -> Any:
    """PyTorch."""
    return _library("torch", lambda torch: bool(torch.cuda.is_available()))


@functools.cache
def cupy_on_gpu() -> Any:
    """CuPy."""
    return _library("cupy", lambda cupy: bool(cupy.cuda.runtime.getDeviceCount()))


def _library(name: str, has_gpu: Callable[[Any], bool]) -> Any:
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise AbsentError(f"{name} does not load: {error}") from error
    try:
        found = has_gpu(module)
    except Exception as error:  # each library has its own for a driver that is missing
        raise AbsentError(f"{name} finds no GPU: {error}") from error
    if not found:
        raise AbsentError(f"{name} finds no GPU")
    return module


def of_torch(driver: str | None) -> Maker:
    """PyTorch on the device by one of cuSOLVER's routines, None being its default."""

    def make(a: Array, vectors: bool, option: str) -> Call:
        torch = torch_on_gpu()
        source = torch.from_numpy(a).cuda()

        def run() -> Any:
            if vectors:
                result = tuple(torch.linalg.svd(source, full_matrices=False, driver=driver))
            else:
                result = None, torch.linalg.svdvals(source, driver=driver), None
            torch.cuda.synchronize()
            return result

        return Call(run)

    return make


def torch_with_transfers(a: Array, vectors: bool, option: str) -> Call:
    """PyTorch from NumPy arrays to NumPy arrays."""
    torch = torch_on_gpu()

    def run() -> Any:
        result = torch.linalg.svd(torch.from_numpy(a).cuda(), full_matrices=False)
        return tuple(each.cpu().numpy() for each in result)

    return Call(run)


def of_cupy(a: Array, vectors: bool, option: str) -> Call:
    """CuPy on the device."""
    cupy = cupy_on_gpu()
    source = cupy.asarray(a)

    def run() -> Any:
        result = cupy.linalg.svd(source, full_matrices=False, compute_uv=vectors)
        cupy.cuda.get_current_stream().synchronize()
        return tuple(result) if vectors else (None, result, None)

    return Call(run)


def stock_scipy(a: Array, vectors: bool, option: str) -> Call:
    """SciPy without us, on every core."""

    def run() -> Any:
        with lapack_ai.skip_backend():
            return scipy.linalg.svd(a, full_matrices=False)

    return Call(run)


def free_memory() -> None:
    """Give back what libraries keep for later: another's decomposition may need it."""
    releases: dict[Callable[[], Any], Callable[[Any], object]] = {
        torch_on_gpu: lambda torch: torch.cuda.empty_cache(),
        cupy_on_gpu: lambda cupy: cupy.get_default_memory_pool().free_all_blocks(),
    }
    for library, release in releases.items():
        try:
            release(library())
        except AbsentError:
            continue


# ---- cuSOLVER's gesvdp, which neither of them calls --------------------------------------------------

CUDA_TYPES = {"float32": 0, "float64": 1, "complex64": 4, "complex128": 5}  # CUDA_R_32F, CUDA_R_64F, CUDA_C_32F, ...


def gesvdp(a: Array, vectors: bool, option: str) -> Call:
    """A polar decomposition and an eigensolver."""
    call = _Gesvdp(a, vectors)
    return Call(call.run, call.factors, call.note)


class _Gesvdp:
    """The call as favourable as can be: columns, workspace allocated before.

    It destroys its input, so a copy is timed with it.
    """

    def __init__(self, a: Array, vectors: bool) -> None:
        torch = torch_on_gpu()
        self._library, handle, parameters = cusolver()
        m, n = a.shape
        self._source = torch.from_numpy(a).cuda().T.contiguous()  # by rows the transpose is by columns the matrix
        self._matrix, self._s = torch.empty_like(self._source), self._source.real.new_empty(n)
        self._u, self._v = (self._source.new_empty((n, each)) for each in (m, n))
        self._vectors, kind, of_s = vectors, CUDA_TYPES[a.dtype.name], CUDA_TYPES[np.finfo(a.dtype).dtype.name]
        matrix, s, u, v = (each.data_ptr() for each in (self._matrix, self._s, self._u, self._v))
        factors = of_s, s, kind, u, m, kind, v, n
        self._problem = handle, parameters, int(vectors), 1, m, n, kind, matrix, m, *factors, kind
        device, host = ctypes.c_size_t(), ctypes.c_size_t()
        sizes = ctypes.byref(device), ctypes.byref(host)
        _succeed(self._library.cusolverDnXgesvdp_bufferSize(*self._problem, *sizes))
        self._device_work = torch.empty(max(device.value, 1), dtype=torch.uint8, device="cuda")
        self._host_work = ctypes.create_string_buffer(max(host.value, 1))
        self._work = self._device_work.data_ptr(), device.value, ctypes.addressof(self._host_work), host.value
        self._info, self._error = torch.zeros(1, dtype=torch.int32, device="cuda"), ctypes.c_double()
        torch.cuda.synchronize()

    def run(self) -> tuple[Any, ...]:
        self._matrix.copy_(self._source)
        told = self._info.data_ptr(), ctypes.byref(self._error)
        _succeed(self._library.cusolverDnXgesvdp(*self._problem, *self._work, *told))
        return self._u, self._s, self._v, int(self._info.item()), self._error.value  # item() waits

    def factors(self, result: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        u, s, v = result[:3]  # by rows the transposes of U and V
        return (u.T, s, v.conj()) if self._vectors else (None, s, None)

    def note(self, result: tuple[Any, ...]) -> str:
        return f"info {result[3]}, h_err_sigma {result[4]:.2g}"


@functools.cache
def cusolver() -> tuple[Any, ctypes.c_void_p, ctypes.c_void_p]:
    """The cuSOLVER that PyTorch has loaded, a handle and parameters."""
    torch = torch_on_gpu()
    torch.linalg.svdvals(torch.eye(64, device="cuda"))  # loads it
    for path in [*_loaded("libcusolver.so"), "libcusolver.so.12", "libcusolver.so.11"]:
        try:
            library = ctypes.CDLL(path)
            library.cusolverDnXgesvdp.argtypes = _gesvdp_arguments("run")
            library.cusolverDnXgesvdp_bufferSize.argtypes = _gesvdp_arguments("query")
        except (OSError, AttributeError):
            continue
        handle, parameters = ctypes.c_void_p(), ctypes.c_void_p()
        _succeed(library.cusolverDnCreate(ctypes.byref(handle)))
        _succeed(library.cusolverDnCreateParams(ctypes.byref(parameters)))
        return library, handle, parameters
    raise AbsentError("no cuSOLVER with cusolverDnXgesvdp, which CUDA 11.1 brought")


def cusolver_version() -> str:
    """Of the library that `cusolver` found."""
    value, parts = ctypes.c_int(), []
    for part in range(3):  # MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL
        _succeed(cusolver()[0].cusolverGetProperty(part, ctypes.byref(value)))
        parts.append(str(value.value))
    return ".".join(parts)


def _gesvdp_arguments(what: str) -> list[Any]:
    """Types of what gesvdp and its query for workspace take; they share all but the last ones."""
    number, size, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
    matrix, vector = [number, pointer, size], [number, pointer]
    shared = [pointer, pointer, number, number, size, size, *matrix, *vector, *matrix, *matrix, number]
    work = [pointer, ctypes.c_size_t]
    return [*shared, *([pointer] * 2 if what == "query" else [*work, *work, pointer, pointer])]


def _succeed(status: int) -> None:
    if status:
        raise RuntimeError(f"cuSOLVER's status {status}")


def _loaded(library: str) -> list[str]:
    """Files of a library in this process; PyTorch and CuPy may have brought one each."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return []
    return list(dict.fromkeys(re.findall(rf"/\S*{re.escape(library)}\S*", maps)))
