# Everything a developer runs. Needs make and a Python of at least 3.11; the rest is installed into .venv on first use.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# PYTHON=/path/to/python chooses the interpreter that .venv is made with.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .bench-venv
BENCH_READY := $(BENCH_VENV)/.ready
BENCH_PEERS := celery[redis]==5.7.0 dramatiq[redis,rabbitmq] hiredis huey procrastinate psycopg[binary] taskiq taskiq-redis
SUITES := unit contract wire worker faults mixed acceptance properties typing docs
# Further arguments for pytest, such as PYTEST='-k sqlite -x'.
PYTEST ?=
FUZZ_SECONDS ?= 300

.PHONY: help demo test faults lint types behaviours fuzz bench docs format clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 16

demo: $(READY)  ## See it work: tasks, a killed worker, nothing lost
	$(BIN)/python -m celeriac demo

test: $(READY) $(BENCH_READY)  ## All tests, on private servers; installs missing ones where it may
	@$(BIN)/python scripts/install_servers.py
	$(BIN)/python scripts/run_tests.py $(PYTEST) -- $(wildcard $(addprefix tests/,$(SUITES)))

faults: $(READY)  ## Only the tests that kill, cut and stop things
	@test -d tests/faults || { echo "There is no tests/faults here."; exit 1; }
	$(BIN)/python -m pytest tests/faults $(PYTEST)

lint: $(READY)  ## Style, format, layers, sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_tree.py

types: $(READY)  ## Static types
	$(BIN)/mypy

behaviours: $(READY)  ## Which documented behaviours have no test
	@$(BIN)/python scripts/behaviours.py

fuzz: $(READY)  ## Fuzz all parsers for FUZZ_SECONDS (300), guided by coverage
	@$(BIN)/python -c 'import atheris' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,fuzz]'
	$(BIN)/python scripts/fuzz.py --seconds $(FUZZ_SECONDS)

bench: $(READY) $(BENCH_READY)  ## Measure, beside peers in an environment of their own
	$(BIN)/python benchmarks/run.py

docs: $(READY)  ## Write the generated pages again and check all pages
	$(BIN)/python -m celeriac.config > docs/settings.md.new && mv docs/settings.md.new docs/settings.md
	$(BIN)/python -m pytest $(wildcard tests/docs) tests/acceptance/test_project.py

format: $(READY)  ## Let ruff format and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove environments, caches and build results
	rm -rf $(VENV) $(BENCH_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +

define make_venv
@test -n "$(PYTHON)" || { echo "celeriac needs Python 3.11 or newer, and none was found; say PYTHON=/path/to/python3.13"; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "celeriac needs Python 3.11 or newer; PYTHON=$(PYTHON) is older or does not run"; exit 1; }
$(PYTHON) -m venv $(1)
endef

# Done once, and again when what is to be installed changes.
$(READY): pyproject.toml constraints.txt
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(BENCH_READY): constraints.txt
	$(call make_venv,$(BENCH_VENV))
	$(BENCH_VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(BENCH_PEERS)
	@touch $@
