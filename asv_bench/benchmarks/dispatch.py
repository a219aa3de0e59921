"""What interception costs where the backend is off, and where it is on and declines."""

import timeit

import numpy as np
import scipy.linalg

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import interception

from .common import random, switch


def _best(call, number, repeat=7):
    return min(timeit.repeat(call, number=number, repeat=repeat)) / number * 1e9


def _difference(with_it, without, number, rounds=15):
    """Best time of one call minus best time of the other, in ns, alternating."""
    best_with = best_without = float("inf")
    for _ in range(rounds):
        best_with = min(best_with, _best(with_it, number, 1))
        best_without = min(best_without, _best(without, number, 1))
    return best_with - best_without


class Inactive:
    """Hooks in place, context inactive: the promise is <= 100 ns a scipy.linalg call, <= 40 ns an ``@``."""

    def setup(self):
        self.a = random((4, 4), "float64")

    def teardown(self):
        lapack_ai.disable()

    def track_matmul_overhead(self):
        """``@`` with the hooks in and the context off, minus ``@`` without hooks."""
        a, number = self.a, 20_000
        best = {"hooked": float("inf"), "stock": float("inf")}
        for _ in range(15):
            interception.install()
            best["hooked"] = min(best["hooked"], _best(lambda: a @ a, number, 1))
            lapack_ai.disable()
            best["stock"] = min(best["stock"], _best(lambda: a @ a, number, 1))
        return best["hooked"] - best["stock"]

    track_matmul_overhead.unit = "ns"

    def track_linalg_overhead(self):
        """A trampoline with svd's parameters before a function that does nothing, minus that function."""

        def nothing(
            a, full_matrices=True, compute_uv=True, overwrite_a=False, check_finite=True, lapack_driver="gesdd"
        ):
            return None

        def trampolined(
            a, full_matrices=True, compute_uv=True, overwrite_a=False, check_finite=True, lapack_driver="gesdd"
        ):
            return None

        trampolined.__code__ = interception._trampoline(trampolined.__code__, nothing, None)
        a = self.a
        return _difference(lambda: trampolined(a), lambda: nothing(a), 50_000)

    track_linalg_overhead.unit = "ns"

    def track_linalg_overhead_when_skipped(self):
        """The same inside ``skip_backend()``."""
        with lapack_ai.skip_backend():
            return self.track_linalg_overhead()

    track_linalg_overhead_when_skipped.unit = "ns"


class Never:
    """Enabled once and disabled again: nothing is left."""

    def track_code_is_stock(self):
        before = scipy.linalg.svd.__code__
        lapack_ai.enable()
        assert scipy.linalg.svd.__code__ is not before
        lapack_ai.disable()
        return int(scipy.linalg.svd.__code__ is before)


class Declined:
    """A call that stays stock, with the backend on and off."""

    params = [["off", "on"]]
    param_names = ["backend"]

    def setup(self, backend):
        self.a = random((4, 4), "float64")
        self.wide = random((3, 5), "float64")
        self.tall = np.ascontiguousarray(self.wide.T)
        lapack_ai.disable()
        if backend == "on":
            lapack_ai.enable(policy="static")

    def teardown(self, backend):
        lapack_ai.disable()

    def time_svd(self, backend):
        scipy.linalg.svd(self.a)

    def time_matmul(self, backend):
        self.wide @ self.tall


class DeclinedOverhead:
    """A scipy.linalg call without a rule: backend on minus backend off."""

    def teardown(self):
        lapack_ai.disable()

    def track_linalg_overhead(self):
        """Of the cheapest function there is to intercept; in microseconds."""
        a = np.eye(3)
        best = {True: float("inf"), False: float("inf")}
        for _ in range(15):
            for on in best:
                lapack_ai.enable() if on else lapack_ai.disable()
                best[on] = min(best[on], _best(lambda: scipy.linalg.bandwidth(a), 2000, 1))
        return (best[True] - best[False]) / 1e3

    track_linalg_overhead.unit = "us"


class Context:
    """Entering and leaving a context."""

    def setup(self):
        with lapack_ai.set_backend():
            pass

    def teardown(self):
        switch("stock")

    def time_set_backend(self):
        with lapack_ai.set_backend(lapack_ai):
            pass

    def time_explain(self):
        lapack_ai.explain(np.matmul, np.eye(4), np.eye(4))
