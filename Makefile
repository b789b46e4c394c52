# `make demo` shows it work, `make test` proves it; both install everything into .venv first.
PYTHON ?= python3
SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# What `make bench` measures: the number of made-up users, the turns of each contestant, and the cases (empty: all).
USERS ?= 50000
ROUNDS ?= 3
CASES ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow bench faults fuzz audit lint format up clean

help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

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
	$(BIN)/lint-imports --no-logo
	$(BIN)/dagster definitions validate -m music_assets.definitions

PYTEST := $(BIN)/pytest -n auto --dist loadgroup --no-loadscope-reorder

test: lint  ## Lint, then run the tests that matter most, in under five minutes.
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED)  ## Run the other tests, and the property tests with all their examples.
	HYPOTHESIS_PROFILE=ci $(PYTEST) -m "slow or hypothesis"

bench: $(INSTALLED)  ## Measure beside hand-written peers: make bench USERS=500000 CASES="small_drop queries" ROUNDS=3
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks --users $(USERS) --rounds $(ROUNDS) $(addprefix --case ,$(CASES))
	$(BIN)/python -m benchmarks.report

KILLS := 200
SEED := 0
faults: $(INSTALLED)  ## Kill KILLS=200 refreshes, drawn from SEED=0, and print what became of the data.
	$(BIN)/python -m music_assets_tests.faults --kills $(KILLS) --seed $(SEED)

format: $(INSTALLED)  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(INSTALLED)  ## Fuzz the CSV reader and the query gate, SECONDS=60 each; what breaks is written to crash-*.
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	for target in csv gate; do $(BIN)/python -m music_assets_tests.fuzz $$target -max_total_time=$(SECONDS) -len_control=0 || exit 1; done

audit: $(INSTALLED)  ## Ask PyPI's vulnerability service about every version in constraints.txt; needs the network.
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[audit]'
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

up: $(INSTALLED)  ## Start the web UI and the daemon; Ctrl-C stops them.
	$(BIN)/music-assets up

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) .dagster_home demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .coverage
