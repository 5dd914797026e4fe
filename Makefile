# Every target installs what it needs into .venv; nothing else on the machine is touched.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(shell cat requirements/dev.txt pyproject.toml 2>/dev/null | sha256sum | cut -c1-16)
WORKERS ?= $(shell nproc)

.PHONY: help demo test check audit-check bench docs lock clean install

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## Install the locked requirements and this project into .venv

$(INSTALLED): requirements/dev.txt requirements/installer.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stream needs Python 3.11 or later; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-* && touch $@

demo: install ## Run the flights pipeline on local AWS, kill its worker half-way, check the result
	@$(BIN)/stream demo $(ARGS)

test: install ## Run the whole suite
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

check: install ## Check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit-check: install ## Send the demo's 336,776 records through kills to rotel: one span for each, shown
	@AUDIT_CHECK_RECORDS=336776 $(BIN)/python -m pytest -q tests/integration/test_rotel.py -k kill $(ARGS)

bench: install ## Measure; prints ratios, asserts nothing
	@$(BIN)/python benchmarks/run.py $(ARGS)

docs: install ## Rewrite the tables in the documentation that are made from the code
	@$(BIN)/python -m tests.docs.generate

lock: install ## Rewrite the locked requirements from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --all-extras pyproject.toml requirements/build.in -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header pyproject.toml -o requirements/run.txt
	echo 'uv' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header - -o requirements/installer.txt

clean: ## Remove everything that the targets made
	rm -rf $(VENV) .make .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache node_modules demo-output
