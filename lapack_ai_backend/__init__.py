"""Transparent acceleration of NumPy products and ``scipy.linalg``.

>>> import numpy as np
>>> import lapack_ai_backend as lapack_ai
>>> from lapack_ai_backend import set_backend
>>> a = np.ones((1000, 4, 4))
>>> with set_backend(lapack_ai):
...     b = a @ a

The module itself is the uarray backend object. Importing it changes nothing
anywhere; ``docs/path-of-a-call.md`` follows a call through the files.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

from lapack_ai_backend import activation, environment, interception, multimethods
from lapack_ai_backend.backend import registered as __ua_function__  # noqa: F401  # uarray calls it
from lapack_ai_backend.context import BackendContext, SkipContext, UarrayCache, disable, enable, is_enabled
from lapack_ai_backend.errors import EnvironmentWarning, KernelError, OptionError
from lapack_ai_backend.explanation import explain
from lapack_ai_backend.information import info, kernels
from lapack_ai_backend.multimethods import matmul
from lapack_ai_backend.observation import Trace, reset_stats, stats, trace
from lapack_ai_backend.policy import Decision

__version__ = "0.1.0"

__all__ = [
    "Decision",
    "EnvironmentWarning",
    "KernelError",
    "OptionError",
    "Trace",
    "disable",
    "enable",
    "explain",
    "info",
    "is_enabled",
    "kernels",
    "matmul",
    "reset_stats",
    "set_backend",
    "skip_backend",
    "stats",
    "trace",
]

__ua_cache__ = UarrayCache()


class _BackendModule(types.ModuleType):
    """This module's class: a module that pickles, and that notices when uarray takes it."""

    @property
    def __ua_domain__(self) -> str:
        # uarray reads this in register_backend and set_global_backend: the first is a switching on.
        interception.install()
        activation.PROCESS.update(known_to_uarray=True)
        return multimethods.DOMAIN

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


def set_backend(backend: types.ModuleType | None = None, /, **given: object) -> BackendContext:
    """Context manager and decorator: the backend is on inside.

    Parameters
    ----------
    backend : module, optional
        This module; for the look of ``with set_backend(lapack_ai):``.
    policy : {"auto", "static", "tuned"}
        Routing table: the shipped one, or the one measured on this machine where it exists.
    accuracy : {"normwise", "componentwise"}
        Weakest error bound that a kernel of products may have.
    device : str
        "auto", "cpu", "gpu" or "<platform>:<device>": the OpenCL device.
    force : mapping of str to str
        Function name -> kernel name that must serve it wherever it can.
    disable : sequence of str
        Functions that stay stock.
    strict : bool
        Raise `KernelError` where a kernel fails, in place of the stock result.
    verify : {"probe", "off", "always"}
        Check of results that a device computed.

    Returns
    -------
    BackendContext
        Nests; options that are not given are those in force outside. Used as a
        decorator it also wraps async functions and generators.

    Raises
    ------
    OptionError
        For an unknown option, function, kernel or device; the text names the valid ones.
    """
    if backend is not None and backend is not sys.modules[__name__]:
        hint = "as a decorator write @set_backend()" if callable(backend) else "for others use uarray.set_backend"
        raise TypeError(f"set_backend switches {__name__} on and takes that module, not {backend!r}; {hint}")
    return BackendContext(given)


def skip_backend() -> SkipContext:
    """Context manager and decorator: stock behaviour inside."""
    return SkipContext()


sys.modules[__name__].__class__ = _BackendModule

if environment.from_environment(environment.PROCESS_VARIABLES["enabled"])[0]:  # LAPACK_AI=1 asks for it
    enable()
