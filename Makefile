# Two commands on a fresh machine (Python >= 3.11, git, make):  make demo   and   make test
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
# One thread per test process; pytest runs as many processes as there are cores.
TEST_ENV := OMP_NUM_THREADS=1 PYTHONHASHSEED=0
# How often each fault is injected: full, as docs/reliability.md counts, or short.
DRAWS ?= full

.PHONY: help setup demo test test-all test-levels test-faults test-slurm lint format docs clean
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
	$(TEST_ENV) $(BIN)/pytest -n auto --dist loadfile -m "not slow and not faults and not slurm"

test-all: .venv/installed ## run every test, faults in a short draw
	$(TEST_ENV) $(BIN)/pytest -n auto --dist loadfile

test-levels: .venv/installed ## train the golden runs: the same bits over threads, machines, ranks
	$(TEST_ENV) $(BIN)/pytest -n auto tests/test_golden_hash.py tests/test_elastic.py tests/test_run_to_run.py

test-faults: .venv/installed ## break things on purpose, for an hour or two (DRAWS=short: minutes)
	$(TEST_ENV) ML_CORE_FAULT_DRAWS=$(DRAWS) \
		$(if $(filter full,$(DRAWS)),ML_CORE_FAULT_RECORD=docs/fault-record.json) \
		$(BIN)/pytest -n auto --dist loadfile -m faults tests/faults
	$(BIN)/python docs/generate.py

test-slurm: .venv/installed ## run jobs on a Slurm of two nodes, started here (DRAWS=short: minutes)
	$(TEST_ENV) ML_CORE_FAULT_DRAWS=$(DRAWS) \
		$(if $(filter full,$(DRAWS)),ML_CORE_FAULT_RECORD=docs/fault-record.json) \
		$(BIN)/pytest -n 4 --dist loadfile -m slurm tests/slurm
	$(BIN)/python docs/generate.py

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
