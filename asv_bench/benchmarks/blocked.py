"""numpy.matmul: large float and complex products, `alphatensor49_blocked` beside BLAS on all threads."""

import os
import subprocess
import sys
import time

import numpy as np
from threadpoolctl import threadpool_limits

import lapack_ai_backend as lapack_ai
from lapack_ai_backend.native import lib

from .common import MATMUL, RELATIVE, STOCK, check, random

KERNEL = "alphatensor49_blocked"
ROUNDS = 3
BLAS_COMES_TO_REST = 0.3  # seconds; for about a tenth of one, OpenBLAS's threads wait for work on the CPUs

COLD = """
import sys, time
import numpy as np
import lapack_ai_backend as lapack_ai
n, kernel = int(sys.argv[1]), sys.argv[2]
a, b = np.random.default_rng(1).uniform(0.5, 2.0, (2, n, n))
with lapack_ai.set_backend(force={"numpy.matmul": kernel}), lapack_ai.trace() as t:
    start = time.perf_counter()
    a @ b
    seconds = time.perf_counter() - start
assert [each.kernel for each in t.decisions] == [kernel], t.decisions
print(seconds)
"""


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class BlockedRatio:
    """Kernel over stock for m x k times k x n, everything warm, alternating; BLAS and the kernel on all CPUs."""

    timeout = 600
    params = [
        [(3072,) * 3, (4096,) * 3, (6144,) * 3, (8192,) * 3, (4096, 1024, 4096), (8192, 4096, 4096)],
        ["float64", "float32", "complex128", "complex64"],
    ]
    param_names = ["size", "dtype"]

    def setup(self, size, dtype):
        m, k, n = size
        if dtype == "complex128" and m * k * n > 4096**3:
            raise NotImplementedError  # half a minute a round
        self.a, self.b = random((m, k), dtype, 1), random((k, n), dtype, 2)
        self.c = np.empty((m, n), dtype)

    def track_relative_time(self, size, dtype):
        def call():
            np.matmul(self.a, self.b, out=self.c)

        best = {STOCK: float("inf"), KERNEL: float("inf")}
        before = lib.lai_use_threads(0)
        with threadpool_limits(lib.lai_num_threads(), user_api="blas"), lapack_ai.set_backend(force={MATMUL: KERNEL}):
            check(KERNEL, call, MATMUL)  # leaves the workspace that later products find
            for _ in range(ROUNDS):
                best[KERNEL] = min(best[KERNEL], _seconds(call))
                with lapack_ai.skip_backend():
                    best[STOCK] = min(best[STOCK], _seconds(call))
                time.sleep(BLAS_COMES_TO_REST)
        lapack_ai.disable()
        lib.lai_use_threads(before)
        return best[KERNEL] / best[STOCK]

    track_relative_time.unit = RELATIVE


class ColdRatio:
    """The same for the first product of a process: the kernel's workspace is mapped inside."""

    timeout = 600
    params = [4096, 6144]
    param_names = ["n"]

    def track_relative_time(self, n):
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}

        def first(kernel):
            command = [sys.executable, "-P", "-c", COLD, str(n), kernel]
            return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

        best = {STOCK: float("inf"), KERNEL: float("inf")}
        for _ in range(ROUNDS):
            for each in best:
                best[each] = min(best[each], first(each))
        return best[KERNEL] / best[STOCK]

    track_relative_time.unit = RELATIVE
