"""One small product, ``x @ y``: almost all of its time is the way to the kernel and back."""

import timeit

import numpy as np

import lapack_ai_backend as lapack_ai

from .common import RELATIVE, STOCK, check, random, relative_time, switch

DTYPES = ["float64", "float32", "complex128", "complex64"]
SHAPES = {f"{n}x{n}": ((n, n), (n, n)) for n in range(2, 9)} | {"4x4@4": ((4, 4), (4,)), "4@4x4": ((4,), (4, 4))}
MANY = 10


def many(x, y):
    """Ten products, so that the call around them does not count."""
    for _ in range(MANY):
        x @ y


class Single:
    """``x @ y`` on stock and on a kernel; the route is asserted before."""

    params = [[2, 3, 4, 8], ["float64", "float32", "complex128"], [STOCK, "direct"]]
    param_names = ["n", "dtype", "impl"]

    def setup(self, n, dtype, impl):
        self.a, self.b = random((n, n), dtype, 1), random((n, n), dtype, 2)
        switch(impl)
        check(impl, lambda: self.a @ self.b)

    def teardown(self, *parameters):
        switch(STOCK)

    def time_matmul(self, *parameters):
        self.a @ self.b


class SingleRatio:
    """Kernel over stock, one interleaved run."""

    params = [list(SHAPES), DTYPES]
    param_names = ["shapes", "dtype"]

    def setup(self, shapes, dtype):
        self.x, self.y = (random(shape, dtype, seed) for seed, shape in enumerate(SHAPES[shapes], 1))

    def track_relative_time(self, shapes, dtype):
        return relative_time(lambda: many(self.x, self.y), "direct")

    track_relative_time.unit = RELATIVE


class Subclass(np.ndarray):
    """What the operator passes on by its type."""


def plain(*shape):
    return random(shape, "float64")


OTHER_PAIRS = {
    "20x20": lambda: (plain(20, 20), plain(20, 20)),
    "60x60": lambda: (plain(60, 60), plain(60, 60)),
    "vectors": lambda: (plain(4), plain(4)),
    "stack": lambda: (plain(2, 3, 20), plain(20, 3)),
    "int8": lambda: (random((4, 4), "int8"), random((4, 4), "int8")),
    "int and float": lambda: (random((20, 4), "int64"), plain(4, 4)),
    "float32 and float64": lambda: (random((20, 4), "float32"), plain(4, 4)),
    "object": lambda: (plain(4, 4).astype(object), plain(4, 4)),
    "list": lambda: (plain(20, 4), plain(4, 4).tolist()),
    "list on the left": lambda: (plain(20, 4).tolist(), plain(4, 4)),
    "subclass": lambda: (plain(20, 4), plain(4, 4).view(Subclass)),
    "subclass on the left": lambda: (plain(20, 4).view(Subclass), plain(4, 4)),
    "byte-swapped": lambda: (plain(20, 4).astype(">f8"), plain(4, 4)),
}


class OtherPairs:
    """Operands that are not taken, the backend on: nanoseconds over stock. The promise is 3 % or 40 ns."""

    params = [list(OTHER_PAIRS)]
    param_names = ["operands"]

    def setup(self, operands):
        self.x, self.y = OTHER_PAIRS[operands]()

    def teardown(self, operands):
        switch(STOCK)

    def track_overhead(self, operands):
        best = {True: float("inf"), False: float("inf")}
        for _ in range(40):
            for on in best:
                lapack_ai.enable() if on else lapack_ai.disable()
                best[on] = min(best[on], *timeit.repeat(lambda: many(self.x, self.y), number=1, repeat=60))
        return (best[True] - best[False]) / MANY * 1e9

    track_overhead.unit = "ns"
