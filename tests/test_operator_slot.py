"""ndarray's @ for two small arrays: NumPy's result and its reports, np.matmul's kernel, and nobody else's business."""

from __future__ import annotations

import ctypes
import gc
import operator
import pickle
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import ufunc_memory
from hypothesis import given
from hypothesis import strategies as st
from product_cases import COMPLEX, INTEGERS, KINDS, LAYOUTS, REAL, filled, laid_out
from scripts import passes

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import native

Array = np.ndarray[Any, Any]
X, Y = filled((2, 4, 4), "float64", "dense", 0, 1)


@pytest.fixture
def entries() -> Callable[[Callable[[], object]], int]:
    """Tells how often a call enters np.matmul: a function of ours stands where NumPy asks its hook."""
    fields = ufunc_memory.fields()
    lapack_ai.enable()
    (place,) = [i + 1 for i, word in enumerate(ufunc_memory.fields()) if word != fields[i]]
    words = (ctypes.c_size_t * (place + 1)).from_address(id(np.matmul))
    hook, count = words[place], [0]

    @ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def counted(ufunc: int, dims: int) -> int:
        count[0] += 1
        return 0

    def enter(call: Callable[[], object]) -> int:
        count[0] = 0
        words[place] = ctypes.cast(counted, ctypes.c_void_p).value or 0
        try:
            call()
        finally:
            words[place] = hook
        return count[0]

    return enter


@pytest.fixture(params=list(native.ISAS))
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this CPU has."""
    before = native.isa()
    with lapack_ai.set_backend():
        if not native.use_isa(request.param):
            pytest.skip(f"this CPU has no {request.param}")
        yield request.param
        native.use_isa(before)


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    """Result or exception, and warnings, in a form that can be compared."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call()
        except Exception as error:  # whatever NumPy raises is what is compared
            told: tuple[Any, ...] = type(error), str(error)
        else:
            told = type(result), getattr(result, "dtype", None), np.shape(result), repr(np.asarray(result).tolist())
    return (*told, [(each.category, str(each.message)) for each in caught])


def counted(call: Callable[[], object]) -> Any:
    lapack_ai.reset_stats()
    call()
    return lapack_ai.stats()


# ---- what is taken -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", (*REAL, *COMPLEX, *INTEGERS, "long", "longlong"))
@pytest.mark.parametrize("n", range(2, 9))
def test_small_products_do_not_enter_matmul(entries: Any, dtype: str, n: int) -> None:
    for layout in LAYOUTS:
        a, b = laid_out(filled((n, n), dtype, "dense", 0, 1), layout), filled((n, n), dtype, "dense", 0, 2)
        for x, y in ((a, b), (b, a), (a, a), (a, a.T)):
            assert entries(lambda x=x, y=y: x @ y) == 0
            assert entries(lambda x=x, y=y: operator.matmul(x, y)) == 0
            assert entries(lambda x=x, y=y: np.matmul(x, y)) == 1


@given(
    st.tuples(st.integers(1, 17), st.integers(1, 17), st.integers(1, 17)),
    st.sampled_from(["matrices", "vector on the left", "vector on the right"]),
    st.sampled_from([*REAL, *COMPLEX, *INTEGERS, "int8", "float16"]),
    st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
)
def test_bits_are_those_of_matmul_and_the_rest_is_stock(
    sizes: tuple[int, int, int], form: str, dtype: str, layouts: tuple[str, str], kind: str, seed: int
) -> None:
    m, k, n = sizes
    a = laid_out(filled((m, k), dtype, kind, 0, seed), layouts[0])
    b = laid_out(filled((k, n), dtype, kind, 0, seed + 1), layouts[1])
    x, y = (a[0] if form == "vector on the left" else a), (b[:, 0] if form == "vector on the right" else b)
    stock = x @ y
    with lapack_ai.set_backend():
        ours, through_matmul = x @ y, np.matmul(x, y)
        assert counted(lambda: x @ y) == counted(lambda: np.matmul(x, y))
        explained = lapack_ai.explain(np.matmul, x, y)
    assert {kernel for _, kernel in lapack_ai.stats()} == {explained.kernel}
    assert ours.tobytes() == through_matmul.tobytes()
    for each in ("shape", "strides", "dtype", "base"):
        assert getattr(ours, each) == getattr(stock, each), each
    assert ours.flags == stock.flags
    assert type(ours) is np.ndarray


def test_dtype_of_the_result_is_the_object_that_numpy_gives() -> None:
    kinds = [np.dtype("f8", metadata={"unit": unit}) for unit in ("m", "s")]
    kinds.append(pickle.loads(pickle.dumps(np.dtype("f8"))))
    for one in kinds:
        for other in (*kinds, np.dtype("f8")):
            x, y = X.astype(one), Y.astype(other)
            stock = (x @ y).dtype
            with lapack_ai.set_backend():
                assert (x @ y).dtype is stock


def test_wherever_the_operands_come_from() -> None:
    read_only = X.copy()
    read_only.flags.writeable = False
    buffer = np.frombuffer(X.tobytes()).reshape(4, 4)
    lapack_ai.enable()
    for x in (read_only, buffer, X[::-1, ::-1], np.broadcast_to(X[0], (4, 4))):
        np.testing.assert_array_equal(x @ Y, np.matmul(x, Y))
        np.testing.assert_array_equal(Y @ x, np.matmul(Y, x))


# ---- what is not -------------------------------------------------------------------------------


class Plain(np.ndarray[Any, Any]):
    """A subclass without anything of its own."""


class Answering(np.ndarray[Any, Any]):
    """A subclass that answers for itself on the right."""

    __array_priority__ = 100.0

    def __rmatmul__(self, other: object) -> Any:
        return "answered"


class Silent(np.ndarray[Any, Any]):
    """A subclass that takes part in no ufunc."""

    __array_ufunc__ = None


class Foreign:
    """No array, and it answers."""

    __array_ufunc__ = None

    def __matmul__(self, other: object) -> str:
        return "left"

    def __rmatmul__(self, other: object) -> str:
        return "right"


OPERANDS: dict[str, Any] = {
    "matrix": X,
    "vector": X[0],
    "wide": filled((3, 5), "float64", "dense", 0, 3),
    "large": filled((20, 20), "float64", "dense", 0, 4),
    "stack": np.stack([X, Y]),
    "single precision": X.astype("f4"),
    "complex": X * 1j,
    "int": np.arange(16).reshape(4, 4),
    "int8": np.arange(16, dtype="i1").reshape(4, 4),
    "half": X.astype("f2"),
    "bool": X > 0,
    "object": X.astype(object),
    "swapped": X.astype(">f8"),
    "unaligned": np.frombuffer(b"\0" + X.tobytes(), np.int8)[1:].view("f8").reshape(4, 4),
    "dates": np.zeros((4, 4), "M8[s]"),
    "text": np.full((4, 4), "x"),
    "record": np.zeros((4, 4), "f8,f8"),
    "empty": np.ones((0, 4)),
    "nothing to sum": np.ones((4, 0)),
    "no axes": np.array(2.0),
    "scalar": np.float64(2),
    "number": 2.0,
    "list": X.tolist(),
    "none": None,
    "plain": X.view(Plain),
    "answering": X.view(Answering),
    "silent": X.view(Silent),
    "foreign": Foreign(),
    "masked": np.ma.masked_array(X),
}


@pytest.mark.parametrize("left", OPERANDS)
def test_any_other_pair_is_matmuls(left: str) -> None:
    """Compared with kernels switched off: the same results to the bit, the same errors in the same words."""
    x = OPERANDS[left]
    for right, y in OPERANDS.items():
        stock = outcome(lambda y=y: x @ y)
        with lapack_ai.set_backend(disable=("numpy.matmul",)):
            assert outcome(lambda y=y: x @ y) == stock, right
        with lapack_ai.set_backend():
            taken = outcome(lambda y=y: x @ y)
        assert (taken[0], taken[1], taken[-1]) == (stock[0], stock[1], stock[-1]), right
        with lapack_ai.skip_backend():
            assert outcome(lambda y=y: x @ y) == stock, right


def test_types_made_before_during_and_after() -> None:
    """Python's types find ndarray's method, C's copy the slot: these keep our function for good."""
    values = X.tolist()

    def operands() -> list[Any]:
        kinds: list[Any] = []
        for name in ("Plain", "Silent"):
            body = {"__array_ufunc__": None} if name == "Silent" else {}
            python, c = type(name, (np.ndarray,), body), type(name, (np.ndarray,), body)
            ufunc_memory.operators(c)[ufunc_memory.MATMUL] = ufunc_memory.operators()[ufunc_memory.MATMUL]
            kinds += [python, c]
        return [X.view(kind) for kind in kinds]

    def outcomes(made: list[Any]) -> list[Any]:
        others = [X, values, 2.0, Foreign(), *made]
        pairs = [(x, y) for x in made for y in others] + [(y, x) for x in made for y in others]
        # Types of the same name made at another time are told apart by nothing else.
        return [[str(part) for part in outcome(lambda x=x, y=y: x @ y)] for x, y in pairs]

    before = operands()
    stock = outcomes(before)
    lapack_ai.enable(disable=("numpy.matmul",))
    during = operands()
    own = ufunc_memory.operators()[ufunc_memory.MATMUL]
    assert [ufunc_memory.operators(type(each))[ufunc_memory.MATMUL] == own for each in during] == [False, True] * 2
    assert outcomes(before) == stock
    assert outcomes(during) == stock
    lapack_ai.disable()
    after = operands()
    for made in (before, during, after):
        assert outcomes(made) == stock


def test_method_and_inplace_operator_are_numpys() -> None:
    lapack_ai.enable()
    np.testing.assert_array_equal(np.ndarray.__matmul__(X, Y), X @ Y)
    np.testing.assert_array_equal(X.__rmatmul__(Y), Y @ X)
    z = X.copy()
    same = z
    z @= Y
    assert z is same
    np.testing.assert_array_equal(z, X @ Y)


def test_operator_of_somebody_else_is_respected() -> None:
    """Theirs stays where it is, and np.matmul's loops are routed all the same."""
    passes(
        f"""
        import sys
        sys.path.insert(0, {str(ufunc_memory.__file__).rpartition("/")[0]!r})
        import ctypes
        import numpy as np, ufunc_memory
        import lapack_ai_backend as lapack_ai
        slots, place = ufunc_memory.operators(), ufunc_memory.MATMUL
        binary = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object)
        own = binary(slots[place])
        calls = []
        @binary
        def theirs(x, y):
            calls.append(1)
            return own(x, y)
        address = ctypes.cast(theirs, ctypes.c_void_p).value
        stock, slots[place] = slots[place], address
        for _ in range(2):
            lapack_ai.enable()
            assert slots[place] == address
            a = np.eye(4)
            assert (a @ a == a).all()
            assert lapack_ai.stats()["numpy.matmul", "direct"].calls == 1
            lapack_ai.disable()
            lapack_ai.reset_stats()
        slots[place] = stock
        lapack_ai.enable()
        ours = slots[place]
        assert ours != stock
        slots[place] = address      # put in after us: not ours to take out
        lapack_ai.disable()
        assert slots[place] == address and len(calls) == 2
        slots[place] = ours
        assert (a @ a == a).all() and not lapack_ai.stats()
        """
    )


# ---- floating-point flags ----------------------------------------------------------------------

FLAGS = ("over", "invalid", "divide", "under")


def special_operands(dtype: str) -> dict[str, tuple[Array, Array]]:
    info = np.finfo(dtype)
    one = np.ones((4, 4), dtype)

    def changed(value: Any, where: tuple[int, int] = (1, 2)) -> Array:
        x = one.copy()
        x[where] = value
        return x

    opposite = one * info.max
    opposite[:, ::2] *= -1
    return {
        "ordinary": (one, one),
        "zeros": (0 * one, one),
        "NaN": (changed(np.nan), one),
        "Inf": (one, changed(np.inf)),
        "Inf * 0": (changed(np.inf), 0 * one),
        "Inf - Inf": (changed(np.inf), changed(-np.inf, (0, 0)) - changed(np.inf, (3, 3)) + one),
        "overflow": (changed(info.max), 2 * one),
        "overflow on the way": (opposite, 2 * one),
        "underflow": (changed(info.smallest_normal), one / 3),
        "subnormals": (changed(info.smallest_subnormal), one / 3),
        "vanishing": (one * info.smallest_normal, one * info.smallest_normal),
    }


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", REAL + COMPLEX)
def test_flags_are_reported_as_by_matmul(isa: str, dtype: str) -> None:
    for name, (x, y) in special_operands(dtype).items():
        for a, b in ((x, y), (y, x), (x, y[:, 1]), (x[1], y)):
            for stale in (1.0, np.inf):
                for flag in FLAGS:
                    with np.errstate(all="ignore", **{flag: "raise"}):
                        loop = outcome(lambda a=a, b=b: np.matmul(a, b))
                        stale - stale  # Inf - Inf: an invalid operation before, which is nobody's here
                        assert outcome(lambda a=a, b=b: a @ b) == loop, (name, flag)


def test_warnings_point_at_the_users_line() -> None:
    x = X * 1e300
    lapack_ai.enable()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x @ x
    assert [(each.category, str(each.message), each.filename) for each in caught] == [
        (RuntimeWarning, "overflow encountered in matmul", __file__)
    ]


def test_what_a_kernel_hands_back_is_counted_once() -> None:
    x = X.copy()
    x[0, 0] = np.inf
    with lapack_ai.set_backend(), np.errstate(all="ignore"):
        assert counted(lambda: x @ Y) == counted(lambda: np.matmul(x, Y))
        assert counted(lambda: X @ Y) == counted(lambda: np.matmul(X, Y))


# ---- the context -------------------------------------------------------------------------------


def test_trace_and_explain_tell_what_runs_without_a_trace() -> None:
    forced = [{"force": {"matmul": kernel}} for kernel in ("direct", "alphatensor49", "stock")]
    for options in ({}, *forced, {"disable": ("matmul",)}):
        with lapack_ai.set_backend(**options):
            result = X @ Y
            stats = counted(lambda: X @ Y)
            told = lapack_ai.explain(operator.matmul, X, Y)
            with lapack_ai.trace() as t:
                np.testing.assert_array_equal(X @ Y, result)
        (decision,) = t.decisions
        fields = ("function", "kernel", "rule", "reason_code", "problem", "active")
        assert [getattr(decision, each) for each in fields] == [getattr(told, each) for each in fields]
        ((key, counter),) = stats.items()
        assert key == ("numpy.matmul", told.kernel)
        assert (counter.calls, counter.bytes) == (1, 3 * X.nbytes)
        assert counter.fallbacks == ({} if told.rule else {told.reason_code: 1})


def test_every_product_asks_its_own_context() -> None:
    stock, other = {"force": {"matmul": "stock"}}, {"force": {"matmul": "direct"}}
    lapack_ai.enable()
    for call in (lambda: X @ Y, lambda: np.matmul(X, Y)):
        for between in (lambda: X[:3] @ Y, lambda: X @ X[0, :3], lambda: [] @ X):
            stats = []
            for options in (stock, other, stock, {}):
                with lapack_ai.set_backend(**options):
                    outcome(between)
                    stats.append([kernel for _, kernel in counted(call)])
                with lapack_ai.skip_backend():
                    outcome(between)
                    stats.append([kernel for _, kernel in counted(call)])
            assert stats == [["stock"], [], ["direct"], [], ["stock"], [], ["direct"], []]


def test_threads() -> None:
    """Threads with and without the backend, and one that takes the hooks out and puts them in again."""
    expected, wrong, stop = X @ Y, [], threading.Event()

    def multiply(on: bool) -> None:
        while not stop.is_set():
            with lapack_ai.set_backend() if on else lapack_ai.skip_backend():
                for _ in range(50):
                    if not np.allclose(X @ Y, expected, rtol=1e-13):
                        wrong.append(on)

    threads = [threading.Thread(target=multiply, args=(on,)) for on in (True, False, True)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        lapack_ai.enable()
        X @ Y
        lapack_ai.disable()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_counts_of_threads_add_up_and_outlive_them() -> None:
    def multiply() -> None:
        with lapack_ai.set_backend():
            for _ in range(1000):
                X @ Y

    lapack_ai.reset_stats()
    for round_ in (1, 2):
        threads = [threading.Thread(target=multiply) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        multiply()
        assert lapack_ai.stats()["numpy.matmul", "direct"].calls == 5000 * round_
    lapack_ai.reset_stats()
    assert lapack_ai.stats() == {}
    multiply()
    assert lapack_ai.stats()["numpy.matmul", "direct"].blocks_direct == 1000


# ---- memory ------------------------------------------------------------------------------------


def test_nothing_is_kept() -> None:
    dtype, infinite = X.dtype, np.full((4, 4), np.inf)
    lapack_ai.enable()

    def products() -> None:
        with np.errstate(all="ignore"):
            for _ in range(1000):
                X @ Y  # taken
                X @ infinite  # taken, then given back
                X @ X[:, :0]  # passed on

    products()
    objects = (X, Y, infinite, dtype, np.matmul)
    before = [sys.getrefcount(each) for each in objects]
    gc.collect()
    tracemalloc.start()
    try:
        products()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
    assert [sys.getrefcount(each) for each in objects] == before


def test_the_result_is_the_callers_own() -> None:
    lapack_ai.enable()
    result = X @ Y
    assert sys.getrefcount(result) == 2
    result[...] = 0
    assert (X @ Y).any()
