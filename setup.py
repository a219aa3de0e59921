"""Build of the native extension; everything else is in pyproject.toml.

setuptools does not know Fortran, so each routine of fortran/ is compiled here,
once per instruction set (Fortran has no per-function targets), and its objects
are handed to the linker.
"""

import os
import platform
import shlex
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

# Loops only, no array expressions, no I/O: nothing here needs libgfortran at run time.
FFLAGS = ["-cpp", "-O3", "-std=f2018", "-fPIC", "-ffree-line-length-132", "-Wall", "-Wextra"]
X86_LEVELS = {"baseline": [], "avx2": ["-mavx2", "-mfma"], "avx512": ["-march=x86-64-v4"]}
LEVELS = X86_LEVELS if platform.machine().lower() in {"x86_64", "amd64"} else {"baseline": []}

NO_COMPILER = """
lapack_ai_backend needs a Fortran compiler to build, and {compiler!r} was not found.
Install GNU Fortran and try again:
    Debian, Ubuntu:  sudo apt-get install gfortran
    Fedora, RHEL:    sudo dnf install gcc-gfortran
    conda:           conda install -c conda-forge gfortran
or name another compiler in the environment variable FC."""


NO_SOURCES = """
lapack_ai_backend/cl must be a link to the folder cl, and is not: this copy of the project has lost its links
(archives unpacked by tools that know none). Unpack it with tar or unzip, or put a copy of cl there."""


class BuildExt(build_ext):
    def build_extension(self, ext):
        if not Path("lapack_ai_backend/cl/svd/reduction.cl").is_file():
            raise SystemExit(NO_SOURCES)
        compiler = shlex.split(os.environ.get("FC", "gfortran"))
        if shutil.which(compiler[0]) is None:
            raise SystemExit(NO_COMPILER.format(compiler=compiler[0]))
        routines = [source for source in ext.sources if source.endswith(".f90")]
        ext.sources = [source for source in ext.sources if source not in routines]
        for source in routines:
            for level, flags in LEVELS.items():
                target = Path(self.build_temp, f"{Path(source).stem}_{level}.o")
                target.parent.mkdir(parents=True, exist_ok=True)
                flags = [*FFLAGS, *flags, *shlex.split(os.environ.get("FFLAGS", "")), f"-DLEVEL={level}"]
                self.spawn([*compiler, *flags, "-J", str(target.parent), "-c", source, "-o", str(target)])
                ext.extra_objects.append(str(target))
        super().build_extension(ext)


setup(cffi_modules=["csrc/build_ffi.py:ffi"], cmdclass={"build_ext": BuildExt})
