"""Which OpenCL device serves, why none does, and that asking is safe: once, in no forked child, with any drivers."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import faulty_device
import pytest
from scripts import passes

import lapack_ai_backend as lapack_ai
from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.native import lib
from lapack_ai_backend.opencl import devices, drivers, programs
from lapack_ai_backend.opencl import session as sessions
from lapack_ai_backend.opencl.devices import Device

GIB = 2**30
GPU = Device("0:0", "Maker's OpenCL", "GPU", "1.0", "gpu", 8 * GIB, True, 2 * GIB, 49152, 1024, True, True)
BIG = replace(GPU, selector="0:1", name="big GPU", memory=80 * GIB)
TWIN = replace(BIG, selector="0:2", name="twin GPU")
SINGLE = replace(GPU, selector="1:0", name="single GPU", memory=99 * GIB, fp64=False)
CPU = replace(GPU, selector="2:0", name="CPU", kind="cpu", memory=99 * GIB)
OTHER = replace(GPU, selector="3:0", name="FPGA", kind="other")
NARROW = replace(GPU, selector="4:0", name="narrow GPU", max_work_group=128)
SMALL = replace(GPU, selector="5:0", name="small GPU", local_memory=16384)
ABSENT = replace(GPU, selector="6:0", name="absent GPU", available=False)


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these devices be all that this process has found."""

    def have(*found: Device, why_none: str = "") -> None:
        monkeypatch.setattr(devices, "_asked_by", os.getpid())
        monkeypatch.setattr(devices, "_inventory", devices._Inventory(found, tuple(map(id, found)), why_none))

    return have


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the start of a process."""
    monkeypatch.setattr(devices, "_asked_by", None)
    monkeypatch.setattr(devices, "_inventory", None)


@pytest.fixture
def device() -> Device:
    found = devices.choose("cpu")
    assert found is not None, devices.why_not("cpu")
    return found


# ---- which device an option means ---------------------------------------------------------------

CHOICES = [
    # devices, option, what serves float64, what serves float32
    ((), "auto", None, None),
    ((GPU,), "auto", GPU, GPU),
    ((GPU,), "gpu", GPU, GPU),
    ((GPU,), "cpu", None, None),
    ((GPU, BIG, TWIN), "auto", BIG, BIG),
    ((TWIN, BIG, GPU), "auto", TWIN, TWIN),
    ((GPU, BIG, TWIN), "0:2", TWIN, TWIN),
    ((GPU, BIG, TWIN), "7:0", None, None),
    ((SINGLE, GPU), "auto", GPU, GPU),
    ((SINGLE,), "auto", None, SINGLE),
    ((SINGLE, GPU), "1:0", None, SINGLE),
    ((CPU,), "auto", None, None),
    ((CPU,), "gpu", None, None),
    ((CPU,), "cpu", CPU, CPU),
    ((CPU,), "2:0", CPU, CPU),
    ((CPU, GPU), "auto", GPU, GPU),
    ((OTHER,), "auto", None, None),
    ((OTHER,), "other", None, None),
    ((OTHER,), "3:0", OTHER, OTHER),
    ((NARROW, SMALL, ABSENT), "auto", None, None),
    ((NARROW, GPU), "4:0", None, None),
]


@pytest.mark.parametrize(("found", "option", "double", "single"), CHOICES)
def test_choice(
    having: Callable[..., None], found: tuple[Device, ...], option: str, double: Device | None, single: Device | None
) -> None:
    having(*found, why_none="" if found else "no OpenCL platform")
    for dtypes, expected in ((("float64", "complex128"), double), (("float32", "complex64"), single)):
        for dtype in dtypes:
            assert devices.choose(option, dtype) == expected
            assert bool(devices.why_not(option, dtype)) is (expected is None)
    assert devices.choose(option, "longdouble") is None


@pytest.mark.parametrize(
    ("found", "option", "reason"),
    [
        ((CPU,), "auto", 'there is no OpenCL GPU; used only when asked for: CPU (device="2:0")'),
        ((CPU,), "gpu", 'there is no OpenCL GPU; used only when asked for: CPU (device="2:0")'),
        ((GPU,), "cpu", 'there is no OpenCL CPU device; used only when asked for: GPU (device="0:0")'),
        ((GPU,), "7:0", "there is no OpenCL device '7:0'; used only when asked for: GPU (device=\"0:0\")"),
        ((SINGLE,), "auto", "single GPU computes no float64"),
        ((NARROW,), "gpu", "narrow GPU has work-groups of 128 at most, 256 are needed"),
        ((SMALL,), "gpu", "small GPU has 16384 bytes of local memory, 32768 are needed"),
        ((ABSENT, replace(ABSENT, name="other")), "gpu", "absent GPU is not available; other is not available"),
    ],
)
def test_reason(having: Callable[..., None], found: tuple[Device, ...], option: str, reason: str) -> None:
    having(*found)
    assert devices.why_not(option, "float64") == reason


def test_use_is_told(having: Callable[..., None]) -> None:
    having(SINGLE, GPU, BIG, CPU, OTHER, NARROW)
    assert {device.name: devices.use(device) for device in devices.found()} == {
        "single GPU": 'used only when asked for (device="1:0"), for single precision only: it has no fp64',
        "GPU": 'used only when asked for (device="0:0"), for single and double precision',
        "big GPU": "used for single and double precision",
        "CPU": 'an OpenCL device on the CPU, used only when asked for (device="cpu"), for single and double precision',
        "FPGA": 'used only when asked for (device="3:0"), for single and double precision',
        "narrow GPU": "not used: it has work-groups of 128 at most, 256 are needed",
    }
    having(SINGLE)
    assert devices.use(SINGLE) == "used for single precision only: it has no fp64"


def test_pocl_is_described(device: Device) -> None:
    assert device.kind == "cpu"
    assert device.fp64
    assert device.memory >= device.max_allocation >= 2**27  # OpenCL's least is a quarter of the memory, or 128 MiB
    assert device == next(each for each in devices.found() if each.selector == device.selector)
    assert devices.handle(device).name.strip() == device.name
    with pytest.raises(DeviceError, match="no OpenCL device 9:9"):
        devices.handle(replace(device, selector="9:9"))


# ---- why there is none --------------------------------------------------------------------------


def test_switched_off_by_the_environment(unasked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_ask_opencl", lambda: pytest.fail("OpenCL was asked"))
    os.environ["LAPACK_GPU_ENABLED"] = "0"
    assert devices.found() == ()
    assert devices.choose("cpu") is None
    assert devices.why_not("cpu") == devices.why_none() == "LAPACK_GPU_ENABLED=0"


def test_no_driver_is_asked_without_sys() -> None:
    """PoCL 3.1 aborts the process where /sys is not mounted."""
    passes(
        """
        import sys
        from pathlib import Path
        from lapack_ai_backend.opencl import devices
        devices.CPUS = Path("/nowhere/cpu")
        assert devices.found() == ()
        assert devices.why_none().startswith("/nowhere/cpu is missing"), devices.why_none()
        assert "pyopencl" not in sys.modules
        """
    )


def test_without_pyopencl(unasked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    assert devices.choose("cpu") is None
    assert devices.why_not("cpu").startswith("pyopencl does not load: ")


def test_whatever_asking_raises_is_the_reason(unasked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_text(*args: object) -> Device:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a driver's name")

    monkeypatch.setattr(devices, "_describe", no_text)
    assert devices.choose("cpu") is None
    assert devices.why_not("cpu").startswith("OpenCL could not be asked: UnicodeDecodeError")


def test_without_platforms(unasked: None, tmp_path: Path) -> None:
    """What a machine without drivers says; the backend stays usable."""
    passes(
        """
        import numpy as np, scipy.linalg as sl
        import lapack_ai_backend as lapack_ai
        from lapack_ai_backend.opencl import devices
        assert devices.why_not("auto").startswith("no OpenCL platform: "), devices.why_not("auto")
        with lapack_ai.set_backend(device="cpu"), lapack_ai.trace() as t:
            assert sl.svd(np.eye(3))[1].sum() == 3
        assert t.decisions[0].kernel == "stock"
        assert "no OpenCL platform" in t.decisions[0].reason, t.decisions[0]
        """,
        variables={"OCL_ICD_VENDORS": str(tmp_path)},
    )


# ---- asked once, by whatever thread ---------------------------------------------------------------


def test_threads_ask_once(unasked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask() -> devices._Inventory:
        asked.append(threading.get_ident())
        time.sleep(0.05)
        return devices._Inventory((GPU,), (0,))  # type: ignore[arg-type] # no pyopencl object is needed

    monkeypatch.setattr(devices, "_ask_opencl", ask)
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(devices.choose, ["gpu"] * 8)] == [GPU] * 8
    assert len(asked) == 1


def test_threads_share_a_session_and_its_programs(device: Device) -> None:
    with faulty_device.failing("context") as contexts, ThreadPoolExecutor(8) as pool:
        opened = [*pool.map(sessions.open_session, [device] * 8)]
        assert len(set(opened)) == contexts.count == 1
    with faulty_device.failing("build") as builds, ThreadPoolExecutor(8) as pool:
        session = sessions.open_session(device)
        built = [*pool.map(lambda dtype: programs.kernels(session, dtype), ["float32", "float64"] * 4)]
        assert len(set(map(id, built))) == builds.count == 2


# ---- programs -------------------------------------------------------------------------------------


def test_every_kernel_is_handed_over(device: Device) -> None:
    session = sessions.open_session(device)
    for dtype in ("float32", "float64", "complex64", "complex128"):
        handles = programs.kernels(session, dtype)
        missing = {name for name, number in programs.kernel_names().items() if not handles.kernels[number]}
        assert missing == {*programs.OF_COMPLEX, *programs.OF_WAITING_GROUPS} - (
            set(programs.OF_COMPLEX) if dtype.startswith("complex") else set()
        ) - (set(programs.OF_WAITING_GROUPS) if handles.waiting_groups else set())
        assert handles.queue
    assert len(programs.kernel_names()) == lib.LAI_CL_KERNELS


def test_build_says_what_the_compiler_said(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    session = sessions.open_session(device)
    with pytest.raises(DeviceError, match=r"(?s)the build with -DPRECISION=64 failed: .*no_such_name") as raised:
        programs.build(session, "__kernel void f(__global int *x) { *x = no_such_name; }", "-DPRECISION=64")
    assert str(raised.value) in caplog.text


def test_build_time_and_remarks_are_logged(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "lapack_ai_backend")
    programs.build(sessions.open_session(device), "#warning hallo\n__kernel void f(void) {}", "-DPRECISION=32")
    levels = {record.levelname: record.getMessage() for record in caplog.records if "lapack_ai" in record.name}
    assert "built with -DPRECISION=32 in " in levels["INFO"]
    assert "hallo" in levels["DEBUG"]


@pytest.mark.parametrize("point", ["build", "kernel"])
def test_failed_build_is_not_tried_again(device: Device, point: str) -> None:
    with faulty_device.failing(point, 0) as calls:
        session = sessions.open_session(device)
        texts = set()
        for _ in range(3):
            with pytest.raises(DeviceError) as raised:
                programs.kernels(session, "float64")
            texts.add(str(raised.value))
        assert calls.count == 1
        assert len(texts) == 1
        programs.kernels(session, "float32")  # a matter of its own


def test_context_that_fails_may_work_next_time(device: Device) -> None:
    with faulty_device.failing("context", 0):
        with pytest.raises(DeviceError, match=r"no context: .*OUT_OF_HOST_MEMORY"):
            sessions.open_session(device)
        assert sessions.open_session(device).device == device


# ---- fork -----------------------------------------------------------------------------------------

FORK = """
import os, sys, warnings
import numpy as np, scipy.linalg as sl
import lapack_ai_backend as lapack_ai
from lapack_ai_backend.opencl import devices
from lapack_ai_backend.opencl.session import open_session
from lapack_ai_backend.errors import DeviceError
warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork: PoCL has started threads
a = np.diag([3.0, 2.0, 1.0])

def svd():
    with lapack_ai.set_backend(device="cpu"), lapack_ai.trace() as t:
        assert np.allclose(sl.svd(a)[1], [3, 2, 1])
    return t.decisions[0]

def child(work):
    "A forked child does its work and ends as Python does, destructors and all."
    process = os.fork()
    if process == 0:
        work()
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
"""


def test_forked_child_leaves_the_parents_device_alone() -> None:
    passes(
        FORK
        + """
parents = devices.choose("cpu")
session = open_session(parents)
assert svd().kernel == "opencl_svd"

def work():
    assert devices.choose("cpu") is None
    assert devices.why_not("cpu") == devices.FORKED
    assert devices.use(parents) == "not used: " + devices.FORKED
    assert devices.FORKED in svd().reason
    assert lapack_ai.info()["opencl"]["devices"][0]["name"] == parents.name
    try:
        open_session(parents)
    except DeviceError as error:
        assert str(error) == devices.FORKED
    else:
        raise AssertionError("a session of the parent's was handed out")

child(work)
child(lambda: child(work))
assert open_session(parents) is session and svd().kernel == "opencl_svd"
"""
    )


def test_forked_child_has_a_device_where_the_parent_never_asked() -> None:
    passes(
        FORK
        + """
def work():
    assert svd().kernel == "opencl_svd"

child(work)
work()
"""
    )


def test_child_forked_while_another_thread_asks() -> None:
    """The lock that the thread holds is held for ever in the child, which must not wait for it."""
    passes(
        FORK
        + """
import threading
started, go_on = threading.Event(), threading.Event()
ask = devices._ask_opencl
devices._ask_opencl = lambda: (started.set(), go_on.wait(), ask())[-1]
thread = threading.Thread(target=devices.found)
thread.start()
started.wait()

def work():
    assert devices.why_not("cpu") == devices.FORKED and devices.found() == ()

child(work)
go_on.set()
thread.join()
assert devices.choose("cpu")
"""
    )


# ---- drivers without an ICD file --------------------------------------------------------------------

POCL = "libpocl.so.2"

# PoCL stands for a GPU's driver; the loader's own folder has PoCL's file, so ours must have replaced it.
DRIVER = f"""
import os, sys
from pathlib import Path
from lapack_ai_backend.opencl import devices, drivers
drivers.DRIVERS = (drivers.Driver("Maker", "maker.icd", ("libnosuchdriver.so.1", {POCL!r})),)
drivers.VENDORS = Path(os.environ["ICD_FILES"])
drivers.CONDA_LOADER = Path("/nowhere")
before = dict(os.environ)
"""


def icd_files(folder: Path, **files: str) -> dict[str, str]:
    for name, library in files.items():
        (folder / f"{name}.icd").write_text(f"{library}\n")
    return {"ICD_FILES": str(folder)}


def test_driver_without_icd_file_is_registered(tmp_path: Path) -> None:
    """Also where OCL_ICD_FILENAMES is set, as GPU images do, which pyopencl's loader does not read."""
    variables = icd_files(tmp_path, unrelated="libunrelated.so.1") | {"OCL_ICD_FILENAMES": "libunrelated.so.1"}
    passes(
        DRIVER
        + f"""
assert [device.kind for device in devices.found()] == ["cpu"], devices.why_none()
assert devices.drivers_without_icd() == (drivers.Unknown("Maker", "maker.icd", {POCL!r}),)
assert {{**os.environ, "PYOPENCL_HOME": ""}} == {{**before, "PYOPENCL_HOME": ""}}
import lapack_ai_backend as lapack_ai
assert lapack_ai.info()["opencl"]["drivers_without_icd_file"][0]["why_not"] == ""
""",
        variables=variables,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["unrelated.icd"]


@pytest.mark.parametrize("library", [POCL, f"/usr/lib/x86_64-linux-gnu/{POCL}", "libpocl.so"])
def test_driver_with_icd_file_is_not_doubled(tmp_path: Path, library: str) -> None:
    passes(
        DRIVER
        + """
assert drivers.without_icd() == [] and devices.drivers_without_icd() == ()
assert len(devices.found()) == 1, devices.found()
""",
        variables=icd_files(tmp_path, pocl=library),
    )


def test_existing_drivers_stay_beside_a_registered_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libmaker.so.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")
    monkeypatch.delenv("OCL_ICD_VENDORS", raising=False)
    monkeypatch.setattr(drivers, "VENDORS", tmp_path)
    monkeypatch.setattr(drivers, "CONDA_LOADER", tmp_path / "none")
    monkeypatch.setattr(drivers, "DRIVERS", (drivers.Driver("Maker", "maker.icd", ("libmaker.so.1",)),))
    icd_files(tmp_path, one="libone.so", two="/opt/two/libtwo.so")
    with drivers.registered() as unknown:
        folder = Path(os.environ["OCL_ICD_VENDORS"])
        told = {path.name: path.read_text() for path in folder.iterdir()}
    assert told == {"one.icd": "libone.so\n", "two.icd": "/opt/two/libtwo.so\n", "maker.icd": "libmaker.so.1\n"}
    assert not folder.exists()
    assert "OCL_ICD_VENDORS" not in os.environ
    assert unknown[0].why_not  # nobody has loaded it


@pytest.mark.parametrize("name", ["OCL_ICD_VENDORS", "OPENCL_VENDOR_PATH"])
def test_users_own_setting_stands(tmp_path: Path, name: str) -> None:
    passes(
        DRIVER
        + f"""
assert devices.found() == ()
assert [each.why_not for each in devices.drivers_without_icd()] == ["{name} is set"]
assert os.environ[{name!r}] == before[{name!r}]
""",
        variables={name: str(tmp_path), **icd_files(tmp_path)},
    )


def test_users_own_setting_may_name_the_driver(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    passes(
        DRIVER + "assert len(devices.found()) == 1 and devices.drivers_without_icd() == ()",
        variables={"OCL_ICD_VENDORS": POCL, **icd_files(tmp_path / "none")},
    )


def test_too_late_when_opencl_was_in_use(tmp_path: Path) -> None:
    passes(
        """
import os
import pyopencl
try:
    pyopencl.get_platforms()
except pyopencl.Error:
    del os.environ["OCL_ICD_VENDORS"]
"""
        + DRIVER
        + """
assert devices.found() == ()
(driver,) = devices.drivers_without_icd()
assert driver.why_not.startswith("OpenCL was in use before"), driver
""",
        variables={"OCL_ICD_VENDORS": str(tmp_path), **icd_files(tmp_path)},
    )


def test_without_room_for_files(tmp_path: Path) -> None:
    passes(
        DRIVER
        + """
import tempfile
def no_room(*args, **kwargs): raise OSError(28, "No space left on device")
tempfile.TemporaryDirectory = no_room
assert len(devices.found()) == 1  # by the file in the loader's own folder
""",
        variables=icd_files(tmp_path),
    )


def test_table_of_drivers() -> None:
    assert [(driver.vendor, driver.libraries[0], driver.icd) for driver in drivers.DRIVERS] == [
        ("NVIDIA", "libnvidia-opencl.so.1", "nvidia.icd"),
        ("AMD", "libamdocl64.so", "amdocl64.icd"),
        ("Intel", "libigdrcl.so", "intel.icd"),
    ]


# ---- what people see ----------------------------------------------------------------------------------


def test_info(device: Device) -> None:
    found = lapack_ai.info()["opencl"]
    (described,) = [each for each in found["devices"] if each["selector"] == device.selector]
    assert described["use"] == devices.use(device)
    assert described["memory_limit"] == device.memory * 80 // 100
    assert found["why_none"] == ""
    assert found["drivers_without_icd_file"] == []
    assert found["host_memory_available"] > 0


def test_info_of_the_command_line(device: Device) -> None:
    show = "import sys; from lapack_ai_backend.cli import app; sys.argv[1:] = ['info']; app()"
    shown = passes(show, variables={"COLUMNS": "250"})
    for text in (device.name, device.platform, devices.use(device), "a call may take ", "host memory"):
        assert text in shown
    assert "no device" not in shown
    assert "LAPACK_GPU_ENABLED=0" in passes(show, variables={"LAPACK_GPU_ENABLED": "0"})


def test_info_of_the_command_line_names_drivers(tmp_path: Path) -> None:
    show = DRIVER + "from lapack_ai_backend.cli import app; sys.argv[1:] = ['info']; app()"
    variables = {"COLUMNS": "250", **icd_files(tmp_path)}
    assert f"{POCL} has no ICD file maker.icd; registered for this process" in passes(show, variables=variables)
    variables["OCL_ICD_VENDORS"] = str(tmp_path)
    assert "not used: OCL_ICD_VENDORS is set" in passes(show, variables=variables)
