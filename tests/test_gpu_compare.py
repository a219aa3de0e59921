"""The comparison with other libraries: it runs where none of them is, and times no wrong result."""

from __future__ import annotations

import importlib
import itertools
import json
import types
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from svd_cases import DEVICE

BENCHMARKS = Path(__file__).resolve().parent.parent / "asv_bench"

MATRIX = np.random.default_rng(0).standard_normal((40, 30))


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)  # as for a script that lies there
    return importlib.import_module("gpu_compare")


@pytest.fixture
def alone(compare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """On a machine without PyTorch and CuPy."""

    def absent() -> None:
        raise compare.peers.AbsentError("not on this machine")

    for name in ("torch_on_gpu", "cupy_on_gpu", "cusolver"):
        monkeypatch.setattr(compare.peers, name, absent)
    monkeypatch.setattr(compare, "ROUNDS", 2)
    return compare


def test_runs_without_the_others(alone: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patience = ["--budget", "1000"]  # a busy machine takes seconds, after which calls would not be repeated
    assert alone.main(["--tiny", "--device", DEVICE, *patience, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    whole = json.loads((tmp_path / "gpu_compare.json").read_text(encoding="utf-8"))
    assert {row["kind"] for row in whole["cases"]} == set(alone.KINDS)
    for row in whole["cases"]:
        for name, entry in row["entries"].items():
            here = name in ("ours", "scipy", "numpy")
            assert entry["state"] == ("right" if here else "absent"), (row, name)
            assert len(entry["seconds"]) == (2 if here else 0)
            assert all(ratio < 5 for ratio in entry["ratios"].values())
    assert "plot: " in told  # why there is none, without matplotlib
    assert alone.main(["--read", str(tmp_path / "gpu_compare.json")]) == 0
    again = capsys.readouterr().out
    table = [[line for line in text.splitlines() if line.startswith("|")] for text in (told, again)]
    assert table[0] == table[1]
    assert len(table[0]) == len(whole["cases"]) + 2 * len(alone.KINDS)


def wrong_by(compare: ModuleType, factor: float) -> dict[str, Any]:
    def make(a: np.ndarray[Any, Any], vectors: bool, option: str) -> Any:
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        return compare.peers.Call(lambda: (u * factor, s / factor, vh))

    return {"ours": make}


@pytest.mark.parametrize(("error", "state"), [(1e-15, "right"), (1e-10, "wrong"), (np.nan, "wrong")])
def test_a_wrong_result_is_not_timed(
    alone: ModuleType, monkeypatch: pytest.MonkeyPatch, error: float, state: str
) -> None:
    kinds = {"device": ("", wrong_by(alone, 1 + error))}
    monkeypatch.setattr(alone, "KINDS", kinds)
    entry = alone.Run(DEVICE, 30).add(alone.Case("device", "float64", 20, 20))["ours"]
    assert entry.state == state
    assert bool(entry.seconds) == (state == "right")
    assert alone.cell(entry, entry).startswith("wrong: ") == (state == "wrong")


def test_each_error_has_its_ratio(alone: ModuleType) -> None:
    checks = alone.Checks(MATRIX)
    u, s, vh = np.linalg.svd(MATRIX, full_matrices=False)
    assert alone.is_right(checks.ratios(u, s, vh))
    assert alone.is_right(checks.ratios(None, s, None))
    nearly = s * (1 + 1e-9)
    assert not alone.is_right(checks.ratios(None, nearly, None))
    for factors, name in (
        ((u, nearly, vh), "residual"),
        ((u * (1 + 1e-9), s, vh), "U"),
        ((u, s, vh * (1 + 1e-9)), "V"),
        ((u[:, ::-1], s[::-1], vh[::-1]), "order"),
        ((u, -s[::-1], vh), "order"),
    ):
        assert checks.ratios(*factors)[name] > alone.LIMIT


def test_one_wrong_matrix_of_a_stack_is_found(alone: ModuleType) -> None:
    stack = np.random.default_rng(0).standard_normal((5, 8, 6))
    checks = alone.Checks(stack)
    parts = np.linalg.svd(stack, full_matrices=False)
    assert alone.is_right(checks.ratios(*parts))
    assert alone.is_right(checks.ratios(None, parts.S, None))
    single = [alone.Checks(a).ratios(*(part[k] for part in parts)) for k, a in enumerate(stack)]
    worst = {name: max(each[name] for each in single) for name in single[0]}
    assert checks.ratios(*parts) == pytest.approx(worst, rel=0.5)
    for which, name in enumerate(("U", "residual", "V")):
        wrong = [part.copy() for part in parts]
        wrong[which][3] *= 1 + 1e-9
        assert checks.ratios(*wrong)[name] > alone.LIMIT
    values = parts.S.copy()
    values[3, 2] *= 1 + 1e-9
    assert checks.ratios(None, values, None)["values"] > alone.LIMIT
    assert checks.ratios(None, values[:, ::-1], None)["order"] > alone.LIMIT


def test_failures_and_long_calls_are_told(alone: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(a: np.ndarray[Any, Any], vectors: bool, option: str) -> Any:
        raise MemoryError("out of memory\nand much more")

    monkeypatch.setattr(alone, "KINDS", {"device": ("", {**wrong_by(alone, 1.0), "other": fails})})
    run = alone.Run(DEVICE, 30)
    entries = run.add(alone.Case("device", "float64", 10, 10))
    assert (entries["other"].state, entries["other"].note) == ("failed", "MemoryError: out of memory")
    run.budget = 1e-12
    entries = run.add(alone.Case("device", "float64", 20, 20))
    assert (entries["ours"].state, entries["other"].state) == ("skipped", "failed")
    monkeypatch.setattr(alone, "TOTAL", 0)
    assert {entry.state for entry in run.add(alone.Case("device", "float64", 10, 10)).values()} == {"skipped"}


def test_a_library_that_warmed_up_is_not_called_again_where_it_is_slow(
    alone: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "KINDS", {"device": ("", wrong_by(alone, 1.0))})
    clock = itertools.count(0, 4)  # every call takes four seconds
    monkeypatch.setattr(alone, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    run = alone.Run(DEVICE, 39)
    first, second = (run.add(alone.Case("device", "float64", 10, 10))["ours"] for _ in range(2))
    assert (first.seconds, second.seconds) == ([4, 4], [4])


def test_the_graded_matrix_has_its_spectrum(compare: ModuleType) -> None:
    s = np.linalg.svd(compare.Case("graded", "float64", 30, 30).matrix(), compute_uv=False)
    np.testing.assert_allclose(s, compare.CONDITION ** -np.linspace(0, 1, 30), rtol=1e-4)


def test_wrong_products_are_found(alone: ModuleType) -> None:
    a = alone.Case("product", "float32", 300, 300).matrix()
    checks, right = alone.ProductChecks(a), np.dot(a, alone.peers.second_operand(a))
    assert alone.is_right(checks.ratios(right))
    assert not alone.is_right(checks.ratios(right * np.float32(1.001)))
    assert not alone.is_right(checks.ratios(np.where(right > 50, np.nan, right)))
