# `make demo` and `make test` need make, gcc and Python 3.11 or newer; what else is missing they install:
# packages of the system with apt (as root, or through sudo), the rest from PyPI into $(VENV).
#
#   make test PYTHON=python3.13 VENV=.venv-313      another Python beside the first
#   make dashboard COMMITS=5 MACHINE=my-h100        more commits, and another machine's graphs

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
COMMITS = 3
MACHINE = ci

NATIVE := $(shell find csrc fortran -type f ! -name '*.py[co]')
PACKAGE := $(shell find lapack_ai_backend -name '*.py')
NATIVE_TESTS := $(wildcard tests/test_products*.py tests/test_fortran.py tests/test_interception.py \
    tests/test_operator_slot.py tests/test_blocked_products.py tests/test_integer_products.py)
SECOND_RUN := tests/test_opencl_lapack.py tests/test_svd.py::test_ratios_on_shapes \
    tests/test_svd.py::test_ratios_on_tall_wide_and_around_the_switch_to_qr tests/test_svd.py::test_both_ways_of_the_first_qr \
    tests/test_svd_stacks.py
UARRAY_TESTS := $(wildcard tests/test_uarray.py tests/test_interception.py tests/test_declining.py)

# Reports of the sanitizers reach the terminal, and faulthandler does not take their signals.
SEEN = --capture=sys -p no:faulthandler

# NumPy's own tests; its configuration is not ours.
NUMPY_SUITE = -p lapack_ai_backend.testing --expect-kernel direct \
    -p no:cacheprovider -c /dev/null -q --pyargs numpy._core.tests.test_multiarray -k "atmul or TestMatMul"

# What numpy.linalg builds on its svd, on PoCL; "generalized" stacks of thousands of 1 x 1 matrices take ten minutes there.
LINALG_SUITE = -p lapack_ai_backend.testing --expect-kernel opencl_svd \
    -p no:cacheprovider -c /dev/null -q --pyargs numpy.linalg \
    -k "(SVD or Cond or Pinv or PseudoInv or MatrixRank or Norm) and not generalized"

# SciPy's: every test of scipy.linalg, every SVD that our kernel takes on PoCL.
SCIPY_SUITE = -p lapack_ai_backend.testing \
    --expect-kernel opencl_svd --expect-kernel alphatensor49 --expect-kernel direct \
    -p no:cacheprovider -c /dev/null -q --pyargs scipy.linalg

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_QUIET = 1

SHELL = /bin/sh
.SHELLFLAGS = -euc
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL = help
MAKEFLAGS += --no-builtin-rules

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

# ---- use ---------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.examples ## run the example programs on stock NumPy and accelerated, and compare
	@echo "==> comparing the example programs"
	[ -t 1 ] || export COLUMNS=160
	$(BIN)/python examples/compare.py

.PHONY: setup
setup: $(VENV)/.tools ## the virtual environment with the package (editable) and its tools, and nothing more

.PHONY: bench
bench: $(VENV)/.tools ## run every benchmark once, in this environment (some minutes)
	@echo "==> benchmarks"
	$(BIN)/python asv_bench/dashboard.py machine --machine $(MACHINE)
	cd asv_bench
	../$(BIN)/asv run --machine $(MACHINE) --python=same --quick --show-stderr

.PHONY: dashboard
dashboard: $(VENV)/.tools ## benchmark the last COMMITS commits that lack results, and write the pages into build/dashboard
	@echo "==> dashboard"
	$(BIN)/python asv_bench/dashboard.py --machine $(MACHINE) --commits $(COMMITS)

.PHONY: wheel
wheel: $(VENV)/.build-tools ## build a wheel into dist/
	@echo "==> building the wheel"
	$(BIN)/pip wheel --no-deps --no-build-isolation --wheel-dir dist .
	ls dist/*.whl

# ---- checks ------------------------------------------------------------------------------------

.PHONY: check
check: lint test pocl-suite sanitize arm ## everything that CI runs

# CI must have one. Where it is there, no job looks for it first: all other tests would begin before these, the longest ones.
BROWSER := $(if $(CI),$(if $(shell command -v chromedriver),,browser))

.PHONY: test
test: unit-tests uarray-suite numpy-suite scipy-suite ## the tests, and NumPy's and SciPy's own with the backend on

.PHONY: unit-tests
unit-tests: $(VENV)/.tools $(BROWSER)
	@echo "==> tests"
	$(BIN)/pytest --durations=5

.PHONY: dashboard-tests
dashboard-tests: $(VENV)/.tools browser ## the tests of the dashboard, in headless Chromium
	@echo "==> tests of the dashboard"
	$(BIN)/pytest tests/test_dashboard.py

.PHONY: uarray-suite
uarray-suite: $(VENV)/.tools build/uarray ## the tests of dispatch again, where the standalone package uarray is installed
	@echo "==> tests of dispatch with the standalone uarray"
	PYTHONPATH="$$PWD/build/uarray" $(BIN)/pytest -q $(UARRAY_TESTS)

.PHONY: numpy-suite
numpy-suite: $(VENV)/.tools ## NumPy's own tests of matmul and of singular values with the backend on
	@echo "==> NumPy's tests of matmul and of singular values with the backend on"
	$(BIN)/pytest $(NUMPY_SUITE)
	$(BIN)/pytest $(LINALG_SUITE)

.PHONY: scipy-suite
scipy-suite: $(VENV)/.tools ## SciPy's own tests of scipy.linalg with the backend on
	@echo "==> SciPy's tests of scipy.linalg with the backend on"
	$(BIN)/pytest $(SCIPY_SUITE)

# Every kernel, for real matrices in double and complex ones in single precision, which the first run leaves out of long
# tests; and whole decompositions.
.PHONY: pocl-suite
pocl-suite: $(VENV)/.tools ## the kernels' tests again, under PoCL's other way to run work-groups, of 256 items at most
	@echo "==> OpenCL tests under PoCL's work-group method workitemloops"
	mkdir -p build/pocl
	POCL_WORK_GROUP_METHOD=workitemloops POCL_MAX_WORK_GROUP_SIZE=256 POCL_CACHE_DIR="$$PWD/build/pocl" \
	    $(BIN)/pytest -q -m "" $(SECOND_RUN) -k "not float32 and not complex128"

.PHONY: suites
suites: uarray-suite numpy-suite scipy-suite pocl-suite ## other people's tests, and ours in other surroundings

.PHONY: lint
lint: $(VENV)/.tools ## style, types, generated sources up to date
	@echo "==> ruff, mypy, generated sources"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python csrc/generate.py --check

.PHONY: sanitize
sanitize: thread-stress $(VENV)/.tools build/sanitize/.built ## the native tests under AddressSanitizer, UBSan and TSan
	@echo "==> native tests under AddressSanitizer and UBSan"
	run="sh tests/sanitize/run $(BIN)/python -P -m"
	$$run pytest $(SEEN) -q $(NATIVE_TESTS)
	$$run pytest $(SEEN) $(NUMPY_SUITE)

# ThreadSanitizer has fixed places in memory: setarch keeps the kernel from putting something else there. Forks beside
# threads that work are for the build without it, since a child would wait for ever for its locks.
.PHONY: thread-stress
thread-stress: build/stress/stress build/forks/stress ## many threads and forks in the native code, also under ThreadSanitizer
	@echo "==> threads under ThreadSanitizer, threads and forks without"
	run=
	setarch -R true 2>/dev/null && run="setarch -R"
	TSAN_OPTIONS="halt_on_error=1 die_after_fork=0" $$run build/stress/stress 0
	build/forks/stress

# Nor do QEMU's locks survive a fork beside threads.
.PHONY: arm
arm: build/arm/stress ## the native code without a warning by an ARM compiler, and the thread stress on it
	@echo "==> threads and kernels on ARM (emulated)"
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/arm/stress 0

# ---- what they need ----------------------------------------------------------------------------

# Installs the packages in $$missing, or says why they are needed.
define INSTALL_MISSING
[ -n "$$missing" ] || exit 0
sudo=
[ "$$(id -u)" = 0 ] || sudo=sudo
if ! command -v apt-get >/dev/null || ! command -v $${sudo:-true} >/dev/null; then
    echo "==> missing on this machine, and there is no way to install it (apt-get, and root or sudo):"
    printf "$$reasons" | sed 's/^/        /'
    echo "    on Debian or Ubuntu:  apt-get install$$missing"
    exit 1
fi
printf "$$reasons" | sed 's/.*/==> installing & with apt/'
mkdir -p build
exec 3>&1 >build/apt.log 2>&1
$$sudo apt-get update || echo "the lists of packages stay as they are"
$$sudo env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=120 $$missing || {
    cat build/apt.log >&3
    echo "==> apt could not install$$missing: see above" >&3; exit 1; }
endef

# Says what is missing by what it must provide, so it holds on machines without apt, too.
.PHONY: system
system:
	@missing=
	needs() { missing="$$missing $$1"; reasons="$${reasons:-}$$1 ($$2)\n"; }
	command -v $(PYTHON) >/dev/null || { echo "==> no $(PYTHON) here: install Python 3.11 or newer"; exit 1; }
	version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
	    echo "==> $(PYTHON) is Python $$version; 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || needs python$$version-venv "virtual environments"
	$(PYTHON) -c 'import os, sys, sysconfig
	sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
	    needs python$$version-dev "Python's C headers"
	command -v gcc >/dev/null || needs gcc "C compiler"
	[ -e /usr/include/stdlib.h ] || needs libc6-dev "C headers"
	[ -n "$${FC:-}" ] || command -v gfortran >/dev/null || needs gfortran "Fortran compiler"
	libraries=$$(PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p)
	echo "$$libraries" | grep -q 'libOpenCL\.so\.1' || needs ocl-icd-libopencl1 "OpenCL loader"
	echo "$$libraries" | grep -q 'libpocl\.so' && [ -e /etc/OpenCL/vendors/pocl.icd ] ||
	    needs pocl-opencl-icd "OpenCL on the CPU"
	$(INSTALL_MISSING)

# Without it the tests of the dashboard's pages are skipped, except in CI, where they fail.
.PHONY: browser
browser: | system
	@missing=
	needs() { missing="$$missing $$1"; reasons="$${reasons:-}$$1 ($$2)\n"; }
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || needs chromium "headless browser"
	command -v chromedriver >/dev/null || needs chromium-driver "the browser's driver"
	$(INSTALL_MISSING)

.PHONY: arm-system
arm-system:
	@missing=
	needs() { missing="$$missing $$1"; reasons="$${reasons:-}$$1 ($$2)\n"; }
	command -v aarch64-linux-gnu-gcc >/dev/null || needs gcc-aarch64-linux-gnu "C compiler for ARM"
	command -v aarch64-linux-gnu-gfortran >/dev/null || needs gfortran-aarch64-linux-gnu "Fortran compiler for ARM"
	[ -e /usr/aarch64-linux-gnu/include/stdlib.h ] || needs libc6-dev-arm64-cross "C library for ARM"
	command -v qemu-aarch64 >/dev/null || needs qemu-user "runs programs for ARM"
	$(INSTALL_MISSING)

# Tables of pyproject.toml, one requirement a line.
REQUIREMENTS = $(BIN)/python -c 'import functools, sys, tomllib; \
    print(*functools.reduce(dict.get, sys.argv[1:], tomllib.load(open("pyproject.toml", "rb"))), sep="\n")'

$(VENV)/.build-tools: pyproject.toml | system
	@echo "==> virtual environment $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(REQUIREMENTS) build-system requires >$(VENV)/build-tools.txt
	$(BIN)/pip install -r $(VENV)/build-tools.txt
	touch $@

$(VENV)/.package: $(VENV)/.build-tools setup.py $(NATIVE)
	@echo "==> building and installing the package (editable)"
	$(BIN)/pip install --no-build-isolation --editable .
	touch $@

$(VENV)/.tools: pyproject.toml $(VENV)/.build-tools | $(VENV)/.package
	@echo "==> installing tools for tests, types and benchmarks"
	for extra in test dev bench; do $(REQUIREMENTS) project optional-dependencies $$extra; done >$(VENV)/tools.txt
	$(BIN)/pip install -r $(VENV)/tools.txt
	touch $@

$(VENV)/.examples: examples/requirements.txt $(VENV)/.build-tools | $(VENV)/.package
	@echo "==> installing what the example programs need"
	$(BIN)/pip install -r examples/requirements.txt
	touch $@

build/uarray: pyproject.toml | $(VENV)/.tools
	@$(REQUIREMENTS) project optional-dependencies uarray >$(VENV)/uarray.txt
	$(BIN)/pip install --upgrade --no-deps --target $@ -r $(VENV)/uarray.txt
	touch $@

build/sanitize/.built: $(VENV)/.build-tools $(NATIVE) $(PACKAGE) setup.py tests/sanitize/compiler
	@echo "==> building the extension with AddressSanitizer and UBSan"
	CC="sh tests/sanitize/compiler gcc" FC="sh tests/sanitize/compiler gfortran" \
	    $(BIN)/python -W ignore setup.py --quiet build --build-base build/sanitize --build-lib build/sanitize/lib
	touch $@

STRESS = $(NATIVE) tests/sanitize/stress.c tests/sanitize/build-stress

build/stress/stress: $(STRESS) | system
	@echo "==> building the thread stress with ThreadSanitizer"
	sh tests/sanitize/build-stress build/stress gcc gfortran -O1 -g1 -fsanitize=thread

build/forks/stress: $(STRESS) | system
	@echo "==> building the thread stress"
	sh tests/sanitize/build-stress build/forks gcc gfortran -O2

build/arm/stress: $(STRESS) | arm-system
	@echo "==> compiling the native code for ARM"
	sh tests/sanitize/build-stress build/arm aarch64-linux-gnu-gcc aarch64-linux-gnu-gfortran -O3

.PHONY: clean
clean: ## remove everything that make has made, the virtual environment too
	@rm -rf build dist $(VENV) *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache .asv asv_bench/.asv
	rm -f lapack_ai_backend/_native.c lapack_ai_backend/_native*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
