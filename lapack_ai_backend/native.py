"""The native extension: the only module that imports ``_native``; its instruction set and its threads."""

from __future__ import annotations

import os
import warnings

from lapack_ai_backend import environment
from lapack_ai_backend.errors import EnvironmentWarning

try:
    from lapack_ai_backend._native import ffi, lib
except ModuleNotFoundError as error:
    if error.name != "lapack_ai_backend._native":
        raise
    raise ImportError(
        "lapack_ai_backend is imported from its source folder, which has no compiled part: "
        "start Python elsewhere to use the installed package, or build here with `pip install -e .`"
    ) from None

__all__ = ["DTYPES", "ISAS", "address", "best_isa", "dtype_code", "ffi", "isa", "lib", "threads", "use_isa"]

ISAS = {"baseline": lib.LAI_BASELINE, "avx2": lib.LAI_AVX2, "avx512": lib.LAI_AVX512}

# The kernels' dtypes by NumPy's kind and item size; unsigned integers wrap as signed ones do.
DTYPES = {
    "float32": lib.LAI_FLOAT32,
    "float64": lib.LAI_FLOAT64,
    "complex64": lib.LAI_COMPLEX64,
    "complex128": lib.LAI_COMPLEX128,
    "int8": lib.LAI_INT8,
    "int16": lib.LAI_INT16,
    "int32": lib.LAI_INT32,
    "int64": lib.LAI_INT64,
    "uint8": lib.LAI_INT8,
    "uint16": lib.LAI_INT16,
    "uint32": lib.LAI_INT32,
    "uint64": lib.LAI_INT64,
}


def dtype_code(name: str) -> int:
    """Code of a dtype's name; every dtype without kernels is ``LAI_OTHER``."""
    return int(DTYPES.get(name, lib.LAI_OTHER))


def address(pointer: object) -> int:
    """The address that a cffi pointer holds, as a Python integer."""
    return int(ffi.cast("uintptr_t", pointer))


def isa() -> str:
    """Name of the instruction set that the kernels run at."""
    return _isa_name(lib.lai_current_isa())


def best_isa() -> str:
    """Name of the highest instruction set that this CPU has."""
    return _isa_name(lib.lai_best_isa())


def _isa_name(code: int) -> str:
    return next(name for name, value in ISAS.items() if value == code)


def use_isa(name: str) -> bool:
    """Run the kernels at another instruction set; False where this CPU lacks it."""
    if lib.lai_use_isa(ISAS[name]) != 0:
        return False
    lib.lai_check_overflow()
    return True


def _isa_from_environment() -> None:
    wanted = os.environ.get("LAPACK_AI_ISA", "").strip().lower()
    if not wanted:
        return
    if wanted not in ISAS:
        reason = f"is not one of {', '.join(ISAS)}"
    elif lib.lai_use_isa(ISAS[wanted]) != 0:
        reason = "is not what this CPU has"
    else:
        return
    warnings.warn(f"LAPACK_AI_ISA={wanted!r} {reason}; using {isa()}", EnvironmentWarning, stacklevel=2)


THREAD_LIMIT, THREAD_LIMIT_SOURCE = environment.thread_limit()


def threads() -> tuple[int, str]:
    """How many threads a kernel may use that this thread runs, and what says so."""
    number = lib.lai_num_threads()
    if number == THREAD_LIMIT:
        return number, THREAD_LIMIT_SOURCE
    return number, "CPU quota" if number == lib.lai_cgroup_cpus(ffi.NULL) else "CPU affinity"


_isa_from_environment()
lib.lai_use_threads(min(THREAD_LIMIT or 0, 2**31 - 1))
lib.lai_limit_workspace(min(environment.from_environment(environment.PROCESS_VARIABLES["workspace"])[0] << 20, 2**62))
