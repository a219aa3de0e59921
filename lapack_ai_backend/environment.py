"""Environment variables: their names, how their text is read, what holds without them.

Booleans read 0/1/true/false/yes/no/on/off. A value that is not understood is one
clear warning and the default, never a guess.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lapack_ai_backend.errors import EnvironmentWarning, OptionError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def choice(what: str, valid: tuple[str, ...]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in valid:
            raise OptionError.unknown(what, value, valid)
        return str(value)

    return parse


def boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in TRUE + FALSE:
        return text in TRUE
    raise OptionError.unknown("truth value", value, TRUE + FALSE)


MOST_DIGITS = 1000  # int() refuses thousands of them, in its own words


def number(least: int, most: int | None = None) -> Callable[[object], int]:
    def parse(value: object) -> int:
        text = str(value).strip()
        understood = text.isdecimal() and len(text) <= MOST_DIGITS
        if not understood or int(text) < least or (most is not None and int(text) > most):
            raise OptionError.unknown("number", value, [f"{least} to {most}" if most else f"{least} or more"])
        return int(text)

    return parse


def level(value: object) -> str:
    return choice("log level", LEVELS)(str(value).strip().upper())


@dataclass(frozen=True)
class Variable:
    """One environment variable: what it sets, how its text is read, what holds without it."""

    name: str
    parse: Callable[[object], Any]
    default: Any
    meaning: str


PROCESS_VARIABLES = {
    "enabled": Variable("LAPACK_AI", boolean, False, "enable the backend when the package is imported"),
    "num_threads": Variable("LAPACK_AI_NUM_THREADS", number(1), None, "most threads of a kernel; read at import"),
    "workspace": Variable(
        "LAPACK_AI_WORKSPACE",
        number(0),
        4096,
        "most MiB of workspace of a large product; read at import",
    ),
    "log": Variable("LAPACK_AI_LOG", level, None, "log level on standard error"),
    "debug": Variable("LAPACK_AI_DEBUG", boolean, False, "the same as LAPACK_AI_LOG=DEBUG"),
    "log_level": Variable("LAPACK_LOG_LEVEL", level, None, "log level, where LAPACK_AI_LOG is not set"),
    "gpu_enabled": Variable("LAPACK_GPU_ENABLED", boolean, True, "0: no OpenCL device at all"),
    "gpu_memory_limit": Variable(
        "LAPACK_GPU_MEMORY_LIMIT", number(1, 100), 80, "percent of a device's memory that a call may take"
    ),
    "gpu_timeout": Variable(
        "LAPACK_GPU_TIMEOUT",
        number(0),
        3600,
        "seconds after which a device that has not answered is given up; 0: never",
    ),
    "pinned": Variable(
        "LAPACK_AI_PINNED", boolean, None, "transfers through pinned memory: 0 never, 1 on every device; 64 MiB at most"
    ),
    "batch_size_limit": Variable(
        "LAPACK_BATCH_SIZE_LIMIT", number(1), 1024, "most matrices of a stack in one device launch"
    ),
    "dashboard_port": Variable(
        "LAPACK_DASHBOARD_PORT", number(1, 65535), 8080, "port of the dashboard (read, not used yet)"
    ),
}

BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


@functools.lru_cache(maxsize=256)
def _read(variable: Variable, text: str) -> tuple[Any, bool]:
    """Value and whether it was understood; cached, so that each text warns once."""
    try:
        return variable.parse(text), True
    except OptionError as error:
        message = f"{variable.name}={text!r} is ignored, {variable.default!r} is used: {error}"
        warnings.warn(message, EnvironmentWarning, stacklevel=3)
        return variable.default, False


def from_environment(variable: Variable) -> tuple[Any, str]:
    """Value of a variable and where it comes from: its name, or "default"."""
    text = os.environ.get(variable.name, "").strip()
    if not text:
        return variable.default, "default"
    value, understood = _read(variable, text)
    return value, variable.name if understood else "default"


def thread_limit() -> tuple[int | None, str]:
    """Most threads of a kernel (None: as many as the machine gives), by our variable, else by what BLAS was told."""
    limit, source = from_environment(PROCESS_VARIABLES["num_threads"])
    if limit is not None:
        return limit, source
    for name in BLAS_VARIABLES:
        text = os.environ.get(name, "").partition(",")[0].strip()  # OpenMP: a number for each level of nesting
        if text.isdecimal() and len(text) <= MOST_DIGITS and int(text) > 0:
            return int(text), name
    return None, "default"


def log_level() -> str | None:
    """The level that the environment asks for; None: leave logging to the program."""
    if from_environment(PROCESS_VARIABLES["debug"])[0]:
        return "DEBUG"
    level: str | None = (
        from_environment(PROCESS_VARIABLES["log"])[0] or from_environment(PROCESS_VARIABLES["log_level"])[0]
    )
    return level
