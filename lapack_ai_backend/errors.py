"""Exceptions of this package. Numerical errors are SciPy's and NumPy's own; none is made here."""

from __future__ import annotations

from collections.abc import Iterable


class OptionError(ValueError):
    """An option, kernel, function or device name that does not exist; the text names the valid ones."""

    @classmethod
    def unknown(cls, what: str, given: object, valid: Iterable[str]) -> OptionError:
        return cls(f"unknown {what} {given!r}; valid: {', '.join(valid)}")


class KernelError(RuntimeError):
    """A kernel failed and ``strict=True`` asked not to fall back to stock code."""


class EnvironmentWarning(UserWarning):
    """An environment variable holds a value that is not understood; the default is used."""
