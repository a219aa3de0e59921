"""A kernel that fails never fails the call: stock's result, one log line, a count, a circuit breaker."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
from temporary_kernels import NAME, RULE, temporary_kernel

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import interception, registry
from lapack_ai_backend.errors import Decline
from lapack_ai_backend.native import lib
from lapack_ai_backend.reasons import TEXTS

A = np.array([[2.0, 1.0], [1.0, 3.0]])
STACK = np.arange(1.0, 97.0).reshape(6, 4, 4)
FUNCTION = "scipy.linalg.det"
ANSWER = 42.0


def answers(a: Any, *args: Any, **kwargs: Any) -> Any:
    return ANSWER


def declines(a: Any, *args: Any, **kwargs: Any) -> Any:
    return NotImplemented


class Failing:
    """Raises, and says how often it was called."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.calls = error, 0

    def __call__(self, a: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        raise self.error


def traced() -> Any:
    with lapack_ai.trace() as t:
        result = sl.det(A)
    (decision,) = t.decisions
    return result, decision


def test_kernel_that_works() -> None:
    with temporary_kernel(FUNCTION, answers), lapack_ai.set_backend():
        told = lapack_ai.explain(sl.det, A)
        result, decision = traced()
        assert result == ANSWER
        assert (decision.kernel, decision.reason_code, decision.rule) == (NAME, "routed", RULE)
        assert (told.kernel, told.reason_code, told.rule) == (NAME, "routed", RULE)
        assert decision.reason == "a test wants it"
        assert sl.det(A.tolist()) == interception.STOCK["scipy.linalg.det"](A), "no plain array: stock"
        assert sl.det(np.ma.masked_array(A)) == interception.STOCK["scipy.linalg.det"](A)
        assert lapack_ai.stats()[FUNCTION, NAME].calls == 1
    assert sl.det(A) == interception.STOCK["scipy.linalg.det"](A)


def test_kernel_gets_the_arguments_as_scipy_would() -> None:
    seen: list[Any] = []

    def note(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return interception.STOCK["scipy.linalg.svd"](*args, **kwargs)

    with temporary_kernel("scipy.linalg.svd", note), lapack_ai.set_backend():
        for call in (
            lambda: sl.svd(A, full_matrices=False),
            lambda: sl.svd(a=A, compute_uv=True),
            lambda: sl.svd(full_matrices=True, a=A),
        ):
            np.testing.assert_array_equal(call()[1], interception.STOCK["scipy.linalg.svd"](A)[1])
    assert len(seen) == 3
    assert all(A is args[0] if args else A is kwargs["a"] for args, kwargs in seen)


def test_explain_agrees_on_keywords_in_any_order() -> None:
    with temporary_kernel("scipy.linalg.svd", declines), lapack_ai.set_backend(), lapack_ai.trace() as t:
        told = lapack_ai.explain(sl.svd, full_matrices=False, a=A)
        sl.svd(full_matrices=False, a=A)
    assert told.kernel == NAME
    assert t.decisions[0].reason_code == "kernel_declined"


def test_kernel_that_declines() -> None:
    stock = sl.det(A)
    with temporary_kernel(FUNCTION, declines), lapack_ai.set_backend():
        for _ in range(5):
            result, decision = traced()
            assert result == stock
            assert (decision.kernel, decision.reason_code) == ("stock", "kernel_declined")
    assert lapack_ai.stats()[FUNCTION, "stock"].fallbacks == {"kernel_declined": 5}
    assert registry.FAILURES == {}, "declining is no failure"


@pytest.mark.parametrize("error", [RuntimeError("lost"), ValueError("bad"), NotImplementedError(), KeyError("k")])
def test_kernel_that_raises(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    stock, kernel = sl.det(A), Failing(error)
    before = A.copy()
    with (
        temporary_kernel(FUNCTION, kernel),
        lapack_ai.set_backend(),
        caplog.at_level(logging.DEBUG, "lapack_ai_backend"),
    ):
        result, decision = traced()
    assert result == stock
    assert (decision.kernel, decision.reason_code) == ("stock", "kernel_failed")
    np.testing.assert_array_equal(A, before)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert NAME in line
    assert repr(error) in line
    assert lapack_ai.stats()[FUNCTION, "stock"].fallbacks == {"kernel_failed": 1}
    assert lapack_ai.stats()[FUNCTION, "stock"].calls == 1


@pytest.mark.parametrize("error", [MemoryError(), Decline("memory", "needs more")])
def test_short_of_memory_is_no_failure_of_the_kernel(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """It may pass: logged and counted, but the kernel stays on."""
    with temporary_kernel(FUNCTION, Failing(error)), lapack_ai.set_backend():
        assert [traced()[1].reason_code for _ in range(5)] == ["memory"] * 5
    assert registry.FAILURES == {}
    assert lapack_ai.stats()[FUNCTION, "stock"].fallbacks == {"memory": 5}
    assert len(caplog.records) == 5


def test_circuit_breaker(caplog: pytest.LogCaptureFixture) -> None:
    stock, kernel = sl.det(A), Failing(RuntimeError("lost"))
    with temporary_kernel(FUNCTION, kernel), lapack_ai.set_backend():
        codes = []
        for _ in range(6):
            result, decision = traced()
            assert result == stock
            assert decision.kernel == "stock"
            codes.append(decision.reason_code)
        assert codes == ["kernel_failed"] * 3 + ["broken"] * 3
        assert kernel.calls == 3
        told = lapack_ai.explain(sl.det, A)
        assert (told.kernel, told.reason_code) == ("stock", "broken")
    assert lapack_ai.info()["interception"]["broken_kernels"] == {NAME: 3}
    assert lapack_ai.stats()[FUNCTION, "stock"].fallbacks == {"kernel_failed": 3, "broken": 3}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert ["switched off" in line for line in lines] == [False, False, True]


def test_candidates_know_of_a_broken_kernel() -> None:
    with temporary_kernel(FUNCTION, Failing(RuntimeError("lost"))), lapack_ai.set_backend():
        for _ in range(3):
            sl.det(A)
        (candidate,) = lapack_ai.explain(sl.det, A).candidates
    assert (candidate.allowed, candidate.why_not) == (False, TEXTS["broken"])


def test_strict_raises() -> None:
    cause = RuntimeError("lost")
    with temporary_kernel(FUNCTION, Failing(cause)), lapack_ai.set_backend(strict=True):
        for _ in range(5):
            with pytest.raises(lapack_ai.KernelError, match=f"{NAME} failed: lost") as caught:
                sl.det(A)
            assert caught.value.__cause__ is cause
    assert sl.det(A) == interception.STOCK["scipy.linalg.det"](A)


def test_strict_call_is_recorded() -> None:
    with temporary_kernel(FUNCTION, Failing(RuntimeError("lost"))), lapack_ai.set_backend(strict=True):
        with lapack_ai.trace() as t, pytest.raises(lapack_ai.KernelError):
            sl.det(A)
        assert [each.reason_code for each in t.decisions] == ["kernel_failed"]


def test_strict_leaves_declining_alone() -> None:
    with temporary_kernel(FUNCTION, declines), lapack_ai.set_backend(strict=True):
        assert sl.det(A) == interception.STOCK["scipy.linalg.det"](A)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_failure_of_the_kernel(error: type[BaseException]) -> None:
    with temporary_kernel(FUNCTION, Failing(error())), lapack_ai.set_backend(), pytest.raises(error):
        sl.det(A)
    assert registry.FAILURES == {}


def test_stock_error_after_a_failure_is_stocks_alone() -> None:
    """The kernel's own error must not show up as the context of SciPy's."""
    with temporary_kernel(FUNCTION, Failing(RuntimeError("lost"))), lapack_ai.set_backend():
        with pytest.raises(ValueError) as caught:
            sl.det(np.ones((2, 3)))
    assert caught.value.__context__ is None


def test_kernel_that_calls_other_functions_keeps_call_order() -> None:
    """A kernel may call routed functions; the outer call comes first in the trace, as it was called first."""

    def nested(a: Any, *args: Any, **kwargs: Any) -> Any:
        return sl.lu_factor(a)[0][0, 0]

    with temporary_kernel(FUNCTION, nested), lapack_ai.set_backend(), lapack_ai.trace() as t:
        sl.det(A)
    assert [each.function for each in t.decisions] == [FUNCTION, "scipy.linalg.lu_factor"]


def test_kernel_that_calls_its_own_function_ends() -> None:
    """Its inner call is asked again, and may go to stock by its own size."""

    def halving(a: Any, *args: Any, **kwargs: Any) -> Any:
        return sl.det(a[:-1, :-1]) if len(a) > 2 else NotImplemented

    with temporary_kernel(FUNCTION, halving), lapack_ai.set_backend():
        assert sl.det(np.diag([1.0, 2.0, 3.0, 4.0])) == 2.0


def test_disabled_function_keeps_its_kernel_out() -> None:
    with temporary_kernel(FUNCTION, answers), lapack_ai.set_backend(disable=["det"]):
        result, decision = traced()
    assert result == interception.STOCK["scipy.linalg.det"](A)
    assert decision.reason_code == "disabled"


def test_two_options_two_tables() -> None:
    with temporary_kernel(FUNCTION, answers):
        with lapack_ai.set_backend(force={"det": "stock"}):
            assert sl.det(A) == interception.STOCK["scipy.linalg.det"](A)
            with lapack_ai.set_backend(force={"det": NAME}):
                assert sl.det(A) == ANSWER


def test_product_without_memory_is_stocks() -> None:
    """Kernels that need workspace find none: the stock loop runs, and the decision says so."""
    a = np.arange(64 * 64).reshape(64, 64)
    wanted = a @ a
    lib.lai_fail_allocations(1)
    try:
        with lapack_ai.set_backend(), lapack_ai.trace() as t:
            np.testing.assert_array_equal(a @ a, wanted)
            told = [(each.kernel, each.reason_code) for each in t.decisions]
    finally:
        lib.lai_fail_allocations(0)
    assert told == [("stock", "memory")]
    assert lapack_ai.stats()["numpy.matmul", "stock"].fallbacks == {"memory": 1}
