"""scipy.linalg.svd, svdvals and what else an OpenCL device computes, an OpenCL CPU or a GPU: stock beside the kernel.

Stock has as many BLAS threads as are fastest for it: one at the small sizes of the CPU
device (128: 2 ms with one, 17 ms with two), every core beside a GPU.
"""

import functools
import os

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

import lapack_ai_backend as lapack_ai

from .common import RELATIVE, STOCK, check, random, relative_time, switch

KERNEL = "opencl_svd"
DTYPES = ["float64", "float32"]
CPU = [["cpu"], [128, 256], DTYPES]
GPU = [["gpu"], [512, 1024, 2048, 4096], [*DTYPES, "complex128", "complex64"]]


class _Svd:
    """One call of SciPy; a machine without the device and a commit without the kernel have no value."""

    param_names = ["device", "n", "dtype"]
    timeout = 900  # stock's largest on few cores

    def setup(self, device, n, dtype):
        if KERNEL not in lapack_ai.kernels():
            raise NotImplementedError
        if device not in {each["kind"] for each in lapack_ai.info()["opencl"]["devices"]}:
            raise NotImplementedError
        if device == "gpu":
            self.threads = threadpool_limits(os.cpu_count(), "blas")
        self.a = random((n, n), dtype)

    def teardown(self, *parameters):
        switch(STOCK)
        if hasattr(self, "threads"):
            self.threads.restore_original_limits()


class _Compared(_Svd):
    """The implementation is the first parameter: asv's page opens with both."""

    param_names = ["impl", *_Svd.param_names]
    rounds = 1

    def setup(self, impl, device, n, dtype):
        super().setup(device, n, dtype)
        self.call = functools.partial(getattr(scipy.linalg, self.function), self.a)
        switch(impl, f"scipy.linalg.{self.function}", device=device)
        check(impl, self.call, f"scipy.linalg.{self.function}")  # the first call compiles the device's programs

    def time_call(self, *parameters):
        self.call()


class SvdCpu(_Compared):
    """Singular values and both sets of vectors."""

    function = "svd"
    params = [[STOCK, KERNEL], *CPU]


class SvdGpu(_Compared):
    """The same on a GPU."""

    function = "svd"
    params = [[STOCK, KERNEL], *GPU]


class SvdvalsCpu(_Compared):
    """Singular values alone."""

    function = "svdvals"
    params = [[STOCK, KERNEL], *CPU]


class SvdvalsGpu(_Compared):
    """The same on a GPU."""

    function = "svdvals"
    params = [[STOCK, KERNEL], *GPU]


class _Interleaved(_Svd):
    """Kernel over stock, one interleaved run."""

    def compare(self, function, name, device, *operands, kernel=KERNEL):
        rounds = 5 if len(self.a) < 1024 else 3
        return relative_time(functools.partial(function, *operands), kernel, rounds, function=name, device=device)


class _Ratio(_Interleaved):
    def track_svd(self, device, n, dtype):
        return self.compare(scipy.linalg.svd, "scipy.linalg.svd", device, self.a)

    def track_svdvals(self, device, n, dtype):
        return self.compare(scipy.linalg.svdvals, "scipy.linalg.svdvals", device, self.a)

    track_svd.unit = track_svdvals.unit = RELATIVE


class RatioCpu(_Ratio):
    """On an OpenCL CPU device."""

    params = CPU


class RatioGpu(_Ratio):
    """On a GPU."""

    params = GPU

    def track_numpy_svd(self, device, n, dtype):
        return self.compare(np.linalg.svd, "numpy.linalg.svd", device, self.a)

    def track_numpy_cond(self, device, n, dtype):
        return self.compare(np.linalg.cond, "numpy.linalg.cond", device, self.a)

    def track_lstsq(self, device, n, dtype):
        if dtype.startswith("complex"):
            raise NotImplementedError
        b = random((n, 3), dtype, 1)
        return self.compare(scipy.linalg.lstsq, "scipy.linalg.lstsq", device, self.a, b)

    track_numpy_svd.unit = track_numpy_cond.unit = track_lstsq.unit = RELATIVE


class ProductGpu(_Interleaved):
    """A @ B, arrays in and out, on a GPU."""

    params = [["gpu"], [1024, 2048, 3000, 4096, 8192], DTYPES]

    def track_matmul(self, device, n, dtype):
        b = random((n, n), dtype, 1)
        return self.compare(np.matmul, "numpy.matmul", device, self.a, b, kernel="opencl_gemm")

    track_matmul.unit = RELATIVE
