"""The routing table that ``lapack-ai tune`` measured: its file, and whether it holds for this process.

A table holds for the machine, the libraries and the numbers of threads that it was measured
with. Any other is ignored, and so is a file that is not understood: one line in the log, and
the shipped rules stand.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from lapack_ai_backend import native
from lapack_ai_backend.multimethods import MATMUL
from lapack_ai_backend.registry import STOCK, UNLIMITED, Limits, of_function
from lapack_ai_backend.rules import Rule

NOT_TUNED = ("opencl_gemm", "alphatensor49_blocked")  # pay from sizes on that take seconds a call
VERSION = 1  # of the file's format

log = logging.getLogger("lapack_ai_backend")


@dataclass(frozen=True)
class Measurement:
    """Times of one problem, seconds by kernel name; "stock" is one of them."""

    dtype: str
    m: int
    k: int
    n: int
    batch: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class TunedTable:
    """What the file holds."""

    key: dict[str, str]
    date: str
    rules: tuple[Rule, ...]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Found:
    """The file as this process sees it: a table that holds here, or why there is none."""

    table: TunedTable | None
    why_not: str
    exists: bool


# ---- what a table holds for ---------------------------------------------------------------------

CPU_FIELDS = ("vendor_id", "model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part")
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def key() -> dict[str, str]:
    """Machine, libraries and threads of this process: where one of them differs, a table does not hold."""
    import numpy
    import scipy

    blas = numpy.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "CPU": _cpu(),
        "instruction set": native.isa(),
        "kernel threads": str(native.lib.lai_num_threads()),
        "BLAS threads": _blas_threads(native.lib.lai_blas_threads()),
        "BLAS": f"{blas.get('name')} {blas.get('version')}",
        "Python": ".".join(map(str, sys.version_info[:2])),
        "NumPy": numpy.__version__,
        "SciPy": scipy.__version__,
        "lapack_ai_backend": _own_version(),
        "kernels": ", ".join(sorted(kernel.name for kernel in of_function(MATMUL))),
    }


def _blas_threads(in_effect: int) -> str:
    """How many BLAS uses; where it does not tell (0), what the environment says."""
    named = {name: os.environ[name] for name in THREAD_VARIABLES if os.environ.get(name)}
    return str(in_effect or ", ".join(f"{name}={value}" for name, value in named.items()) or "as it chooses")


def _cpu() -> str:
    """The first processor as Linux describes it; a model's name alone is "Processor" on many virtual machines."""
    found = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if not line.strip():
                break
            found[name.strip()] = value.strip()
    return ", ".join(found[name] for name in CPU_FIELDS if name in found) or platform.processor() or platform.machine()


def _own_version() -> str:
    try:
        return metadata.version("lapack_ai_backend")
    except metadata.PackageNotFoundError:  # a source tree on the path
        return "not installed"


# ---- the file -----------------------------------------------------------------------------------


def path() -> Path:
    """Where the table is; ``XDG_CACHE_HOME`` moves it."""
    import platformdirs  # here: importing the package must stay quick

    return platformdirs.user_cache_path("lapack_ai_backend") / "tuned.json"


def write(table: TunedTable) -> Path:
    """Put a table in the place of whatever is there, whole or not at all."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=target.name, dir=target.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"version": VERSION, **asdict(table)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    here.cache_clear()
    return target


def remove() -> bool:
    """Remove the table; whether there was one."""
    try:
        path().unlink()
    except FileNotFoundError:
        return False
    finally:
        here.cache_clear()
    return True


def read() -> TunedTable:
    """The file's table, wherever it was measured.

    Raises
    ------
    OSError
        Where there is no file, or none that can be read.
    ValueError
        For a file that this version does not understand.
    """
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("version"), int):
            raise ValueError("it is no tuned table")
        if found["version"] != VERSION:
            raise ValueError(f"its format is version {found['version']}, this package reads {VERSION}")
        return TunedTable(
            {str(name): str(value) for name, value in found["key"].items()},
            str(found["date"]),
            tuple(_rule(each) for each in found["rules"]),
            tuple(_measurement(each) for each in found["measurements"]),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from None


def _rule(found: dict[str, Any]) -> Rule:
    """A rule of the file, which may say only what its kernel can do."""
    name, because, kernel_name, dtypes = found["name"], found["because"], found["kernel"], tuple(found["dtypes"])
    if not all(isinstance(text, str) for text in (name, because, kernel_name, *dtypes)):
        raise TypeError("a name is no text")
    limits = Limits(**found["limits"])
    for each in fields(Limits):
        value = getattr(limits, each.name)
        if type(value) is not type(getattr(Limits(), each.name)) or not 0 <= value <= UNLIMITED:
            raise ValueError(f"it is damaged (limit {each.name} is {value!r})")
    if limits.min_isa > native.lib.LAI_AVX512:
        raise ValueError(f"it is damaged (limit min_isa is {limits.min_isa})")
    kernel = next((each for each in (STOCK, *of_function(MATMUL)) if each.name == kernel_name), None)
    if found["function"] != MATMUL or kernel is None:
        raise ValueError(f"rule {name} names {found['function']} and {kernel_name}")
    if kernel is not STOCK and not _fits(limits, dtypes, kernel.limits, kernel.dtypes):
        raise ValueError(f"rule {name} wants of {kernel_name} what it cannot do")
    if not set(dtypes) <= set(native.DTYPES):
        raise ValueError(f"rule {name} names dtypes {dtypes}")
    return Rule(name, MATMUL, dtypes, limits, kernel_name, because)


def _fits(own: Limits, dtypes: tuple[str, ...], its: Limits, its_dtypes: tuple[str, ...]) -> bool:
    return (
        set(dtypes) <= set(its_dtypes)
        and own.square >= its.square
        and own.symmetric <= its.symmetric
        and own.min_dim >= its.min_dim
        and own.max_dim <= its.max_dim
        and own.min_work >= its.min_work
        and own.min_batch >= its.min_batch
        and own.max_batch <= its.max_batch
        and own.min_isa >= its.min_isa
        and own.as_blas >= its.as_blas
    )


def _measurement(found: dict[str, Any]) -> Measurement:
    seconds = {str(name): float(value) for name, value in found["seconds"].items()}
    m, k, n, batch = (int(found[name]) for name in ("m", "k", "n", "batch"))
    return Measurement(str(found["dtype"]), m, k, n, batch, seconds)


# ---- does it hold here --------------------------------------------------------------------------


@functools.cache  # looked at once a process: every compiled policy sees the same
def here() -> Found:
    """The table that holds for this process, or why there is none."""
    try:
        table = read()
    except FileNotFoundError:
        return Found(None, "this machine has no tuned table: lapack-ai tune makes one", exists=False)
    except (OSError, ValueError) as error:
        return Found(None, f"the tuned table is ignored: {path()}: {error}", exists=True)
    own = key()
    for name, value in own.items():
        if table.key.get(name) != value:
            measured = table.key.get(name, "unknown")
            return Found(
                None, f"the tuned table is ignored: measured with {name} {measured}, here {value}", exists=True
            )
    return Found(table, "", exists=True)


def in_force(policy: str) -> tuple[Rule, ...] | None:
    """The tuned rules for policy "auto" or "tuned"; None where the shipped ones stand, and the log says why."""
    found = here()
    if found.table is not None:
        return found.table.rules
    if found.exists or policy == "tuned":
        _log_once(found.why_not)
    return None


@functools.cache  # each text once a process
def _log_once(text: str) -> None:
    log.warning("the shipped rules route products: %s", text)


def status() -> dict[str, Any]:
    """For info(): the file, when it was measured, and why it is not used."""
    found = here()
    return {"file": str(path()), "measured": found.table.date if found.table else None, "why_not": found.why_not}
