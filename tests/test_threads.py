"""The pool of threads, what limits it, forks; BLAS's number of threads; the instruction set of a process.

tests/sanitize/stress.c goes further, without Python: many workers, data races, other architectures.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl
from scripts import passes, run_script

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import environment, native
from lapack_ai_backend.native import ffi, lib

TASKS = Path("/proc/self/task")
CPUS = len(os.sched_getaffinity(0))

two_cpus = pytest.mark.skipif(CPUS < 2, reason="one CPU: there is no pool")


@pytest.fixture(autouse=True)
def machine_limits() -> Iterator[None]:
    """No limit but the machine's; what was in force comes back."""
    before = lib.lai_use_threads(0)
    yield
    lib.lai_use_threads(before)
    lib.lai_cgroup_cpus(b"")


def parallel(parts: int, run: Callable[[int], None]) -> None:
    """``lai_parallel`` over a Python function; raises what a part raised."""
    raised: list[Any] = []
    callback = ffi.callback(
        "void(void *, int)", lambda context, part: run(part), onerror=lambda kind, error, trace: raised.append(error)
    )
    lib.lai_parallel(parts, callback, ffi.NULL)
    if raised:
        raise raised[0]


def on_two_threads(look: Callable[[], Any]) -> tuple[Any, Any]:
    """What a function says in the calling thread, and in a worker: each waits for the other to come."""
    caller, meeting = threading.get_ident(), threading.Barrier(2)
    seen = {}

    def part(_: int) -> None:
        meeting.wait(timeout=30)
        seen[threading.get_ident()] = look()

    parallel(2, part)
    assert len(seen) == 2
    mine = seen.pop(caller)
    return mine, *seen.values()


def in_thread(run: Callable[[], Any]) -> Any:
    """What a function returns in a thread of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    return found[0]


# ---- limits -------------------------------------------------------------------------------


def test_the_least_limit_holds() -> None:
    everything = min(CPUS, lib.lai_cgroup_cpus(ffi.NULL) or CPUS)
    assert lib.lai_num_threads() == everything
    assert lib.lai_use_threads(1) == 0
    assert lib.lai_num_threads() == 1
    assert lib.lai_use_threads(10**6) == 1
    assert lib.lai_num_threads() == everything
    assert lib.lai_use_threads(-3) == 10**6
    assert lib.lai_use_threads(0) == 0


def test_affinity_is_that_of_the_calling_thread() -> None:
    def pinned() -> int:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return lib.lai_num_threads()

    before = lib.lai_num_threads()
    assert in_thread(pinned) == 1
    assert lib.lai_num_threads() == before


V2 = "0::/"
V1 = "12:memory:/\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n"

CGROUPS: dict[str, tuple[str | None, dict[str, str], int]] = {
    "no cgroups": (None, {}, 0),
    "no limit": (V2, {"cpu.max": "max 100000\n"}, 0),
    "whole": (V2, {"cpu.max": "200000 100000\n"}, 2),
    "rounded up": (V2, {"cpu.max": "200001 100000\n"}, 3),
    "less than one": (V2, {"cpu.max": "1000 100000\n"}, 1),
    "other period": (V2, {"cpu.max": "50000 10000\n"}, 5),
    "huge": (V2, {"cpu.max": "9000000000000000000 1\n"}, 2**31 - 1),
    "nonsense": (V2, {"cpu.max": "many\n"}, 0),
    "half a line": (V2, {"cpu.max": "200000"}, 0),
    "no period": (V2, {"cpu.max": "200000 0\n"}, 0),
    "empty": (V2, {"cpu.max": ""}, 0),
    "inner group": ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "max 100000"}, 3),
    "outer group": ("0::/a/b\n", {"a/b/cpu.max": "700000 100000", "a/cpu.max": "400000 100000"}, 4),
    "least of all": ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "cpu.max": "400000 100000"}, 2),
    "other group": ("0::/a/b\n", {"a/c/cpu.max": "200000 100000"}, 0),
    "container": ("0::/docker/0123\n", {"cpu.max": "200000 100000"}, 2),
    "colon in the name": ("0::/a:b\n", {"a:b/cpu.max": "200000 100000"}, 2),
    "group too long": ("0::/" + 5000 * "x" + "\n", {"cpu.max": "200000 100000"}, 0),
    "hybrid": ("1:name=systemd:/\n0::/a\n", {"unified/a/cpu.max": "200000 100000"}, 2),
    "version 1": (V1, {"cpu/job/cpu.cfs_quota_us": "250000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 3),
    "version 1, outer": (V1, {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    "version 1, both names": (
        V1,
        {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
        4,
    ),
    "version 1, no limit": (V1, {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 0),
    "version 1, quota alone": (V1, {"cpu/job/cpu.cfs_quota_us": "100000\n"}, 0),
    "version 1, other controllers": (
        "3:cpuset,cpuacct:/job\n",
        {"cpu/job/cpu.cfs_quota_us": "250000", "cpu/job/cpu.cfs_period_us": "100000"},
        0,
    ),
}


def file_system(root: Path, groups: str | None, files: dict[str, str]) -> bytes:
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if groups is not None:
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(groups)
    return os.fsencode(root)


@pytest.mark.parametrize("case", CGROUPS)
def test_quotas_of_cgroups(tmp_path: Path, case: str) -> None:
    groups, files, cpus = CGROUPS[case]
    assert lib.lai_cgroup_cpus(file_system(tmp_path, groups, files)) == cpus
    assert lib.lai_cgroup_cpus(ffi.NULL) == cpus
    assert lib.lai_num_threads() == min(CPUS, cpus or CPUS)


def test_a_container_of_one_cpu_runs_everything_in_the_caller(tmp_path: Path) -> None:
    lib.lai_cgroup_cpus(file_system(tmp_path, V2, {"cpu.max": "100000 100000"}))
    threads = []
    parallel(20, lambda part: threads.append(threading.get_ident()))
    assert Counter(threads) == {threading.get_ident(): 20}
    assert native.threads() == (1, "CPU quota" if CPUS > 1 else native.threads()[1])


# ---- environment ----------------------------------------------------------------------------

VARIABLES: list[tuple[dict[str, str], tuple[int | None, str]]] = [
    ({}, (None, "default")),
    ({"LAPACK_AI_NUM_THREADS": "3"}, (3, "LAPACK_AI_NUM_THREADS")),
    ({"OPENBLAS_NUM_THREADS": "3"}, (3, "OPENBLAS_NUM_THREADS")),
    ({"OMP_NUM_THREADS": "3"}, (3, "OMP_NUM_THREADS")),
    ({"OMP_NUM_THREADS": " 5 , 2,1"}, (5, "OMP_NUM_THREADS")),
    ({"LAPACK_AI_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "3"}, (4, "LAPACK_AI_NUM_THREADS")),
    ({"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, (2, "OPENBLAS_NUM_THREADS")),
    ({"OPENBLAS_NUM_THREADS": "0", "OMP_NUM_THREADS": "3"}, (3, "OMP_NUM_THREADS")),
    ({"OPENBLAS_NUM_THREADS": "all", "OMP_NUM_THREADS": "-1"}, (None, "default")),
    ({"OPENBLAS_NUM_THREADS": "", "OMP_NUM_THREADS": ",2"}, (None, "default")),
]


@pytest.mark.parametrize(("variables", "limit"), VARIABLES)
def test_limits_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], limit: tuple[int | None, str]
) -> None:
    for name in environment.BLAS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert environment.thread_limit() == limit


REPORT = "import lapack_ai_backend as ai; print(*ai.info()['cpu']['threads'].values(), sep=': ')"
NOTHING_SET = dict.fromkeys(environment.BLAS_VARIABLES, "")


@pytest.mark.parametrize("name", ["LAPACK_AI_NUM_THREADS", *environment.BLAS_VARIABLES])
def test_the_environment_limits_a_process(name: str) -> None:
    assert passes(REPORT, "-W", "error", variables=NOTHING_SET | {name: "1"}) == f"1: {name}\n"


def test_more_threads_than_the_machine_has() -> None:
    variables = NOTHING_SET | {"LAPACK_AI_NUM_THREADS": str(10**30)}
    machine = passes(REPORT, variables=NOTHING_SET)
    assert machine in (f"{lib.lai_num_threads()}: CPU {what}\n" for what in ("affinity", "quota"))
    assert passes(REPORT, "-W", "error", variables=variables) == machine


def test_a_bad_number_of_threads_is_one_warning() -> None:
    done = run_script(REPORT, variables=NOTHING_SET | {"LAPACK_AI_NUM_THREADS": "none", "OMP_NUM_THREADS": "1"})
    assert done.stdout == "1: OMP_NUM_THREADS\n"
    assert done.stderr.count("EnvironmentWarning") == 1
    assert "LAPACK_AI_NUM_THREADS='none'" in done.stderr


# ---- the pool -------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [-1, 0, 1, 2, 3, 1000])
def test_every_part_runs_once(parts: int) -> None:
    runs: list[int] = []
    parallel(parts, runs.append)
    assert sorted(runs) == list(range(parts))


@two_cpus
def test_two_threads_work_at_once() -> None:
    mine, others = on_two_threads(threading.get_native_id)
    assert mine == threading.get_native_id()
    assert (TASKS / str(others) / "comm").read_text() == "lapack_ai\n"


@two_cpus
def test_the_pool_is_one_thread_less_than_the_limit() -> None:
    script = """
    import os
    from lapack_ai_backend.native import ffi, lib
    nothing = ffi.callback("void(void *, int)", lambda context, part: None)
    def tasks():
        return len(os.listdir("/proc/self/task"))
    before = tasks()
    lib.lai_parallel(1, nothing, ffi.NULL)
    assert tasks() == before
    lib.lai_use_threads(2)
    for _ in range(3):
        lib.lai_parallel(100, nothing, ffi.NULL)
        assert tasks() == before + 1
    """
    passes(script)


def test_parts_may_call_for_parts() -> None:
    runs: list[tuple[int, int]] = []
    parallel(4, lambda part: parallel(3, lambda inner: runs.append((part, inner))))
    assert sorted(runs) == [(part, inner) for part in range(4) for inner in range(3)]


def test_several_callers_at_once() -> None:
    def call(caller: int) -> None:
        for _ in range(40):
            runs: list[int] = []
            parallel(7, runs.append)
            assert sorted(runs) == list(range(7))
        done.append(caller)

    done: list[int] = []
    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(5)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert sorted(done) == list(range(5))


@two_cpus
def test_workers_take_no_signals_but_those_of_instructions() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    mine, workers = on_two_threads(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []))
    assert mine == before == signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM} <= workers
    assert not {signal.SIGSEGV, signal.SIGFPE, signal.SIGBUS, signal.SIGILL, signal.SIGABRT} & workers


MATH = ctypes.CDLL(None)
UPWARD, DIVIDE_BY_ZERO = {"x86_64": (0x800, 0x4), "aarch64": (0x400000, 0x2)}.get(platform.machine(), (0, 0))
known_settings = pytest.mark.skipif(not UPWARD, reason="<fenv.h> of this architecture is not known here")


@two_cpus
@known_settings
def test_parts_round_as_the_caller_does() -> None:
    nearest = MATH.fegetround()
    assert on_two_threads(MATH.fegetround) == (nearest, nearest)
    MATH.fesetround(UPWARD)
    try:
        seen = on_two_threads(MATH.fegetround)
    finally:
        MATH.fesetround(nearest)
    assert seen == (UPWARD, UPWARD)
    assert on_two_threads(MATH.fegetround) == (nearest, nearest)


@two_cpus
@known_settings
@pytest.mark.parametrize("raised", [0, DIVIDE_BY_ZERO])
def test_flags_of_workers_reach_the_caller(raised: int) -> None:
    caller = threading.get_ident()

    def look() -> int:
        if threading.get_ident() != caller:
            MATH.feraiseexcept(raised)
        found: int = MATH.fetestexcept(DIVIDE_BY_ZERO)
        return found

    MATH.feclearexcept(DIVIDE_BY_ZERO)
    assert on_two_threads(look) == (0, raised)
    assert MATH.fetestexcept(DIVIDE_BY_ZERO) == raised
    MATH.feclearexcept(DIVIDE_BY_ZERO)
    assert on_two_threads(lambda: MATH.fetestexcept(DIVIDE_BY_ZERO)) == (0, 0)  # the worker's own are gone, too


# ---- forks, other processes, the end -----------------------------------------------------------

POOL = """
import os, signal, sys, threading, time, warnings
signal.alarm(60)
from lapack_ai_backend.native import ffi, lib

WORKERS = lib.lai_num_threads() - 1

def tasks():
    return len(os.listdir("/proc/self/task"))

def parallel(parts, run):
    lib.lai_parallel(parts, ffi.callback("void(void *, int)", lambda context, part: run(part)), ffi.NULL)

def check():
    runs = []
    parallel(50, runs.append)
    assert sorted(runs) == list(range(50)), runs
    meeting = threading.Barrier(2)
    if WORKERS:
        parallel(2, lambda part: meeting.wait(timeout=30))
    return "right"

def fork():
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            check()
            status = 0
        finally:
            os._exit(status)
    return child

def ended_well(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_fork_of_a_process_with_a_pool() -> None:
    """Python 3.12 and later warn of a fork beside threads; NumPy's BLAS gives no reason to, nor do we."""
    passes(
        POOL
        + """
for _ in range(3):
    check()
    assert ended_well(fork())
    assert tasks() == 1
check()
""",
        "-W",
        "error",
        variables={"OPENBLAS_NUM_THREADS": "1", "LAPACK_AI_NUM_THREADS": "2"},
    )


def test_fork_while_another_thread_has_the_pool() -> None:
    passes(
        POOL
        + """
warnings.simplefilter("ignore", DeprecationWarning)  # there is a thread besides, and it is the program's
inside, forked = threading.Event(), threading.Event()
runs = []
def wait(part):
    inside.set()
    assert forked.wait(30)
    runs.append(part)
thread = threading.Thread(target=parallel, args=(3, wait))
thread.start()
assert inside.wait(30)
children = [fork() for _ in range(3)]
assert all(ended_well(child) for child in children)
forked.set()
thread.join()
assert sorted(runs) == [0, 1, 2]
check()
"""
    )


def test_fork_inside_a_part() -> None:
    passes(
        POOL
        + """
warnings.simplefilter("ignore", DeprecationWarning)
children = []
parallel(4, lambda part: children.append(fork()))
assert all(ended_well(child) for child in children) and len(children) == 4
check()
"""
    )


def test_forked_workers_of_multiprocessing() -> None:
    passes(
        POOL
        + """
import multiprocessing
import numpy as np
import lapack_ai_backend as lapack_ai

warnings.simplefilter("ignore", DeprecationWarning)  # multiprocessing.Pool's own threads

def product(size):
    a = np.full((size, 4, 4), 2.0)
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        c = a @ a
    assert t.decisions[0].kernel != "stock"
    return check(), float(c.min())

expected = product(5)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(product, [10, 20, 30, 40]).get(timeout=60) == 4 * [expected]
assert expected == ("right", 16.0)
"""
    )


def test_other_programs_leave_the_pool_alone() -> None:
    passes(
        POOL
        + """
import subprocess
check()
before = sorted(os.listdir("/proc/self/task"))
assert subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, timeout=60).stdout == b"5\\n"
assert sorted(os.listdir("/proc/self/task")) == before
"""
    )


@pytest.mark.parametrize("busy", [False, True], ids=["asleep", "busy"])
def test_the_process_ends_beside_workers(busy: bool) -> None:
    script = (
        POOL
        + """
check()
if BUSY:
    # A worker and a daemon thread that no interpreter waits for; the parts sleep in C.
    import ctypes
    sleep = ctypes.CDLL(None).usleep
    part = ffi.cast("void(*)(void *, int)", ctypes.cast(sleep, ctypes.c_void_p).value)
    threading.Thread(
        target=lib.lai_parallel, args=(64, part, ffi.cast("void *", 5_000_000)), daemon=True
    ).start()
    time.sleep(0.1)
print("end")
"""
    )
    start = time.monotonic()
    assert passes(script.replace("BUSY", str(busy))) == "end\n"
    assert time.monotonic() - start < 60


# ---- BLAS's threads -----------------------------------------------------------------------------


def numpy_blas() -> list[int]:
    """Threads of the library of that many BLAS that NumPy brings; SciPy has its own."""
    return [
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas" and "scipy.libs" not in library["filepath"]
    ]


def test_threads_of_numpys_blas() -> None:
    before = numpy_blas()
    assert len(before) == 1
    assert lib.lai_blas_threads() == before[0]
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert lib.lai_blas_threads() == 1
        assert lapack_ai.info()["cpu"]["blas_threads"] == 1
    assert lib.lai_blas_threads() == before[0]


# ---- the instruction set of a process ------------------------------------------------------------


@pytest.mark.parametrize("level", native.ISAS)
def test_instruction_set_of_a_process(level: str) -> None:
    if native.ISAS[level] > lib.lai_best_isa():
        pytest.skip(f"this CPU has no {level}")
    script = """
    import numpy as np
    import lapack_ai_backend as lapack_ai
    a = np.arange(160.0).reshape(10, 4, 4)
    with lapack_ai.set_backend(), lapack_ai.trace() as t:
        c = a @ a
    assert t.decisions[0].kernel != "stock" and (c == np.einsum("bij,bjk->bik", a, a)).all()
    print(lapack_ai.info()["cpu"]["instruction_set"])
    """
    assert passes(script, "-W", "error", variables={"LAPACK_AI_ISA": level.upper()}) == f"{level}\n"


def test_an_instruction_set_that_this_cpu_lacks_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(native.ISAS, "avx2048", lib.LAI_ISAS)
    monkeypatch.setenv("LAPACK_AI_ISA", "avx2048")
    before = native.isa()
    with pytest.warns(lapack_ai.EnvironmentWarning, match=f"'avx2048' is not what this CPU has; using {before}"):
        native._isa_from_environment()
    assert native.isa() == before
