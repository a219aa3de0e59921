"""Print every ``track_`` value of the suite as Markdown: the README's tables come from here.

python asv_bench/ratios.py [word ...]      only benchmarks whose name holds a word

Relative times, of which asv wants the smaller to be the better, are printed as their
inverse: how many times as fast as stock.
"""

import datetime
import inspect
import itertools
import platform
import sys

import numpy
import scipy
from benchmarks import (  # first: it pins BLAS threads
    blocked,
    dispatch,
    imports,
    integers,
    products,
    single,
    stacks,
    svd,
)
from benchmarks.common import RELATIVE

import lapack_ai_backend as lapack_ai


def tracked():
    """Every (class, method name) that tracks a value."""
    for module in (svd, single, stacks, blocked, integers, products, dispatch, imports):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and not name.startswith("_"):
                for method in dir(kind):
                    if method.startswith("track_"):
                        yield f"{name}.{method}", kind, method


def parameters(kind):
    """The parameter combinations of a benchmark class; asv writes a single list without nesting."""
    lists = getattr(kind, "params", [])
    return itertools.product(*(lists if lists and isinstance(lists[0], list) else [lists] if lists else []))


def measure(kind, method, values):
    """One tracked value, None where it does not apply."""
    benchmark = kind()
    try:
        if hasattr(benchmark, "setup"):
            benchmark.setup(*values)
        return getattr(benchmark, method)(*values)
    except NotImplementedError:
        return None
    finally:
        if hasattr(benchmark, "teardown"):
            benchmark.teardown(*values)


def cpu():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    words = sys.argv[1:]
    print(f"{datetime.date.today()}, {cpu()}, Python {platform.python_version()}, ", end="")
    print(f"NumPy {numpy.__version__}, SciPy {scipy.__version__}, one BLAS thread (GPU: every core)")
    for device in lapack_ai.info()["opencl"]["devices"]:
        print(f"OpenCL {device['kind']}: {device['name']}, {device['platform']}, driver {device['driver']}")
    print()
    print("| benchmark | parameters | value |\n| --- | --- | --- |")
    for name, kind, method in tracked():
        if words and not any(word in name for word in words):
            continue
        for values in parameters(kind):
            value = measure(kind, method, values)
            if value is not None:
                unit = getattr(getattr(kind, method), "unit", "")
                if unit == RELATIVE:
                    value, unit = 1 / value, "x"
                print(f"| {name} | {', '.join(map(str, values))} | {value:.3g} {unit} |", flush=True)


if __name__ == "__main__":
    main()
