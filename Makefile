# The words of this project; `make` lists them. CI runs `make check test` and no others.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo check test fix bench lock clean

help: ## list these words
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed ## set up .venv: pinned and hashed requirements, and this package

$(VENV)/installed: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flowgpt needs Python 3.11 or later: make PYTHON=python3.11")'
	@echo "setting up $(VENV), once"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

demo: install ## ask a question: over real HTTP, in FlowGPT's protocol, to the embedded server
	@$(BIN)/flowgpt --base-url embedded --verbose --system "You are brief." "What travels through this demo?"

check: install ## formatting, lint, types
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

test: install ## the whole test suite
	@$(BIN)/python -m pytest

fix: install ## format, and mend what the linter can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: install ## measure: ratios against a floor and a peer, in one run
	@$(BIN)/python -m benchmarks

lock: ## renew requirements-dev.txt (needs uv)
	@UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 --upgrade \
		--generate-hashes --group dev pyproject.toml --output-file requirements-dev.txt

clean: ## remove what the other words made
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
