"""The extension is self-contained, and source distribution and wheel hold what they must."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import _native

ROOT = Path(__file__).resolve().parent.parent

DISTRIBUTION = pytest.mark.timeout(900)  # two builds, and an installation from PyPI

PRODUCT = """
import numpy as np
import lapack_ai_backend as lapack_ai
a = np.arange(48.0).reshape(3, 4, 4)
with lapack_ai.set_backend(lapack_ai), lapack_ai.trace() as t:
    c = a @ a
assert t.decisions[0].kernel != "stock", t.decisions
assert np.allclose(c, np.matmul(a, a), rtol=1e-12)
print(lapack_ai.__file__)
"""


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment | variables, capture_output=True, text=True, check=False
    )


def output(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Standard output of a command that must end well."""
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_version_is_that_of_the_installed_package() -> None:
    assert importlib.metadata.version("lapack_ai_backend") == lapack_ai.__version__


# ---- the extension -----------------------------------------------------------------------------


def test_extension_needs_only_the_c_library() -> None:
    lines = output("readelf", "--dynamic", "--wide", _native.__file__, LC_ALL="C").splitlines()
    needed = {line.partition("[")[2].rstrip("]") for line in lines if "(NEEDED)" in line}
    assert needed
    allowed = ("libc.so.", "libm.so.", "libpthread.so.", "libdl.so.", "ld-linux")  # all of glibc; no Fortran, no OpenMP
    assert [name for name in needed if not name.startswith(allowed)] == []


def test_extension_exports_its_init_function_alone() -> None:
    """A routine that is visible to the linker may take the place of another library's."""
    lines = output("readelf", "--dyn-syms", "--wide", _native.__file__, LC_ALL="C").splitlines()
    symbols = [line.split() for line in lines if line.strip()[:1].isdigit()]
    defined = [each[7] for each in symbols if each[4] in ("GLOBAL", "WEAK", "UNIQUE") and each[6] != "UND"]
    assert defined == ["PyInit__native"]


@pytest.mark.parametrize("compiler", ["no-such-fortran", "no-such-fortran -m64"])
def test_missing_fortran_compiler_is_one_clear_error(tmp_path: Path, compiler: str) -> None:
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-temp", tmp_path, "--build-lib", tmp_path]
    done = run(*build, FC=compiler)
    assert done.returncode == 1
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    assert "'no-such-fortran' was not found" in text
    assert "apt-get install gfortran" in text
    assert text.strip().endswith("environment variable FC.")
    assert list(tmp_path.rglob("*.o")) == []


# ---- distributions -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy that holds no products of other builds."""
    clean = tmp_path_factory.mktemp("clean") / "source"
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    names = [pattern.rstrip("/").rpartition("/")[2] for pattern in ignored]
    shutil.copytree(ROOT, clean, ignore=shutil.ignore_patterns(*names, ".git"))
    build = "import sys, setuptools.build_meta; setuptools.build_meta.build_sdist(sys.argv[1])"
    folder = tmp_path_factory.mktemp("sdist")
    output(sys.executable, "-c", build, folder, cwd=clean)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, with only what pyproject.toml says that a build needs."""
    folder = tmp_path_factory.mktemp("wheel")
    output(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, sdist)
    (archive,) = folder.glob("*.whl")
    return archive


def test_sdist_holds_the_sources(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    sources = [path for folder in ("csrc", "fortran", "lapack_ai_backend") for path in (ROOT / folder).rglob("*")]
    built = {".so", ".o", ".pyc"}
    wanted = {path.relative_to(ROOT).as_posix() for path in sources if path.is_file() and path.suffix not in built}
    wanted -= {"lapack_ai_backend/_native.c"}
    wanted |= {"setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"}
    assert wanted - held == set()


@DISTRIBUTION
def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in held} == {"lapack_ai_backend"}
    assert len([name for name in held if name.startswith("lapack_ai_backend/_native.")]) == 1
    data = {"py.typed", "known_differences.toml", "cl/common/definitions.cl", "cl/svd/reduction.cl"}
    assert {f"lapack_ai_backend/{name}" for name in data} <= set(held)
    assert [name for name in held if name.endswith((".c", ".f90", ".o"))] == []
    assert {name.rpartition("/")[2] for name in held} >= {"LICENSE", "NOTICE"}


@DISTRIBUTION
def test_wheel_works_where_there_is_no_compiler(wheel: Path, tmp_path: Path) -> None:
    output(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    scripts = tmp_path / "venv" / "bin"
    output(sys.executable, "-m", "pip", "--python", scripts / "python", "install", wheel, PATH=str(scripts))
    where = output(scripts / "python", "-I", "-c", PRODUCT, cwd=tmp_path, PATH=str(scripts))
    assert where.startswith(str(tmp_path))
    assert "alphatensor49" in output(scripts / "lapack-ai", "kernels", cwd=tmp_path, PATH=str(scripts), COLUMNS="200")
