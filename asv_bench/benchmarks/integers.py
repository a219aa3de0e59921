"""Exact integer products: stock beside the kernel `integer`, and the kernel's variants of instructions and threads."""

from lapack_ai_backend import native
from lapack_ai_backend.native import lib

from .common import RELATIVE, STOCK, check, random, relative_time, switch

DTYPES = ["int8", "int16", "int32", "int64"]
ALL = 0  # threads: those of the machine


class Integer:
    """``A @ B`` of square matrices; the route is asserted before."""

    params = [[16, 64, 256, 512], DTYPES, [STOCK, "integer"]]
    param_names = ["n", "dtype", "impl"]

    def setup(self, n, dtype, impl):
        self.a, self.b = random((n, n), dtype, 1), random((n, n), dtype, 2)
        switch(impl)
        check(impl, lambda: self.a @ self.b)

    def teardown(self, *parameters):
        switch(STOCK)

    def time_matmul(self, *parameters):
        self.a @ self.b


class IntegerRatio:
    """Kernel over stock, one interleaved run. At n = 1024 a product takes stock up to 4 seconds."""

    params = [[8, 16, 32, 64, 256, 512, 1024], DTYPES, [1, ALL]]
    param_names = ["n", "dtype", "threads"]
    timeout = 300

    def setup(self, n, dtype, threads):
        if threads != 1 and n < 256:
            raise NotImplementedError  # one thread anyway
        self.before = lib.lai_use_threads(threads)
        self.a, self.b = random((n, n), dtype, 1), random((n, n), dtype, 2)

    def teardown(self, *parameters):
        lib.lai_use_threads(self.before)

    def track_relative_time(self, n, dtype, threads):
        return relative_time(lambda: self.a @ self.b, "integer", rounds=9 if n <= 256 else 3 if n <= 512 else 1)

    track_relative_time.unit = RELATIVE


class IntegerShapeRatio:
    """The same for products with one or two short sides, and for transposes read in place."""

    params = [
        [(8, 256, 256), (256, 256, 8), (256, 8, 256), (8, 256, 8), (1, 256, 256), (256, 256, 1), (100, 100, 100)],
        [False, True],
        DTYPES,
    ]
    param_names = ["shape", "transposed", "dtype"]

    def setup(self, shape, transposed, dtype):
        m, k, n = shape
        self.a, self.b = random((m, k), dtype, 1), random((k, n), dtype, 2)
        if transposed:
            self.a, self.b = self.a.T.copy().T, self.b.T.copy().T

    def track_relative_time(self, *parameters):
        return relative_time(lambda: self.a @ self.b, "integer", rounds=3)

    track_relative_time.unit = RELATIVE


class IntegerIsaRatio:
    """The same, n = 1024 on one thread, by the instructions that other CPUs have."""

    params = [["baseline", "avx2", "avx512", "avx512 with IFMA and VNNI"], DTYPES]
    param_names = ["instructions", "dtype"]
    timeout = 300

    def setup(self, instructions, dtype):
        self.before = native.isa(), lib.lai_has_vnni(), lib.lai_use_threads(1)
        self.a, self.b = random((1024, 1024), dtype, 1), random((1024, 1024), dtype, 2)
        switch("integer")  # hooks numpy.matmul, which the level is set for
        switch(STOCK)
        if not native.use_isa(instructions.split()[0]) or lib.lai_use_vnni("VNNI" in instructions) != 0:
            raise NotImplementedError  # this CPU lacks them

    def teardown(self, *parameters):
        isa, vnni, threads = self.before
        native.use_isa(isa)
        lib.lai_use_vnni(vnni)
        lib.lai_use_threads(threads)

    def track_relative_time(self, *parameters):
        return relative_time(lambda: self.a @ self.b, "integer", rounds=1)

    track_relative_time.unit = RELATIVE
