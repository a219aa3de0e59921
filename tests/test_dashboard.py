"""The dashboard: a planted slow-down is reported, and the pages draw in a browser without a network."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "asv_bench" / "dashboard.py"

COMMITS = 7
PLANTED = 4  # the commit that makes `work` three times as slow

BENCHMARKS = """
import pathlib, time

FACTOR = int(pathlib.Path(__file__).with_name("factor").read_text())

class Timed:
    repeat, number, rounds, warmup_time = 5, 1, 1, 0

    def time_work(self):
        time.sleep(0.004 * FACTOR)

    def time_steady(self):
        time.sleep(0.004)

class Tracked:
    def track_work(self):
        return 0.5 * FACTOR

    def track_steady(self):
        return 0.5
"""


# As root, without a GPU, and asking no host for anything.
CHROMIUM = [
    *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "window-size=1280,900"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
]


def needed(there: object, what: str) -> None:
    """Skip where something is not installed; CI installs everything, and fails."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not installed here")


def output(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Standard output of a command that must end well."""
    words = list(map(str, command))
    done = subprocess.run(words, cwd=cwd, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class History(NamedTuple):
    """A repository of measured commits, with the home in which asv keeps what it knows of the machine."""

    folder: Path
    commits: list[str]
    home: Path

    def published(self) -> str:
        """What the dashboard's step `publish` says."""
        conf = self.folder / "asv.conf.json"
        return output(sys.executable, DASHBOARD, "publish", "--config", conf, cwd=self.folder, HOME=str(self.home))

    def slower(self) -> dict[str, list[str]]:
        """Benchmarks that the published pages report, with the commits since which they are slower."""
        pages = self.folder / "html"
        commits = json.loads((pages / "index.json").read_text(encoding="utf-8"))["revision_to_hash"]
        found = json.loads((pages / "regressions.json").read_text(encoding="utf-8"))["regressions"]
        return {name: [commits[str(jump[1])] for jump in jumps] for name, *_, jumps in found}


def settings() -> Any:
    """The project's own configuration of asv."""
    from asv import util

    return util.load_json(ROOT / "asv_bench" / "asv.conf.json", js_comments=True)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Commits measured one by one under the project's own configuration but for its folders."""
    needed(importlib.util.find_spec("asv"), "asv")
    needed(shutil.which("git"), "git")
    folder, home = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("home")
    here = {"repo": ".", "env_dir": "env", "results_dir": "results", "html_dir": "html"}
    (folder / "asv.conf.json").write_text(json.dumps(settings() | here), encoding="utf-8")
    benchmarks = folder / "benchmarks"
    benchmarks.mkdir()
    (benchmarks / "__init__.py").touch()
    (benchmarks / "planted.py").write_text(BENCHMARKS, encoding="utf-8")
    run = functools.partial(output, cwd=folder, HOME=str(home))
    git = functools.partial(run, "git", "-c", "user.name=A", "-c", "user.email=a@localhost")
    git("init", "--quiet", "--initial-branch=main")
    run(sys.executable, DASHBOARD, "machine", "--machine", "test", "--config", folder / "asv.conf.json")
    asv = functools.partial(run, sys.executable, "-m", "asv", "run", "--machine", "test", "--environment", "existing")
    commits = []
    for number in range(COMMITS):
        (benchmarks / "factor").write_text("3" if number >= PLANTED else "1", encoding="utf-8")
        (benchmarks / "count").write_text(str(number), encoding="utf-8")
        git("add", "benchmarks")
        git("commit", "--quiet", "--message", f"commit {number}")
        commits.append(git("rev-parse", "HEAD").strip())
        asv("--set-commit-hash", commits[-1])
    return History(folder, commits, home)


@pytest.fixture(scope="module")
def with_slow_down(history: History) -> tuple[History, str]:
    return history, history.published()


# ---- regressions -------------------------------------------------------------------------------


def test_planted_slow_down_is_reported_with_its_commit(with_slow_down: tuple[History, str]) -> None:
    history, told = with_slow_down
    planted = history.commits[PLANTED]
    assert history.slower() == {"planted.Timed.time_work": [planted], "planted.Tracked.track_work": [planted]}
    assert f"planted.Tracked.track_work: 3.00 of its best, since {planted[:8]}" in told
    assert "no regressions" not in told


def test_nothing_is_reported_without_the_slow_down(history: History, tmp_path: Path) -> None:
    before = History(tmp_path / "before", history.commits, history.home)
    shutil.copytree(history.folder, before.folder)
    for commit in history.commits[PLANTED:]:
        for result in (before.folder / "results").glob(f"*/{commit[:8]}-*.json"):
            result.unlink()
    assert "no regressions" in before.published()
    assert before.slower() == {}


def test_commits_with_results_are_not_measured_again(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    from asv.config import Config

    spec = importlib.util.spec_from_file_location("dashboard", DASHBOARD)
    assert spec
    assert spec.loader
    dashboard = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dashboard)
    monkeypatch.chdir(history.folder)
    conf = Config.load("asv.conf.json")
    assert dashboard.lacking(conf, "test", 3) == []
    assert dashboard.lacking(conf, "other", 3) == history.commits[-3:]


def test_results_name_no_host() -> None:
    described = list((ROOT / "asv_bench" / "results").glob("*/machine.json"))
    for path in described:
        facts = json.loads(path.read_text(encoding="utf-8"))
        assert facts["machine"] == path.parent.name
        assert os.uname().nodename not in facts.values()


# ---- pages -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium."""
    needed(importlib.util.find_spec("selenium"), "selenium")
    needed(importlib.util.find_spec("PIL"), "pillow")
    chromium, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    needed(chromium and driver, "Chromium with its driver")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for word in CHROMIUM:
        options.add_argument(f"--{word}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    chrome = Chrome(options, ChromeService(driver))
    chrome.set_page_load_timeout(60)
    yield chrome
    chrome.quit()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serves a folder, until the test has ended; its address."""
    servers = []

    def start(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/index.html"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def shown(browser: Any, address: str, ready: str) -> None:
    """Open a page and wait until a script's expression holds."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")  # an address that differs in its fragment alone would load nothing
    browser.get(address)
    WebDriverWait(browser, 30).until(lambda chrome: chrome.execute_script(f"return Boolean({ready})"))


def screenshot(browser: Any, name: str) -> None:
    """Keep what the browser shows, for people; fail if it is blank."""
    from PIL import Image

    folder = Path(os.environ.get("CI_ARTIFACTS") or ROOT / "build" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"dashboard-{name}.png"
    assert browser.save_screenshot(str(path))
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 1000
    assert pixels.std() > 5
    ink = (pixels < 250).mean()
    assert 0.01 < ink < 0.9, ink


# Points of the graph that asv has drawn, and how many pixels of its canvas carry ink.
POINTS = """return $('#main-graph').data('plot').getData().map(
    series => series.data.filter(point => point && point[1] !== null).length)"""
INK = """return $('%s canvas').toArray().map(canvas => canvas.getContext('2d')
    .getImageData(0, 0, canvas.width, canvas.height).data.filter((value, i) => i %% 4 == 3 && value > 0).length)"""


def graph(address: str, benchmark: str) -> tuple[str, str]:
    """Address of a benchmark's graph, and what holds once it is there."""
    return f"{address}#{benchmark}", "$('#main-graph').data('plot') && $('#main-graph').data('plot').getData().length"


def test_pages_load_nothing_from_other_hosts(with_slow_down: tuple[History, str], browser: Any, serve: Any) -> None:
    history, _ = with_slow_down
    address = serve(history.folder / "html")
    shown(browser, *graph(address, "planted.Timed.time_work"))
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(loaded) > 15
    assert [name for name in loaded if not name.startswith(address.removesuffix("index.html"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_summary_draws_each_benchmark(with_slow_down: tuple[History, str], browser: Any, serve: Any) -> None:
    history, _ = with_slow_down
    shown(browser, f"{serve(history.folder / 'html')}#/", "$('#summarygrid-display canvas.flot-base').length == 4")
    assert min(browser.execute_script(INK % "#summarygrid-display")[::2]) > 20
    screenshot(browser, "summary")


def test_graph_draws_every_commit(with_slow_down: tuple[History, str], browser: Any, serve: Any) -> None:
    history, _ = with_slow_down
    shown(browser, *graph(serve(history.folder / "html"), "planted.Timed.time_work"))
    assert browser.execute_script(POINTS) == [COMMITS]
    assert max(browser.execute_script(INK % "#main-graph")) > 200
    screenshot(browser, "graph")


def test_regressions_page_names_the_benchmarks(with_slow_down: tuple[History, str], browser: Any, serve: Any) -> None:
    history, _ = with_slow_down
    address = serve(history.folder / "html")
    shown(browser, f"{address}#/regressions", "$('#regressions-body table tbody tr').length")
    text = browser.execute_script("return $('#regressions-body').text()")
    assert "planted.Timed.time_work" in text
    assert "planted.Tracked.track_work" in text
    assert "steady" not in text
    assert history.commits[PLANTED][:8] in text
    screenshot(browser, "regressions")


def measured_commits(results: Path, benchmark: str) -> int:
    """Commits of this history of which one machine has values, measured by the benchmark as it is now."""
    if not (ROOT / ".git").exists():
        return 0
    history = set(output("git", "rev-list", "HEAD", cwd=ROOT).split())
    version = json.loads((results / "benchmarks.json").read_text(encoding="utf-8"))[benchmark]["version"]
    counts: dict[str, int] = {}
    for path in results.glob("*/*-*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        found = dict(zip(result["result_columns"], result["results"].get(benchmark, []), strict=False))
        values = [value for value in found.get("result") or [] if value is not None and value == value]
        if values and found["version"] == version and result["commit_hash"] in history:
            counts[path.parent.name] = counts.get(path.parent.name, 0) + 1
    return max(counts.values(), default=0)


def test_committed_results_draw_a_graph_of_the_svd(tmp_path: Path, browser: Any, serve: Any) -> None:
    """From this repository's own results; a copy of the repository without its history has none to draw."""
    benchmark, bench = "svd.RatioCpu.track_svd", ROOT / "asv_bench"
    commits = measured_commits(bench / "results", benchmark)
    if commits < 3:
        pytest.skip(f"{commits} commits of this history have results of the SVD here")
    conf = tmp_path / "asv.conf.json"
    here = {"repo": str(ROOT), "benchmark_dir": str(bench / "benchmarks"), "results_dir": str(bench / "results")}
    conf.write_text(json.dumps(settings() | here | {"html_dir": str(tmp_path / "html")}), encoding="utf-8")
    output(sys.executable, DASHBOARD, "publish", "--config", conf, cwd=tmp_path, HOME=str(tmp_path))
    shown(browser, *graph(serve(tmp_path / "html"), benchmark))
    assert max(browser.execute_script(POINTS)) == commits
    assert max(browser.execute_script(INK % "#main-graph")) > 200
    screenshot(browser, "svd")
