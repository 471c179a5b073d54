# make demo    train, export, prove, measure and identify once, on speech made on the spot
# make test    run the tests
# make check   lint, format, types, import rules
# make newest  run the tests against the newest versions that pyproject.toml allows, in an environment of their own
# make oldest  the same with the lowest versions
# make lock    choose the versions that the others install: writes requirements/cpu.txt and gpu.txt
# make dist    build the wheel and the source archive, and check them
# make fuzz    a minute of coverage-guided fuzzing for every reader of foreign bytes
# make matrix  build every graph for TensorRT that the tests only parse, with NVIDIA's library: some minutes
# make browser-test    drive the browser example in a headless Chromium
#
# Each sets up .venv by itself, with the versions in requirements/; a fresh machine needs Python 3.11 or newer with
# pip, and make.
# Variables: PYTHON=python3.12          the interpreter to build .venv with
#            PIP_INDEX_URL=https://…    another package index (pip reads it)
#            TORCH_INDEX=https://download.pytorch.org/whl/cpu    where torch comes from; Linux's default
#                                       torch brings CUDA (some GB), this one does not
#            ONNXRUNTIME=gpu            install ONNX Runtime for CUDA instead of the CPU's; delete .venv first
#            WITH="torch==2.11.0"       more requirements for newest and oldest
#            TESTS=tests/runtime        the tests that newest and oldest run; all of them by default
#            OUT=demo-out               where the demo writes

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check newest oldest lock dist fuzz matrix browser-test format clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.voxport-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
ONNXRUNTIME ?= cpu
TORCH_INDEX ?=
WITH ?=
TESTS ?=
OUT ?= demo-out
LOCK := requirements/$(ONNXRUNTIME).txt
# What a PyTorch from TORCH_INDEX brings itself, or does without.
TORCH_FAMILY := ^(torch|torchaudio|triton$(if $(filter cpu,$(ONNXRUNTIME)),|nvidia-[^=]*|cuda-[^=]*))==
ROOMS := cli train export corpora scale runtime benchmarks
TRT_API_CHECK ?= $(wildcard ../*/trt-api/check)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$name && break; done)

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

# Some systems ship Python without ensurepip; their own pip can then fill the new environment.
$(STAMP): pyproject.toml $(LOCK)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "error: $(PYTHON) is older than Python 3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(PIP) install --quiet --no-deps $$(grep -oE '^pip==[^ ;]+' $(LOCK))
ifneq ($(TORCH_INDEX),)
	$(PIP) install --quiet --no-deps --index-url $(TORCH_INDEX) $$(grep -oE '^torch(audio)?==[^ ;]+' $(LOCK))
	grep -vE '$(TORCH_FAMILY)' $(LOCK) > $(VENV)/requirements.txt
	$(PIP) install --quiet --no-deps --requirement $(VENV)/requirements.txt
else
	$(PIP) install --quiet --no-deps --requirement $(LOCK)
endif
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)
	$(BIN)/voxport demo --out $(OUT)

# The tests start hundreds of processes: without byte code each would compile our modules again.
TEST_ENV := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1

test: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@files=$$(grep -rlE --include='*.py' '^ *(import|from) tensorrt([ .]|$$)' $(ROOMS)); \
	if [ -z "$$files" ]; then echo "TensorRT API: no file imports tensorrt"; \
	elif [ -x "$(TRT_API_CHECK)" ]; then PATH="$(abspath $(BIN)):$$PATH" "$(TRT_API_CHECK)" $$files; \
	else echo "TensorRT API: not run; TRT_API_CHECK=PROGRAM names a checker of calls against NVIDIA's stubs"; fi

UV := .venvs/tools/bin/uv
UV_PIP := $(if $(PIP_INDEX_URL),UV_DEFAULT_INDEX=$(PIP_INDEX_URL)) $(UV)

$(UV):
	$(PYTHON) -m venv .venvs/tools
	.venvs/tools/bin/python -m pip install --quiet uv

newest: RESOLUTION := highest
oldest: RESOLUTION := lowest-direct
newest oldest: $(UV)
	$(UV_PIP) venv --quiet --clear --seed --python $(PYTHON) .venvs/$@
	$(UV_PIP) pip install --quiet --python .venvs/$@/bin/python --resolution $(RESOLUTION) \
		--compile-bytecode --editable ".[dev,$(ONNXRUNTIME)]" $(WITH)
	.venvs/$@/bin/voxport doctor
	$(TEST_ENV) .venvs/$@/bin/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(TESTS)

# One file for every platform and Python: markers choose. Written beside and moved, so that a failure changes nothing.
lock: $(UV)
	for kind in cpu gpu; do \
		$(UV_PIP) pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
			--no-emit-index-url --no-emit-find-links --constraint requirements/hold.txt \
			--extra dev --extra $$kind --output-file requirements/.$$kind.txt --upgrade pyproject.toml \
		&& mv requirements/.$$kind.txt requirements/$$kind.txt || exit 1; done

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

fuzz: $(STAMP)
	$(PIP) install --quiet atheris
	$(BIN)/python -m fuzz.run all --seconds 60

matrix: $(STAMP)
	VOXPORT_WHOLE_MATRIX=1 $(TEST_ENV) $(BIN)/python -m pytest tests/export/test_rtx_matrix.py

browser-test: $(STAMP)
	@command -v npm >/dev/null || { echo "error: npm is not installed; Debian: apt-get install nodejs npm" >&2; exit 1; }
	@node -e 'process.exit(Number(parseInt(process.versions.node) < 20))' || { echo "error: Node.js 20 or newer is needed, found $$(node --version); Debian 13 has it" >&2; exit 1; }
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || { echo "error: Chromium is not installed; Debian: apt-get install chromium" >&2; exit 1; }
	cd examples/browser && npm ci --ignore-scripts --no-audit --no-fund
	$(BIN)/python -m pytest tests/runtime/test_example_browser.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venvs dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
