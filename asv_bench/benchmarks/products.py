"""numpy.matmul: single products, stacks, integer products; stock beside each kernel."""

from .common import RELATIVE, STOCK, check, random, relative_time, switch

FLOATS = ["float64", "float32", "complex128", "complex64"]
INTEGERS = ["int32", "int64"]


class _Compared:
    """``A @ B`` timed on stock or on a kernel, the last parameter; the route is asserted before."""

    def prepare(self, shape, dtype, impl):
        self.a, self.b = random(shape, dtype, 1), random(shape, dtype, 2)
        switch(impl)
        check(impl, lambda: self.a @ self.b)

    def teardown(self, *parameters):
        switch(STOCK)

    def time_matmul(self, *parameters):
        self.a @ self.b


class Single(_Compared):
    """``x @ y`` of two small arrays: the call's overhead is most of it."""

    params = [[2, 3, 4, 8], ["float64", "float32", "complex128"], [STOCK, "direct"]]
    param_names = ["n", "dtype", "impl"]

    def setup(self, n, dtype, impl):
        self.prepare((n, n), dtype, impl)


class Stack(_Compared):
    """``A @ B`` of stacks of 4x4 matrices."""

    params = [[2, 16, 1000, 100_000], FLOATS + INTEGERS, [STOCK, "alphatensor49", "direct"]]
    param_names = ["batch", "dtype", "impl"]

    def setup(self, batch, dtype, impl):
        self.prepare((batch, 4, 4), dtype, impl)


class StackRatio:
    """Kernel over stock for a stack of 1000 matrices, one interleaved run."""

    params = [[2, 3, 4, 5, 6, 7, 8], FLOATS + INTEGERS, ["direct", "alphatensor49"]]
    param_names = ["n", "dtype", "impl"]

    def setup(self, n, dtype, impl):
        if impl == "alphatensor49" and n != 4:
            raise NotImplementedError  # asv's way to say: does not apply
        self.a, self.b = random((1000, n, n), dtype, 1), random((1000, n, n), dtype, 2)

    def track_relative_time(self, n, dtype, impl):
        return relative_time(lambda: self.a @ self.b, impl)

    track_relative_time.unit = RELATIVE


class LargeStackRatio:
    """The same for stacks far larger than the caches: memory is the limit."""

    params = [FLOATS + INTEGERS, ["direct", "alphatensor49"]]
    param_names = ["dtype", "impl"]

    def setup(self, dtype, impl):
        self.a, self.b = random((400_000, 4, 4), dtype, 1), random((400_000, 4, 4), dtype, 2)

    def track_relative_time(self, dtype, impl):
        return relative_time(lambda: self.a @ self.b, impl, rounds=3)

    track_relative_time.unit = RELATIVE


class Integer(_Compared):
    """Exact 2-D integer products."""

    params = [[16, 64, 256, 512], INTEGERS, [STOCK, "integer"]]
    param_names = ["n", "dtype", "impl"]

    def setup(self, n, dtype, impl):
        self.prepare((n, n), dtype, impl)


class IntegerRatio:
    """Kernel over stock for 2-D integer products, one interleaved run."""

    params = [[4, 8, 16, 32, 64, 256, 512], INTEGERS]
    param_names = ["n", "dtype"]

    def setup(self, n, dtype):
        self.a, self.b = random((n, n), dtype, 1), random((n, n), dtype, 2)

    def track_relative_time(self, n, dtype):
        return relative_time(lambda: self.a @ self.b, "integer", rounds=3 if n > 256 else 9)

    track_relative_time.unit = RELATIVE


class Variant:
    """The Fortran variant dgemm_alpha against BLAS: a registered candidate, not routed."""

    params = [[64, 256, 512], ["float32", "float64"]]
    param_names = ["n", "dtype"]

    def setup(self, n, dtype):
        self.a, self.b = random((n, n), dtype, 1), random((n, n), dtype, 2)

    def track_relative_time(self, n, dtype):
        return relative_time(lambda: self.a @ self.b, "gemm_alpha", rounds=3)

    track_relative_time.unit = RELATIVE
