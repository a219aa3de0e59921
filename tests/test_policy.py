"""The one policy: its rows are sound, and explain() tells before a call what the call then does."""

from __future__ import annotations

import operator
import os
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.sparse
from hypothesis import example, given
from hypothesis import strategies as st

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import native, policy, problem, reasons, registry, rules, tuned_rules
from lapack_ai_backend.multimethods import FUNCTIONS, MATMUL
from lapack_ai_backend.native import lib
from lapack_ai_backend.options import Options
from lapack_ai_backend.problem import Problem
from lapack_ai_backend.registry import KERNELS, UNLIMITED, Limits
from lapack_ai_backend.rules import RULES, Rule

STACK = np.arange(1.0, 97.0).reshape(6, 4, 4)

# ---- the rules ----------------------------------------------------------------------------------


def test_names_of_rules_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_names_a_kernel_that_can(rule: Rule) -> None:
    kernel = KERNELS[rule.kernel]
    assert rule.function in kernel.functions
    assert rule.function in FUNCTIONS
    assert set(rule.dtypes) <= set(kernel.errors)
    assert set(rule.dtypes) <= set(native.DTYPES)
    own, its = rule.limits, kernel.limits
    assert own.min_dim >= its.min_dim
    assert own.max_dim <= its.max_dim
    assert own.min_work >= its.min_work
    assert own.min_batch >= its.min_batch
    assert own.max_batch <= its.max_batch
    assert own.square or not its.square
    assert its.symmetric or not own.symmetric
    assert own.min_isa >= its.min_isa
    assert own.as_blas >= its.as_blas


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_says_why(rule: Rule) -> None:
    """The measurement: a benchmark of asv_bench by name, a ratio, a date."""
    assert rule.because != "PLACEHOLDER"
    assert any(character.isdigit() for character in rule.because)
    assert "20" in rule.because, "the date"


def _problems(rule: Rule) -> list[Problem]:
    """Problems at the corners of a rule's limits."""
    limits = rule.limits
    least = max(limits.min_dim, 1, *(side for side in (round(limits.min_work ** (1 / 3)),) if side))
    while least**3 < limits.min_work:
        least += 1
    sides = {least, min(limits.max_dim, 4 * least), min(limits.max_dim, least + 1)}
    batches = {limits.min_batch, min(limits.max_batch, 1000)}
    shapes = [(side, side, side) for side in sides]
    if not limits.square:
        shapes += [(m, k, n) for m in sides for k in sides for n in sides]
    k_of = (lambda k: k) if rule.function == MATMUL else (lambda k: 0)
    return [
        Problem(rule.function, dtype, m, k_of(k), n, batch, symmetric)
        for dtype in rule.dtypes
        for m, k, n in shapes
        for batch in batches
        for symmetric in {False, limits.symmetric}
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_reached(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each dtype that it names: no rule above takes everything that it could."""
    monkeypatch.setattr(policy.devices, "choose", lambda option, dtype: "a GPU")
    table = policy.table_for(Options())
    reached = set()
    for each in _problems(rule):
        decision = policy.readable(policy.decide(each.function, each, table), each)
        if decision.rule == rule.name:
            reached.add(each.dtype)
    assert reached == set(rule.dtypes)


def test_shipped_choices() -> None:
    """Stacks of 4x4 go to AlphaTensor, other small ones to the direct kernel, A @ A.T keeps its symmetry."""

    def kernel(a: Any, b: Any) -> str:
        return lapack_ai.explain(np.matmul, a, b).kernel

    for dtype in ("float32", "float64", "complex64", "complex128", "int32", "int64", "uint32", "uint64"):
        stack = STACK.astype(dtype)
        assert kernel(stack, stack) == "alphatensor49"
        assert kernel(stack, stack.swapaxes(-1, -2)) == "direct"
        assert kernel(stack[0], stack[1]) == "direct"
        assert kernel(stack[:, :3, :3], stack[:, :3, :3]) == "direct"
    assert kernel(np.ones((9, 9)), np.ones((9, 9))) == "direct"
    assert kernel(np.ones((17, 17)), np.ones((17, 17))) == "stock"
    integers = np.ones((64, 64), int)
    assert kernel(integers, integers) == "integer"
    assert kernel(STACK > 1, STACK > 1) == "stock"


# ---- the registry, the reasons ----------------------------------------------------------------


def test_large_products_are_left_to_the_shipped_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tuned table is asked after them, and what it says of their kernel is not heard."""
    rest = Rule("tuned-stock", MATMUL, ("float64",), Limits(), "stock", "")
    stale = Rule("tuned-blocked", MATMUL, ("float64",), Limits(False, False, 32), "alphatensor49_blocked", "")
    monkeypatch.setattr(tuned_rules, "in_force", lambda name: (stale, rest))
    large = [rule for rule in RULES if rule.kernel in tuned_rules.NOT_TUNED]
    assert {rule.kernel for rule in large} == set(tuned_rules.NOT_TUNED)
    for name in ("auto", "tuned"):
        effective = policy._rules_of_policy(Options(policy=name))
        assert effective == (*large, rest, *(rule for rule in RULES if rule.function != MATMUL))
    assert policy._rules_of_policy(Options(policy="static")) == RULES
    monkeypatch.setattr(tuned_rules, "in_force", lambda name: None)
    assert policy._rules_of_policy(Options()) == RULES


def test_registry_refuses_what_is_taken() -> None:
    direct = KERNELS["direct"]
    for number, name in ((lib.LAI_MAX_KERNELS - 1, "direct"), (direct.number, "new"), (0, "new"), (99, "new")):
        with pytest.raises(ValueError, match="kernel"):
            registry.register(registry.Kernel(name, (MATMUL,), number, {}))
    assert set(KERNELS) == set(lapack_ai.kernels())


def test_kernels_are_fully_declared() -> None:
    assert {"alphatensor49", "direct", "integer"} <= set(lapack_ai.kernels())
    for name, kernel in lapack_ai.kernels().items():
        assert name == kernel.name
        assert set(kernel.functions) <= set(FUNCTIONS)
        assert kernel.source
        assert kernel.where in ("cpu", "opencl")
        assert kernel.errors
        for dtype, (kind, constant) in kernel.errors.items():
            assert dtype in native.DTYPES
            assert kind in (registry.EXACT, registry.COMPONENTWISE, registry.NORMWISE)
            assert (constant == 0) == (kind == registry.EXACT)


def test_kernels_returns_a_copy() -> None:
    lapack_ai.kernels().clear()
    assert KERNELS


def test_reasons_cover_the_enumeration() -> None:
    assert sorted(reasons.NUMBERS.values()) == list(range(lib.LAI_REASONS))
    assert all(reasons.TEXTS.values())
    names = {name for name in dir(lib) if name.startswith("LAI_")}
    assert {f"LAI_{code.upper()}" for code in reasons.TEXTS} <= names


def test_functions_and_kernels_fit_the_compiled_tables() -> None:
    assert len(FUNCTIONS) <= lib.LAI_MAX_FUNCTIONS
    assert len(KERNELS) < lib.LAI_MAX_KERNELS
    assert FUNCTIONS[lib.LAI_MATMUL] == MATMUL


# ---- options steer it ---------------------------------------------------------------------------


def explained(**options: Any) -> tuple[str, str]:
    decision = lapack_ai.explain(np.matmul, STACK, STACK, options=options)
    return decision.kernel, decision.reason_code


def ran(**options: Any) -> tuple[str, str]:
    with lapack_ai.set_backend(**options), lapack_ai.trace() as t:
        STACK @ STACK
    return t.decisions[0].kernel, t.decisions[0].reason_code


@pytest.mark.parametrize("ask", [explained, ran])
def test_force_disable_accuracy(ask: Any) -> None:
    assert ask() == ("alphatensor49", "routed")
    assert ask(force={"numpy.matmul": "direct"}) == ("direct", "routed")
    assert ask(force={"matmul": "stock"})[0] == "stock"
    assert ask(force={"matmul": "integer"}) == ("stock", "dtype")
    assert ask(disable=["matmul"]) == ("stock", "disabled")
    assert ask(disable=["matmul"], force={"matmul": "direct"}) == ("stock", "disabled")
    assert ask(disable=["svd"]) == ("alphatensor49", "routed")
    assert ask(accuracy="componentwise") == ("direct", "routed")
    assert ask(accuracy="componentwise", force={"matmul": "alphatensor49"}) == ("stock", "accuracy")
    assert ask(accuracy="componentwise", force={"matmul": "direct"}) == ("direct", "routed")
    assert ask(policy="static") == ("alphatensor49", "routed")


def test_reason_of_force_stock() -> None:
    assert explained(force={"matmul": "stock"}) == ran(force={"matmul": "stock"}) == ("stock", "forced")


def test_accuracy_leaves_integers_alone() -> None:
    a = STACK.astype(np.int64)
    assert lapack_ai.explain(np.matmul, a, a, options={"accuracy": "componentwise"}).kernel == "alphatensor49"


def test_two_names_of_one_function_in_force_agree_or_are_refused() -> None:
    with pytest.raises(lapack_ai.OptionError):
        lapack_ai.set_backend(force={"matmul": "direct", "numpy.matmul": "alphatensor49"})


def test_candidates_say_why_not() -> None:
    decision = lapack_ai.explain(np.matmul, STACK, STACK.swapaxes(-1, -2))
    candidates = {each.name: each for each in decision.candidates}
    assert set(candidates) == {kernel.name for kernel in registry.of_function(MATMUL)}
    assert candidates["direct"].allowed
    assert candidates["direct"].why_not == ""
    assert candidates["alphatensor49"].why_not == reasons.TEXTS["symmetric"]
    assert candidates["integer"].why_not == reasons.TEXTS["dtype"]
    forced = lapack_ai.explain(np.matmul, STACK, STACK, options={"force": {"matmul": "direct"}})
    assert {each.name: each.why_not for each in forced.candidates}["alphatensor49"] == reasons.TEXTS["forced"]
    disabled = lapack_ai.explain(np.matmul, STACK, STACK, options={"disable": ["matmul"]})
    assert {each.why_not for each in disabled.candidates} == {reasons.TEXTS["disabled"]}


@pytest.mark.parametrize(
    "name", sorted(kernel.name for kernel in registry.of_function(MATMUL) if kernel.where == "cpu")
)
def test_forced_kernel_runs_where_explain_says_so(name: str) -> None:
    copies = -(-KERNELS[name].limits.min_dim // 4)
    for dtype in KERNELS[name].errors:
        a = np.tile(STACK, (1, copies, copies)).astype(dtype)
        with lapack_ai.set_backend(force={KERNELS[name].function: name}), lapack_ai.trace() as t:
            told = lapack_ai.explain(np.matmul, a, a)
            result = a @ a
        assert told.kernel == name
        if t.decisions[0].reason_code != "kernel_declined":  # a kernel may look at layout and values, too
            assert t.decisions[0].kernel == name
        np.testing.assert_allclose(result, a @ a, rtol=1e-5 if dtype in ("float32", "complex64") else 1e-13)


def test_forced_device_kernel_wants_its_device() -> None:
    force = {"svd": "opencl_svd"}
    there = lapack_ai.explain(sl.svd, STACK, options={"force": force, "device": "cpu"})
    assert (there.kernel, there.reason_code) == ("opencl_svd", "routed")
    assert "'cpu' was asked for" in there.reason
    os.environ["LAPACK_GPU_ENABLED"] = "0"
    gone = lapack_ai.explain(sl.svd, STACK, options={"force": force, "device": "cpu"})
    assert (gone.kernel, gone.reason_code) == ("stock", "device")
    assert "LAPACK_GPU_ENABLED=0" in gone.reason
    (candidate,) = gone.candidates
    assert (candidate.allowed, candidate.why_not) == (False, gone.reason)


# ---- explain() -----------------------------------------------------------------------------------


def test_explain_says_where_it_is_active() -> None:
    assert not lapack_ai.explain(np.matmul, STACK, STACK).active
    with lapack_ai.set_backend():
        assert lapack_ai.explain(np.matmul, STACK, STACK).active
        assert not lapack_ai.explain(np.matmul, STACK, STACK, options={"accuracy": "componentwise"}).active
        with lapack_ai.skip_backend():
            assert not lapack_ai.explain(np.matmul, STACK, STACK).active
    lapack_ai.enable()
    assert lapack_ai.explain(np.matmul, STACK, STACK).active


@pytest.mark.parametrize("name", ["numpy.matmul", "matmul", np.matmul, np.linalg.matmul, lapack_ai.matmul])
def test_explain_takes_names_and_functions_of_products(name: Any) -> None:
    assert lapack_ai.explain(name, STACK, STACK).function == MATMUL


@pytest.mark.parametrize("name", ["scipy.linalg.svd", "svd", sl.svd])
def test_explain_takes_names_and_functions_of_scipy(name: Any) -> None:
    assert lapack_ai.explain(name, STACK[0]).function == "scipy.linalg.svd"
    assert lapack_ai.explain(name, a=STACK[0], full_matrices=False).problem == Problem(
        "scipy.linalg.svd", "float64", 4, 0, 4, 1
    )


def test_explain_runs_nothing() -> None:
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        lapack_ai.explain(np.matmul, STACK, STACK)
        lapack_ai.explain(sl.svd, STACK[0])
    assert t.decisions == []
    assert lapack_ai.stats() == {}


def test_explain_raises_what_the_call_would() -> None:
    for args in ((np.ones((2, 3)), np.ones((2, 3))), (np.float64(1), STACK), (np.ones((2, 4, 4)), np.ones((3, 4, 4)))):
        with pytest.raises(ValueError):
            np.matmul(*args)
        with pytest.raises(ValueError):
            lapack_ai.explain(np.matmul, *args)
    for args in ((), (STACK,)):
        with pytest.raises(TypeError):
            lapack_ai.explain(np.matmul, *args)
    with pytest.raises(TypeError):
        lapack_ai.explain(sl.svd)
    with pytest.raises(TypeError):
        lapack_ai.explain(sl.svd, STACK[0], full=True)


def test_explain_and_axes() -> None:
    """The axes of the call, not the last ones of its arrays, are the matrix."""
    a = np.ones((4, 4, 6))
    axes = [(0, 1), (0, 1), (0, 1)]
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        told = lapack_ai.explain(np.matmul, a, a, axes=axes)
        np.matmul(a, a, axes=axes)
    assert t.decisions[0].kernel == told.kernel == "alphatensor49"


def test_decision_reads_well() -> None:
    decision = lapack_ai.explain(np.matmul, STACK, STACK)
    assert str(decision).startswith("numpy.matmul -> alphatensor49 (not active here: stock runs now): ")
    assert str(decision).endswith("[rule matmul-4x4-stack]")


# ---- what explain() tells is what runs -------------------------------------------------------------

LAYOUTS = ("C", "F", "transposed", "strided", "reversed", "unaligned", "byte-swapped", "broadcast", "own transpose")
DTYPES = (
    *("float32", "float64", "complex64", "complex128", "int32", "int64", "uint32", "uint64"),
    *("bool", "int8", "uint16", "float16", "longdouble", "object"),
)


def laid_out(a: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """The same values behind other strides, alignment or byte order."""
    if layout == "F":
        return np.asfortranarray(a)
    if layout == "transposed":
        return np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    if layout == "strided":
        return np.repeat(a, 2, -1)[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(a[..., ::-1])[..., ::-1]
    if layout == "unaligned" and a.dtype != object and a.size:
        room = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        room[...] = a
        return room
    if layout == "byte-swapped":
        return a.astype(a.dtype.newbyteorder())
    if layout == "broadcast":
        return np.broadcast_to(a[..., :1, :, :], a.shape) if a.ndim > 2 else a
    return a


sizes = st.sampled_from((0, 1, 2, 3, 4, 4, 4, 5, 8, 9, 17))
batches = st.lists(st.sampled_from((0, 1, 1, 2, 3, 7)), max_size=3)


@st.composite
def products(draw: st.DrawFn) -> tuple[Any, Any, dict[str, Any]]:
    """Operands and keywords of a call of np.matmul that NumPy takes."""
    m, k, n = draw(st.one_of(st.tuples(sizes, sizes, sizes), sizes.map(lambda side: (side,) * 3)))
    batch = draw(batches)
    kinds = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES))
    if draw(st.booleans()):
        kinds = kinds[0], kinds[0]
    layouts = draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(LAYOUTS))

    def stack(shape: tuple[int, ...], kind: str, layout: str) -> np.ndarray[Any, Any]:
        fewer = draw(st.integers(0, len(batch)))
        outside = [1 if draw(st.booleans()) and draw(st.booleans()) else size for size in batch[fewer:]]
        return laid_out(np.ones((*outside, *shape), kind), layout)

    a = stack((m, k), kinds[0], layouts[0])
    b = stack((k, n), kinds[1], layouts[1])
    if layouts[1] == "own transpose":
        b = a.swapaxes(-1, -2)
        if draw(st.booleans()):  # one operand spread over a stack
            a = np.broadcast_to(a, (3, *a.shape))
    elif draw(st.integers(0, 7)) == 0 and b.ndim == 2:
        b = b[:, 0] if n else b
    keywords: dict[str, Any] = {}
    if draw(st.integers(0, 5)) == 0 and object not in (a.dtype, b.dtype):
        keywords = {"dtype": draw(st.sampled_from(("float64", "complex128")))}
    return a, b, keywords


choices = st.fixed_dictionaries(
    {},
    optional={
        "accuracy": st.sampled_from(("normwise", "componentwise")),
        "force": st.sampled_from([{"matmul": name} for name in ("stock", "direct", "alphatensor49", "integer")]),
        "disable": st.sampled_from(((), ("svd",), ("matmul",))),
        "policy": st.just("static"),
    },
)
SQUARE = np.ones((4, 4))


@given(call=products(), options=choices)
@example(call=(SQUARE > 0, SQUARE > 0, {}), options={})
@example(call=(np.broadcast_to(SQUARE, (3, 4, 4)), SQUARE.T, {}), options={})
@example(call=(SQUARE[None], SQUARE.T, {"dtype": "complex128"}), options={})
@example(call=(np.ones((6, 2, 4, 4)), np.ones((2, 4, 4)), {}), options={})
def test_explain_tells_what_runs(call: tuple[Any, Any, dict[str, Any]], options: dict[str, Any]) -> None:
    a, b, keywords = call
    try:
        stock = np.matmul(a, b, **keywords)
    except (TypeError, ValueError):
        return  # no such call
    with lapack_ai.set_backend(**options), lapack_ai.trace() as t:
        told = lapack_ai.explain(np.matmul, a, b, **keywords)
        result = np.matmul(a, b, **keywords)
    (decision,) = t.decisions
    assert (decision.kernel, decision.reason_code, decision.rule) == (told.kernel, told.reason_code, told.rule)
    if told.problem and decision.problem and decision.problem.dtype != "other":
        assert decision.problem[2:6] == told.problem[2:6]
    np.testing.assert_allclose(np.asarray(result, complex), np.asarray(stock, complex))


@given(call=products())
def test_counters_count_calls(call: tuple[Any, Any, dict[str, Any]]) -> None:
    """One call is one, however many pieces NumPy cuts its stack into, and every matrix is counted once."""
    a, b, keywords = call
    lapack_ai.reset_stats()
    try:
        with lapack_ai.set_backend(), lapack_ai.trace() as t:
            result = np.matmul(a, b, **keywords)
    except (TypeError, ValueError):
        return
    counters = lapack_ai.stats().values()
    (decision,) = t.decisions
    expected = 0 if decision.reason_code == "no_loop" else 1
    assert sum(each.calls for each in counters) == expected
    assert sum(count for each in counters for count in each.fallbacks.values()) == (
        expected if decision.kernel == "stock" else 0
    )
    if expected:
        matrices = decision.problem.batch if decision.problem else 0
        blocks = sum(each.blocks_alphatensor + each.blocks_direct + each.blocks_stock for each in counters)
        assert blocks == matrices == decision.alphatensor_blocks + decision.direct_blocks + decision.stock_blocks
        assert sum(each.bytes for each in counters) >= result.nbytes


def test_of_matrix_declines_what_is_scipys_to_interpret() -> None:
    for a in ([[1.0]], np.ma.ones((2, 2)), np.ones(3), np.ones((0, 2)), None, 3.0):
        assert problem.of_matrix("scipy.linalg.svd", a) is None
    assert problem.of_matrix("scipy.linalg.svd", np.ones((2, 3, 4, 5))) == Problem(
        "scipy.linalg.svd", "float64", 4, 0, 5, 6
    )


def test_limits_of_a_row() -> None:
    """Each limit is inclusive, and each names its own reason."""
    rule = Rule("r", MATMUL, ("float64",), Limits(True, False, 2, 4, 9, 2, 5), "direct", "")
    (row,) = policy._rows_of(rule, 0, Options())
    c_row = native.ffi.new("lai_row *", row)

    def reason(dtype: str, m: int, k: int, n: int, batch: int, symmetric: bool = False) -> str:
        c_problem = native.ffi.new(
            "lai_problem *", policy._c_problem(Problem(MATMUL, dtype, m, k, n, batch, symmetric))
        )
        return reasons.CODES[lib.lai_match_row(c_row, c_problem)]

    assert reason("float64", 3, 3, 3, 2) == reason("float64", 4, 4, 4, 5) == "routed"
    assert reason("float32", 3, 3, 3, 2) == "dtype"
    assert reason("float64", 3, 3, 4, 2) == reason("float64", 3, 4, 3, 2) == "shape"
    assert reason("float64", 2, 2, 2, 2) == reason("float64", 5, 5, 5, 2) == "size"
    assert reason("float64", 3, 3, 3, 1) == reason("float64", 3, 3, 3, 6) == "batch"
    assert reason("float64", 3, 3, 3, 2, True) == "symmetric"
    assert reason("float64", UNLIMITED, UNLIMITED, UNLIMITED, 2) == "size"
    assert rules.RULES is RULES


def test_explain_takes_what_the_call_takes() -> None:
    a = np.ones((6, 4, 4), np.complex64)
    for keywords in ({"dtype": "f4", "casting": "unsafe"}, {"signature": "FF->F"}):
        with lapack_ai.set_backend(), lapack_ai.trace() as t, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the imaginary parts that are dropped
            np.matmul(a, a, **keywords)
            told = lapack_ai.explain(np.matmul, a, a, **keywords)
        assert told.problem == t.decisions[0].problem


def test_explain_of_operands_that_compute_their_own_way() -> None:
    class Own:
        def __array_ufunc__(self, *args: Any, **kwargs: Any) -> str:
            return "mine"

    for x in (Own(), scipy.sparse.csr_array(np.eye(4))):
        assert lapack_ai.explain(operator.matmul, x, np.eye(4)).reason_code == "input"


def test_explain_has_numpys_words_for_stacks_that_do_not_fit() -> None:
    a, b = np.ones((2, 4, 4)), np.ones((3, 4, 4))
    texts = []
    for call in (np.matmul, lambda *args: lapack_ai.explain(np.matmul, *args)):
        with pytest.raises(ValueError) as caught:
            call(a, b)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
