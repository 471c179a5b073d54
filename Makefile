# make demo    train, export, prove, measure and identify once, on speech made on the spot
# make test    run the tests
# make check   lint, format, types, import rules
# make fuzz    a minute of coverage-guided fuzzing for every reader of foreign bytes
# make browser-test    drive the browser example in a headless Chromium
#
# Each sets up .venv by itself; a fresh machine needs Python 3.11 or newer with pip, and make.
# Variables: PYTHON=python3.12          the interpreter to build .venv with
#            PIP_INDEX_URL=https://…    another package index (pip reads it)
#            TORCH_INDEX=https://download.pytorch.org/whl/cpu    where torch comes from; Linux's default
#                                       torch brings CUDA (some GB), this one does not
#            ONNXRUNTIME=gpu            install ONNX Runtime for CUDA instead of the CPU's; delete .venv first
#            OUT=demo-out               where the demo writes

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check fuzz browser-test format clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.voxport-installed
ONNXRUNTIME ?= cpu
TORCH_INDEX ?=
OUT ?= demo-out
ROOMS := cli train export runtime benchmarks
TRT_API_CHECK ?= $(wildcard ../*/trt-api/check)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$name && break; done)

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

# Some systems ship Python without ensurepip; their own pip can then fill the new environment.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "error: $(PYTHON) is older than Python 3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) "torch==2.11.*" "torchaudio==2.11.*")
	$(BIN)/python -m pip install --quiet --editable ".[dev,$(ONNXRUNTIME)]"
	@touch $@

demo: $(STAMP)
	$(BIN)/voxport demo --out $(OUT)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@files=$$(grep -rlE --include='*.py' '^ *(import|from) tensorrt' $(ROOMS)); \
	if [ -z "$$files" ]; then echo "TensorRT API: no file imports tensorrt"; \
	elif [ -x $(TRT_API_CHECK) ]; then PATH="$(CURDIR)/$(BIN):$$PATH" $(TRT_API_CHECK) $$files; \
	else echo "TensorRT API: not checked, TRT_API_CHECK names no checker"; fi

fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python -m fuzz.run all --seconds 60

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
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
