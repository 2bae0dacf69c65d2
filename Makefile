# Each target starts from nothing: it makes the environment that it needs in $(VENV), then does its work.
#   make demo    train on a bundled real series and draw its forecast        make test   the whole suite
#   make test-peers   live comparisons with PyTorch, Keras, ONNX Runtime
#   make lint    style, format, types      make bench   side by side with peers       make docs   pictures, links
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check
PYTEST := $(PY) -m pytest
WORKERS ?= 2  # processes that share the tests, but for those on a GPU
SHARED := -n $(WORKERS) --dist worksteal
PEERS ?= .venv-peers
OUT ?= runs
HOSTGPU := tests/hostgpu/hostgpu

# One BLAS thread, unless the caller says otherwise: the products of tests and demonstration are small, and two threads that
# wait for one another are 15 times slower as soon as something else wants a core.  Results differ in rounding only.
demo docs test-cpu test-cuda test-peers: export OPENBLAS_NUM_THREADS ?= 1

# CuPy: with the toolkit libraries (about 2.5 GB) where there is a GPU; the wheel alone (about 100 MB) where the simulator
# can run it: x86-64 Linux with g++ 12 or later; none elsewhere.
GPU := $(shell nvidia-smi -L 2>/dev/null | grep -c GPU)
SIMULATOR := $(shell [ "$$(uname -sm)" = "Linux x86_64" ] && [ "$$(g++ -dumpversion 2>/dev/null | cut -d. -f1 || echo 0)" -ge 12 ] 2>/dev/null && echo yes)
ifneq ($(filter-out 0,$(GPU)),)
CUPY := 'cupy-cuda12x[ctk]>=14'
else ifeq ($(SIMULATOR),yes)
CUPY := 'cupy-cuda12x>=14'
endif

# What the native engine is built from: an environment is brought up to date when any of it changes.
NATIVE := pyproject.toml CMakeLists.txt $(wildcard kernels/equations/* kernels/cpu/*)

.PHONY: site test-site kernels gpu-check demo test test-cpu test-cuda test-peers selftest sanitize lint format peers bench docs build venv clean

venv: $(VENV)/.test

$(PY):
	@echo "== environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "gpulstm needs Python 3.10 or later; name one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(NATIVE) | $(PY)
	@echo "== install gpulstm with its plots"
	@$(PIP) -e '.[plots]'
	@touch $@

$(VENV)/.test: $(NATIVE) | $(PY)
	@echo "== install gpulstm with its test tools$(if $(CUPY), and CuPy)"
	@$(PIP) -e '.[test]' $(CUPY)
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: $(NATIVE) | $(PY)
	@echo "== install gpulstm with its development tools"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	@$(VENV)/bin/gpulstm demo --output $(OUT)/demo --force

test: $(VENV)/.test
	@$(MAKE) --no-print-directory --keep-going test-cpu test-cuda

test-cpu: $(VENV)/.test
	@echo "== tests on the CPU"
	@$(PYTEST) -q $(SHARED) -m "not cuda"

# A GPU where CuPy finds one, else the simulator, else none of them, and that is said.
test-cuda: $(VENV)/.test
	@if $(PY) -c 'import sys, gpulstm.arrays.backend as b; sys.exit(b.cuda_missing() is not None)'; then \
	  echo "== tests marked cuda, on the GPU"; $(PYTEST) -q -m cuda; \
	elif [ "$(SIMULATOR)" = yes ]; then \
	  echo "== tests marked cuda, on the simulator (no GPU here): function, not speed"; $(HOSTGPU) $(PYTEST) -q $(SHARED) -m cuda; \
	else \
	  echo "==============================================================================="; \
	  echo "  NOT RUN: the tests marked cuda. This machine has no GPU that CuPy can use, and the"; \
	  echo "  simulator needs x86-64 Linux with g++ 12 or later. Nothing here says that CUDA works."; \
	  echo "==============================================================================="; \
	fi

# Live, against PyTorch, Keras, ONNX Runtime and ONNX's own test cases, in an environment of their own.
$(PEERS)-live/.done: pyproject.toml
	@echo "== the other libraries in $(PEERS)-live"
	@$(PYTHON) -m venv $(PEERS)-live
	@$(PEERS)-live/bin/python -m pip install -q --disable-pip-version-check -e '.[live]'
	@touch $@

test-peers: $(PEERS)-live/.done
	@echo "== live comparisons with the other libraries"
	@$(PEERS)-live/bin/python -m pytest -q -m "not cuda" tests/peers

selftest: $(VENV)/.test
	@if [ "$(SIMULATOR)" = yes ]; then $(HOSTGPU) $(PY) tests/hostgpu/selftest.py; \
	else echo "NOT RUN: the simulator needs x86-64 Linux with g++ 12 or later"; fi

sanitize: $(VENV)/.dev
	@echo "== the native engine under AddressSanitizer and UndefinedBehaviorSanitizer"
	@tools/sanitize.sh $(VENV)

lint: $(VENV)/.dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(VENV)/.dev
	@$(PY) -m ruff check -q --fix .
	@$(PY) -m ruff format -q .

# The peers come into an environment of their own, about 3 GB on Linux; GPULSTM_PEERS_PYTHON names another interpreter.
peers: $(PEERS)/.done

$(PEERS)/.done: pyproject.toml
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -q --disable-pip-version-check numpy safetensors \
	  $$(sed -n 's/^peers = \[\([^]]*\)\].*/\1/p' pyproject.toml | tr -d '",')
	@touch $@

bench: $(VENV)/.demo
	@[ -n "$$GPULSTM_PEERS_PYTHON" ] || [ -x $(PEERS)/bin/python ] || echo "No peer will be measured; 'make peers' installs them"
	@GPULSTM_PEERS_PYTHON=$${GPULSTM_PEERS_PYTHON:-$$([ -x $(PEERS)/bin/python ] && echo $(PEERS)/bin/python)} \
	  $(PY) bench.py --output $(OUT)/bench --force

docs: $(VENV)/.test
	@for script in $$(grep -l __main__ docs/pictures/*.py); do echo "== $$script"; $(PY) "$$script" || exit 1; done
	@$(PY) tools/check_links.py

# The documentation site, complete without a network, in build/site; `make test-site` looks at it with Debian's chromium.
.venv-site/.done: pyproject.toml
	@echo "== the site's tools in .venv-site"
	@$(PYTHON) -m venv .venv-site
	@.venv-site/bin/python -m pip install -q --disable-pip-version-check -e '.[site]'
	@touch $@

site: .venv-site/.done
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/python -W ignore -m mkdocs build --quiet
	@echo "the site: $(abspath build/site/index.html)"

test-site: site
	@.venv-site/bin/python -m pytest -q tests/site

# Every CUDA kernel compiled for real architectures, with nvcc or NVRTC from its wheel; no GPU needed.
kernels: $(VENV)/.test
	@command -v nvcc >/dev/null || $(PIP) nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12
	@$(PY) tools/kernels.py $(ARCH:%=--arch %)

# On a machine with a GPU: the tests marked cuda, the forms and PyTorch timed with device events, one report file.
gpu-check: $(VENV)/.test
	@$(PY) tools/gpu_check.py --output $(OUT)/gpu-check.md

build: $(VENV)/.dev
	@$(PY) -m build --outdir dist .

clean:
	rm -rf $(VENV) $(PEERS) $(PEERS)-live .venv-site $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
