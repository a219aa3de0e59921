"""explain(): what would run a call, and why, by the policy that runs it."""

from __future__ import annotations

import importlib
import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lapack_ai_backend import activation, interception, multimethods, problem
from lapack_ai_backend.options import changed, function_name
from lapack_ai_backend.policy import Decision, candidates, decide, readable, table_for
from lapack_ai_backend.reasons import TEXTS


def explain(
    func: Callable[..., Any] | str, /, *args: Any, options: Mapping[str, object] | None = None, **kwargs: Any
) -> Decision:
    """Which kernel would run ``func(*args, **kwargs)``, and why. Nothing is executed.

    Parameters
    ----------
    func : callable or str
        ``numpy.matmul``, ``operator.matmul``, ``numpy.linalg.svd``, a function of
        ``scipy.linalg``, or a name of one: "numpy.matmul", "numpy.linalg.svd", "svd" (SciPy's).
    *args, **kwargs
        The call's arguments.
    options : mapping, optional
        Options as for ``set_backend``; without it, those in force here.

    Returns
    -------
    Decision
        `kernel` is what runs the call where the backend is on; `active` says whether it
        is on here; `candidates` lists every kernel for the function, and why each may not.
        Values and free memory are not looked at: which blocks ``alphatensor49`` hands to ``direct`` (zeros,
        wide spreads), and that memory was short, a ``trace`` of the call tells.

    Raises
    ------
    OptionError
        For a function that is not intercepted, or an unknown option.

    Examples
    --------
    >>> import numpy as np, lapack_ai_backend as lapack_ai
    >>> a = np.ones((1000, 4, 4))
    >>> lapack_ai.explain(np.matmul, a, a, options={"accuracy": "componentwise"}).kernel
    'direct'
    """
    function = function_name(func if isinstance(func, str) else _dotted(func))
    chosen = changed(activation.base_options(), options or {})
    active = _active(function) and (options is None or chosen == activation.effective_options())
    if function == multimethods.MATMUL and any(problem.speaks_for_itself(x) for x in args[:2]):
        return Decision(function, "stock", active, "input", TEXTS["input"], "")
    described = _problem(function, args, kwargs)
    if function in interception.left_stock:
        return Decision(function, "stock", active, "not_intercepted", interception.left_stock[function], "", described)
    if described is None and function == multimethods.MATMUL:
        return Decision(function, "stock", active, "no_loop", TEXTS["no_loop"], "")
    decision = readable(decide(function, described, table_for(chosen)), described, active=active)
    return replace(decision, candidates=candidates(function, described, chosen) if described else ())


def _active(function: str) -> bool:
    """Whether a call of the function made here would be routed."""
    if activation.is_skipped():
        return False
    registered = activation.PROCESS.known_to_uarray and function.startswith("scipy.linalg.")
    return registered or activation.effective_options() is not None


def _dotted(func: Callable[..., Any]) -> str:
    if func in (np.matmul, operator.matmul, multimethods.matmul, np.linalg.matmul):
        return multimethods.MATMUL
    module = getattr(func, "__module__", "") or ""
    name = getattr(func, "__name__", repr(func))
    return f"scipy.linalg.{name}" if module.startswith("scipy.linalg") else f"{module}.{name}"


def _problem(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> problem.Problem | None:
    """The call's problem; None without a plain array or, of a product, where no loop runs."""
    if function == multimethods.MATMUL:
        if len(args) < 2:
            np.matmul(*args, **kwargs)  # raises NumPy's own error
        known = {name: kwargs[name] for name in ("dtype", "axes", "casting", "signature") if name in kwargs}
        return problem.of_product(args[0], args[1], **known)
    module, _, name = function.rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    signature.bind(*args, **kwargs)  # raises the TypeError that the call would raise
    return problem.of_call(function, args, kwargs)
