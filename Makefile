# Each target starts from nothing: it makes the environment that it needs in $(VENV), then does its work.
#   make demo    train on a bundled real series and draw its forecast
#   make test    what a change is judged by, minutes      make test-all   everything, by hand before a release
#   make lint    style, format, types      make bench   side by side with peers       make docs   pictures, links
#   make site    the documentation         make wheel   wheels, tested in an empty environment
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
KERNELS := $(wildcard kernels/*/*)

# One BLAS thread, unless the caller says otherwise: the products of tests and demonstration are small, and two threads that
# wait for one another are 15 times slower as soon as something else wants a core.  Results differ in rounding only.
demo docs test-cpu test-cuda test-peers: export OPENBLAS_NUM_THREADS ?= 1

# Byte code is kept even where the caller asked for none: tests start hundreds of processes, and each would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

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
NATIVE := pyproject.toml CMakeLists.txt $(filter-out kernels/cuda/%, $(KERNELS))

.PHONY: test-all test-slow test-scale cross kernels-quick gallery notebooks wheel fuzz fuzz-quick kill-test soak reliability \
  test-lowest toolkits kernels ptx ptx-quick gpu-check demo test test-cpu test-cuda test-cards test-peers selftest sanitize \
  sanitize-threads lint format peers bench docs site test-site build venv clean

venv: $(VENV)/.test

$(PY):
	@echo "== environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "gpulstm needs Python 3.10 or later; name one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(NATIVE) | $(PY)
	@echo "== install gpulstm with its plots"
	@tools/install.sh $(PY) --no-compile -e '.[plots]'  # no byte code for what the demonstration never imports
	@touch $@

$(VENV)/.test: $(NATIVE) | $(PY)
	@echo "== install gpulstm with its test tools$(if $(CUPY), and CuPy)"
	@tools/install.sh $(PY) -e '.[test]' $(CUPY)
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: $(NATIVE) | $(PY)
	@echo "== install gpulstm with its development tools"
	@tools/install.sh $(PY) -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	@$(VENV)/bin/gpulstm demo --output $(OUT)/demo --force

test:
	@echo "make test: an environment in $(VENV) (2 to 4 minutes the first time), then the tests of a change on the CPU and,"
	@echo "where there is no GPU, of the CUDA code on the simulator: about 5 minutes with two processes on two cores."
	@echo "Left to make test-all, an hour: what is marked slow, sanitizers, other libraries, notebooks, site, fuzzing."
	@$(MAKE) --no-print-directory $(VENV)/.test
	@$(MAKE) --no-print-directory --keep-going test-cpu test-cuda

test-cpu: $(VENV)/.test
	@echo "== tests on the CPU"
	@$(PYTEST) -q $(SHARED) -m "not cuda and not ptx and not slow"

test-slow: $(VENV)/.test
	@echo "== tests marked slow"
	@$(PYTEST) -q $(SHARED) -m "slow and not cuda and not ptx"
	@if [ "$(SIMULATOR)" = yes ]; then echo "== tests marked slow, on the simulator"; $(HOSTGPU) $(PYTEST) -q $(SHARED) -m "slow and cuda"; fi

# Everything, by hand before a release; each part's time goes into runs/test-all.txt, and a part that fails stops no other.
ALL := lint test selftest test-slow sanitize cross test-cards ptx test-peers notebooks test-site test-lowest wheel fuzz-quick
test-all:
	@echo "make test-all: $(ALL): about an hour on two cores, and 4 GB for the other libraries"
	@mkdir -p $(OUT); : > $(OUT)/test-all.txt; bad=; for part in $(ALL); do \
	  start=$$(date +%s); $(MAKE) --no-print-directory $$part && word=ok || { word=FAILED; bad="$$bad $$part"; }; \
	  echo "$$part $$word $$(($$(date +%s) - start)) s" | tee -a $(OUT)/test-all.txt; done; \
	  cat $(OUT)/test-all.txt; [ -z "$$bad" ] || { echo "FAILED:$$bad"; exit 1; }

# A GPU where CuPy finds one, else the simulator, else none of them, and that is said.
test-cuda: $(VENV)/.test
	@if $(PY) -c 'import sys, gpulstm.arrays.cupy_backend as b; sys.exit(b.cuda_missing() is not None)'; then \
	  echo "== tests marked cuda, on the GPU"; $(PYTEST) -q -m "cuda and not slow"; \
	elif [ "$(SIMULATOR)" = yes ]; then \
	  echo "== tests marked cuda, on the simulator (no GPU here): function, not speed"; $(HOSTGPU) $(PYTEST) -q $(SHARED) -m "cuda and not slow"; \
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

# Parts of the tests marked cuda as on other cards, in other orders of threads and with streams that run late, and as on a
# GPU that counts nothing; on the simulator alone, whose eight processors hold two blocks each on its usual card and one
# on that of 120: too few there for what is planned for 16 processors.
CARDS := HOSTGPU_CAPABILITY=75 HOSTGPU_CAPABILITY=120
FORMS := $(addprefix tests/engines/cuda/test_, stepwise.py fused.py persistent.py)
ORDERS := HOSTGPU_LAZY=1 HOSTGPU_SCHED=reverse HOSTGPU_SCHED=random
test-cards: $(VENV)/.test
	@if [ "$(SIMULATOR)" = yes ]; then set -e; \
	  for card in $(CARDS); do echo "== $$card"; \
	    env $$card $(HOSTGPU) $(PYTEST) -q -m cuda tests/engines/cuda/test_planner.py tests/engines/cuda/test_persistent.py \
	      -k "not 16_processors"; \
	    env $$card $(HOSTGPU) $(PYTEST) -q -m cuda tests/arrays/test_gemm.py -k "own_product and 37 and False-True"; \
	    env $$card $(HOSTGPU) $(PYTEST) -q -m cuda $(FORMS) -k "bit_for_bit and (4x5x3x21 or resident) and lstm"; done; \
	  for order in $(ORDERS); do echo "== $$order"; \
	    env $$order $(HOSTGPU) $(PYTEST) -q -m cuda tests/arrays/test_cupy_backend.py tests/model/test_chunks.py; \
	    env $$order $(HOSTGPU) $(PYTEST) -q -m cuda tests/engines/cuda/test_wavefront.py -k "lstm or three"; done; \
	  echo "== a GPU that counts nothing"; \
	  HOSTGPU_PRETEND_GPU=1 $(HOSTGPU) $(PYTEST) -q -m cuda tests/engines/cuda/test_wavefront.py tests/engines/cuda/test_persistent.py; \
	else echo "NOT RUN: the simulator needs x86-64 Linux with g++ 12 or later"; fi

selftest: $(VENV)/.test
	@if [ "$(SIMULATOR)" = yes ]; then $(HOSTGPU) $(PY) tests/hostgpu/selftest.py; \
	else echo "NOT RUN: the simulator needs x86-64 Linux with g++ 12 or later"; fi

sanitize: $(VENV)/.dev
	@echo "== the native engine under AddressSanitizer and UndefinedBehaviorSanitizer"
	@tools/sanitize.sh memory $(VENV)

sanitize-threads: $(VENV)/.dev
	@echo "== the native engine under ThreadSanitizer"
	@tools/sanitize.sh threads $(VENV)

lint: $(VENV)/.dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/clang-format --dry-run --Werror $(KERNELS)
	@$(PY) -m mypy

format: $(VENV)/.dev
	@$(PY) -m ruff check -q --fix .
	@$(PY) -m ruff format -q .
	@$(VENV)/bin/clang-format -i $(KERNELS)

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

# The gallery's scripts: their pictures and what they print, kept next to them; and all of them as notebooks, run, those of
# CUDA on the simulator where there is no GPU (that one needs PyTorch, so all run where the other libraries are).
gallery: $(VENV)/.test
	@$(PY) tools/gallery.py pictures $(filter-out pipeline,$(basename $(notdir $(wildcard docs/gallery/*.py))))

notebooks: $(PEERS)-live/.done
	@$(PEERS)-live/bin/python -m pip install -q --disable-pip-version-check -e '.[gallery]' $(CUPY)
	@OPENBLAS_NUM_THREADS=1 $(PEERS)-live/bin/python tools/gallery.py notebooks build/notebooks

docs: $(VENV)/.test
	@for script in $$(grep -l __main__ docs/pictures/*.py); do echo "== $$script"; $(PY) "$$script" || exit 1; done
	@$(PY) tools/check_links.py

# The documentation site, complete without a network, in build/site; `make test-site` looks at it with Debian's chromium.
# Nothing of the native engine is needed for it, so nothing is compiled.
.venv-site/.done: pyproject.toml
	@echo "== the site's tools in .venv-site"
	@$(PYTHON) -m venv .venv-site
	@.venv-site/bin/python -m pip install -q --disable-pip-version-check -C wheel.cmake=false -C wheel.py-api=py3 -e '.[site]'
	@touch $@

site: .venv-site/.done
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/python -W ignore -m mkdocs build --quiet
	@echo "the site: $(abspath build/site/index.html)"

test-site: site
	@.venv-site/bin/python -m pytest -q tests/site

# Coverage-guided fuzzing of every reader of foreign files, for an hour or FUZZ_SECONDS; Linux and macOS, as atheris.
FUZZ_SECONDS ?= 3600
$(VENV)/.fuzz: $(VENV)/.test
	@$(PIP) -e '.[fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz
	@OPENBLAS_NUM_THREADS=1 $(PY) tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS) --finds $(OUT)/fuzz

fuzz-quick: $(VENV)/.fuzz
	@OPENBLAS_NUM_THREADS=1 $(PY) tests/fuzz/fuzz.py --seconds 120 --finds $(OUT)/fuzz

# What takes long of several processes and of tables larger than memory: 4 ranks, 200 kills, 10 million rows in 100 parts,
# 100,000 series by two workers.
test-scale: $(VENV)/.test
	@for what in ranks kills rows series; do $(PY) tests/scale.py $$what || exit 1; done

# The program killed KILLS times at random moments: nothing torn, nothing left, no traceback.
KILLS ?= 1000
kill-test: $(VENV)/.test
	@$(PY) tests/kill.py --kills $(KILLS) --record $(OUT)/kills.json

# Threads, streams, forks and signals at the same time, for an hour or SOAK_SECONDS.
SOAK_SECONDS ?= 3600
soak: $(VENV)/.test
	@OPENBLAS_NUM_THREADS=1 $(PY) tests/soak.py --seconds $(SOAK_SECONDS)

# What docs/reliability.md says, measured again: hostile files, signals and writers, fuzzing, kills.
reliability: $(VENV)/.fuzz $(VENV)/.dev
	@$(PYTEST) -q tests/fuzz tests/arrays/test_files.py tests/arrays/test_checkpoint.py tests/cli/test_signals.py tests/cli/test_resources.py \
	  tests/kernels/test_native_arguments.py tests/forecast/test_identity.py
	@$(MAKE) --no-print-directory fuzz kill-test soak sanitize-threads

# The tests of the CPU with the lowest versions that pyproject.toml allows, in an environment of their own.
test-lowest: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-lowest
	@$(VENV)-lowest/bin/python -m pip install -q --disable-pip-version-check uv
	@$(VENV)-lowest/bin/uv pip compile -q --resolution lowest-direct --extra test pyproject.toml -o $(VENV)-lowest/requirements.txt
	@$(VENV)-lowest/bin/uv pip install -q --python $(VENV)-lowest/bin/python -r $(VENV)-lowest/requirements.txt -e .
	@OPENBLAS_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -q -m "not cuda and not slow" $(SHARED) \
	  tests/arrays tests/cli tests/data tests/interop tests/model tests/plots tests/training

# NVRTC and the headers of the CUDA runtime, those that CuPy's [ctk] brings, for CUDA 12 and 13 in folders of their own;
# a disassembler.  About 400 MB; no GPU needed.
TOOLKITS := build/toolkits
toolkits: $(TOOLKITS)/.done

$(TOOLKITS)/.done: | $(VENV)/.test
	@echo "== toolkits in $(TOOLKITS)"
	@$(PIP) --no-deps --target $(TOOLKITS)/cuda12 nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12
	@$(PIP) --no-deps --target $(TOOLKITS)/cuda13 nvidia-cuda-nvrtc nvidia-cuda-runtime
	@$(PIP) --no-deps --target $(TOOLKITS)/sass nvidia-cuda-nvdisasm
	@touch $@

# Every CUDA kernel compiled for real architectures as CuPy compiles it; writes docs/cuda-kernels.md.
kernels: $(TOOLKITS)/.done
	@$(PY) tools/kernels.py $(ARCH:%=--arch %)

# The same for one architecture and the LSTM, written nowhere: whether a change compiles.
kernels-quick: $(TOOLKITS)/.done
	@$(PY) tools/kernels.py --check --arch 90 --cell lstm --oldest-only --no-larger

# The native engine for aarch64, under an emulator; needs g++-aarch64-linux-gnu and qemu-user.
cross:
	@command -v aarch64-linux-gnu-g++ qemu-aarch64 >/dev/null || { echo "NOT RUN: apt-get install g++-aarch64-linux-gnu qemu-user"; exit 1; }
	@tools/cross_check.sh

# The kernels' real PTX, interpreted with checks against the reference engine; the quick part takes less than two minutes.
ptx ptx-quick: export OPENBLAS_NUM_THREADS ?= 1
ptx: $(TOOLKITS)/.done
	@echo "== the kernels' PTX"
	@$(PYTEST) -q $(SHARED) -m ptx

ptx-quick: $(TOOLKITS)/.done
	@echo "== the kernels' PTX, the quick part"
	@$(PYTEST) -q $(SHARED) -m "ptx and not long"

# On a machine with a GPU: the tests marked cuda, every form checked and timed next to cuDNN, one report that ends in a
# verdict.  It runs in parts of at most eight minutes; what is done is kept, so it can be stopped and started again.
gpu-check: $(VENV)/.test
	@status=75; while [ $$status -eq 75 ]; do $(PY) tools/gpu_check.py --output $(OUT)/gpu-check.md; status=$$?; done; exit $$status

build: $(VENV)/.dev
	@$(PY) -m build --outdir dist .

# Wheels for Linux, tested in an empty environment without a compiler, for all PYTHONS that are here.
PYTHONS ?= $(shell for minor in 10 11 12 13 14; do for python in python3.$$minor $$HOME/.pyenv/versions/3.$$minor.*/bin/python3; do \
  if $$python --version >/dev/null 2>&1; then echo $$python; break; fi; done; done)
wheel:
	@tools/wheel.sh dist $(PYTHONS)

clean:
	rm -rf $(VENV) $(PEERS) $(PEERS)-live .venv-site $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
