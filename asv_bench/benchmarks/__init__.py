"""Benchmarks of lapack_ai_backend; README.md beside this folder says what each file measures.

BLAS is pinned to one thread before NumPy loads it: the kernels of this version run
on one thread, and a pool's wake-up would be timed on small products.
"""

import os

for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
