"""Installing and importing change nothing, are quick, and pull in little."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from scripts import passes

import lapack_ai_backend

PACKAGE = Path(lapack_ai_backend.__file__).parent

SNAPSHOT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import logging, os, threading, warnings
import numpy as np, scipy.linalg as sl, ufunc_memory

def snapshot():
    codes = {{name: getattr(getattr(sl, name), "__code__", None) for name in sl.__all__}}
    loose = (dict(os.environ), list(warnings.filters), list(logging.getLogger().handlers), threading.active_count())
    memory = ufunc_memory.fields(), ufunc_memory.loops(), list(ufunc_memory.operators())
    return codes, memory, dict(vars(np)), dict(vars(sl)), loose

def same(before, after):
    codes, others = zip(before[0].items(), strict=True), before[1:]
    del codes
    assert all(after[0][name] is code for name, code in before[0].items()), "a function of scipy.linalg has other code"
    assert others == after[1:]
"""


def test_import_changes_nothing() -> None:
    passes(
        SNAPSHOT
        + """
before = snapshot()
import lapack_ai_backend
same(before, snapshot())
""",
        "-W",
        "error",
    )


def test_looking_changes_nothing() -> None:
    """Only switching on intercepts: reports and questions do not."""
    passes(
        SNAPSHOT
        + """
import lapack_ai_backend as lapack_ai
before = snapshot()[:2]
a = np.ones((10, 4, 4))
lapack_ai.explain(np.matmul, a, a), lapack_ai.explain("svd", a[0])
lapack_ai.info(), lapack_ai.kernels(), lapack_ai.stats(), lapack_ai.is_enabled()
with lapack_ai.skip_backend():
    a @ a
context = lapack_ai.set_backend()
same(before, snapshot()[:2])
"""
    )


def test_import_leaves_heavy_modules_alone() -> None:
    unwanted = ("pyopencl", "scipy.linalg", "scipy.fft", "typer", "rich", "pytest", "hypothesis", "cffi", "asyncio")
    loaded = passes("import sys, numpy, lapack_ai_backend; print(*sys.modules)").split()
    without = passes("import sys, numpy; from scipy._lib import uarray; print(*sys.modules)").split()
    assert not sorted(set(unwanted) & (set(loaded) - set(without)))


def test_import_takes_60_ms_at_most() -> None:
    source = """
    import time
    import numpy, scipy.linalg
    start = time.process_time()
    import lapack_ai_backend
    print(time.process_time() - start)
    """
    times = []
    for _ in range(8):  # CPU time, the best one: other programs only ever add
        times.append(float(passes(source)))
        if min(times) <= 0.060:
            break
    assert min(times) <= 0.060, times


def test_version_is_one() -> None:
    from importlib import metadata

    assert metadata.version("lapack_ai_backend") == lapack_ai_backend.__version__


def test_public_names_exist_and_are_not_modules() -> None:
    """A submodule named as a public function would take its place at the first import of it."""
    for name in lapack_ai_backend.__all__:
        assert hasattr(lapack_ai_backend, name)
        assert not (PACKAGE / f"{name}.py").exists()
        assert not (PACKAGE / name).exists()


# ---- layers: a module imports only from lines below its own ---------------------------------

LAYERS = (
    "__main__",
    "cli",
    "testing",
    "tuning",
    "running",
    "__init__",
    "information",
    "explanation",
    "context",
    "interception",
    "backend",
    "observation",
    "activation",
    "policy",
    "tuned_rules",
    "rules",
    "problem",
    "reasons",
    "options",
    "registry.products",
    "registry.decompositions",
    "registry",
    "linalg.gemm",
    "linalg.lstsq",
    "linalg.svd",
    "linalg.stacks",
    "linalg.gesdd",
    "linalg.bidiagonal",
    "linalg.verification",
    "linalg",
    "opencl.lapack",
    "opencl.memory",
    "opencl.transfer",
    "opencl.programs",
    "opencl.session",
    "opencl.devices",
    "opencl.drivers",
    "opencl",
    "multimethods",
    "uarray_adapter",
    "native",
    "environment",
    "errors",
)

ENTRY_POINTS = ("__main__", "cli", "testing")  # programs: they use the package as a user does
# Importing the package of kernels registers them.
ONE_PACKAGE = {("registry", "registry.products"), ("registry", "registry.decompositions")}


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1]) if parts[-1] == "__init__" and len(parts) > 1 else ".".join(parts)
        found[name] = path
    return found


def _imported(path: Path) -> set[str]:
    """Modules of this package that a file imports, wherever in it."""
    known, found = _modules(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            # `from package.module import name`: name may be a module itself
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in whole if name.removeprefix("lapack_ai_backend.") in known}
            found |= modules
            if len(modules) < len(whole):
                found.add(node.module or "")
    ours = {name for name in found if name.split(".")[0] == "lapack_ai_backend"}
    return {name.removeprefix("lapack_ai_backend.") if "." in name else "__init__" for name in ours} - {"_native"}


def test_every_module_has_a_layer() -> None:
    assert sorted(_modules()) == sorted(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_imports_come_from_layers_below(module: str) -> None:
    below = LAYERS[LAYERS.index(module) + 1 :]
    wrong = {name for name in _imported(_modules()[module]) if name not in below and (module, name) not in ONE_PACKAGE}
    assert not wrong, f"{module} imports {wrong}"


def test_only_native_imports_the_extension_and_only_the_adapter_uarray() -> None:
    """As the whole package leans on each, one place knows how it is found."""
    owners = {"lapack_ai_backend._native": "native", "uarray": "uarray_adapter", "scipy._lib": "uarray_adapter"}
    for name, path in _modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [node.module] if isinstance(node, ast.ImportFrom) else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {owners.get(each, name) for each in imported} <= {name}, name
