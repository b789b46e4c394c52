# Every target first installs the project and its dependencies into .venv.
PYTHON ?= python3
SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# `make bench`: number of generated users, rounds per contestant, and cases (default: all).
USERS ?= 50000
ROUNDS ?= 3
CASES ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow bench faults fuzz audit lint format docs vendor dbt up clean

help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(INSTALLED): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(INSTALLED)  ## Install the project and its dependencies into .venv.

demo: $(INSTALLED)  ## Generate sample data, run the main job on it, print the results.
	$(BIN)/music-assets demo

lint: $(INSTALLED)  ## Check lint rules, format, types, import contracts and Dagster definitions.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/dagster definitions validate -m music_assets.definitions

test: lint  ## Lint and run the fast tests (under five minutes).
	$(BIN)/pytest -n auto -m "not slow"

test-slow: $(INSTALLED)  ## Run the slow tests, and the property tests with all examples.
	HYPOTHESIS_PROFILE=ci $(BIN)/pytest -n auto -m "slow or hypothesis"

bench: $(INSTALLED)  ## Benchmark against hand-written baselines: make bench USERS=500000 CASES="small_drop queries" ROUNDS=3
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks --users $(USERS) --rounds $(ROUNDS) $(addprefix --case ,$(CASES))
	$(BIN)/python -m benchmarks.report

KILLS := 200
SEED := 0
faults: $(INSTALLED)  ## Kill KILLS=200 refreshes, retractions, erasures, backups and restores at random points (SEED=0) and verify the data after each.
	$(BIN)/python -m music_assets_tests.faults --kills $(KILLS) --seed $(SEED)

format: $(INSTALLED)  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## Generate docs/configuration.md.
	$(BIN)/python -m music_assets.settings > docs/configuration.md

vendor: $(INSTALLED)  ## Update the browser libraries and the world map of the explorer (requires node).
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[vendor]'
	cd frontend && npm ci --no-audit --no-fund && npm run build
	$(BIN)/python frontend/countries.py

fuzz: $(INSTALLED)  ## Fuzz the CSV reader and the query gate for SECONDS=60 each; failing inputs are written to crash-*.
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	for target in csv gate; do $(BIN)/python -m music_assets_tests.fuzz $$target -max_total_time=$(SECONDS) -len_control=0 || exit 1; done

audit: $(INSTALLED)  ## Check constraints.txt for known vulnerabilities (requires network access).
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[audit]'
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

dbt: $(INSTALLED)  ## Install dbt into an environment of its own, .venv/dbt, for the test of docs/dbt.md.
	$(PYTHON) -m venv $(VENV)/dbt
	$(VENV)/dbt/bin/pip install --quiet 'dbt-core>=1.11,<1.12' 'dbt-duckdb>=1.11,<1.12' 'duckdb>=2.0,<2.1'

up: $(INSTALLED)  ## Start web UI, daemon and query service; Ctrl-C stops them.
	$(BIN)/music-assets up

clean:  ## Remove all generated files.
	rm -rf $(VENV) .dagster_home demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .coverage
