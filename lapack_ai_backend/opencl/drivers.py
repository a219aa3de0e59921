"""Drivers that are installed and that OpenCL's loader does not know of.

The loader learns of a driver from a file ``/etc/OpenCL/vendors/*.icd``, whose text is the
name of the driver's library. In containers the library of a GPU's driver is often there
and that file is not: NVIDIA's container runtime mounts the one alone. What is missing then is
supplied for this process: the loader reads ``OCL_ICD_VENDORS`` once, at the first OpenCL call.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Driver:
    """A GPU driver: whose it is, its ICD file, and its library by the names under which it may be found."""

    vendor: str
    icd: str
    libraries: tuple[str, ...]


DRIVERS = (
    Driver("NVIDIA", "nvidia.icd", ("libnvidia-opencl.so.1",)),
    Driver("AMD", "amdocl64.icd", ("libamdocl64.so", "/opt/rocm/lib/libamdocl64.so")),
    Driver(
        "Intel",
        "intel.icd",
        (
            "libigdrcl.so",
            "/usr/lib/x86_64-linux-gnu/intel-opencl/libigdrcl.so",
            "/usr/lib64/intel-opencl/libigdrcl.so",
            "/usr/lib/intel-opencl/libigdrcl.so",
        ),
    ),
)

VENDORS = Path("/etc/OpenCL/vendors")
CONDA_LOADER, CONDA_VENDORS = Path(sys.prefix, "lib/libOpenCL.so.1"), Path(sys.prefix, "etc/OpenCL/vendors")

LIBRARY_CACHE = Path("/etc/ld.so.cache")  # paths, each ended by a zero byte

# With one of these the user says which drivers there are. OCL_ICD_FILENAMES is not among them: Khronos's loader
# alone reads it, adds its drivers to those of the folder, and takes none twice.
SETTINGS = ("OCL_ICD_VENDORS", "OPENCL_VENDOR_PATH")


@dataclass(frozen=True)
class Unknown:
    """A driver without an ICD file, and what became of it.

    Attributes
    ----------
    vendor, icd, library : str
        As in `Driver`; `library` is the name under which it loads.
    why_not : str
        Why the loader has not taken it; "" where it has.
    """

    vendor: str
    icd: str
    library: str
    why_not: str = ""


@contextmanager
def registered() -> Iterator[list[Unknown]]:
    """Around the first OpenCL call of the process: the loader finds the drivers without ICD files, too.

    The list that it yields is complete afterwards.
    """
    unknown = [each for each in without_icd() if not _is_loaded(each.library)]
    setting = next((name for name in SETTINGS if os.environ.get(name)), "")
    why = f"{setting} is set" if setting else "OpenCL was in use before in this process, or there is no such device"
    with ExitStack() as stack:
        if unknown and not setting:
            try:
                stack.enter_context(_vendors_with(unknown))
            except OSError as error:
                why = f"no temporary folder for ICD files: {error}"
        yield unknown
    loaded = [each for each in unknown if _is_loaded(each.library)]
    unknown[:] = ([] if setting else loaded) + [replace(each, why_not=why) for each in unknown if each not in loaded]


def without_icd() -> list[Unknown]:
    """The drivers of `DRIVERS` that are installed and that no ICD file names."""
    named = {_stem(path.read_text(encoding="utf-8", errors="replace").strip()) for path in _icd_files()}
    found = []
    for driver in DRIVERS:
        if named.isdisjoint(map(_stem, driver.libraries)):
            library = next(filter(_is_installed, driver.libraries), None)
            found += [Unknown(driver.vendor, driver.icd, library)] if library else []
    return found


@contextmanager
def _vendors_with(unknown: list[Unknown]) -> Iterator[None]:
    """OCL_ICD_VENDORS names a folder that has the existing ICD files and those of the unknown drivers."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="lapack-ai-icd-") as folder:
        for path in _icd_files():
            shutil.copy(path, folder)
        for each in unknown:
            Path(folder, each.icd).write_text(f"{each.library}\n", encoding="utf-8")
        os.environ["OCL_ICD_VENDORS"] = folder
        try:
            yield
        finally:
            del os.environ["OCL_ICD_VENDORS"]


def _icd_files() -> list[Path]:
    folder = CONDA_VENDORS if CONDA_LOADER.exists() else VENDORS
    return sorted(path for path in folder.glob("*.icd") if path.is_file() and os.access(path, os.R_OK))


def _stem(library: str) -> str:
    """A library's name without folder and version."""
    return Path(library).name.partition(".so")[0]


def _is_installed(library: str) -> bool:
    """Whether the dynamic loader would find a library; nothing is loaded to see that."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    if any(Path(folder, library).is_file() for folder in folders if folder or library.startswith("/")):
        return True
    return LIBRARY_CACHE.is_file() and f"/{library}\0".encode() in LIBRARY_CACHE.read_bytes()


def _is_loaded(library: str) -> bool:
    try:
        ctypes.CDLL(library, os.RTLD_LAZY | os.RTLD_NOLOAD)
    except OSError:
        return False
    return True
