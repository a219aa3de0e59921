"""Running somebody's program with the backend on, and the report of what ran where."""

from __future__ import annotations

import json
import runpy
import sys
import time
import types
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

from lapack_ai_backend import observation
from lapack_ai_backend.policy import Decision


def run_program(kind: str, target: str, arguments: Sequence[str]) -> None:
    """Run a script ("script"), a module ("-m") or source text ("-c") as Python's own command line does."""
    sys.argv = [target if kind == "script" else kind, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(target).resolve().parent) if kind == "script" else ""
    try:
        if kind == "-m":
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        elif kind == "-c":
            _run_as_main(compile(target, "<string>", "exec", dont_inherit=True))
        elif Path(target).is_file() and not zipfile.is_zipfile(target):
            path = Path(target).absolute()
            _run_as_main(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), __file__=str(path))
        else:  # a directory or an archive with a __main__.py
            runpy.run_path(target, run_name="__main__")
    except Exception as error:  # click would show some of these in its own way, and all with its own frames
        error.__traceback__ = _of_the_program(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        raise SystemExit(1) from None


def _run_as_main(code: CodeType, **attributes: str) -> None:
    """Run code as the module ``__main__``, which stays: atexit handlers and pickles look there."""
    main = types.ModuleType("__main__")
    main.__dict__.update(attributes)
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def _of_the_program(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the program's first frame on, without ours and runpy's."""
    own = (__file__, "<frozen runpy>", runpy.__file__)
    while traceback is not None and traceback.tb_frame.f_code.co_filename in own:
        traceback = traceback.tb_next
    return traceback


WAYS = ("alphatensor", "direct", "stock")  # in which blocks are computed


class Report:
    """Collects the decisions of a program run: calls of one shape and route are one line."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()  # before the program may go elsewhere
        self._trace = observation.Trace()
        self._start = time.perf_counter()

    def __enter__(self) -> Report:
        self._trace.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.seconds = time.perf_counter() - self._start
        self._trace.__exit__(*exception)

    def as_dict(self) -> dict[str, Any]:
        """Lines by work done, largest first, and the blocks that each way computed."""
        decisions = self._trace.decisions
        lines: dict[tuple[Any, ...], dict[str, Any]] = {}
        for decision in decisions:
            line = lines.setdefault(
                _key(decision), {**_line(decision), "calls": 0, "seconds": 0.0, **dict.fromkeys(WAYS, 0)}
            )
            line["calls"] += 1
            line["seconds"] += decision.seconds
            for way in WAYS:
                line[way] += getattr(decision, f"{way}_blocks")
        work = {
            key: line["calls"] * line["m"] * max(line["k"], 1) * line["n"] * line["batch"]
            for key, line in lines.items()
        }
        return {
            "seconds": self.seconds,
            "calls": [lines[key] for key in sorted(lines, key=lambda key: -work[key])],
            "blocks": {way: sum(line[way] for line in lines.values()) for way in WAYS},
        }

    def write(self) -> None:
        self._path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")


def _key(decision: Decision) -> tuple[Any, ...]:
    return decision.function, decision.kernel, decision.reason_code, decision.rule, decision.problem


def _line(decision: Decision) -> dict[str, Any]:
    problem = decision.problem
    return {
        "function": decision.function,
        "kernel": decision.kernel,
        "dtype": problem.dtype if problem else "other",
        "m": problem.m if problem else 0,
        "k": problem.k if problem else 0,
        "n": problem.n if problem else 0,
        "batch": problem.batch if problem else 0,
        "reason_code": decision.reason_code,
        "reason": decision.reason,
        "rule": decision.rule,
    }


def summary() -> str:
    """One line for each function and kernel that was reached."""
    lines = []
    for (function, kernel), counter in observation.stats().items():
        blocks = {"alphatensor": counter.blocks_alphatensor, "direct": counter.blocks_direct}
        shown = ", ".join(f"{count} blocks by {way}" for way, count in blocks.items() if count)
        why = ", ".join(f"{count} {code}" for code, count in counter.fallbacks.items())
        details = "; ".join(text for text in (shown, why) if text)
        lines.append(f"lapack-ai: {function} -> {kernel}: {counter.calls} calls{f' ({details})' if details else ''}")
    return "\n".join(lines) or "lapack-ai: no call of this process reached the backend"
