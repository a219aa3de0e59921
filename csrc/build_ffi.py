"""The cffi extension ``lapack_ai_backend._native``: csrc/ and fortran/ in one module.

setup.py runs this file; it is not part of the installed package.
"""

from pathlib import Path

import numpy
from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
HEADER = "csrc/include/lapack_ai.h"

# Straight-line kernels want -O3. Contraction (a*b+c in one rounding) is GCC's own default and
# part of the kernels' accuracy statement, so it is said aloud.
CFLAGS = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-Wall", "-Wextra"]


def files(*suffixes: str) -> list[str]:
    """Native files with these endings, as setuptools wants them: relative to the project."""
    found = (path for folder in ("csrc", "fortran") for path in (ROOT / folder).rglob("*"))
    return sorted(str(path.relative_to(ROOT)) for path in found if path.suffix in suffixes)


ffi = FFI()
ffi.cdef((ROOT / HEADER).read_text(encoding="utf-8"))
# lai_device_functions, as lapack_ai_backend/backend.py defines them.
ffi.cdef("""
extern "Python" int lai_python_serves(const lai_table *table, int kernel, int dtype);
extern "Python" int lai_python_multiply(const lai_table *table, int dtype, const lai_product *product);
""")
ffi.set_source(
    "lapack_ai_backend._native",
    '#include "native.h"',
    sources=files(".c", ".f90"),
    depends=files(".h", ".inc", ".map"),
    include_dirs=["csrc", "csrc/include", numpy.get_include()],
    # The matmul hook uses NumPy's C API, which the limited API does not cover.
    define_macros=[("_CFFI_NO_LIMITED_API", None)],
    extra_compile_args=CFLAGS,
    extra_link_args=["-Wl,--version-script=csrc/exports.map"],
    py_limited_api=False,
)
