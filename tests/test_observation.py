"""Traces, counters and the log tell what happened, here and nowhere else."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
from scripts import run_script

import lapack_ai_backend as lapack_ai

STACK = np.arange(1.0, 97.0).reshape(6, 4, 4)


def sizes(trace: Any) -> list[int]:
    return [each.problem.batch for each in trace.decisions]


# ---- traces ---------------------------------------------------------------------------------------


def test_decisions_come_in_call_order() -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        sl.det(STACK[0])
        STACK @ STACK
        sl.pinv(STACK[0, :3, :3] + 9 * np.eye(3))
        np.ones((0, 4, 4)) @ np.ones((4, 4))
        sl.inv(STACK[0] + 9 * np.eye(4))
    names = [each.function.rpartition(".")[2] for each in t.decisions]
    assert names == ["det", "matmul", "pinv", "svd", "matmul", "matmul", "inv"]
    assert t.decisions[5].reason_code == "no_loop"


def test_trace_alone_changes_no_routing() -> None:
    with lapack_ai.set_backend():
        pass
    stock = STACK @ STACK
    with lapack_ai.trace() as t:
        np.testing.assert_array_equal(STACK @ STACK, stock)
        sl.det(STACK[0])
    assert [(each.kernel, each.reason_code, each.active) for each in t.decisions] == [("stock", "inactive", False)] * 2
    assert lapack_ai.stats() == {}


def test_trace_shows_skipped_calls() -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t, lapack_ai.skip_backend():
        STACK @ STACK
        sl.det(STACK[0])
    assert [each.reason_code for each in t.decisions] == ["inactive"] * 2


def test_trace_is_readable_while_open_and_afterwards() -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        assert t.decisions == []
        STACK @ STACK
        assert len(t.decisions) == 1
        STACK @ STACK
        open_then = t.decisions
    STACK @ STACK
    assert t.decisions == open_then
    assert len(open_then) == 2


def test_nested_traces() -> None:
    """The inner one takes the calls while it is open; the outer one goes on afterwards."""
    with lapack_ai.set_backend(), lapack_ai.trace() as outer:
        STACK[:2] @ STACK[0]
        with lapack_ai.trace() as inner:
            STACK[:3] @ STACK[0]
        STACK[:4] @ STACK[0]
    assert sizes(inner) == [3]
    assert sizes(outer) in ([2, 4], [2, 3, 4])


def test_trace_opens_once() -> None:
    t = lapack_ai.trace()
    with t, pytest.raises(RuntimeError, match="open already"):
        t.__enter__()
    with t:
        pass


def test_many_decisions() -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        for count in range(1000):
            STACK[: 1 + count % 5] @ STACK[0]
    assert sizes(t) == [1 + count % 5 for count in range(1000)]


def test_trace_is_of_this_context() -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: STACK @ STACK, range(8)))
        STACK @ STACK
    assert len(t.decisions) == 1


def test_traces_of_threads_at_once() -> None:
    barrier = threading.Barrier(4)

    def job(number: int) -> bool:
        barrier.wait()
        for _ in range(50):
            with lapack_ai.set_backend(), lapack_ai.trace() as t:
                for count in range(5):
                    STACK[: number + 1] @ STACK[0]
                    if count % 2:
                        sl.det(STACK[0])
            if sizes(t) != [number + 1, number + 1, 1, number + 1, number + 1, 1, number + 1]:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(job, range(1, 5))) == [True] * 4


def test_threads_that_share_a_trace_by_copied_context() -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t, ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(contextvars.copy_context().run, lambda: [STACK @ STACK for _ in range(50)]) for _ in range(8)
        ]
        for job in jobs:
            job.result()
        assert len(t.decisions) == 400
    assert {each.kernel for each in t.decisions} == {"alphatensor49"}


def test_task_that_outlives_its_trace() -> None:
    """Its calls belong to no trace, least of all to one that is opened later."""
    with lapack_ai.set_backend(), lapack_ai.trace() as first:
        copied = contextvars.copy_context()
    with lapack_ai.trace() as second:
        copied.run(lambda: (STACK @ STACK, sl.det(STACK[0])))
    assert first.decisions == []
    assert second.decisions == []


def test_traces_of_interleaved_tasks() -> None:
    async def task(count: int) -> list[int]:
        with lapack_ai.set_backend(), lapack_ai.trace() as t:
            for _ in range(4):
                STACK[:count] @ STACK[0]
                await asyncio.sleep(0)
        return sizes(t)

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(task(count) for count in (1, 2, 3)))

    assert asyncio.run(main()) == [[1] * 4, [2] * 4, [3] * 4]


def test_decision_of_a_product() -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        STACK @ STACK
    (decision,) = t.decisions
    assert decision.problem == lapack_ai.explain(np.matmul, STACK, STACK).problem
    assert (decision.alphatensor_blocks, decision.direct_blocks, decision.stock_blocks) == (6, 0, 0)
    assert 0 < decision.seconds < 1
    assert decision.rule == "matmul-4x4-stack"
    assert decision.active


def test_blocks_that_the_guard_hands_on() -> None:
    a = STACK.copy()
    a[1, 2, 3] = np.nan
    a[2, 0, 0] = 0
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        a @ STACK
    (decision,) = t.decisions
    blocks = decision.alphatensor_blocks, decision.direct_blocks, decision.stock_blocks
    assert (decision.kernel, blocks) == ("alphatensor49", (4, 1, 1)), "zeros go to direct, NaN to the stock loop"


@pytest.mark.parametrize("dtype", ["uint32", "uint64", "int8", "float16"])
def test_dtype_in_a_trace_is_the_calls_own(dtype: str) -> None:
    a = STACK.astype(dtype)
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        a @ a
        told = lapack_ai.explain(np.matmul, a, a)
    assert told.problem is not None
    assert told.problem.dtype == dtype
    assert t.decisions[0].problem == told.problem


# ---- counters -----------------------------------------------------------------------------------


def test_stats() -> None:
    with lapack_ai.set_backend():
        for _ in range(3):
            STACK @ STACK
        STACK[0] @ STACK[1]
        np.ones((20, 20)) @ np.ones((20, 20))
        sl.det(STACK[0])
        sl.det(STACK[0].tolist())
    STACK @ STACK
    stats = lapack_ai.stats()
    assert set(stats) == {
        ("numpy.matmul", "alphatensor49"),
        ("numpy.matmul", "direct"),
        ("numpy.matmul", "stock"),
        ("scipy.linalg.det", "stock"),
    }
    stack = stats["numpy.matmul", "alphatensor49"]
    assert (stack.calls, stack.blocks_alphatensor, stack.blocks_direct, stack.bytes) == (3, 18, 0, 3 * 3 * STACK.nbytes)
    assert stack.fallbacks == {}
    assert stats["numpy.matmul", "stock"].fallbacks == {"size": 1}
    assert stats["scipy.linalg.det", "stock"].calls == 2
    assert sum(stats["scipy.linalg.det", "stock"].fallbacks.values()) == 2


def test_reset_stats() -> None:
    with lapack_ai.set_backend():
        STACK @ STACK
        sl.det(STACK[0])
    assert lapack_ai.stats()
    lapack_ai.reset_stats()
    assert lapack_ai.stats() == {}


def test_stats_of_threads_add_up() -> None:
    lapack_ai.enable()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: [STACK @ STACK for _ in range(100)], range(8)))
    stack = lapack_ai.stats()["numpy.matmul", "alphatensor49"]
    assert (stack.calls, stack.blocks_alphatensor) == (800, 4800)


def test_a_call_in_pieces_is_one_call() -> None:
    """A stack that does not lie in one piece reaches the loop several times."""
    a, b = np.ones((5, 1, 4, 4)), np.ones((1, 3, 4, 4))
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        a @ b
    assert sizes(t) == [15]
    assert lapack_ai.stats()["numpy.matmul", "alphatensor49"].calls == 1


# ---- the log --------------------------------------------------------------------------------------


def test_log_is_silent_by_default(caplog: pytest.LogCaptureFixture) -> None:
    with lapack_ai.set_backend():
        STACK @ STACK
        sl.det(STACK[0])
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert logging.getLogger("lapack_ai_backend").level == logging.NOTSET


def test_log_goes_to_standard_error_when_asked_for() -> None:
    source = """
    import numpy as np, scipy.linalg as sl
    from lapack_ai_backend import backend, observation
    import lapack_ai_backend as lapack_ai
    for _ in range(2):
        lapack_ai.enable()
        lapack_ai.disable()
    observation.log.warning("something")
    """
    done = run_script(source, variables={"LAPACK_AI_LOG": "warning"})
    assert done.stderr == "lapack_ai_backend WARNING: something\n"
    assert run_script(source, variables={"LAPACK_AI_LOG": "error"}).stderr == ""
