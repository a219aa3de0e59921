"""numpy.matmul on stacks of small matrices: stock beside each kernel."""

import numpy as np

from lapack_ai_backend.native import lib

from .common import RELATIVE, STOCK, check, random, relative_time, switch

FLOATS = ["float64", "float32", "complex128", "complex64"]
INTEGERS = ["int64", "int32", "int16", "int8"]


class Stack:
    """``A @ B`` of stacks of 4x4 matrices, on stock or on a kernel; the route is asserted before."""

    params = [[2, 16, 1000, 100_000], FLOATS + INTEGERS, [STOCK, "alphatensor49", "direct"]]
    param_names = ["batch", "dtype", "impl"]

    def setup(self, batch, dtype, impl):
        _skip_without_kernel(dtype, impl)
        self.a, self.b = random((batch, 4, 4), dtype, 1), random((batch, 4, 4), dtype, 2)
        switch(impl)
        check(impl, lambda: self.a @ self.b)

    def teardown(self, *parameters):
        switch(STOCK)

    def time_matmul(self, *parameters):
        self.a @ self.b


class _OneThread:
    """Stacks of 4 MiB and more are shared between threads: one shows what the kernel itself gains."""

    def setup(self, *parameters):
        self.before = lib.lai_use_threads(1)

    def teardown(self, *parameters):
        lib.lai_use_threads(self.before)


class StackRatio(_OneThread):
    """Kernel over stock for a stack of 1000 n x n matrices on one thread, one interleaved run."""

    params = [[2, 3, 4, 5, 6, 7, 8, 12, 16], FLOATS + INTEGERS, ["direct", "alphatensor49"]]
    param_names = ["n", "dtype", "impl"]

    def setup(self, n, dtype, impl):
        super().setup()  # first: asv calls teardown for what is skipped, too
        _skip_without_kernel(dtype, impl, n)
        self.a, self.b = random((1000, n, n), dtype, 1), random((1000, n, n), dtype, 2)

    def track_relative_time(self, n, dtype, impl):
        return relative_time(lambda: self.a @ self.b, impl)

    track_relative_time.unit = RELATIVE


class ShapeRatio(_OneThread):
    """The same for matrices times vectors, rectangular matrices and other layouts; a few matrices, too."""

    CASES = {
        "4x4 @ 4x1": ((4, 4), (4, 1)),
        "8x8 @ 8x1": ((8, 8), (8, 1)),
        "16x16 @ 16x1": ((16, 16), (16, 1)),
        "1x8 @ 8x8": ((1, 8), (8, 8)),
        "3x4 @ 4x5": ((3, 4), (4, 5)),
        "16x4 @ 4x16": ((16, 4), (4, 16)),
        "4x16 @ 16x4": ((4, 16), (16, 4)),
        "4x4 @ transposed": ((4, 4), (4, 4)),
        "4x4 @ strided": ((4, 4), (4, 4)),
    }
    params = [list(CASES), ["float64", "float32", "complex128", "int64"], [4, 16, 1000]]
    param_names = ["shapes", "dtype", "batch"]

    def setup(self, shapes, dtype, batch):
        super().setup()
        left, right = self.CASES[shapes]
        self.a, self.b = random((batch, *left), dtype, 1), random((batch, *right), dtype, 2)
        if shapes.endswith("transposed"):
            self.b = self.b.swapaxes(1, 2)
        elif shapes.endswith("strided"):
            self.b = random((batch, 4, 8), dtype, 2)[:, :, ::2]

    def track_relative_time(self, shapes, dtype, batch):
        return relative_time(lambda: self.a @ self.b, "direct")

    def track_relative_time_linalg(self, shapes, dtype, batch):
        return relative_time(lambda: np.linalg.matmul(self.a, self.b), "direct")

    track_relative_time.unit = track_relative_time_linalg.unit = RELATIVE


class LargeStackRatio:
    """A million 4x4 matrices, far larger than the caches, on the machine's threads: memory is the limit."""

    params = [["float64", "float32", "complex128", "int64"], ["direct", "alphatensor49"], ["new", "out"]]
    param_names = ["dtype", "impl", "result"]

    def setup(self, dtype, impl, result):
        self.a, self.b = random((1_000_000, 4, 4), dtype, 1), random((1_000_000, 4, 4), dtype, 2)
        self.out = np.ones_like(self.a) if result == "out" else None

    def track_relative_time(self, dtype, impl, result):
        return relative_time(lambda: np.matmul(self.a, self.b, out=self.out), impl, rounds=3)

    track_relative_time.unit = RELATIVE


def _skip_without_kernel(dtype, impl, n=4):
    """asv's way to say that a combination does not apply."""
    if impl == "alphatensor49" and (n != 4 or dtype in ("int8", "int16")):
        raise NotImplementedError
