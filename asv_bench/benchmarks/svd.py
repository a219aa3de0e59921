"""scipy.linalg.svd and svdvals: stock beside the OpenCL kernel, on an OpenCL CPU and on a GPU.

Stock has as many BLAS threads as are fastest for it: one at the small sizes of the CPU
device (128: 2 ms with one, 17 ms with two), every core beside a GPU.
"""

import functools
import os

import scipy.linalg
from threadpoolctl import threadpool_limits

import lapack_ai_backend as lapack_ai

from .common import RELATIVE, STOCK, check, random, relative_time, switch

KERNEL = "opencl_svd"
DTYPES = ["float64", "float32"]
CPU = [["cpu"], [128, 256], DTYPES]
GPU = [["gpu"], [512, 1024, 2048, 4096], DTYPES]


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


class _Ratio(_Svd):
    """Kernel over stock, one interleaved run."""

    def compare(self, function, device, n):
        call = functools.partial(getattr(scipy.linalg, function), self.a)
        rounds = 5 if n < 1024 else 3
        return relative_time(call, KERNEL, rounds, function=f"scipy.linalg.{function}", device=device)

    def track_svd(self, device, n, dtype):
        return self.compare("svd", device, n)

    def track_svdvals(self, device, n, dtype):
        return self.compare("svdvals", device, n)

    track_svd.unit = track_svdvals.unit = RELATIVE


class RatioCpu(_Ratio):
    """On an OpenCL CPU device."""

    params = CPU


class RatioGpu(_Ratio):
    """On a GPU."""

    params = GPU
