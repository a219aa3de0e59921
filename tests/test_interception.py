"""Every way to a product or to a function of scipy.linalg leads to the policy, and off means off."""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy
import scipy.linalg as sl
import scipy.optimize
import scipy.sparse.linalg
import ufunc_memory
from scipy.linalg import svd as early_svd
from scripts import passes
from temporary_kernels import NAME, temporary_kernel

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import activation, interception
from lapack_ai_backend.multimethods import ARRAYS, FUNCTIONS, LINALG
from lapack_ai_backend.policy import Decision

early_matmul = np.matmul
MATRIX = np.diag([3.0, 2.0, 1.0]) + 0.25
STACK = np.arange(1.0, 97.0).reshape(6, 4, 4)


class Subclass(np.ndarray[Any, Any]):
    """An array type that NumPy passes on to the loops."""


def traced(call: Callable[[], object]) -> list[Decision]:
    with lapack_ai.set_backend(lapack_ai), lapack_ai.trace() as t:
        call()
    return t.decisions


# ---- numpy.matmul ------------------------------------------------------------------------------

PRODUCTS: dict[str, Callable[[], Any]] = {
    "@": lambda: STACK @ STACK,
    "operator.matmul": lambda: operator.matmul(STACK, STACK),
    "np.matmul": lambda: np.matmul(STACK, STACK),
    "bound early": lambda: early_matmul(STACK, STACK),
    "partial": lambda: functools.partial(np.matmul, STACK)(STACK),
    "out=": lambda: np.matmul(STACK, STACK, out=np.empty_like(STACK)),
    "axes=": lambda: np.matmul(STACK, STACK, axes=[(-2, -1)] * 3),
    "dtype=": lambda: np.matmul(STACK.astype(np.float32), STACK.astype(np.float32), dtype=np.float64),
    "np.linalg.matmul": lambda: np.linalg.matmul(STACK, STACK),
    "matrix_power": lambda: np.linalg.matrix_power(STACK, 2),
    "einsum": lambda: np.einsum("ij,jk->ik", STACK[0], STACK[1], optimize=True),
    "mixed dtypes": lambda: STACK @ STACK.astype(np.int8),
    "nested lists": lambda: np.matmul(STACK.tolist(), STACK.tolist()),
    "byte-swapped": lambda: STACK.astype(">f8") @ STACK,
    "subclass": lambda: STACK.view(Subclass) @ STACK,
    "np.matrix": lambda: np.asmatrix(STACK[0]) @ np.asmatrix(STACK[1]),
    "masked": lambda: np.ma.masked_array(STACK) @ STACK,
    "broadcast": lambda: STACK[:, None] @ STACK[0],
    "transposed": lambda: STACK.swapaxes(-1, -2) @ STACK[::-1],
    "unaligned": lambda: np.frombuffer(b"\0" + STACK.tobytes(), np.int8)[1:].view("f8").reshape(6, 4, 4) @ STACK,
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("way", PRODUCTS)
def test_products_reach_a_kernel(way: str) -> None:
    if way == "einsum" and np.lib.NumpyVersion(np.__version__) < "2.4.0":
        pytest.skip("einsum goes through tensordot before NumPy 2.4")
    stock = PRODUCTS[way]()
    results: list[Any] = []
    decisions = traced(lambda: results.append(PRODUCTS[way]()))
    assert [each.function for each in decisions] == ["numpy.matmul"] * len(decisions)
    assert decisions
    assert {each.kernel for each in decisions} <= {"alphatensor49", "direct"}
    assert type(results[0]) is type(stock)
    assert results[0].dtype == stock.dtype
    np.testing.assert_allclose(np.asarray(results[0]), np.asarray(stock), rtol=1e-13)


def test_inplace_product_reaches_a_kernel() -> None:
    a, b = STACK.copy(), STACK[::-1].copy()

    def multiply() -> None:
        nonlocal a
        before = a
        a @= b
        assert a is before

    assert [each.kernel for each in traced(multiply)] == ["alphatensor49"]
    np.testing.assert_allclose(a, STACK @ STACK[::-1], rtol=1e-13)


def test_output_that_overlaps_an_input() -> None:
    a = STACK.copy()
    with lapack_ai.set_backend():
        np.matmul(a, a, out=a)
    np.testing.assert_allclose(a, STACK @ STACK, rtol=1e-13)


@pytest.mark.parametrize(
    "kind", ["int32", "int64", "uint32", "uint64", "long", "longlong", "intc", "ulong", "ulonglong"]
)
def test_every_integer_type_of_a_width_reaches_a_kernel(kind: str) -> None:
    a = np.arange(96, dtype=kind).reshape(6, 4, 4)
    (decision,) = traced(lambda: a @ a)
    assert decision.kernel == "alphatensor49"


def test_vectors_go_through_the_loop() -> None:
    decisions = traced(lambda: (STACK @ STACK[0, 0], STACK[0, 0] @ STACK, STACK[0, 0] @ STACK[0, 0]))
    assert [(each.problem.m, each.problem.k, each.problem.n) for each in decisions if each.problem] == [
        (4, 4, 1),
        (1, 4, 4),
        (1, 4, 1),
    ]


def test_numpy_names_are_untouched() -> None:
    with lapack_ai.set_backend():
        assert np.matmul is early_matmul
        assert pickle.loads(pickle.dumps(np.matmul)) is early_matmul
        assert np.matmul.types == early_matmul.types
        assert np.ndarray.__matmul__(STACK, STACK).shape == STACK.shape


def test_hook_of_somebody_else_is_respected() -> None:
    """process_core_dims_func in use: the product stays stock, scipy.linalg goes on, info() says so."""
    passes(
        """
        import ctypes, sys
        import numpy as np, scipy.linalg as sl
        import lapack_ai_backend as lapack_ai
        words = (ctypes.c_size_t * (np.ufunc.__basicsize__ // 8)).from_address(id(np.matmul))
        before = list(words)
        lapack_ai.enable()
        (place,) = [i for i, word in enumerate(words) if i and word != before[i]]
        lapack_ai.disable()
        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        def theirs(ufunc, dims):
            return 0
        words[place] = ctypes.cast(theirs, ctypes.c_void_p).value
        a = np.ones((10, 4, 4))
        with lapack_ai.set_backend(), lapack_ai.trace() as t:
            assert (a @ a == 4).all()
            sl.det(a[0])
            told = lapack_ai.explain(np.matmul, a, a)
        assert [d.function for d in t.decisions] == ["scipy.linalg.det"], t.decisions
        assert told.kernel == "stock" and "process_core_dims_func" in told.reason, told
        assert "process_core_dims_func" in lapack_ai.info()["interception"]["left_stock"]["numpy.matmul"]
        lapack_ai.disable()
        assert words[place] == ctypes.cast(theirs, ctypes.c_void_p).value
        words[place] = 0
        lapack_ai.enable()
        assert "numpy.matmul" not in lapack_ai.info()["interception"]["left_stock"]
        """
    )


class Multiplying(float):
    """A number whose conversion multiplies matrices: a product inside a product."""

    def __float__(self) -> float:
        STACK @ STACK
        return 2.0


def test_product_inside_the_conversion_for_a_product() -> None:
    """The inner call's decision must not serve the outer one."""
    a = np.full((3, 3), None, dtype=object)
    a[...] = [[Multiplying() for _ in range(3)] for _ in range(3)]
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        result = np.matmul(a, a, dtype=np.float64, casting="unsafe")
    np.testing.assert_array_equal(result, np.full((3, 3), 12.0))
    assert "direct" in {each.kernel for each in t.decisions if each.problem and each.problem.m == 3}
    inner = [each for each in t.decisions if each.problem and each.problem.m == 4]
    assert len(inner) == 18
    assert {(each.kernel, each.problem.batch) for each in inner if each.problem} == {("alphatensor49", 6)}


class Number:
    """A number of Python's own making, whose products multiply matrices."""

    def __mul__(self, other: object) -> float:
        STACK @ STACK
        return 2.0


def test_product_inside_the_loop_of_a_product() -> None:
    """An array of objects runs Python inside its loop; what that multiplies is counted and traced beside it."""
    a = np.array([[Number(), Number()]], dtype=object)
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        assert (a @ a.T).tolist() == [[4.0]]
        STACK[0] @ STACK[1]
    assert [each.kernel for each in t.decisions] == ["stock", "alphatensor49", "alphatensor49", "direct"]
    assert [each.problem.m for each in t.decisions if each.problem] == [1, 4, 4, 4]
    stats = lapack_ai.stats()
    assert stats["numpy.matmul", "alphatensor49"].calls == 2
    assert stats["numpy.matmul", "alphatensor49"].blocks_alphatensor == 12
    assert stats["numpy.matmul", "direct"].calls == 1


# Functions that this SciPy has, once each, and that are written in Python (all of them since 1.18).
PRESENT = [name for name in LINALG if getattr(getattr(sl, name, None), "__name__", "") == name]
PYTHON = [name for name in PRESENT if inspect.isfunction(getattr(sl, name))]
NEWEST = tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 18)

# ---- scipy.linalg ----------------------------------------------------------------------------

FUNCTION_WAYS: dict[str, Callable[[], Any]] = {
    "attribute": lambda: sl.svd(MATRIX),
    "bound early": lambda: early_svd(MATRIX),
    "partial": lambda: functools.partial(early_svd, full_matrices=False)(MATRIX),
    "keyword": lambda: early_svd(a=MATRIX),
    "pinv": lambda: sl.pinv(MATRIX),
    "orth": lambda: sl.orth(MATRIX),
    "null_space": lambda: sl.null_space(MATRIX),
    "polar": lambda: sl.polar(MATRIX),
    "subspace_angles": lambda: sl.subspace_angles(MATRIX[:, :2], MATRIX[:, 1:]),
    "least_squares": lambda: scipy.optimize.least_squares(lambda x: MATRIX @ x - 1, np.zeros(3), method="trf"),
    "sparse svds": lambda: scipy.sparse.linalg.svds(scipy.sparse.eye_array(20), k=2, solver="arpack"),
}
REACHES = {"sparse svds": {"scipy.linalg.eigh", "scipy.linalg.qr", "scipy.linalg.svd"}}


@pytest.mark.parametrize("way", FUNCTION_WAYS)
def test_functions_are_reached(way: str) -> None:
    decisions = traced(FUNCTION_WAYS[way])
    reached = {each.function for each in decisions}
    assert reached & REACHES.get(way, {"scipy.linalg.svd"}), reached


def test_inner_calls_reach_kernels() -> None:
    """pinv -> svd: the function that is called inside is routed, the outer one runs as SciPy wrote it."""
    seen = []

    def svd(*args: Any, **kwargs: Any) -> Any:
        seen.append(args)
        return interception.STOCK["scipy.linalg.svd"](*args, **kwargs)

    stock = sl.pinv(MATRIX)
    with temporary_kernel("scipy.linalg.svd", svd), lapack_ai.set_backend(), lapack_ai.trace() as t:
        result = sl.pinv(MATRIX)
    np.testing.assert_allclose(result, stock, rtol=1e-13)
    assert len(seen) == 1
    assert [(each.function, each.kernel) for each in t.decisions if each.function != "numpy.matmul"] == [
        ("scipy.linalg.pinv", "stock"),
        ("scipy.linalg.svd", NAME),
    ]


def test_table_names_functions_of_scipy() -> None:
    missing = [name for name in LINALG if not hasattr(sl, name)]
    # Names that SciPy drops one day are allowed to be in the table as long as an older one has them.
    assert not missing or not NEWEST
    for name in set(LINALG) - set(missing):
        parameters = inspect.signature(getattr(sl, name)).parameters
        assert set(LINALG[name].split()) <= set(parameters), name


TAKE_NO_ARRAY = {
    "LinAlgError",
    "LinAlgWarning",
    "basic",
    "blas",
    "cython_blas",
    "cython_lapack",
    "decomp",
    "decomp_cholesky",
    "decomp_lu",
    "decomp_qr",
    "decomp_schur",
    "decomp_svd",
    "dft",
    "find_best_blas_type",
    "get_blas_funcs",
    "get_lapack_funcs",
    "hadamard",
    "helmert",
    "hilbert",
    "interpolative",
    "invhilbert",
    "invpascal",
    "lapack",
    "matfuncs",
    "misc",
    "pascal",
    "special_matrices",
    "tri",
    "tril",
    "triu",
    "kron",
}


def test_table_is_complete() -> None:
    """A new array function of SciPy shows up here; a second name of a function (solve_lyapunov) need not."""
    known = {getattr(sl, name) for name in LINALG if hasattr(sl, name)}
    assert {name for name in set(sl.__all__) - TAKE_NO_ARRAY if getattr(sl, name) not in known} == set()


def test_every_function_is_intercepted() -> None:
    lapack_ai.enable()
    left = lapack_ai.info()["interception"]["left_stock"]
    assert set(left) == {f"scipy.linalg.{name}" for name in LINALG if name not in PYTHON}
    assert left == {} or not NEWEST
    for name in PYTHON:
        assert getattr(sl, name).__code__.co_filename == interception.FILE_NAME


@pytest.mark.parametrize("name", PYTHON)
def test_functions_keep_their_face(name: str) -> None:
    function = getattr(sl, name)
    signature, doc = inspect.signature(function), function.__doc__
    names = function.__name__, function.__qualname__, function.__module__
    defaults = function.__defaults__, function.__kwdefaults__
    with lapack_ai.set_backend():
        assert getattr(sl, name) is function
        assert inspect.signature(function) == signature
        assert function.__doc__ == doc
        assert (function.__name__, function.__qualname__, function.__module__) == names
        assert (function.__defaults__, function.__kwdefaults__) == defaults
        assert function.__code__.co_name == interception.STOCK[f"scipy.linalg.{name}"].__code__.co_name
        assert pickle.loads(pickle.dumps(function)) is function


def test_signature_that_the_table_does_not_know_stays_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARRAYS, "scipy.linalg.det", "matrix")
    code = sl.det.__code__
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        assert sl.det.__code__ is code
        sl.det(MATRIX)
        decision = lapack_ai.explain(sl.det, MATRIX)
    assert t.decisions == []
    assert decision.kernel == "stock"
    assert "matrix" in decision.reason
    assert "scipy.linalg.det" in lapack_ai.info()["interception"]["left_stock"]


def test_second_name_of_a_function_means_the_same() -> None:
    """SciPy knows solve_continuous_lyapunov as solve_lyapunov, too."""
    assert sl.solve_lyapunov is sl.solve_continuous_lyapunov
    for name in ("solve_lyapunov", "solve_continuous_lyapunov"):
        with lapack_ai.set_backend(disable=(name,)), lapack_ai.trace() as t:
            told = lapack_ai.explain(name, MATRIX, MATRIX), lapack_ai.explain(getattr(sl, name), MATRIX, MATRIX)
            sl.solve_lyapunov(MATRIX, MATRIX)
        assert {each.reason_code for each in (t.decisions[0], *told)} == {"disabled"}
        assert len({each.function for each in (t.decisions[0], *told)}) == 1


# ---- off means off ------------------------------------------------------------------------------


def test_disable_puts_everything_back() -> None:
    codes = {name: getattr(sl, name).__code__ for name in PYTHON}
    fields, loops, operators = ufunc_memory.fields(), ufunc_memory.loops(), list(ufunc_memory.operators())
    for _ in range(2):
        lapack_ai.enable()
        assert ufunc_memory.fields() != fields
        changed = [new != old for new, old in zip(ufunc_memory.operators(), operators, strict=True)]
        assert [place for place, other in enumerate(changed) if other] == [ufunc_memory.MATMUL]
        changed = [new != old for new, old in zip(ufunc_memory.loops(), loops, strict=True)]
        kept = {np.matmul.types[i] for i, other in enumerate(changed) if not other}
        assert kept <= {"??->?", "OO->O"}
        assert not any(getattr(sl, name).__code__ is code for name, code in codes.items())
        lapack_ai.disable()
        assert ufunc_memory.fields() == fields
        assert ufunc_memory.loops() == loops
        assert list(ufunc_memory.operators()) == operators
        assert all(getattr(sl, name).__code__ is code for name, code in codes.items())


def test_disable_inside_a_context_and_again() -> None:
    with lapack_ai.set_backend():
        lapack_ai.disable()
        lapack_ai.disable()
        assert not interception.is_installed()
        assert (STACK @ STACK).shape == STACK.shape
        sl.det(MATRIX)
    assert lapack_ai.stats() == {}
    assert (traced(lambda: STACK @ STACK))[0].kernel == "alphatensor49"


def test_inactive_context_is_stock_to_the_bit() -> None:
    a = np.random.default_rng(1).normal(size=(50, 4, 4))
    stock = a @ a, sl.svd(a[0])
    with lapack_ai.set_backend():
        pass
    assert interception.is_installed()
    np.testing.assert_array_equal(a @ a, stock[0])
    for ours, theirs in zip(sl.svd(a[0]), stock[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert lapack_ai.stats() == {}


def test_order_of_enable_and_imports_does_not_matter() -> None:
    for early in (True, False):
        lines = ["import numpy as np", "from scipy.linalg import svd"]
        switch = ["import lapack_ai_backend as lapack_ai", "lapack_ai.enable()"]
        passes(
            "\n".join([*lines, *switch] if early else [*switch, *lines])
            + "\nsvd(np.eye(3)); np.ones((3, 4, 4)) @ np.eye(4)"
            + "\nassert set(lapack_ai.stats()) == {('scipy.linalg.svd', 'stock'), ('numpy.matmul', 'alphatensor49')}"
        )


def test_enable_is_idempotent_and_disable_needs_no_enable() -> None:
    lapack_ai.disable()
    assert not lapack_ai.is_enabled()
    lapack_ai.enable()
    lapack_ai.enable()
    assert lapack_ai.is_enabled()
    lapack_ai.disable()
    assert not lapack_ai.is_enabled()
    assert not interception.is_installed()
    assert activation.PROCESS.options is None


# ---- explain tells what runs -----------------------------------------------------------------


def _arguments(name: str) -> list[tuple[Any, ...]]:
    """Calls of any function: the point is the decision, so an error is as good as a result."""
    count = len(LINALG[name].split())
    plain = tuple(np.eye(3) + 0.1 for _ in range(count))
    return [plain, tuple([[2.0, 1.0], [1.0, 3.0]] for _ in range(count)), tuple(np.ones(3) for _ in range(count))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"disable": FUNCTIONS}], ids=["on", "disabled"])
def test_explain_agrees_with_the_trace(options: dict[str, Any]) -> None:
    wrong = []
    for name in PYTHON:
        for args in _arguments(name):
            with lapack_ai.set_backend(**options), lapack_ai.trace() as t:
                try:
                    told = lapack_ai.explain(name, *args)
                except TypeError:  # too few arguments: no call either
                    continue
                with contextlib.suppress(Exception):
                    getattr(sl, name)(*args)
            ran = t.decisions[0]
            fields = ("function", "kernel", "reason_code", "rule", "active")
            wrong += [(name, each) for each in fields if getattr(ran, each) != getattr(told, each)]
    assert not wrong, f"{len(wrong)}, the first: {wrong[:5]}"


class Switching(float):
    """A number whose conversion multiplies under other settings than the product that converts it."""

    inner: Any = None

    def __float__(self) -> float:
        with self.inner():
            STACK @ STACK
        return 2.0


def converting(inner: Any) -> np.ndarray[Any, Any]:
    """An array that has to be converted, by one number that switches on the way."""
    number = Switching()
    number.inner = inner
    a = np.full((5, 4, 4), 2.0, dtype=object)
    a[0, 0, 0] = number
    return a


def test_product_inside_a_conversion_keeps_its_settings_to_itself() -> None:
    a = converting(lambda: lapack_ai.set_backend(force={"matmul": "direct"}))
    with lapack_ai.set_backend():
        pass  # the hooks are in, the context is off
    np.matmul(a, a, dtype=np.float64, casting="unsafe")
    counted = lapack_ai.stats()
    assert list(counted) == [("numpy.matmul", "direct")]
    assert counted["numpy.matmul", "direct"].blocks_direct == 2 * len(STACK), "the outer product was off"


def test_product_inside_a_conversion_does_not_switch_the_outer_one_off() -> None:
    a = converting(lapack_ai.skip_backend)
    with lapack_ai.set_backend(force={"matmul": "direct"}):
        np.matmul(a, a, dtype=np.float64, casting="unsafe")
    assert lapack_ai.stats()["numpy.matmul", "direct"].blocks_direct == 5


def test_later_piece_that_falls_back_is_counted() -> None:
    """A stack that NumPy runs in pieces, of which the last holds what the kernel refuses."""
    a = np.random.default_rng(1).uniform(1, 2, (5, 1, 8, 8))
    b = np.random.default_rng(2).uniform(1, 2, (1, 2, 8, 8))
    a[4, 0, 0, 0] = 0
    with lapack_ai.set_backend(force={"matmul": "gemm_alpha"}):
        np.testing.assert_allclose(a @ b, np.einsum("xamk,bykn->xymn", a, b))
    assert lapack_ai.stats()["numpy.matmul", "stock"].fallbacks == {"kernel_declined": 1}
