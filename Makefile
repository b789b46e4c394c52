# `make demo` shows it work, `make test` proves it; both install everything into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test faults lint format up clean

help:  ## Show the targets.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(INSTALLED): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(INSTALLED)  ## Install the project and what it needs into .venv.

demo: $(INSTALLED)  ## Make sample data, run the main job on it, show the result.
	$(BIN)/music-assets demo

lint: $(INSTALLED)  ## Lint, format check, types, and whether Dagster can load the definitions.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dagster definitions validate -m music_assets.definitions

test: lint  ## Lint, then run every test.
	$(BIN)/pytest -n auto --dist loadfile

KILLS := 200
SEED := 0
faults: $(INSTALLED)  ## Kill KILLS=200 refreshes, drawn from SEED=0, and print what became of the data.
	$(BIN)/python -m music_assets_tests.faults --kills $(KILLS) --seed $(SEED)

format: $(INSTALLED)  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

up: $(INSTALLED)  ## Start the web UI and the daemon; Ctrl-C stops them.
	$(BIN)/music-assets up

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) .dagster_home demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
