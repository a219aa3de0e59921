"""The backend is on exactly where a context says so: nested, threaded, asynchronous, forked, pickled."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import numpy as np
import pytest
import scipy.linalg as sl
from scripts import passes

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import activation

STACK = np.arange(1.0, 97.0).reshape(6, 4, 4)
ON, OFF = ("scipy.linalg.det", "numpy.matmul"), ()


def reached() -> tuple[str, ...]:
    """Functions that reach the backend here, by asking both ways to it; ON or OFF, or a half that is a bug."""
    with lapack_ai.trace() as t:
        sl.det(STACK[0])
        STACK @ STACK
    return tuple(each.function for each in t.decisions if each.active)


def accuracy() -> str:
    """The kernel for a stack here tells which accuracy is in force."""
    with lapack_ai.trace() as t:
        STACK @ STACK
    return {"alphatensor49": "normwise", "direct": "componentwise", "stock": "off"}[t.decisions[0].kernel]


# ---- one thread ------------------------------------------------------------------------------


def test_on_inside_off_outside() -> None:
    assert reached() == OFF
    with lapack_ai.set_backend(lapack_ai):
        assert reached() == ON
    assert reached() == OFF


def test_nested_contexts() -> None:
    with lapack_ai.set_backend(accuracy="componentwise"):
        assert accuracy() == "componentwise"
        with lapack_ai.set_backend(accuracy="normwise"):
            assert accuracy() == "normwise"
            with lapack_ai.skip_backend():
                assert reached() == OFF
                with lapack_ai.set_backend():
                    assert accuracy() == "normwise"
                assert reached() == OFF
            assert accuracy() == "normwise"
        assert accuracy() == "componentwise"
    assert reached() == OFF


def test_one_object_nested_in_itself() -> None:
    context = lapack_ai.set_backend(accuracy="componentwise")
    with context:
        with context:
            assert accuracy() == "componentwise"
        assert accuracy() == "componentwise"
    assert reached() == OFF


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exceptions_leave(error: type[BaseException]) -> None:
    for context in (lapack_ai.set_backend(), lapack_ai.skip_backend(), lapack_ai.trace()):
        with pytest.raises(error), context:
            raise error
        assert activation.ACTIVE.get() is None
    assert reached() == OFF


def test_error_inside_a_call_leaves() -> None:
    with lapack_ai.set_backend():
        with pytest.raises(ValueError):
            sl.det(np.ones((2, 3)))
        with pytest.raises(ValueError):
            np.ones((2, 3)) @ np.ones((2, 3))
        assert reached() == ON
    assert reached() == OFF


def test_skip_beats_enable() -> None:
    lapack_ai.enable()
    assert reached() == ON
    with lapack_ai.skip_backend():
        assert reached() == OFF
    assert reached() == ON


def test_exits_out_of_order() -> None:
    outer, inner = lapack_ai.set_backend(accuracy="componentwise"), lapack_ai.set_backend(accuracy="normwise")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert accuracy() == "normwise"
    inner.__exit__(None, None, None)
    assert reached() == OFF


def test_exit_under_an_open_trace() -> None:
    """A trace opened inside keeps nothing of a context that is left before it."""
    context, trace = lapack_ai.set_backend(), lapack_ai.trace()
    context.__enter__()
    trace.__enter__()
    context.__exit__(None, None, None)
    try:
        assert reached() == OFF
    finally:
        trace.__exit__(None, None, None)


def test_exit_without_enter_does_not_raise() -> None:
    lapack_ai.set_backend().__exit__(None, None, None)
    lapack_ai.skip_backend().__exit__(None, None, None)
    with lapack_ai.set_backend() as context:
        context.__exit__(None, None, None)
    assert reached() == OFF


def test_set_backend_takes_this_module_only() -> None:
    with pytest.raises(TypeError, match=r"uarray\.set_backend"):
        lapack_ai.set_backend(np)


# ---- decorators -------------------------------------------------------------------------------


def test_decorated_function() -> None:
    @lapack_ai.set_backend(accuracy="componentwise")
    def function(a: int, /, b: int = 2) -> tuple[str, int, int]:
        """Documented."""
        return accuracy(), a, b

    assert function(1, b=3) == ("componentwise", 1, 3)
    assert function.__name__ == "function"
    assert function.__doc__ == "Documented."
    assert list(inspect.signature(function).parameters) == ["a", "b"]
    assert reached() == OFF


def test_decorated_method_and_recursion() -> None:
    class Model:
        @lapack_ai.set_backend()
        def depth(self, n: int) -> list[tuple[str, ...]]:
            return [reached()] if n == 0 else [*self.depth(n - 1), reached()]

    assert Model().depth(3) == [ON] * 4
    assert reached() == OFF


def test_decorator_skip_backend() -> None:
    @lapack_ai.skip_backend()
    def function() -> tuple[str, ...]:
        return reached()

    with lapack_ai.set_backend():
        assert function() == OFF
        assert reached() == ON


def test_decorated_generator() -> None:
    @lapack_ai.set_backend()
    def generator() -> Iterator[Any]:
        sent = yield reached()
        try:
            yield sent, reached()
        except KeyError as error:
            yield type(error), reached()
        return reached()

    assert inspect.isgeneratorfunction(generator)
    running = generator()
    assert next(running) == ON
    assert reached() == OFF, "between its steps the caller's own settings rule"
    assert running.send("a value") == ("a value", ON)
    assert running.throw(KeyError()) == (KeyError, ON)
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value == ON
    assert reached() == OFF


def test_decorated_generator_keeps_no_hold_on_its_caller() -> None:
    @lapack_ai.set_backend(accuracy="componentwise")
    def generator() -> Iterator[str]:
        while True:
            yield accuracy()

    running = generator()
    with lapack_ai.set_backend(accuracy="normwise"):
        assert [next(running), accuracy()] == ["componentwise", "normwise"]
    assert [next(running), accuracy()] == ["componentwise", "off"]
    running.close()
    assert reached() == OFF


def _clean_up(places: list[tuple[str, ...]]) -> Callable[[], Iterator[None]]:
    @lapack_ai.set_backend()
    def generator() -> Iterator[None]:
        try:
            yield
        finally:
            places.append(reached())

    return generator


def test_generator_closed_in_a_foreign_context() -> None:
    places: list[tuple[str, ...]] = []
    running = _clean_up(places)()
    next(running)
    contextvars.Context().run(running.close)  # type: ignore[attr-defined]  # a generator
    assert places == [ON]
    assert reached() == OFF


def test_generator_closed_in_a_foreign_thread() -> None:
    places: list[tuple[str, ...]] = []
    running = _clean_up(places)()
    next(running)
    thread = threading.Thread(target=running.close)  # type: ignore[attr-defined]  # a generator
    thread.start()
    thread.join()
    assert places == [ON]
    assert reached() == OFF


def test_plain_generator_with_a_context_inside_closed_elsewhere() -> None:
    """Its `with` is left in a Context that never entered it; nothing raises there, nothing is lost here."""

    def generator() -> Iterator[None]:
        with lapack_ai.set_backend():
            yield

    running = generator()
    contextvars.copy_context().run(next, running)
    with lapack_ai.set_backend(accuracy="componentwise"):
        running.close()  # type: ignore[attr-defined]  # a generator
        assert accuracy() == "componentwise"
    assert reached() == OFF


def test_decorated_coroutine() -> None:
    @lapack_ai.set_backend()
    async def coroutine(n: int) -> tuple[int, tuple[str, ...]]:
        await asyncio.sleep(0)
        return n, reached()

    assert inspect.iscoroutinefunction(coroutine)

    async def main() -> None:
        assert await coroutine(3) == (3, ON)
        assert reached() == OFF

    asyncio.run(main())


def test_decorated_async_generator() -> None:
    closed: list[tuple[str, ...]] = []

    @lapack_ai.set_backend()
    async def generator() -> AsyncIterator[Any]:
        try:
            sent = yield reached()
            await asyncio.sleep(0)
            try:
                yield sent, reached()
            except KeyError:
                yield "caught", reached()
        finally:
            closed.append(reached())

    async def main() -> None:
        running: Any = generator()
        assert await anext(running) == ON
        assert reached() == OFF
        assert await running.asend(7) == (7, ON)
        assert reached() == OFF
        assert await running.athrow(KeyError()) == ("caught", ON)
        await running.aclose()
        assert closed == [ON]
        assert [each async for each in generator()] == [ON, (None, ON)]
        assert reached() == OFF

    assert inspect.isasyncgenfunction(generator)
    asyncio.run(main())


# ---- asyncio ----------------------------------------------------------------------------------


def test_interleaved_tasks() -> None:
    async def task(wanted: str | None, steps: int) -> list[str]:
        seen = []
        if wanted is None:
            for _ in range(steps):
                seen.append(accuracy())
                await asyncio.sleep(0)
            return seen
        with lapack_ai.set_backend(accuracy=wanted):
            for _ in range(steps):
                seen.append(accuracy())
                await asyncio.sleep(0)
        assert reached() == OFF
        return seen

    async def main() -> None:
        kinds = [("normwise", 9), (None, 8), ("componentwise", 3), ("normwise", 5), ("componentwise", 7)]
        results = await asyncio.gather(*(task(*kind) for kind in kinds))
        for (wanted, steps), seen in zip(kinds, results, strict=True):
            assert seen == [wanted or "off"] * steps
        assert reached() == OFF

    asyncio.run(main())
    assert reached() == OFF


def test_tasks_that_leave_in_the_order_they_entered() -> None:
    """First in, first out: the order that uarray's own stack cannot take."""

    async def main() -> None:
        turns = [asyncio.Event() for _ in range(4)]

        async def task(number: int) -> None:
            with lapack_ai.set_backend():
                turns[number].set()
                await turns[3].wait()
                assert reached() == ON
            assert reached() == OFF

        tasks = [asyncio.create_task(task(number)) for number in range(3)]
        for turn in turns[:3]:
            await turn.wait()
        assert reached() == OFF
        turns[3].set()
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_tasks_and_to_thread_inherit() -> None:
    async def report() -> tuple[str, ...]:
        await asyncio.sleep(0)
        return reached()

    async def main() -> None:
        with lapack_ai.set_backend():
            assert await asyncio.create_task(report()) == ON
            assert await asyncio.to_thread(reached) == ON
            assert await asyncio.get_running_loop().run_in_executor(None, reached) == OFF, "as every ContextVar"
        assert await asyncio.to_thread(reached) == OFF

    asyncio.run(main())


def test_cancelled_task_leaves() -> None:
    async def main() -> None:
        async def task() -> None:
            with lapack_ai.set_backend():
                await asyncio.Event().wait()

        running = asyncio.create_task(task())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert reached() == OFF

    asyncio.run(main())


# ---- threads ----------------------------------------------------------------------------------


def test_other_threads_see_stock() -> None:
    with lapack_ai.set_backend(), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: reached(), range(8))) == [OFF] * 8
        assert reached() == ON


def test_enable_reaches_every_thread() -> None:
    lapack_ai.enable(accuracy="componentwise")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: accuracy(), range(8))) == ["componentwise"] * 8
        assert list(pool.map(lapack_ai.skip_backend()(lambda _: reached()), range(8))) == [OFF] * 8
    lapack_ai.disable()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: reached(), range(8))) == [OFF] * 8


def test_disable_between_the_questions_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread switches off after a call has found the backend on: stock runs, nothing is raised."""
    from lapack_ai_backend import backend

    answers = [activation.PROCESS.options, None, None, None]
    lapack_ai.enable()
    answers[0] = activation.PROCESS.options
    monkeypatch.setattr(backend.activation, "effective_options", lambda *_: answers.pop(0) if answers else None)
    assert sl.det(np.eye(3)) == 1.0
    assert len(answers) < 4


def test_copied_context_takes_the_backend_along() -> None:
    with lapack_ai.set_backend(), ThreadPoolExecutor(2) as pool:
        copies = [contextvars.copy_context() for _ in range(8)]
    assert reached() == OFF
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda context: context.run(reached), copies)) == [ON] * 8


def test_one_object_in_many_threads() -> None:
    context = lapack_ai.set_backend()

    def job(_: int) -> tuple[str, ...]:
        with context:
            inside = reached()
        return inside if reached() == OFF else ("leaked",)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(job, range(200))) == {ON}
    assert reached() == OFF


def test_switching_while_others_compute() -> None:
    """2000 times on and off against four threads of products and functions: each result is right."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    a = np.random.default_rng(5).integers(-9, 9, (64, 4, 4)).astype(float)
    wanted, determinant = np.array([x @ x for x in a]), sl.det(a[0])
    stop, wrong, counts = threading.Event(), [], [0] * 4

    def compute(number: int) -> None:
        while not stop.is_set():
            if not np.array_equal(a @ a, wanted) or sl.det(a[0]) != determinant:
                wrong.append(number)
            counts[number] += 1

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(400):
            lapack_ai.enable()
            lapack_ai.disable()
        for _ in range(1600):
            with lapack_ai.set_backend():
                a @ a
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert min(counts) > 0


def test_first_contexts_of_two_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that comes while another one is installing waits until everything is in place."""
    from lapack_ai_backend import interception

    halfway, go_on = threading.Event(), threading.Event()
    intercept = interception._intercept

    def slow(name: str, arrays: str) -> None:
        intercept(name, arrays)
        if not halfway.is_set():
            halfway.set()
            go_on.wait(30)

    monkeypatch.setattr(interception, "_intercept", slow)
    first = threading.Thread(target=lambda: lapack_ai.set_backend().__enter__())
    first.start()
    assert halfway.wait(30)
    timer = threading.Timer(0.2, go_on.set)
    timer.start()
    try:
        with lapack_ai.set_backend():
            assert reached() == ON
    finally:
        go_on.set()
        first.join()
        timer.join()


# ---- processes, pickling -----------------------------------------------------------------------


def test_fork() -> None:
    passes(
        """
        import os
        import numpy as np, scipy.linalg as sl
        import lapack_ai_backend as lapack_ai
        a = np.ones((10, 4, 4))
        with lapack_ai.set_backend(), lapack_ai.trace() as outer:
            a @ a
            child = os.fork()
            if child == 0:
                with lapack_ai.trace() as t:
                    good = (a @ a == 4).all()
                    sl.det(a[0])
                good = good and [d.kernel for d in t.decisions] == ["alphatensor49", "stock"]
                good = good and len(outer.decisions) == 1 and t.decisions[1].active
                lapack_ai.disable()
                good = good and (a @ a == 4).all()
                os._exit(0 if good else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            a @ a
            assert len(outer.decisions) == 2
        """,
        "-W",
        "ignore::DeprecationWarning",
    )


def test_spawned_workers_start_stock_and_take_contexts_by_pickle(tmp_path: Any) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(
        """
import multiprocessing
import numpy as np
import lapack_ai_backend as lapack_ai

def kernel(context):
    a = np.ones((10, 4, 4))
    with lapack_ai.trace() as t:
        a @ a
        if context is not None:
            with context:
                a @ a
    return [each.kernel for each in t.decisions]

if __name__ == "__main__":
    lapack_ai.enable()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(kernel, (None,)) == [], "nothing is intercepted there"
        # The first product is made before anything is intercepted, so no trace can see it.
        assert pool.apply(kernel, (lapack_ai.set_backend(accuracy="componentwise"),)) == ["direct"]
"""
    )
    passes(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_module_pickles_to_itself(module: Any) -> None:
    assert pickle.loads(module.dumps(lapack_ai)) is lapack_ai
    assert pickle.loads(module.dumps({"backend": lapack_ai}))["backend"] is lapack_ai


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_contexts_pickle(module: Any) -> None:
    context = lapack_ai.set_backend(accuracy="componentwise", disable=["svd"])
    with context, pickle.loads(module.dumps(context)):
        assert accuracy() == "componentwise"
    with lapack_ai.set_backend(), pickle.loads(module.dumps(lapack_ai.skip_backend())):
        assert reached() == OFF


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_decisions_errors_and_counts_pickle(module: Any) -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        STACK @ STACK
        sl.det(STACK[0])
        decisions = [*t.decisions, lapack_ai.explain(np.matmul, STACK, STACK)]
    stats = lapack_ai.stats()
    assert pickle.loads(module.dumps(decisions)) == decisions
    assert pickle.loads(module.dumps(stats)) == stats
    error: Exception
    try:
        lapack_ai.set_backend(policy="fast")
    except lapack_ai.OptionError as raised:
        error = raised
    again = pickle.loads(module.dumps(error))
    assert type(again) is lapack_ai.OptionError
    assert str(again) == str(error)


def test_decorated_function_pickles_by_cloudpickle() -> None:
    function = lapack_ai.set_backend(accuracy="componentwise")(accuracy)
    assert pickle.loads(cloudpickle.dumps(function))() == "componentwise"


def test_activation_chain_is_empty_after_all() -> None:
    with lapack_ai.set_backend(), lapack_ai.skip_backend(), lapack_ai.trace():
        assert activation.ACTIVE.get() is not None
    assert activation.ACTIVE.get() is None


def test_leaving_the_outermost_of_many_first() -> None:
    contexts = [lapack_ai.set_backend() for _ in range(1500)]
    for each in contexts:
        each.__enter__()
    for each in contexts:
        each.__exit__(None, None, None)
    assert activation.ACTIVE.get() is None


def test_decorator_and_objects_that_are_called() -> None:
    class Job:
        async def __call__(self) -> tuple[str, ...]:
            await asyncio.sleep(0)
            return reached()

    assert asyncio.run(lapack_ai.set_backend()(Job())()) == ON
    with pytest.raises(TypeError, match="decorate its methods"):
        lapack_ai.set_backend()(Job)


def test_fork_while_another_thread_switches() -> None:
    """The child must not wait for a lock that nobody in it will release."""
    passes(
        """
        import os, threading, time
        import lapack_ai_backend as lapack_ai
        from lapack_ai_backend import interception
        held, done = threading.Event(), threading.Event()
        def hold():
            with interception.lock:
                held.set()
                done.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            lapack_ai.enable()
            with lapack_ai.set_backend():
                os._exit(0)
        ended = 0
        for _ in range(100):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(0.1)
        done.set()
        thread.join()
        assert ended == child and status == 0
        """,
        "-W",
        "ignore::DeprecationWarning",  # of forking with threads, which is what this is about
    )
