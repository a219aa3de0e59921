"""info() and kernels(): what is here, what is in force, and where each setting came from."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

from lapack_ai_backend import activation, environment, interception, native, options, tuned_rules, uarray_adapter
from lapack_ai_backend.opencl import devices, memory
from lapack_ai_backend.registry import FAILURES, KERNELS, Kernel


def kernels() -> dict[str, Kernel]:
    """The registered kernels by name: function, dtypes, error class and constant, where each runs."""
    return dict(KERNELS)


def info() -> dict[str, Any]:
    """Versions, CPU features, OpenCL devices, effective options and the source of each.

    Returns
    -------
    dict
        Plain data, ready for ``json.dumps``.
    """
    return {
        "versions": _versions(),
        "cpu": {
            "machine": platform.machine(),
            "instruction_set": native.isa(),
            "best_instruction_set": native.best_isa(),
            "threads": dict(zip(("value", "source"), native.threads(), strict=True)),
            "blas_threads": native.lib.lai_blas_threads() or "unknown",
            "overflow_matches_stock": {
                name: bool(native.lib.lai_overflow_matches(code))
                for name, code in native.DTYPES.items()
                if code <= native.lib.LAI_COMPLEX128
            }
            if interception.is_installed()
            else "checked when the backend is first switched on",
        },
        "opencl": _opencl(),
        "interception": {
            "installed": interception.is_installed(),
            "left_stock": dict(interception.left_stock),
            "broken_kernels": dict(FAILURES),
        },
        "tuned_table": tuned_rules.status(),
        "enabled": activation.PROCESS.options is not None,
        "active_here": activation.effective_options() is not None,
        "options": _options(),
        "process": {
            name: dict(zip(("value", "source"), environment.from_environment(variable), strict=True))
            for name, variable in environment.PROCESS_VARIABLES.items()
        },
    }


def _opencl() -> dict[str, Any]:
    return {
        "devices": [
            {**vars(device), "memory_limit": memory.device_limit(device), "use": devices.use(device)}
            for device in devices.found()
        ],
        "why_none": devices.why_none(),
        "drivers_without_icd_file": [vars(driver) for driver in devices.drivers_without_icd()],
        "host_memory_available": memory.host_available(),
    }


def _versions() -> dict[str, str]:
    import numpy
    import scipy

    found = {
        "lapack_ai_backend": metadata.version("lapack_ai_backend"),
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "uarray": uarray_adapter.version,
    }
    for name in ("pyopencl", "cffi"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _options() -> dict[str, dict[str, Any]]:
    """Each option's value here, and where it came from: context, enable(), a variable, or default."""
    here = activation.effective_options() or activation.base_options()
    values = options.as_dict(here)
    return {name: {"value": value, "source": here.sources.get(name, "default")} for name, value in values.items()}
