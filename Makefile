# Two commands on a fresh machine (Python >= 3.11, git, make):  make demo   and   make test
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
# One thread per test process; pytest runs as many processes as there are cores.
TEST_ENV := OMP_NUM_THREADS=1 PYTHONHASHSEED=0

.PHONY: help setup demo test test-all lint format docs clean
.DEFAULT_GOAL := help

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/installed ## create .venv and install ml-core with the tested versions

.venv/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ml-core needs Python 3.11 or later; $$($(PYTHON) --version) is $(PYTHON). Say which: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[dev]'
	@touch $@

demo: $(DEMO)/data/.written ## make a synthetic data set, train, and write a report (a few minutes)
	$(BIN)/ml-core run experiments/configs/demo.yaml \
		--set data.data_path=$(DEMO)/data --set output_dir=$(DEMO)/runs

$(DEMO)/data/.written: .venv/installed
	$(BIN)/ml-core data synth $(DEMO)/data --train 4000 --valid 1000 --test 1000 --force
	@touch $@

test: .venv/installed ## run the tests, minutes-long ones left out
	$(TEST_ENV) $(BIN)/pytest -n auto --dist loadfile -m "not slow"

test-all: .venv/installed ## run every test
	$(TEST_ENV) $(BIN)/pytest -n auto --dist loadfile

lint: .venv/installed ## check format, style, types, layers, and that generated files are fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

format: .venv/installed ## mend what lint can mend: format, imports, generated files
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/generate.py

docs: .venv/installed ## write docs/cli.md, docs/config.md and the JSON Schema anew
	$(BIN)/python docs/generate.py

clean: ## remove what make made, .venv included
	rm -rf .venv $(DEMO) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
