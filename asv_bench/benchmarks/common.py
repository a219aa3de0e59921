"""What the benchmarks share: data, the route's assertion, interleaved relative times."""

import timeit

import numpy as np

import lapack_ai_backend as lapack_ai

STOCK = "stock"
MATMUL = "numpy.matmul"
RELATIVE = "of stock's time"  # unit of `relative_time`


def random(shape, dtype, seed=1):
    """Dense data without zeros, one seed one array; never changed, only added to."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(1, 100, shape).astype(dtype)
    values = rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape)
    if dtype.kind == "c":
        values = values + 1j * rng.uniform(0.5, 2.0, shape)
    return values.astype(dtype)


def switch(impl, function=MATMUL, **options):
    """Switch to an implementation, "stock" or the name of a kernel of the function; asserted by `check`."""
    lapack_ai.disable()
    if impl != STOCK:
        lapack_ai.enable(force={function: impl}, **options)


def check(impl, call, function=MATMUL):
    """Raise unless `call` really ran on the implementation: a benchmark of the stock path is a failure."""
    lapack_ai.reset_stats()
    call()
    kernels = {kernel for name, kernel in lapack_ai.stats() if name == function}
    expected = set() if impl == STOCK else {impl}
    if kernels != expected:
        raise AssertionError(f"measured {kernels or STOCK}, not {impl}")


def relative_time(call, impl, rounds=9, function=MATMUL, **options):
    """Time of `impl` over time of stock, best of `rounds` that alternate between the two.

    Smaller is better, because asv takes every rise of a value for a regression. A round is
    20 ms in bursts of 1 ms: on a busy machine some bursts are never interrupted.
    """
    best = {STOCK: float("inf"), impl: float("inf")}
    for _ in range(rounds):
        for each in best:
            switch(each, function, **options)
            check(each, call, function)
            once = max(timeit.timeit(call, number=1), 1e-9)
            number = max(1, int(1e-3 / once))
            repeat = max(1, int(20e-3 / (number * once)))
            best[each] = min(best[each], min(timeit.repeat(call, number=number, repeat=repeat)) / number)
    lapack_ai.disable()
    return best[impl] / best[STOCK]
