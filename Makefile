# Every target sets itself up in a local environment first, once.
#
#   make quickstart                  source files to an exported, generating model, on a laptop
#   make quickstart CORPUS=my/files  the same with your own: PubMed, PMC, trials, notes, patents, text
#   make test                        the tests
#   make test-slow                   the long proofs
#   make test-core-range             the layouts with the newest megatron-core, on Python 3.12
#   make lint                        style and format
#
# PYTHON       the interpreter to start from, 3.11 or later
# TORCH        the build of torch, as pip names it
# TORCH_INDEX  an index of other builds (pytorch.org names one for CPU-only machines, far smaller)
# VENV         where the environment goes
# PYTEST_ARGS  passed on to pytest

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
VENV ?= .venv
CORPUS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --no-input --disable-pip-version-check
# Many small processes on few cores: one thread each is fastest.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help quickstart test test-slow test-core-range lint format clean
.DEFAULT_GOAL := help

help:
	@sed -n '3,8s/^#   //p' Makefile

quickstart: $(VENV)/.ready
	@PATH="$(abspath $(BIN)):$$PATH" bash examples/quickstart/run.sh $(if $(CORPUS),"$(CORPUS)")

test: $(VENV)/.ready-dev
	@$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/.ready-dev
	@$(PYTEST) -m slow $(PYTEST_ARGS)

test-core-range:
	@TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" tests/core_range.sh $(PYTEST_ARGS)

lint: $(VENV)/.ready-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.ready-dev
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache

# torch comes first and its exact build is then pinned, so that no dependency swaps it for another.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo absent), but Python 3.11 or later is needed;" \
	       "give one with PYTHON=python3.11" >&2; exit 2; }
	@echo "setting up $(VENV) with $(TORCH), once; this takes a minute or a few" >&2
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "error: $(PYTHON) could not make $(VENV); on Debian and Ubuntu: apt install python3-venv" \
	    >&2; exit 2; }
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	@$(BIN)/python -m pip freeze --disable-pip-version-check | grep '^torch[= ]' \
	  | sed 's/ @ .*//; s/+.*//' > $(VENV)/constraints.txt
	@touch $@

$(VENV)/.ready: $(VENV)/.torch setup.py
	@$(PIP) --constraint $(VENV)/constraints.txt --editable ".[corpus]"
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@$(PIP) --constraint $(VENV)/constraints.txt --editable ".[corpus,feedback,eval,dev]"
	@touch $@
