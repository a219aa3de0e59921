"""The tuned table: what is decided, how it is kept, when it holds, and that calls follow it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import passes
from typer.testing import CliRunner

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import cli, native, policy, registry, tuned_rules, tuning
from lapack_ai_backend.multimethods import MATMUL
from lapack_ai_backend.options import Options
from lapack_ai_backend.problem import Problem
from lapack_ai_backend.registry import KERNELS, UNLIMITED, Limits
from lapack_ai_backend.rules import RULES, Rule
from lapack_ai_backend.tuned_rules import Measurement, TunedTable

STACK = np.arange(1.0, 97.0).reshape(6, 4, 4)
DIRECT = Rule(
    "tuned-float64-square-4-4-stack-2-up-direct",
    MATMUL,
    ("float64",),
    Limits(True, True, 4, 4, 0, 2),
    "direct",
    "lapack-ai tune, 2026-11-22 10:00 UTC: 5.1 times stock's speed",
)
REST = Rule(
    "tuned-float64-any-1-up-stock",
    MATMUL,
    ("float64",),
    Limits(),
    "stock",
    "lapack-ai tune, 2026-11-22 10:00 UTC: no kernel named above gains 5 % here",
)
TINY = tuning.Grid((((4,), (1, 20)),), (((9,), (2,), (1,)),), longest_call=0.1, burst=1e-5, rounds=1)


def table(*rules: Rule) -> TunedTable:
    measured = (Measurement("float64", 4, 4, 4, 1000, {"stock": 5.1e-5, "direct": 1e-5}),)
    return TunedTable(tuned_rules.key(), "2026-11-22 10:00 UTC", rules or (DIRECT, REST), measured)


def put(tuned: TunedTable) -> None:
    """Write a table that this process has not looked for yet."""
    tuned_rules.write(tuned)
    policy.table_for.cache_clear()


def kernel(a: Any = STACK, b: Any = STACK, **options: Any) -> str:
    return lapack_ai.explain(np.matmul, a, b, options=options).kernel


# ---- deciding -------------------------------------------------------------------------------------


def measured(dtype: str, m: int, k: int, n: int, batch: int, **gains: float) -> Measurement:
    """A made-up measurement by gains over stock."""
    return Measurement(dtype, m, k, n, batch, {"stock": 1.0, **{name: 1 / gain for name, gain in gains.items()}})


def square(n: int, batch: int, dtype: str = "float64", **gains: float) -> Measurement:
    return measured(dtype, n, n, n, batch, **gains)


def rectangles(small: int, large: int, batch: int = 1, dtype: str = "int64", **gains: float) -> list[Measurement]:
    """All four shapes that a rule cannot tell apart."""
    return [measured(dtype, *shape, batch, **gains) for shape in tuning._rectangles(small, large)]


def served(rules: tuple[Rule, ...], m: int, k: int, n: int, batch: int = 1, **options: Any) -> str:
    """Name of the kernel that serves a float64 or int64 problem under these rules, by the compiled policy."""
    put(table(*rules))
    symmetric = options.pop("symmetric", False)
    problem = Problem(MATMUL, options.pop("dtype", "float64"), m, k, n, batch, symmetric)
    compiled = policy.table_for(replace(Options(policy="tuned"), **options))
    return policy.readable(policy.decide(MATMUL, problem, compiled), problem).kernel


def test_fastest_kernel_is_chosen_and_stock_where_none_gains() -> None:
    rules = tuning.decide(
        [square(4, 1, direct=1.04), square(4, 2, direct=5.0, alphatensor49=2.0), square(5, 1, direct=1.2)], "today"
    )
    assert served(rules, 4, 4, 4, 1) == "stock"
    assert served(rules, 4, 4, 4, 2) == served(rules, 4, 4, 4, 9999) == "direct"
    assert served(rules, 5, 5, 5, 1) == served(rules, 5, 5, 5, 2) == "direct"
    assert served(rules, 3, 3, 3, 2) == "stock"
    assert served(rules, 4, 5, 4, 2) == "stock"
    named = {rule.name: rule for rule in rules}
    assert named["tuned-float64-square-4-4-stack-2-up-direct"].because == "lapack-ai tune, today: 5 times stock's speed"


def test_a_kernel_with_a_weak_bound_leaves_its_place_to_the_next_one_that_gains() -> None:
    """Where accuracy="componentwise" or A @ A.T excludes the fastest."""
    rules = tuning.decide([square(4, 8, alphatensor49=5.0, direct=2.0)], "today")
    assert served(rules, 4, 4, 4, 8) == "alphatensor49"
    assert served(rules, 4, 4, 4, 8, accuracy="componentwise") == "direct"
    assert served(rules, 4, 4, 4, 8, symmetric=True) == "direct"
    rules = tuning.decide([square(4, 8, alphatensor49=5.0, direct=0.9)], "today")
    assert served(rules, 4, 4, 4, 8, accuracy="componentwise") == "stock"
    assert served(rules, 4, 4, 4, 8, symmetric=True) == "stock"


def test_a_kernel_with_a_weak_bound_must_win_clearly() -> None:
    rules = tuning.decide([square(4, 8, alphatensor49=2.04, direct=2.0)], "today")
    assert served(rules, 4, 4, 4, 8) == "direct"
    assert len(rules) == 2


def test_sizes_between_take_the_verdict_of_the_smaller_one() -> None:
    rules = tuning.decide(
        [square(2, 1, direct=2.0), square(4, 1, direct=0.5), square(6, 1, direct=2.0), square(9, 1, gemm_alpha=0.5)], ""
    )
    chosen = {n: served(rules, n, n, n) for n in range(1, 11)}
    assert {n for n, name in chosen.items() if name == "direct"} == {2, 3, 6, 7, 8}


def test_rules_stay_within_what_a_kernel_can_do() -> None:
    largest = KERNELS["direct"].limits.max_dim
    rules = tuning.decide([square(largest, 1, direct=2.0)], "")
    assert rules[0].limits.max_dim == largest


def test_neighbours_with_one_verdict_are_one_rule() -> None:
    measurements = [square(n, batch, direct=float(n)) for n in range(2, 9) for batch in (1, 10, 100)]
    rules = tuning.decide(measurements, "today")
    assert [rule.kernel for rule in rules] == ["direct", "stock"]
    assert rules[0].limits == Limits(True, True, 2, min(UNLIMITED, KERNELS["direct"].limits.max_dim))
    assert rules[0].because == "lapack-ai tune, today: 2 to 8 times stock's speed"


def test_rectangles_want_a_win_on_every_shape() -> None:
    wins = rectangles(2, 64, integer=3.0)
    integers = {"dtype": "int64"}
    assert served(tuning.decide(wins, ""), 2, 100, 64, **integers) == "integer"
    for place, lost in enumerate(rectangles(2, 64, integer=0.9)):
        loses = [*wins[:place], lost, *wins[place + 1 :]]
        assert served(tuning.decide(loses, ""), 2, 100, 64, **integers) == "stock"


def test_rectangles_are_not_decided_by_some_of_the_shapes() -> None:
    """Those that were left out may be the ones that lose: what is smaller tells more."""
    integers = {"dtype": "int64"}
    for gain, other, expected in ((0.5, 9.0, "stock"), (9.0, 0.5, "integer")):
        whole = rectangles(8, 64, integer=gain)
        for some in (rectangles(8, 512, integer=other)[:3], rectangles(8, 512, integer=other)[3:], []):
            rules = tuning.decide([*whole, *some, *rectangles(1, 512, integer=0.5)], "")
            assert served(rules, 8, 64, 64, **integers) == served(rules, 31, 512, 700, **integers) == expected
            assert served(rules, 1, 512, 512, **integers) == served(rules, 7, 64, 64, **integers) == "stock"
    alone = tuning.decide(rectangles(8, 64, integer=9.0)[:3], "")
    assert served(alone, 8, 64, 64, **integers) == "stock"


def test_rectangles_that_were_left_out_between_others() -> None:
    integers = {"dtype": "int64"}
    found = [*rectangles(8, 64, integer=0.5), *rectangles(32, 64, integer=9.0)]
    found += [*rectangles(8, 512, integer=0.5), *rectangles(128, 512, integer=0.5)]
    rules = tuning.decide(found, "")
    expected = {8: "stock", 31: "stock", 32: "integer", 127: "integer", 128: "stock"}
    assert {least: served(rules, least, 600, 512, **integers) for least in expected} == expected


def test_stacks_of_rectangles_that_were_measured_in_part() -> None:
    integers = {"dtype": "int64"}
    found = [*rectangles(8, 64, integer=9.0), *rectangles(8, 64, 100, integer=0.5)]
    found += [*rectangles(8, 512, integer=9.0), *rectangles(8, 512, 100, integer=9.0)[:2]]
    rules = tuning.decide(found, "")
    assert served(rules, 8, 512, 512, **integers) == "integer"
    assert served(rules, 8, 512, 512, 100, **integers) == "stock"


def test_what_a_smaller_band_says_of_kernels_that_cannot() -> None:
    """`direct` takes no dimension beyond 16."""
    rules = tuning.decide(
        [*rectangles(8, 16, direct=9.0, integer=2.0), *rectangles(1, 64, integer=0.5)],
        "",
    )
    assert served(rules, 8, 16, 16, dtype="int64") == "direct"
    assert served(rules, 8, 64, 64, dtype="int64") == "stock"
    assert len({rule.name for rule in rules}) == len(rules)


def test_what_larger_bands_say_is_nothing_for_smaller_ones() -> None:
    rules = tuning.decide([*rectangles(8, 64, integer=0.5), *rectangles(1, 512, integer=9.0)], "")
    assert served(rules, 1, 512, 512, dtype="int64") == "integer"
    assert served(rules, 1, 64, 64, dtype="int64") == "stock"


def test_gains_over_blas_that_cannot_be() -> None:
    """Stock was disturbed. A product of 16 is another matter, and so are integers."""
    gained = {name: {"gemm_alpha": gain} for name, gain in (("little", 1.5), ("much", 3.5))}
    assert served(tuning.decide([square(64, 1, **gained["little"])], ""), 64, 64, 64) == "gemm_alpha"
    assert served(tuning.decide([square(64, 1, **gained["much"])], ""), 64, 64, 64) == "stock"
    assert served(tuning.decide([square(16, 1, **gained["much"])], ""), 16, 16, 16) == "gemm_alpha"
    assert served(tuning.decide([square(64, 1, "int64", integer=90.0)], ""), 64, 64, 64, dtype="int64") == "integer"
    ones = rectangles(8, 64, dtype="float64", gemm_alpha=1.5)
    assert served(tuning.decide(ones, ""), 8, 64, 64) == "gemm_alpha"
    ones[2] = rectangles(8, 64, dtype="float64", gemm_alpha=3.5)[2]
    assert served(tuning.decide(ones, ""), 8, 64, 64) == "stock"


def test_rules_keep_what_else_a_kernel_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a table whose rules do not is ignored."""
    wanted = replace(KERNELS["direct"].limits, min_isa=native.lib.LAI_AVX512, as_blas=True, min_work=8)
    found = [square(4, 1, direct=2.0), *rectangles(2, 4, dtype="float64", direct=2.0)]
    loose = tuning.decide(found, "")
    monkeypatch.setitem(KERNELS, "direct", replace(KERNELS["direct"], limits=wanted))
    strict = tuning.decide(found, "")
    limits = [(each.limits.min_isa, each.limits.as_blas) for each in strict if each.kernel == "direct"]
    assert limits == [(native.lib.LAI_AVX512, True)] * 2
    tuned_rules.write(table(*strict))
    assert tuned_rules.read().rules == strict
    values: tuple[dict[str, Any], ...] = ({"as_blas": False}, {"min_isa": native.lib.LAI_AVX2}, {"min_work": 0})
    looser = [[replace(each, limits=replace(each.limits, **value)) for each in strict] for value in values]
    for rules in (loose, *looser):
        tuned_rules.write(table(*rules))
        with pytest.raises(ValueError, match="wants of direct what it cannot do"):
            tuned_rules.read()


def test_rectangles_and_squares_are_told_apart() -> None:
    integers = {"dtype": "int64"}
    rules = tuning.decide([square(32, 1, "int64", integer=0.5), *rectangles(32, 64, integer=2.0)], "")
    assert served(rules, 32, 32, 32, **integers) == "stock"
    assert served(rules, 32, 64, 32, **integers) == "integer"


def test_rectangles_by_smallest_and_largest_dimension() -> None:
    integers = {"dtype": "int64"}
    rules = tuning.decide(
        [
            *(each for batch in (1, 1000) for each in rectangles(1, 16, batch, integer=0.5)),
            *(each for batch, gain in ((1, 0.5), (1000, 2.0)) for each in rectangles(8, 16, batch, integer=gain)),
            *rectangles(1, 64, integer=0.5),
            *rectangles(8, 64, integer=2.0),
            *rectangles(32, 64, integer=0.5),
            *rectangles(1, 512, integer=0.5),  # the others were left out
        ],
        "",
    )
    expected = {
        (1, 16, 16, 1000): "stock",
        (8, 16, 16, 1): "stock",
        (8, 16, 16, 999): "stock",
        (8, 16, 16, 1000): "integer",
        (9, 63, 20, 1000): "integer",
        (7, 64, 64, 1): "stock",
        (8, 64, 64, 1): "integer",
        (31, 500, 64, 1): "integer",
        (32, 64, 64, 1): "stock",
        (1, 512, 512, 1): "stock",
        (31, 1000, 512, 1): "integer",
        (32, 1000, 512, 1): "stock",
    }
    assert {shape: served(rules, *shape, **integers) for shape in expected} == expected


def test_unsigned_integers_follow_signed_ones() -> None:
    rules = tuning.decide([square(64, 1, "int32", integer=9.0)], "")
    assert rules[0].dtypes == ("int32", "uint32")


gains = st.sampled_from((0.5, 0.97, 1.04, 1.06, 1.5, 1.52, 4.0))


@given(st.data())
def test_every_measured_problem_gets_the_fastest_kernel(data: st.DataObject) -> None:
    """And the rules are such as a file may hold."""
    measurements = [
        square(n, batch, direct=data.draw(gains), **({"alphatensor49": data.draw(gains)} if n == 4 else {}))
        for n in range(2, 9)
        for batch in (1, 2, 100)
    ]
    rules = tuning.decide(measurements, "today")
    assert len({rule.name for rule in rules}) == len(rules)
    tuned_rules.write(table(*rules))
    assert tuned_rules.read().rules == rules
    policy.table_for.cache_clear()
    compiled = policy.table_for(Options(policy="tuned"))
    for each in measurements:
        problem = Problem(MATMUL, "float64", each.m, each.k, each.n, each.batch)
        name = policy.readable(policy.decide(MATMUL, problem, compiled), problem).kernel
        fastest = min(each.seconds.values())
        assert each.seconds[name] <= 1.051 * fastest
        assert each.seconds[name] <= each.seconds["stock"]


# ---- measuring ------------------------------------------------------------------------------------


def test_points_are_within_reach_and_reach_every_kernel() -> None:
    for grid in (tuning.FULL, tuning.QUICK):
        points = tuning.points(grid)
        assert len(set(points)) == len(points)
        assert all(point.bytes <= tuning.LARGEST_OPERANDS for point in points if point.batch > 1)
        problems = [Problem(MATMUL, each.dtype, each.m, each.k, each.n, each.batch) for each in points]
        for name in (each.name for each in registry.of_function(MATMUL) if each.where == "cpu"):
            for dtype in set(KERNELS[name].dtypes) & set(tuning.MEASURED_DTYPES):
                candidates = (policy.candidates(MATMUL, each, Options()) for each in problems if each.dtype == dtype)
                assert any(each.allowed for found in candidates for each in found if each.name == name)


def test_dtypes_of_all_kernels_are_measured() -> None:
    known = {dtype.removeprefix("u") for each in registry.of_function(MATMUL) for dtype in each.dtypes}
    assert known <= set(tuning.MEASURED_DTYPES)


def test_measurements_name_the_kernels_that_ran() -> None:
    seen: list[tuning.Point] = []
    found = tuning.measure(TINY, seen.append)
    assert seen == tuning.points(TINY)
    assert lapack_ai.stats()
    assert not lapack_ai.is_enabled()
    by_problem = {(each.dtype, each.m, each.k, each.n, each.batch): each.seconds for each in found}
    assert set(by_problem["float64", 4, 4, 4, 20]) >= {"stock", "direct", "alphatensor49"}
    assert set(by_problem["int64", 9, 9, 2, 1]) >= {"stock", "integer"}
    assert all(0 < seconds < 1 for each in found for seconds in each.seconds.values())


def test_what_the_shipped_rules_keep_is_not_measured() -> None:
    grid = tuning.Grid((((64,), (1,)),), (), longest_call=1.0, burst=1e-5, rounds=1)
    found = {each.dtype: set(each.seconds) for each in tuning.measure(grid, lambda point: None)}
    assert found["float64"] == {"stock", "gemm_alpha"}
    assert "complex128" not in found


def test_what_would_take_long_is_left_out() -> None:
    before = tuning.Point("int64", 64, 64, 64, 1, ())
    after = tuning.Point("int64", 256, 256, 256, 1, ())
    grid = replace(TINY, longest_call=2.0)

    def names(*, exact: bool = True, **seconds: float) -> list[str]:
        expected = tuning._expected(after, ["integer", "new"], (before, seconds))
        return tuning._worth_measuring(["integer", "new"], expected, grid, exact=exact)

    assert names(stock=0.02, integer=0.01) == ["integer", "new"]  # 1.28 seconds are expected
    assert names(stock=0.04, integer=0.02) == []
    assert names(stock=0.02, integer=0.001) == []  # the winner is clear
    assert names(stock=0.02, integer=0.08) == []  # the loser, too
    assert names(stock=0.02, direct=0.001) == ["integer", "new"]  # not a kernel for this size
    assert names(stock=0.02, integer=0.08, new=0.03) == ["new"]
    assert names(stock=1e-6, integer=1e-4) == ["integer", "new"]  # takes no time
    # BLAS gets faster with size: what gains may lose later.
    assert names(exact=False, stock=0.02, integer=0.001) == ["integer", "new"]
    assert names(exact=False, stock=0.02, integer=0.08) == ["new"]
    assert names(exact=False, stock=0.02, integer=0.08, new=0.08) == []
    assert names(exact=False, stock=0.04, integer=0.02) == []


def test_exact_dtypes() -> None:
    assert {each for each in tuning.MEASURED_DTYPES if tuning._is_exact(each)} == {"int64", "int32", "int16", "int8"}


def test_a_stack_is_not_judged_by_single_products() -> None:
    single, stack = (tuning.Point("int64", 2, 2, 2, batch, ("int64", "square", batch)) for batch in (1, 1000))
    thin = tuning.Point("int64", 64, 1, 64, 1, ("int64", 0, 1, 1))
    assert tuning._other_line(thin) == single.line
    assert tuning._other_line(stack) == stack.line


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"stock": 1e-6, "direct": 1e-7}, 5),  # clear at once
        ({"stock": 1e-6, "direct": 1.8e-6}, 5),
        ({"stock": 1e-6, "direct": 8e-7}, 10),
        ({"stock": 1e-6, "direct": 1e-6}, 40),  # close
        ({"stock": 1e-6, "direct": 4e-7, "alphatensor49": 1e-7}, 5),
        ({"stock": 1e-6, "direct": 1.1e-7, "alphatensor49": 1e-7}, 10),  # which of them is the fastest
        ({"stock": 1e-6, "direct": 3e-6}, 3),  # has lost
        ({"stock": 1e-6, "direct": 0.02}, 1),  # at its first call
        ({"stock": 0.08, "direct": 0.02}, 3),
        ({"stock": 0.08, "direct": 0.08}, 3),
        ({"stock": 0.02, "direct": 0.02}, 8),  # costs enough
    ],
)
def test_rounds(seconds: dict[str, float], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the decision wants; the first call tells how many make a burst, and is one of them if it is long."""
    done = dict.fromkeys(seconds, 0)
    grid = tuning.Grid((), (), longest_call=1.0, burst=1e-6, rounds=10)

    def timed(timer: Any, switch: str, number: int) -> float:
        done[switch] += 1
        return seconds[switch]

    monkeypatch.setattr(tuning, "_reaches", lambda *call: True)
    monkeypatch.setattr(tuning, "_switch", lambda name: name)
    monkeypatch.setattr(tuning, "_timed", timed)
    names = [name for name in seconds if name != "stock"]
    found = tuning._measure_point(tuning.Point("float64", 4, 4, 4, 2, ()), names, grid)
    assert found == pytest.approx(seconds)
    assert done["stock"] == expected + (seconds["stock"] <= tuning.LONG)


def test_a_disturbed_round_is_not_clear() -> None:
    grid = replace(TINY, rounds=9)
    rounds = {"stock": [3e-6, 3e-6, 1e-6, 3e-6, 3e-6], "direct": [1e-6] * 5}
    assert not tuning._is_enough(rounds, grid, takes_long=False)
    assert tuning._is_enough(rounds | {"stock": [3e-6] * 5}, grid, takes_long=False)
    assert tuning._is_enough({"stock": [1e-6]}, grid, takes_long=False)  # the others have lost
    assert not tuning._is_enough({"stock": [], "direct": []}, grid, takes_long=False)


@pytest.mark.parametrize("dtype", tuning.MEASURED_DTYPES)
def test_operands_hold_no_zeros(dtype: str) -> None:
    point = tuning.Point(dtype, 40, 50, 40, 100, ())
    a, b = (tuning._operand(point, (40, 50), seed) for seed in range(2))
    assert a.shape == (100, 40, 50)
    assert a.dtype == dtype
    assert np.all(a != 0)
    assert not np.array_equal(a, b)
    assert np.linalg.matrix_rank(a[0].astype(complex)) == 40


# ---- the file -------------------------------------------------------------------------------------


def test_what_is_written_is_read() -> None:
    written = table()
    path = tuned_rules.write(written)
    assert path == tuned_rules.path()
    assert path.is_relative_to(os.environ["XDG_CACHE_HOME"])
    assert tuned_rules.read() == written
    assert tuned_rules.here().table == written
    assert [each.name for each in path.parent.iterdir()] == ["tuned.json"]
    assert tuned_rules.remove()
    assert not tuned_rules.remove()
    assert tuned_rules.here().table is None


def test_a_failing_write_leaves_the_table_that_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    path = tuned_rules.write(table())

    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    for place, name in ((json, "dump"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fail)
            with pytest.raises(KeyboardInterrupt):
                tuned_rules.write(table(REST))
        assert tuned_rules.read() == table()
        assert [each.name for each in path.parent.iterdir()] == ["tuned.json"]


def change(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda found: found | values


def with_rule(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda found: found | {"rules": [found["rules"][0] | values]}


def with_limit(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda found: found | {"rules": [found["rules"][0] | {"limits": found["rules"][0]["limits"] | values}]}


DAMAGED: list[Callable[[dict[str, Any]], Any]] = [
    lambda found: [],
    lambda found: None,
    lambda found: {},
    change(version="1"),
    change(version=tuned_rules.VERSION + 1),
    change(key=[]),
    change(rules=None),
    change(rules=[1]),
    change(rules=[{}]),
    change(measurements=[{}]),
    with_rule(kernel="magic"),
    with_rule(kernel="opencl_svd"),
    with_rule(kernel=["direct"]),
    with_rule(function="scipy.linalg.svd"),
    with_rule(dtypes=["float16"]),
    with_rule(dtypes=[1]),
    with_rule(kernel="stock", dtypes=["quaternion"]),
    with_rule(name=1),
    with_limit(max_dim=UNLIMITED),
    with_limit(min_dim="4"),
    with_limit(min_dim=-1),
    with_limit(min_dim=4.0),
    with_limit(min_dim=2**70),
    with_limit(square=1),
    with_limit(as_blas=1),
    with_limit(min_isa=-1),
    with_limit(min_isa=native.lib.LAI_ISAS),
    with_limit(min_isa=2**40),
    lambda found: with_rule(kernel="alphatensor49")(with_limit(square=False)(found)),
    with_limit(colour="red"),
]


def look_again() -> None:
    """As a new process would."""
    tuned_rules.here.cache_clear()
    tuned_rules._log_once.cache_clear()
    policy.table_for.cache_clear()


def ignored(caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """Three contexts and questions go by the shipped rules, and one line says why."""
    look_again()
    caplog.clear()
    with caplog.at_level(logging.INFO, "lapack_ai_backend"):
        for name in ("auto", "tuned", "auto"):
            with lapack_ai.set_backend(policy=name), lapack_ai.trace() as t:
                STACK @ STACK
            assert t.decisions[0].rule == "matmul-4x4-stack"
            assert kernel(policy=name) == "alphatensor49"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for word in ("ignored", *words):
        assert word in record.getMessage()
    assert lapack_ai.info()["tuned_table"]["why_not"] in record.getMessage()


@pytest.mark.parametrize("damage", range(len(DAMAGED)))
def test_damaged_files_are_ignored(damage: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tuned_rules.write(table())
    found = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(DAMAGED[damage](found)), encoding="utf-8")
    ignored(caplog, str(path))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"NaN"])
def test_files_that_are_no_tables_are_ignored(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tuned_rules.write(table())
    path.write_bytes(content)
    ignored(caplog, str(path))
    whole = json.dumps({"version": 1})
    path.write_text(whole[: len(whole) // 2], encoding="utf-8")
    ignored(caplog, str(path))


def test_a_folder_in_its_place_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    tuned_rules.path().mkdir(parents=True)
    ignored(caplog)


@pytest.mark.parametrize("name", tuned_rules.key())
def test_a_table_of_other_surroundings_is_ignored(name: str, caplog: pytest.LogCaptureFixture) -> None:
    tuned_rules.write(replace(table(), key=tuned_rules.key() | {name: "another"}))
    ignored(caplog, f"measured with {name} another, here {tuned_rules.key()[name]}")


def test_a_table_with_less_in_its_key_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    tuned_rules.write(replace(table(), key={}))
    ignored(caplog, "unknown")


def test_key_follows_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tuned_rules.key()
    limit = native.lib.lai_use_threads(1)
    try:
        alone = tuned_rules.key()
    finally:
        native.lib.lai_use_threads(limit)
    assert alone["kernel threads"] == "1"
    monkeypatch.setattr(np, "__version__", "9.9")
    assert tuned_rules.key()["NumPy"] == "9.9"
    assert all(before.values())


def test_threads_of_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in effect; only where the library does not tell, what the environment says."""
    for name in tuned_rules.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert tuned_rules._blas_threads(0) == "as it chooses"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert tuned_rules._blas_threads(0) == "OPENBLAS_NUM_THREADS=3"
    assert tuned_rules._blas_threads(2) == "2"
    in_effect = native.lib.lai_blas_threads()
    assert tuned_rules.key()["BLAS threads"] == (str(in_effect) if in_effect else "OPENBLAS_NUM_THREADS=3")


def test_a_table_of_another_number_of_blas_threads_is_ignored() -> None:
    tuned_rules.write(table())
    source = """
    import numpy as np
    import lapack_ai_backend as lapack_ai

    print(lapack_ai.explain(np.matmul, np.ones((6, 4, 4)), np.ones((6, 4, 4))).kernel)
    print(lapack_ai.info()["tuned_table"]["why_not"])
    """
    here = {"LAPACK_AI_NUM_THREADS": str(native.lib.lai_num_threads())}
    assert passes(source, variables=here).split() == ["direct"]
    count = native.lib.lai_blas_threads()
    kernel, why_not = passes(source, variables=here | {"OPENBLAS_NUM_THREADS": "2" if count == 1 else "1"}).splitlines()
    assert kernel == "alphatensor49"
    assert "measured with BLAS threads" in why_not


# ---- which policy uses it ---------------------------------------------------------------------------


def test_auto_and_tuned_use_the_table_and_static_does_not() -> None:
    put(table())
    for options in ({}, {"policy": "auto"}, {"policy": "tuned"}):
        assert kernel(**options) == "direct"
        assert kernel(STACK[0], STACK[1], **options) == "stock"
    assert kernel(policy="static") == "alphatensor49"
    assert kernel(force={"matmul": "alphatensor49"}) == "alphatensor49"
    assert kernel(disable=["matmul"]) == "stock"
    assert lapack_ai.info()["tuned_table"] == {
        "file": str(tuned_rules.path()),
        "measured": "2026-11-22 10:00 UTC",
        "why_not": "",
    }


def test_rules_of_scipy_linalg_stay() -> None:
    put(table())
    kept = {rule for rule in policy.table_for(Options()).rules if rule.function != MATMUL}
    assert kept == {rule for rule in RULES if rule.function != MATMUL}


def test_without_a_table_auto_is_silent_and_tuned_says_so(caplog: pytest.LogCaptureFixture) -> None:
    look_again()
    with caplog.at_level(logging.INFO, "lapack_ai_backend"):
        assert kernel(policy="auto") == "alphatensor49"
        assert not caplog.records
        for _ in range(2):
            assert kernel(policy="tuned") == "alphatensor49"
            with lapack_ai.set_backend(policy="tuned", strict=True):
                pass
    assert [record.getMessage() for record in caplog.records] == [
        f"the shipped rules route products: {tuned_rules.here().why_not}"
    ]
    assert "lapack-ai tune" in tuned_rules.here().why_not


def test_explain_trace_and_run_agree() -> None:
    put(table())
    calls = [(STACK, STACK), (STACK[0], STACK[1]), (STACK, STACK.swapaxes(-1, -2)), (STACK.astype(int),) * 2]
    expected = [
        ("direct", "routed", DIRECT.name, DIRECT.because),
        ("stock", "tuned", REST.name, REST.because),
        ("direct", "routed", DIRECT.name, DIRECT.because),
        ("stock", "dtype", "", None),
    ]
    for (a, b), (name, code, rule, because) in zip(calls, expected, strict=True):
        lapack_ai.reset_stats()
        with lapack_ai.set_backend(), lapack_ai.trace() as t:
            told = lapack_ai.explain(np.matmul, a, b)
            result = a @ b
        for decision in (told, *t.decisions):
            assert (decision.kernel, decision.reason_code, decision.rule) == (name, code, rule)
            assert decision.reason == (because or decision.reason)
        ((key, counter),) = lapack_ai.stats().items()
        assert key == (MATMUL, name)
        assert counter.fallbacks == ({} if name == "direct" else {code: 1})
        np.testing.assert_array_equal(result, np.matmul(a, b))


def test_a_faster_kernel_that_options_exclude_is_the_reason() -> None:
    fast = replace(
        DIRECT, kernel="alphatensor49", limits=KERNELS["alphatensor49"].limits, dtypes=("float64",), name="fast"
    )
    put(table(fast, REST))
    assert lapack_ai.explain(np.matmul, STACK, STACK.swapaxes(-1, -2)).reason_code == "symmetric"
    told = lapack_ai.explain(np.matmul, STACK, STACK, options={"accuracy": "componentwise"})
    assert (told.kernel, told.reason_code) == ("stock", "accuracy")


def test_another_process_finds_it() -> None:
    tuned_rules.write(table())
    source = """
    import sys
    import numpy as np
    import lapack_ai_backend as lapack_ai

    assert "platformdirs" not in sys.modules
    a = np.ones((6, 4, 4))
    print(lapack_ai.explain(np.matmul, a, a).kernel)
    """
    assert passes(source).split() == ["direct"]
    assert passes(source, variables={"LAPACK_AI_POLICY": "static"}).split() == ["alphatensor49"]


def test_the_plugin_is_independent_of_it(tmp_path: Path) -> None:
    tuned_rules.write(table())
    suite = tmp_path / "test_one.py"
    suite.write_text("import numpy as np\ndef test_one(): np.ones((6, 4, 4)) @ np.ones((6, 4, 4))", encoding="utf-8")
    source = f"""
    import pytest
    flags = ["-p", "lapack_ai_backend.testing", "--expect-kernel", "alphatensor49", "-p", "no:cacheprovider"]
    raise SystemExit(pytest.main([*flags, {str(suite)!r}]))
    """
    passes(source)


# ---- the command ------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "FULL", TINY)
    monkeypatch.setattr(tuning, "QUICK", replace(TINY, rectangles=()))


def command(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["tune", *arguments], env={"COLUMNS": "200"})


def test_command_measures_writes_and_shows(tiny: None) -> None:
    shown = command("--show")
    assert shown.exit_code == 0
    assert "no tuned table" in shown.stdout
    done = command()
    assert done.exit_code == 0, done.output
    measured = tuned_rules.read()
    assert f"{len(measured.measurements)} problems measured" in done.stdout
    assert str(tuned_rules.path()) in done.stdout
    assert tuned_rules.here().table == measured
    shown = command("--show")
    assert "in use" in shown.stdout
    assert measured.date in shown.stdout
    quick = command("--quick")
    assert quick.exit_code == 0, quick.output
    assert 0 < len(tuned_rules.read().measurements) < len(measured.measurements)


def test_reset(tiny: None) -> None:
    path = tuned_rules.write(table())
    done = command("--reset")
    assert (done.exit_code, done.stdout.split()) == (0, ["removed", str(path)])
    assert not path.exists()
    assert "there was no tuned table" in command("--reset").stdout
    tuned_rules.path().write_text("{", encoding="utf-8")
    assert command("--reset").exit_code == 0
    assert tuned_rules.here().why_not.startswith("this machine has no tuned table")


def test_show_of_a_table_that_does_not_hold(tiny: None) -> None:
    tuned_rules.write(replace(table(), key=tuned_rules.key() | {"NumPy": "1.0"}))
    shown = command("--show")
    assert shown.exit_code == 0
    assert "the tuned table is ignored: measured with NumPy 1.0" in shown.stdout
    tuned_rules.path().write_text("{", encoding="utf-8")
    shown = command("--show")
    assert shown.exit_code == 1
    assert "is ignored" in shown.stdout


def test_options_that_exclude_each_other(tiny: None) -> None:
    done = command("--show", "--reset")
    assert done.exit_code == 2
    assert not isinstance(done.exception, AssertionError)


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupt_loses_nothing(tiny: None, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if there:
        tuned_rules.write(table())
    calls = iter(range(10))

    def interrupted(*args: Any) -> float:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return 1e-6

    monkeypatch.setattr(tuning, "_timed", interrupted)
    done = command()
    assert done.exit_code == 130
    assert "interrupted: this run's measurements are dropped" in done.stderr
    assert ("the table of 2026-11-22 10:00 UTC stays" if there else "there is no tuned table") in done.stderr
    assert tuned_rules.path().exists() == there
    if there:
        assert tuned_rules.read() == table()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tiny: None, caches: Path) -> None:
    (caches / "lapack_ai_backend").mkdir()
    os.environ["XDG_CACHE_HOME"] = "/dev/null"
    done = command("--quick")
    assert done.exit_code == 1
    assert "the table cannot be written" in done.stderr
