"""The dashboard: benchmarks of the last commits, published as pages that need no network.

python asv_bench/dashboard.py [machine] [run] [publish]      these steps; without a word all three
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from asv import util
from asv.config import Config
from asv.machine import MachineCollection
from asv.results import iter_results_for_machine

import lapack_ai_backend as lapack_ai

HERE = Path(__file__).resolve().parent

# What the dashboard follows, as asv names it: about a minute a commit without a GPU, and another to build it.
BENCHMARKS = (
    r"^svd\.",
    r"^products\.StackRatio\..*\((\d, 'float64', 'direct'|4, 'float64', 'alphatensor49')",
    r"^products\.IntegerRatio\..*\(\d{2,}, 'int64'",  # a product of a microsecond differs from process to process
    r"^imports\.",
    r"^dispatch\.Inactive\.",
)
STEPS = ("machine", "run", "publish")


def asv(*arguments: str) -> int:
    """Exit status of an asv command."""
    return subprocess.run([sys.executable, "-m", "asv", *arguments], check=False).returncode


# ---- machine and run ---------------------------------------------------------------------------


def register(machine: str) -> None:
    """Describe this machine to asv under a neutral name; the host's own name gets into no result."""
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    devices = (f"OpenCL {each['kind']}: {each['name']}" for each in lapack_ai.info()["opencl"]["devices"])
    # asv has no field for devices; as part of this one another device starts another graph.
    cpu = "; ".join((util.get_cpu_info(), *devices))
    facts = {"machine": machine, "os": system, "arch": platform.machine(), "cpu": cpu}
    MachineCollection.save(machine, facts | {"num_cpu": str(os.cpu_count()), "ram": str(util.get_memsize())})


def newest_python(versions: list[str]) -> str:
    """The newest of the versions that is installed here with its C headers: commits are built with it."""
    headers = "import os, sysconfig; os.stat(os.path.join(sysconfig.get_path('include'), 'Python.h'))"
    for version in sorted(versions, key=lambda text: [int(part) for part in text.split(".")], reverse=True):
        found = shutil.which(f"python{version}")
        if found and subprocess.run([found, "-c", headers], capture_output=True, check=False).returncode == 0:
            return version
    sys.exit(f"none of Python {', '.join(versions)} is installed here with its C headers")


def lacking(settings: Config, machine: str, commits: int) -> list[str]:
    """Those of the last commits that this machine has no results of, oldest first."""
    git = ["git", "-C", settings.repo, "rev-list", "--first-parent", "--reverse", f"--max-count={commits}", "HEAD"]
    last = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()
    try:
        measured = {result.commit_hash for result in iter_results_for_machine(settings.results_dir, machine)}
    except OSError:  # the machine's first run
        measured = set()
    return [commit for commit in last if commit not in measured]


def run(settings: Config, machine: str, commits: int) -> int:
    """Benchmark the commits that lack results, each installed into asv's own environment."""
    hashes = lacking(settings, machine, commits)
    print(f"==> the last {commits} commits: {len(hashes)} without results on machine {machine!r}", flush=True)
    if not hashes:
        return 0
    chosen = [word for pattern in BENCHMARKS for word in ("--bench", pattern)]
    environment = f"virtualenv:{newest_python(settings.pythons)}"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(hashes))
        listed.flush()
        where = ("--machine", machine, "--environment", environment, "--no-pull")
        return asv("run", *where, *chosen, f"HASHFILE:{listed.name}")


# ---- publish -----------------------------------------------------------------------------------


def publish(settings: Config) -> int:
    """Write the pages with all committed results, and say what has become slower."""
    status = asv("publish", "--no-pull")
    if status:
        return status
    pages = Path(settings.html_dir).resolve()
    prune(pages)
    localise(pages)
    slower = list(regressions(pages))
    print("\n".join(("==> regressions:", *slower)) if slower else "==> no regressions")
    print(f"==> {pages / 'index.html'}; a browser shows it from a server only: python -m http.server -d {pages}")
    return 0


def prune(pages: Path) -> None:
    """Leave out benchmarks that have no value on any machine: asv draws empty frames for them."""
    index = pages / "index.json"
    content = util.load_json(index)
    summaries = {path.stem: path.stat().st_size for path in (pages / "graphs" / "summary").glob("*.json")}
    followed = {name: each for name, each in content["benchmarks"].items() if summaries.get(name, 0) > len("[]")}
    util.write_json(index, content | {"benchmarks": followed}, compact=True)


def localise(pages: Path) -> None:
    """Make the page load its libraries from beside itself; asv's own loads them from other hosts."""
    index = pages / "index.html"
    remote = re.compile(r'(?<= )(src|href)="https?://[^"]*/([^"/]+?)(?:-[\d.]+\d)?(?:\.min)?\.(js|css)"')
    verified = re.compile(r' integrity="[^"]*"| crossorigin="[^"]*"| referrerpolicy="[^"]*"')

    def local(found: re.Match[str]) -> str:
        attribute, name, kind = found.groups()
        source = HERE / "www" / f"{name}.{kind}"
        if not source.exists():
            sys.exit(f"asv's page loads {found[0]}: put it into {source.parent}, or install the asv of pyproject.toml")
        shutil.copy(source, pages)
        return f'{attribute}="{source.name}"'

    lines = index.read_text(encoding="utf-8").splitlines(keepends=True)
    local_lines = (verified.sub("", remote.sub(local, line)) if remote.search(line) else line for line in lines)
    index.write_text("".join(local_lines), encoding="utf-8")


def regressions(pages: Path) -> Iterator[str]:
    """One line for each benchmark that is slower than it was: how much, and since which commit."""
    commits = util.load_json(pages / "index.json")["revision_to_hash"]
    for name, _, _, _, last, best, jumps in util.load_json(pages / "regressions.json")["regressions"]:
        since = ", ".join(commits[str(jump[1])][:8] for jump in jumps)
        yield f"    {name}: {last / best:.2f} of its best, since {since}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="step", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--commits", type=int, default=3, help="how many of the last commits (3)")
    parser.add_argument("--machine", default="ci", help="the machine's name in the results (ci)")
    parser.add_argument("--config", type=Path, default=HERE / "asv.conf.json", help="asv's configuration")
    given = parser.parse_args()
    unknown = set(given.steps) - set(STEPS)
    if unknown:
        parser.error(f"no step {', '.join(unknown)}")
    os.chdir(given.config.parent)  # paths in the configuration start there
    settings = Config.load(given.config.name)
    steps = given.steps or STEPS
    status = 0
    if "machine" in steps:
        register(given.machine)
    if "run" in steps:
        status = run(settings, given.machine, given.commits)
    if "publish" in steps:
        status = publish(settings) or status
    return status


if __name__ == "__main__":
    sys.exit(main())
