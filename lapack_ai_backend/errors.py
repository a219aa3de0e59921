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


class DeviceError(RuntimeError):
    """An OpenCL device, program or command failed."""


class Decline(Exception):  # noqa: N818  # control flow, not an error: the call runs stock
    """A kernel leaves the call to stock, for one of the reasons of reasons.py; nothing was written."""

    def __init__(self, reason_code: str, message: str) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class EnvironmentWarning(UserWarning):
    """An environment variable holds a value that is not understood; the default is used."""
