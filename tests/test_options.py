"""Options and environment variables: every value, every mistake, who wins, and what info() says."""

from __future__ import annotations

import inspect
import os
import warnings
from typing import Any

import numpy as np
import pytest
from scripts import passes, run_script

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import activation, environment, options
from lapack_ai_backend.environment import PROCESS_VARIABLES
from lapack_ai_backend.options import OPTION_VARIABLES, OptionError, Options

STACK = np.ones((6, 4, 4))

GOOD: list[tuple[str, Any, Any]] = [
    ("policy", "auto", "auto"),
    ("policy", "static", "static"),
    ("policy", "tuned", "tuned"),
    ("accuracy", "normwise", "normwise"),
    ("accuracy", "componentwise", "componentwise"),
    ("device", "auto", "auto"),
    ("device", "cpu", "cpu"),
    ("device", "gpu", "gpu"),
    ("force", {"numpy.matmul": "direct"}, (("numpy.matmul", "direct"),)),
    ("force", {"matmul": "stock"}, (("numpy.matmul", "stock"),)),
    ("force", {"svd": "stock", "matmul": "direct"}, (("numpy.matmul", "direct"), ("scipy.linalg.svd", "stock"))),
    ("force", {}, ()),
    ("disable", ("scipy.linalg.svd",), ("scipy.linalg.svd",)),
    ("disable", ["svd", "matmul", "svd"], ("scipy.linalg.svd", "numpy.matmul")),
    ("disable", (), ()),
    ("strict", True, True),
    ("strict", False, False),
    ("strict", np.True_, True),
    ("verify", "probe", "probe"),
    ("verify", "off", "off"),
    ("verify", "always", "always"),
]

BAD: list[tuple[str, Any, str]] = [
    ("policy", "fast", "auto, static, tuned"),
    ("policy", None, "auto, static, tuned"),
    ("policy", "STATIC", "auto, static, tuned"),
    ("accuracy", "exact", "normwise, componentwise"),
    ("device", "tpu", "auto, cpu, gpu"),
    ("device", "99:0", "auto, cpu, gpu"),
    ("device", 0, "auto, cpu, gpu"),
    ("force", {"numpy.matmul": "fastest"}, "stock, alphatensor49, direct"),
    ("force", {"numpy.matmul": None}, "stock, alphatensor49, direct"),
    ("force", {"svd": "direct"}, "stock"),
    ("force", {"numpy.dot": "direct"}, "numpy.matmul, scipy.linalg."),
    ("force", "matmul", "stock, alphatensor49, direct"),
    ("force", 5, "numpy.matmul"),
    ("force", None, "numpy.matmul"),
    ("force", ["matmul"], "numpy.matmul"),
    ("disable", ["scipy.linalg.hilbert"], "scipy.linalg.svd"),
    ("disable", "dot", "numpy.matmul"),
    ("disable", [1], "numpy.matmul"),
    ("disable", 5, "numpy.matmul"),
    ("disable", None, "numpy.matmul"),
    ("strict", "maybe", "true"),
    ("strict", 2, "1, true"),
    ("strict", None, "1, true"),
    ("verify", "sometimes", "probe, off, always"),
    ("polcy", "auto", "policy, accuracy, device, force, disable, strict, verify"),
    ("any_size", True, "policy, accuracy"),
    ("num_threads", 2, "policy, accuracy"),
]


def in_force() -> Options:
    found = activation.effective_options()
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "given", "value"), GOOD)
def test_good_values(name: str, given: Any, value: Any) -> None:
    with lapack_ai.set_backend(**{name: given}):
        assert getattr(in_force(), name) == value
        assert lapack_ai.info()["options"][name]["value"] == value
    lapack_ai.enable(**{name: given})
    assert getattr(in_force(), name) == value


@pytest.mark.parametrize(("name", "given", "valid"), BAD)
def test_bad_values_name_the_valid_ones(name: str, given: Any, valid: str) -> None:
    for switch in (lapack_ai.set_backend, lapack_ai.enable):
        with pytest.raises(OptionError) as caught:
            switch(**{name: given})
        assert valid in str(caught.value)
    assert not lapack_ai.is_enabled()
    assert activation.ACTIVE.get() is None
    with pytest.raises(OptionError):
        lapack_ai.explain(np.matmul, STACK, STACK, options={name: given})


def test_a_bad_option_is_told_at_the_call_that_names_it() -> None:
    with pytest.raises(OptionError, match="'fast'"):
        lapack_ai.set_backend(policy="fast")  # not when it is entered


def test_option_error_is_a_value_error() -> None:
    assert issubclass(OptionError, ValueError)


@pytest.mark.parametrize("function", ["numpy.dot", "hilbert", np.dot, len, "", 5])
def test_explain_of_an_unknown_function(function: Any) -> None:
    with pytest.raises(OptionError, match=r"numpy\.matmul, scipy\.linalg\.bandwidth"):
        lapack_ai.explain(function, STACK, STACK)


# ---- the environment ----------------------------------------------------------------------------

VARIABLES = {**OPTION_VARIABLES, **PROCESS_VARIABLES}

GOOD_TEXTS: list[tuple[str, str, Any]] = [
    ("policy", "static", "static"),
    ("policy", " tuned ", "tuned"),
    ("accuracy", "componentwise", "componentwise"),
    ("device", "cpu", "cpu"),
    ("force", "numpy.matmul=direct", (("numpy.matmul", "direct"),)),
    ("force", "matmul=direct, svd=stock", (("numpy.matmul", "direct"), ("scipy.linalg.svd", "stock"))),
    ("disable", "svd", ("scipy.linalg.svd",)),
    ("disable", "scipy.linalg.svd, matmul", ("scipy.linalg.svd", "numpy.matmul")),
    ("verify", "off", "off"),
    ("num_threads", "3", 3),
    ("log", "debug", "DEBUG"),
    ("log_level", "Error", "ERROR"),
    ("gpu_memory_limit", "50", 50),
    ("batch_size_limit", "16", 16),
    ("dashboard_port", "9000", 9000),
    *((name, text, True) for name in ("strict", "gpu_enabled", "debug") for text in ("1", "true", "YES", "On")),
    *(
        (name, text, False)
        for name in ("strict", "gpu_enabled", "debug", "enabled")
        for text in ("0", "False", "no", "OFF")
    ),
]

BAD_TEXTS = [
    ("policy", "fast"),
    ("accuracy", "high"),
    ("device", "quantum"),
    ("force", "matmul"),
    ("force", "matmul=fastest"),
    ("force", "dot=direct"),
    ("disable", "svd dot"),
    ("verify", "1"),
    ("num_threads", "0"),
    ("num_threads", "-1"),
    ("num_threads", "two"),
    ("num_threads", "1.5"),
    ("num_threads", "9" * 1001),
    ("gpu_memory_limit", "9" * 5000),
    ("log", "loud"),
    ("log_level", "5"),
    ("gpu_memory_limit", "0"),
    ("gpu_memory_limit", "101"),
    ("gpu_memory_limit", "80%"),
    ("batch_size_limit", "0"),
    ("dashboard_port", "70000"),
    *((name, text) for name in ("strict", "gpu_enabled", "debug", "enabled") for text in ("2", "maybe", "ja")),
]


def read(name: str) -> tuple[Any, str]:
    return environment.from_environment(VARIABLES[name])


def shown(name: str) -> dict[str, Any]:
    info = lapack_ai.info()
    found: dict[str, Any] = info["options" if name in OPTION_VARIABLES else "process"][name]
    return found


@pytest.mark.parametrize(("name", "text", "value"), GOOD_TEXTS)
def test_variables(name: str, text: str, value: Any) -> None:
    variable = VARIABLES[name]
    os.environ[variable.name] = text
    assert read(name) == (value, variable.name)
    assert shown(name)["value"] == value
    if value != variable.default:
        assert shown(name)["source"] == variable.name
    if name in OPTION_VARIABLES:
        with lapack_ai.set_backend():
            assert getattr(in_force(), name) == value


@pytest.mark.parametrize(("name", "text"), BAD_TEXTS)
def test_bad_variables_warn_once_and_leave_the_default(name: str, text: str) -> None:
    variable = VARIABLES[name]
    os.environ[variable.name] = text
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            lapack_ai.info()
            with lapack_ai.set_backend():
                pass
            lapack_ai.enable()
    assert [each.category for each in caught] == [lapack_ai.EnvironmentWarning]
    message = str(caught[0].message)
    assert variable.name in message
    assert repr(text) in message
    assert "valid:" in message
    assert read(name) == (variable.default, "default")
    assert shown(name) == {"value": variable.default, "source": "default"}


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("text", ["", "  "])
def test_empty_variables_are_unset(name: str, text: str) -> None:
    os.environ[VARIABLES[name].name] = text
    assert read(name) == (VARIABLES[name].default, "default")


def test_names_of_variables() -> None:
    names = {variable.name for variable in VARIABLES.values()}
    assert names == {
        "LAPACK_AI",
        *(f"LAPACK_AI_{each}" for each in ("POLICY", "ACCURACY", "DEVICE", "FORCE", "DISABLE", "STRICT", "VERIFY")),
        *(f"LAPACK_AI_{each}" for each in ("NUM_THREADS", "WORKSPACE", "PINNED", "LOG", "DEBUG")),
        *(f"LAPACK_GPU_{each}" for each in ("ENABLED", "MEMORY_LIMIT", "TIMEOUT")),
        *(f"LAPACK_{each}" for each in ("LOG_LEVEL", "DASHBOARD_PORT", "BATCH_SIZE_LIMIT")),
    }


def test_defaults_of_variables() -> None:
    assert {name: variable.default for name, variable in OPTION_VARIABLES.items()} == options.as_dict(Options())
    assert VARIABLES["batch_size_limit"].default == 1024
    assert VARIABLES["dashboard_port"].default == 8080


@pytest.mark.parametrize(("text", "enabled"), [("1", True), ("on", True), ("0", False), ("", False), ("no", False)])
def test_switch_of_the_process(text: str, enabled: bool) -> None:
    source = "import lapack_ai_backend as lapack_ai; print(lapack_ai.is_enabled())"
    assert passes(source, "-W", "error", variables={"LAPACK_AI": text}).split() == [str(enabled)]


def test_bad_switch_of_the_process_is_one_warning() -> None:
    done = run_script(
        "import lapack_ai_backend as lapack_ai; lapack_ai.info(); print(lapack_ai.is_enabled())",
        variables={"LAPACK_AI": "ja", "LAPACK_AI_POLICY": "fast"},
    )
    assert done.stdout.split() == ["False"]
    assert done.stderr.count("EnvironmentWarning") == 2
    for name in ("LAPACK_AI='ja'", "LAPACK_AI_POLICY='fast'"):
        assert done.stderr.count(name) == 1


def test_bad_instruction_set_is_one_warning() -> None:
    source = "import lapack_ai_backend as lapack_ai; print(lapack_ai.info()['cpu']['instruction_set'])"
    done = run_script(source, variables={"LAPACK_AI_ISA": "sse9"})
    assert done.returncode == 0
    assert done.stderr.count("EnvironmentWarning") == 1
    assert "baseline, avx2, avx512" in done.stderr
    assert done.stdout == passes(source)
    assert passes(source, "-W", "error", variables={"LAPACK_AI_ISA": "baseline"}).split() == ["baseline"]


@pytest.mark.parametrize(
    ("variables", "level"),
    [
        ({}, None),
        ({"LAPACK_LOG_LEVEL": "ERROR"}, "ERROR"),
        ({"LAPACK_LOG_LEVEL": "ERROR", "LAPACK_AI_LOG": "info"}, "INFO"),
        ({"LAPACK_AI_LOG": "info", "LAPACK_AI_DEBUG": "1"}, "DEBUG"),
        ({"LAPACK_AI_LOG": "info", "LAPACK_AI_DEBUG": "0"}, "INFO"),
    ],
)
def test_log_level(variables: dict[str, str], level: str | None) -> None:
    os.environ.update(variables)
    assert environment.log_level() == level


def test_no_device_where_the_environment_says_so() -> None:
    os.environ["LAPACK_GPU_ENABLED"] = "0"
    found = lapack_ai.info()["opencl"]
    assert (found["devices"], found["why_none"]) == ([], "LAPACK_GPU_ENABLED=0")


# ---- who wins, and who is said to have won ----------------------------------------------------


def test_precedence() -> None:
    def kind() -> tuple[Any, Any]:
        found = lapack_ai.info()["options"]["verify"]
        return found["value"], found["source"]

    assert kind() == ("probe", "default")
    os.environ["LAPACK_AI_VERIFY"] = "off"
    assert kind() == ("off", "LAPACK_AI_VERIFY")
    lapack_ai.enable()
    assert kind() == ("off", "LAPACK_AI_VERIFY")
    lapack_ai.enable(verify="always")
    assert kind() == ("always", "enable()")
    with lapack_ai.set_backend(strict=True):
        assert kind()[0] == "always"
        with lapack_ai.set_backend(verify="probe"):
            assert kind() == ("probe", "context")
            with lapack_ai.set_backend(policy="static"):
                assert kind() == ("probe", "context")
            with lapack_ai.skip_backend(), lapack_ai.set_backend():
                assert kind()[0] == "probe"
        assert kind()[0] == "always"
    assert kind() == ("always", "enable()")


def test_source_of_an_option_that_enable_set_is_enable_inside_a_context() -> None:
    lapack_ai.enable(verify="always")
    with lapack_ai.set_backend(strict=True):
        assert lapack_ai.info()["options"]["verify"] == {"value": "always", "source": "enable()"}
        assert lapack_ai.info()["options"]["strict"] == {"value": True, "source": "context"}


def test_source_of_an_option_set_to_its_default() -> None:
    lapack_ai.enable(verify="always")
    with lapack_ai.set_backend(verify="probe"):
        assert lapack_ai.info()["options"]["verify"] == {"value": "probe", "source": "context"}


def test_enable_anew_forgets_what_it_is_not_told() -> None:
    """As its documentation says: what is not given comes from the environment or is the default."""
    lapack_ai.enable(verify="always", strict=True)
    lapack_ai.enable(verify="off")
    assert (in_force().verify, in_force().strict) == ("off", False)


def test_bad_enable_changes_nothing() -> None:
    lapack_ai.enable(verify="always")
    with pytest.raises(OptionError):
        lapack_ai.enable(verify="off", policy="fast")
    assert in_force().verify == "always"


def test_info_is_plain_data() -> None:
    import json

    with lapack_ai.set_backend(force={"matmul": "direct"}):
        found = json.loads(json.dumps(lapack_ai.info()))
    assert set(found["versions"]) >= {"lapack_ai_backend", "python", "numpy", "scipy", "uarray", "pyopencl", "cffi"}
    assert found["versions"]["numpy"] == np.__version__
    assert found["interception"]["installed"] is True
    assert found["active_here"] is True
    assert found["enabled"] is False
    assert set(found["options"]) == set(OPTION_VARIABLES)
    assert set(found["process"]) == set(PROCESS_VARIABLES)


def test_docstring_lists_every_option() -> None:
    for name in OPTION_VARIABLES:
        assert f"\n{name} : " in (inspect.getdoc(lapack_ai.set_backend) or "")
