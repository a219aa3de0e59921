"""uarray's own switches work on this module, and its other backends keep their place in the order.

These tests run on the uarray that SciPy has: its own copy, or the standalone package where
that is installed. The stress test runs on both.
"""

from __future__ import annotations

import asyncio
import importlib.util
import pickle
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest
import scipy.fft
import scipy.linalg as sl
from scipy._lib import uarray as scipys_uarray
from scripts import passes

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import interception
from lapack_ai_backend.multimethods import DOMAIN

ON, OFF = ("scipy.linalg.det", "numpy.matmul"), ()
STACK = np.arange(1.0, 97.0).reshape(6, 4, 4)
ANSWER = object()

pytestmark = pytest.mark.filterwarnings("ignore:uarray.* is deprecated:DeprecationWarning")


@pytest.fixture
def uarray() -> Iterator[Any]:
    """uarray, with private global and registered backends."""
    module: Any = sys.modules[scipys_uarray.set_backend.__module__]
    with module.reset_state():
        yield module


class Foreign:
    """A backend that takes `det`, declines everything else, and notes what it was asked."""

    __ua_domain__ = DOMAIN

    def __init__(self, name: str, asked: list[tuple[str, str]], takes: bool = True) -> None:
        self.name, self.asked, self.takes = name, asked, takes

    def __ua_function__(self, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.asked.append((self.name, method.__name__))
        return ANSWER if self.takes and method.__name__ == "det" else NotImplemented


def reached() -> tuple[str, ...]:
    """Functions that reach our backend here."""
    with lapack_ai.trace() as t:
        sl.det(STACK[0])
        STACK @ STACK
    return tuple(each.function for each in t.decisions if each.active)


def counted() -> set[str]:
    """Functions that our counters have seen."""
    return {function for function, _ in lapack_ai.stats()}


# ---- uarray's switches on this module -----------------------------------------------------------


def test_set_backend(uarray: Any) -> None:
    with uarray.set_backend(lapack_ai):
        assert reached() == ON
        with uarray.set_backend(lapack_ai), lapack_ai.set_backend():
            assert reached() == ON
        assert reached() == ON
    assert reached() == OFF


@pytest.mark.parametrize("flags", [{"only": True}, {"coerce": True}, {"coerce": True, "only": True}])
def test_set_backend_only_and_coerce(uarray: Any, flags: dict[str, bool]) -> None:
    asked: list[tuple[str, str]] = []
    with uarray.set_backend(Foreign("outer", asked)), uarray.set_backend(lapack_ai, **flags):
        assert reached() == ON
        assert asked == [], "coerce implies only: the search ends with us"
        assert sl.det(np.eye(3)) == 1.0
    assert reached() == OFF


def test_set_backend_without_only_asks_on(uarray: Any) -> None:
    asked: list[tuple[str, str]] = []
    with uarray.set_backend(Foreign("outer", asked)), uarray.set_backend(lapack_ai):
        assert sl.det(np.eye(3)) is ANSWER, "we have no kernel, the outer backend has"
    assert asked == [("outer", "det")]


def test_set_backend_is_the_first_switch() -> None:
    """Nothing has touched the interception before uarray takes the module."""
    for switch in (
        "set_backend(lapack_ai).__enter__()",
        "register_backend(lapack_ai)",
        "set_global_backend(lapack_ai)",
    ):
        passes(
            f"""
            import numpy as np, scipy.linalg as sl
            from scipy._lib import uarray
            import lapack_ai_backend as lapack_ai
            uarray.{switch}
            sl.det(np.eye(3))
            assert list(lapack_ai.stats()) == [("scipy.linalg.det", "stock")], lapack_ai.stats()
            """,
            "-W",
            "ignore::DeprecationWarning",
        )


def test_skip_backend(uarray: Any) -> None:
    with lapack_ai.set_backend():
        with uarray.skip_backend(lapack_ai):
            assert reached() == OFF
        assert reached() == ON
    lapack_ai.enable()
    with uarray.skip_backend(lapack_ai):
        assert reached() == OFF


def test_register_backend(uarray: Any) -> None:
    uarray.register_backend(lapack_ai)
    sl.det(STACK[0])
    sl.pinv(STACK[0])
    assert {"scipy.linalg.det", "scipy.linalg.pinv", "scipy.linalg.svd"} <= counted()
    lapack_ai.reset_stats()
    STACK @ STACK
    assert counted() == set(), "`@` needs a context or enable()"
    np.testing.assert_allclose(lapack_ai.matmul(STACK, STACK), STACK @ STACK, rtol=1e-13)
    assert counted() == {"numpy.matmul"}
    lapack_ai.reset_stats()
    with lapack_ai.skip_backend():
        sl.det(STACK[0])
        lapack_ai.matmul(STACK, STACK)
    assert counted() == set()
    with lapack_ai.set_backend(accuracy="componentwise"):
        assert reached() == ON


def test_set_global_backend(uarray: Any) -> None:
    uarray.set_global_backend(lapack_ai)
    sl.det(STACK[0])
    lapack_ai.matmul(STACK, STACK)
    assert counted() == {"scipy.linalg.det", "numpy.matmul"}


def test_explain_knows_of_a_registration(uarray: Any) -> None:
    assert not lapack_ai.explain(sl.det, STACK[0]).active
    uarray.register_backend(lapack_ai)
    assert lapack_ai.explain(sl.det, STACK[0]).active
    assert not lapack_ai.explain(np.matmul, STACK, STACK).active


def test_registered_twice_and_set_asks_once(uarray: Any) -> None:
    uarray.register_backend(lapack_ai)
    uarray.set_global_backend(lapack_ai)
    with uarray.set_backend(lapack_ai), lapack_ai.set_backend():
        sl.det(STACK[0])
    assert lapack_ai.stats()["scipy.linalg.det", "stock"].calls == 1


def test_disable_ends_a_registration_for_us(uarray: Any) -> None:
    uarray.register_backend(lapack_ai)
    lapack_ai.disable()
    assert not interception.is_installed()
    sl.det(STACK[0])
    assert counted() == set()


def test_reset_state_inside_a_context(uarray: Any) -> None:
    """uarray forgets its stack inside; leaving must not raise, least of all SystemExit."""
    context = lapack_ai.set_backend()
    context.__enter__()
    with uarray.set_state(uarray.get_state()):
        assert reached() == ON
    uarray.clear_backends(DOMAIN)
    assert reached() == ON
    with uarray.reset_state():
        context.__exit__(None, None, None)
    assert reached() == OFF


def test_exits_out_of_order_of_different_kinds(uarray: Any) -> None:
    """uarray complains when its stack holds something else than what is left; ours says nothing."""
    kinds = [
        uarray.set_backend(lapack_ai, only=True),
        lapack_ai.set_backend(),
        uarray.set_backend(lapack_ai, coerce=True),
    ]
    for context in kinds:
        context.__enter__()
    for context in kinds:
        assert reached() == ON
        context.__exit__(None, None, None)
    assert reached() == OFF


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_state_pickles(uarray: Any, module: Any) -> None:
    if uarray.__name__.startswith("scipy"):
        pytest.skip("SciPy's own copy of uarray cannot pickle its states")
    uarray.register_backend(lapack_ai)
    with uarray.set_backend(lapack_ai):
        data = module.dumps(uarray.get_state())
    with uarray.set_state(pickle.loads(data)):
        sl.det(STACK[0])
    assert "scipy.linalg.det" in counted()


def test_interleaved_tasks_under_uarrays_switch(uarray: Any) -> None:
    async def task(inside: bool, steps: int) -> list[tuple[str, ...]]:
        seen = []
        if not inside:
            for _ in range(steps):
                seen.append(reached())
                await asyncio.sleep(0)
            return seen
        with uarray.set_backend(lapack_ai):
            for _ in range(steps):
                seen.append(reached())
                await asyncio.sleep(0)
        return seen

    async def main() -> None:
        kinds = [(True, 6), (False, 9), (True, 2), (True, 4)]
        results = await asyncio.gather(*(task(*kind) for kind in kinds))
        for (inside, steps), seen in zip(kinds, results, strict=True):
            assert seen == [ON if inside else OFF] * steps

    asyncio.run(main())


# ---- other backends beside ours ------------------------------------------------------------------


def test_order_of_backends(uarray: Any) -> None:
    """Innermost first, then ours, then outwards, then registered ones: as uarray says."""
    asked: list[tuple[str, str]] = []
    uarray.register_backend(Foreign("registered", asked, takes=False))
    with (
        uarray.set_backend(Foreign("outer", asked, takes=False)),
        lapack_ai.set_backend(),
        lapack_ai.trace() as t,
        uarray.set_backend(Foreign("inner", asked, takes=False)),
    ):
        assert sl.det(np.eye(2)) == 1.0
    assert [name for name, _ in asked] == ["inner", "outer", "registered"]
    assert [each.function for each in t.decisions] == ["scipy.linalg.det"]


def test_inner_backend_takes_the_call(uarray: Any) -> None:
    asked: list[tuple[str, str]] = []
    with lapack_ai.set_backend(), lapack_ai.trace() as t, uarray.set_backend(Foreign("inner", asked)):
        assert sl.det(np.eye(2)) is ANSWER
        assert sl.inv(np.eye(2)).shape == (2, 2)
    assert [each.function for each in t.decisions] == ["scipy.linalg.inv"]


def test_backend_with_convert(uarray: Any) -> None:
    """A backend that wants converted arrays gets them, and declines back to us."""
    seen: list[Any] = []

    class Converting(Foreign):
        def __ua_convert__(self, dispatchables: Any, coerce: bool) -> Any:
            seen.extend(each.value for each in dispatchables)
            return [each.value for each in dispatchables]

    a = np.eye(3)
    with lapack_ai.set_backend(), uarray.set_backend(Converting("inner", [], takes=False)):
        assert sl.det(a) == 1.0
        sl.solve(a, b=np.ones(3), assume_a="sym")
        assert sl.block_diag(a, a).shape == (6, 6)
        sl.cho_solve((a, False), np.ones(3))
    assert seen[0] is a
    assert len(seen) == 1 + 2 + 2 + 2


def test_error_of_a_backend_is_its_own(uarray: Any) -> None:
    class Broken(Foreign):
        def __ua_function__(self, method: Any, args: Any, kwargs: Any) -> Any:
            raise KeyError("theirs")

    with lapack_ai.set_backend(), uarray.set_backend(Broken("inner", [])), pytest.raises(KeyError, match="theirs"):
        sl.det(np.eye(2))


def test_backend_that_raises_to_decline(uarray: Any) -> None:
    class Declining(Foreign):
        def __ua_function__(self, method: Any, args: Any, kwargs: Any) -> Any:
            raise uarray.BackendNotImplementedError("not mine")

    with lapack_ai.set_backend(), lapack_ai.trace() as t, uarray.set_backend(Declining("inner", [])):
        assert sl.det(np.eye(2)) == 1.0
    assert len(t.decisions) == 1


def test_foreign_backends_see_nothing_where_we_are_off(uarray: Any) -> None:
    asked: list[tuple[str, str]] = []
    with lapack_ai.set_backend():
        pass
    with uarray.set_backend(Foreign("alone", asked)):
        assert sl.det(np.eye(2)) == 1.0
    assert asked == []


def test_matmul_multimethod_asks_every_backend_and_operator_only_us(uarray: Any) -> None:
    asked: list[tuple[str, str]] = []
    with lapack_ai.set_backend(), uarray.set_backend(Foreign("inner", asked, takes=False)), lapack_ai.trace() as t:
        lapack_ai.matmul(STACK, STACK)
        STACK @ STACK
    assert asked == [("inner", "matmul")]
    assert [each.kernel for each in t.decisions] == ["alphatensor49"] * 2


def test_matmul_multimethod_is_numpys() -> None:
    out = np.empty_like(STACK)
    assert lapack_ai.matmul(STACK, STACK, out=out) is out
    np.testing.assert_array_equal(lapack_ai.matmul(STACK, STACK), STACK @ STACK)
    np.testing.assert_array_equal(lapack_ai.matmul(STACK, STACK, dtype="f4"), np.matmul(STACK, STACK, dtype="f4"))
    with pytest.raises(ValueError) as ours:
        lapack_ai.matmul(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError) as theirs:
        np.matmul(np.ones((2, 3)), np.ones((2, 3)))
    assert str(ours.value) == str(theirs.value)
    assert pickle.loads(pickle.dumps(lapack_ai.matmul)) is lapack_ai.matmul


# ---- scipy.fft keeps its backends -------------------------------------------------------------------


def test_scipy_fft_is_unaffected() -> None:
    calls: list[str] = []

    class Transforms:
        __ua_domain__ = "numpy.scipy.fft"

        @staticmethod
        def __ua_function__(method: Any, args: Any, kwargs: Any) -> Any:
            calls.append(method.__name__)
            return NotImplemented

    x = np.arange(4.0)
    stock = scipy.fft.fft(x)
    with lapack_ai.set_backend(), scipy.fft.set_backend(Transforms), lapack_ai.set_backend():
        np.testing.assert_array_equal(scipy.fft.fft(x), stock)
        sl.det(np.eye(2))
    assert calls == ["fft"]
    with lapack_ai.set_backend():
        np.testing.assert_array_equal(scipy.fft.fft(x), stock)
    assert calls == ["fft"]


def test_scipy_fft_refuses_this_backend() -> None:
    with pytest.raises(ValueError, match="does not implement"):
        scipy.fft.set_backend(lapack_ai)


# ---- warnings, threads --------------------------------------------------------------------------


def test_our_own_switch_warns_never(uarray: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lapack_ai.set_backend(lapack_ai), lapack_ai.skip_backend():
            sl.det(np.eye(2))
        lapack_ai.enable()
        sl.det(np.eye(2))
        lapack_ai.disable()


STRESS = """
import sys
if {own!r} == "own copy":
    sys.modules["uarray"] = None    # as if it were not installed
from concurrent.futures import ThreadPoolExecutor
import numpy as np, scipy.linalg as sl
from scipy._lib import uarray
import lapack_ai_backend as lapack_ai
assert uarray.set_backend.__module__.startswith("scipy" if {own!r} == "own copy" else "uarray")
a = np.ones((3, 4, 4))

def job(number):
    with {switch}, lapack_ai.trace() as t:
        a @ a
        sl.det(a[0])
    with lapack_ai.trace() as outside:
        sl.det(a[0])
    return [d.function for d in t.decisions if d.active], [d.active for d in outside.decisions]

for turn in range(100):
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(job, range(50)):
            assert result == (["numpy.matmul", "scipy.linalg.det"], [False]), result
"""


@pytest.mark.parametrize("switch", ["uarray.set_backend(lapack_ai)", "lapack_ai.set_backend()"])
@pytest.mark.parametrize("own", ["own copy", "standalone"])
def test_threads_that_enter_at_once(own: str, switch: str) -> None:
    """Standalone uarray reuses one thread's context in another, which ends in a crash; our cache prevents it."""
    if own == "standalone" and importlib.util.find_spec("uarray") is None:
        pytest.skip("the standalone package uarray is not installed")
    passes(STRESS.format(own=own, switch=switch), "-W", "ignore::DeprecationWarning", "-X", "faulthandler")


def test_module_is_a_module() -> None:
    assert isinstance(lapack_ai, types.ModuleType)
    assert lapack_ai.__ua_domain__ == DOMAIN
