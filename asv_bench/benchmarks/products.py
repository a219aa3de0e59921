"""numpy.matmul: the Fortran variant, a registered candidate that is not routed."""

from .common import RELATIVE, random, relative_time


class Variant:
    """The Fortran variant dgemm_alpha against BLAS: a registered candidate, not routed."""

    params = [[64, 256, 512], ["float32", "float64"]]
    param_names = ["n", "dtype"]

    def setup(self, n, dtype):
        self.a, self.b = random((n, n), dtype, 1), random((n, n), dtype, 2)

    def track_relative_time(self, n, dtype):
        return relative_time(lambda: self.a @ self.b, "gemm_alpha", rounds=3)

    track_relative_time.unit = RELATIVE
