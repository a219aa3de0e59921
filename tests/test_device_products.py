"""Large products on an OpenCL device (PoCL here): layouts, cuts, values that are left to NumPy, failures."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faulty_device
import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from product_cases import filled
from scripts import passes
from svd_cases import DEVICE

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import registry
from lapack_ai_backend.errors import Decline
from lapack_ai_backend.linalg import gemm
from lapack_ai_backend.opencl import devices, memory, transfer
from lapack_ai_backend.opencl import session as sessions

Array = np.ndarray[Any, Any]

KERNEL = "opencl_gemm"
LEAST = 256  # rows and columns that the kernel takes


@pytest.fixture(autouse=True)
def on_the_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gemm, "LEAST_PANEL", 1)  # small products, too, are cut into panels
    with lapack_ai.set_backend(lapack_ai, device=DEVICE):
        yield


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copies through pinned memory, in small pieces, on every device."""
    sessions.release()
    monkeypatch.setenv("LAPACK_AI_PINNED", "1")
    for name, value in (("LEAST", 2**16), ("PIECE", 2**16), ("LEAST_PIECE", 2**14)):
        monkeypatch.setattr(transfer, name, value)
    yield
    sessions.release()


def computed(a: Array, b: Array, out: Array | None = None, kernel: str = KERNEL) -> Array:
    """The product, and the assertion that this kernel computed it."""
    with lapack_ai.trace() as t:
        result = np.matmul(a, b, out=out) if out is not None else a @ b
    assert [each.kernel for each in t.decisions] == [kernel], t.decisions
    return result


def ratio(a: Array, b: Array, c: Array) -> float:
    """|C - AB| over k eps |A| |B|, the largest of all entries; AB in extended precision, of some rows and columns."""
    rows, columns = (np.unique(np.linspace(0, size - 1, 60).astype(int)) for size in c.shape)
    some_a, some_b = a[rows].astype(np.longdouble), b[:, columns].astype(np.longdouble)
    wanted = np.einsum("ik,kj->ij", some_a, some_b)
    scale = np.einsum("ik,kj->ij", abs(some_a), abs(some_b)) * a.shape[1] * np.finfo(c.dtype).eps
    return float((abs(c[np.ix_(rows, columns)] - wanted) / np.where(scale, scale, np.inf)).max())


def random(m: int, n: int, dtype: str = "float64", seed: int = 0) -> Array:
    return filled((m, n), dtype, "dense", 0, seed)


def test_explain_stats_and_trace_agree() -> None:
    a = random(LEAST, LEAST)
    lapack_ai.reset_stats()
    with lapack_ai.trace() as t:
        a @ a
    told = lapack_ai.explain(np.matmul, a, a)
    assert (told.kernel, told.rule) == (t.decisions[0].kernel, t.decisions[0].rule) == (KERNEL, "matmul-device")
    counter = lapack_ai.stats()["numpy.matmul", KERNEL]
    assert (counter.calls, counter.bytes) == (1, 3 * a.nbytes)
    assert t.decisions[0].seconds > 0


# ---- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape", [(256, 256, 256), (257, 300, 511), (1000, 256, 260), (260, 1500, 256), (300, 257, 1300)]
)
def test_shapes(shape: tuple[int, int, int], dtype: str) -> None:
    m, k, n = shape
    a, b = random(m, k, dtype), random(k, n, dtype, 1)
    c = computed(a, b)
    assert c.flags.c_contiguous
    assert c.dtype == dtype
    constant = registry.KERNELS[KERNEL].error_constant(dtype)
    assert ratio(a, b, c) <= constant


def laid_out(values: Array, layout: str) -> Array:
    if layout == "part":
        room = np.zeros((values.shape[0] + 3, values.shape[1] + 5), values.dtype)
        view = room[1 : values.shape[0] + 1, 2 : values.shape[1] + 2]
        view[...] = values
        return view
    if layout == "part by columns":
        return laid_out(values.T, "part").T
    return np.array(values, order="F" if layout == "by columns" else "C")


LAYOUTS = ("by rows", "by columns", "part", "part by columns")


@given(
    shape=st.tuples(*[st.integers(LEAST, 400)] * 3),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
    dtype=st.sampled_from(["float32", "float64"]),
    kind=st.sampled_from(["dense", "sparse", "graded", "integral"]),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 2**32 - 1),
    room=st.sampled_from([None, 3_000_000, 6_000_000]),
)
@hypothesis.settings(max_examples=40)
def test_any_layout_cut_in_any_way(
    shape: tuple[int, int, int],
    layouts: tuple[str, ...],
    dtype: str,
    kind: str,
    exponent: int,
    seed: int,
    room: int | None,
) -> None:
    m, k, n = shape
    a = laid_out(filled((m, k), dtype, kind, exponent, seed), layouts[0])
    b = laid_out(filled((k, n), dtype, kind, exponent, seed + 1), layouts[1])
    out = laid_out(np.full((m, n), np.nan, dtype), layouts[2])
    with pytest.MonkeyPatch.context() as patch:
        if room is not None:  # the device is as small as that
            patch.setattr(memory, "device_limit", lambda device: room)
        assert computed(a, b, out) is out
    assert ratio(a, b, out) <= 1
    if kind == "integral" and dtype == "float64":
        np.testing.assert_array_equal(out, np.einsum("ik,kj->ij", a, b))
    if layouts[2].startswith("part"):
        assert out.base is not None
        base = out.base.base if out.base.base is not None else out.base
        assert np.count_nonzero(base) == np.count_nonzero(out)  # nothing around it was written


def test_pinned_memory_moves_the_same(pinned: None) -> None:
    for order in ("C", "F"):
        a, b = np.array(random(600, 300), order=order), np.array(random(300, 500, seed=1), order=order)
        found = computed(a, b)
        with lapack_ai.skip_backend():
            wanted = a @ b
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
        assert ratio(a, b, found) <= 1


def test_runs_repeat_bit_for_bit() -> None:
    a, b = random(300, 400), random(400, 300, seed=1)
    first = computed(a, b)
    assert all((computed(a, b) == first).all() for _ in range(3))


def test_smaller_devices_take_smaller_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = sessions.open_session(devices.choose(DEVICE))  # type: ignore[arg-type]  # there is one
    m, k, n = 4096, 4096, 4096
    whole = gemm.cut(opened, "float64", m, k, n, by_columns=True)
    assert (whole.rows, whole.columns, whole.whole) == (4096, 512, False)
    assert gemm.cut(opened, "float64", m, k, n, by_columns=False).whole
    for limit in (2**28, 2**26, 2**24):
        monkeypatch.setattr(memory, "device_limit", lambda device, limit=limit: limit)
        small = gemm.cut(opened, "float64", m, k, n, by_columns=False)
        assert 8 * sum(small.sizes(m, k, n)) <= limit
        assert small.rows < m
    monkeypatch.setattr(memory, "device_limit", lambda device: 2**22)
    with pytest.raises(Decline, match="on the device"):
        gemm.cut(opened, "float64", m, k, n, by_columns=True)


# ---- what is left to others ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* encountered in matmul:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("operand", [0, 1])
def test_values_that_are_not_finite_are_numpys(value: float, operand: int) -> None:
    operands = [random(300, 300), random(300, 300, seed=1)]
    operands[operand][7, 11] = value
    with lapack_ai.trace() as t:
        found = np.matmul(*operands)
    assert (t.decisions[0].kernel, t.decisions[0].reason_code) == ("stock", "kernel_declined")
    with lapack_ai.skip_backend():
        np.testing.assert_array_equal(found, np.matmul(*operands))


@pytest.mark.filterwarnings("ignore:.* encountered in matmul:RuntimeWarning")
def test_overflow_is_numpys() -> None:
    a = np.full((256, 256), 1e300)
    with lapack_ai.trace() as t:
        found = a @ a[:, ::-1].copy()
    assert t.decisions[0].kernel == "stock"
    assert np.isinf(found).all()


def test_flags_are_nobodys_business() -> None:
    a = random(256, 256)
    a[0] = 1e-300
    b = a * 1e-10
    with np.errstate(all="raise"):
        computed(a, b)


@pytest.mark.parametrize(
    "a",
    [
        random(300, 300)[::-1],
        random(300, 300)[:, ::-1],
        np.broadcast_to(random(1, 300), (300, 300)),
        random(600, 600)[::2, ::2],
    ],
    ids=["rows in reverse", "columns in reverse", "one row", "gaps"],
)
def test_layouts_that_no_transfer_takes(a: Array) -> None:
    b = random(300, 300, seed=1)
    c = computed(a, b, kernel="stock")
    np.testing.assert_allclose(c, np.einsum("ik,kj->ij", a, b), atol=1e-11)


def test_products_that_others_serve() -> None:
    a = random(255, 300)
    assert lapack_ai.explain(np.matmul, a, a.T.copy()).kernel != KERNEL
    square = random(300, 300)
    assert lapack_ai.explain(np.matmul, square, square.T).reason_code == "symmetric"
    assert lapack_ai.explain(np.matmul, square.astype(complex), square).kernel != KERNEL
    assert lapack_ai.explain(np.matmul, np.stack([square] * 3), square).kernel != KERNEL
    assert (
        lapack_ai.explain(np.matmul, square, square, options={"device": "auto"}).kernel != KERNEL
    )  # too small for a rule


# ---- no device, and the rows behind -----------------------------------------------------------------------------


def test_without_a_device_the_next_rule_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "choose", lambda option, dtype="float32": None)
    a = random(300, 300)
    with lapack_ai.trace() as t:
        a @ a
    told = lapack_ai.explain(np.matmul, a, a)
    assert (t.decisions[0].kernel, t.decisions[0].reason_code) == (told.kernel, told.reason_code) == ("stock", "device")
    forced = {"numpy.matmul": "alphatensor49_blocked"}
    with lapack_ai.set_backend(force=forced):
        computed(a, a, kernel="alphatensor49_blocked")


def test_large_products_go_to_the_cpus_kernel_where_no_gpu_is() -> None:
    """The shipped table, in a machine with enough threads for the rule."""
    told = passes(
        """
        import numpy as np, lapack_ai_backend as lapack_ai
        from lapack_ai_backend import policy
        from lapack_ai_backend.native import ffi, lib
        from lapack_ai_backend.options import Options
        table = policy.table_for(Options(policy="static"))
        rows = [table.c_table.rows[i] for i in range(table.c_table.first[1152])]
        for row in rows:
            row.as_blas = row.min_isa = 0
        a = np.broadcast_to(1.0, (8192, 8192))
        print(lapack_ai.explain(np.matmul, a, np.broadcast_to(2.0, (8192, 8192)), options={"policy": "static"}).kernel)
        """,
        variables={"LAPACK_GPU_ENABLED": "0"},
    )
    assert told.strip() == "alphatensor49_blocked"


def test_opencl_is_not_asked_by_small_products() -> None:
    passes(
        """
        import sys, numpy as np, lapack_ai_backend as lapack_ai
        lapack_ai.enable()
        for n in (4, 16, 100, 400):
            np.ones((n, n)) @ np.ones((n, n))
        assert "pyopencl" not in sys.modules
        """
    )


# ---- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", faulty_device.POINTS)
def test_failure_at_every_call(point: str, caplog: pytest.LogCaptureFixture) -> None:
    a, b = random(300, 260), random(260, 400, seed=1)
    with lapack_ai.skip_backend():
        wanted = a @ b
    with faulty_device.failing(point) as calls:
        computed(a, b)
    assert calls.count
    for call in range(calls.count):
        registry.FAILURES.clear()
        caplog.clear()
        lapack_ai.reset_stats()
        with faulty_device.failing(point, call), lapack_ai.trace() as t:
            found = a @ b
        code = "memory" if point in ("allocation", "first use") else "kernel_failed"
        assert (t.decisions[0].kernel, t.decisions[0].reason_code) == ("stock", code), (point, call)
        np.testing.assert_array_equal(found, wanted)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert lapack_ai.stats()["numpy.matmul", "stock"].fallbacks == {code: 1}
    registry.FAILURES.clear()
    computed(a, b)


def test_another_kernel_takes_over_and_the_failure_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows behind the device's: here, one of alphatensor49_blocked without a threshold."""
    from lapack_ai_backend import rules

    others = [rule for rule in rules.RULES if rule.kernel != "alphatensor49_blocked"]
    any_size = rules.Rule(
        "any", "numpy.matmul", ("float64",), registry.Limits(min_dim=32), "alphatensor49_blocked", "test"
    )
    monkeypatch.setattr(rules, "RULES", (*others, any_size))
    a = random(300, 300)
    lapack_ai.reset_stats()
    with lapack_ai.set_backend(accuracy="normwise", verify="off", policy="static"), lapack_ai.trace() as t:
        with faulty_device.failing("transfer", 0):
            found = a @ a
        assert (t.decisions[0].kernel, t.decisions[0].rule) == ("alphatensor49_blocked", "any")
    np.testing.assert_allclose(found, np.einsum("ik,kj->ij", a, a), atol=1e-11)
    stats = lapack_ai.stats()
    assert stats["numpy.matmul", "alphatensor49_blocked"].calls == 1
    assert lapack_ai.stats().get(("numpy.matmul", "stock")) is None or not stats["numpy.matmul", "stock"].calls
    registry.FAILURES.clear()


def test_kernel_that_fails_often_is_switched_off() -> None:
    a = random(300, 300)
    for _ in range(registry.FAILURES_BEFORE_BREAK):
        with faulty_device.failing("transfer", 0):
            a @ a
    assert computed(a, a, kernel="stock") is not None
    assert lapack_ai.explain(np.matmul, a, a).reason_code == "broken"
    registry.FAILURES.clear()
    computed(a, a)


@pytest.mark.parametrize("where", ["upload", "download"])
def test_garbage_is_found(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """One panel that did not arrive."""
    a, b = random(300, 300), random(300, 1200, seed=1)
    name = {"upload": "write", "download": "read"}[where]
    moved = getattr(transfer, name)
    calls: list[int] = []

    def lossy(session: Any, x: Any, y: Any) -> None:
        array = x if where == "upload" else y
        if array.size > 1000:
            calls.append(1)
            if len(calls) == 2:
                if where == "download":
                    array[...] = 0
                return
        moved(session, x, y)

    monkeypatch.setattr(transfer, name, lossy)
    with lapack_ai.trace() as t:
        found = a @ b
    assert (t.decisions[0].kernel, t.decisions[0].reason_code) == ("stock", "wrong_result")
    np.testing.assert_allclose(found, np.einsum("ik,kj->ij", a, b), atol=1e-11)
    registry.FAILURES.clear()


def test_interrupt_reaches_the_program_and_leaves_all_well(monkeypatch: pytest.MonkeyPatch) -> None:
    a = random(300, 300)
    allocate = memory.allocate

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return allocate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(memory, "allocate", interrupted)

        def program() -> None:
            a @ a
            for _ in range(1000):  # it arrives at one of the next steps
                pass

        with pytest.raises(KeyboardInterrupt):
            program()
    assert not registry.FAILURES
    computed(a, a)


def test_threads() -> None:
    operands = [(random(300, 260, seed=k), random(260, 280, seed=k + 9)) for k in range(6)]
    gate = threading.Barrier(3)

    def work(k: int) -> list[Array]:
        gate.wait()
        with lapack_ai.set_backend(lapack_ai, device=DEVICE):
            return [computed(*each) for each in operands[2 * k : 2 * k + 2]]

    with ThreadPoolExecutor(3) as pool:
        results = [each for found in pool.map(work, range(3)) for each in found]
    for (a, b), c in zip(operands, results, strict=True):
        assert ratio(a, b, c) <= 1


def test_forked_child_is_stock() -> None:
    passes(
        f"""
        import os, warnings, numpy as np, lapack_ai_backend as lapack_ai
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is the point
        a = np.random.default_rng(0).standard_normal((300, 300))
        with lapack_ai.set_backend(device={DEVICE!r}):
            with lapack_ai.trace() as t:
                a @ a
            assert t.decisions[0].kernel == "opencl_gemm"
            child = os.fork()
            if not child:
                with lapack_ai.trace() as t:
                    a @ a
                os._exit(t.decisions[0].kernel != "stock")
            assert os.waitpid(child, 0)[1] == 0
        """
    )
