"""Functions of ``scipy.linalg`` that are computed here, from SciPy's arguments to SciPy's results."""

from __future__ import annotations

from typing import Protocol


class Settings(Protocol):
    """What these functions need to know of the options in force."""

    @property
    def device(self) -> str: ...

    @property
    def verify(self) -> str: ...
