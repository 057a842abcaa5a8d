# The words of this project; `make` lists them. CI runs `make check test test-slow test-variants test-clients` and no others.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Even where it is set: each of a thousand processes of the suite would compile the package anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install demo check test test-slow test-variants test-clients fix bench bench-peers load soak crash fuzz lock clean

help: ## list these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

check: install ## formatting, lint, types, the hot paths' counts, known faults of the dependencies (AUDIT=strict: or fail)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/python -m benchmarks.counts
	@$(BIN)/python -m tests.audit requirements-dev.txt

test: install ## the test suite, but what is slow
	@$(BIN)/python -m pytest

test-slow: install ## the rest of it: what starts many programs, or repeats much
	@$(BIN)/python -m pytest -m slow

# Two environments of real clients: those in OPENAI2 don't go with version 3 of OpenAI's SDK, which the others have.
NODE_MODULES := tests/clients/node/node_modules/.package-lock.json
OPENAI2 := tests/clients/test_litellm.py tests/clients/test_llama_index.py
CLIENT_TESTS := -m pytest -c tests/clients/pytest.ini --rootdir . --confcutdir .

# What aiohttp's parser in Python judges otherwise: a head at its blank line only, so that what is no HTTP is waited for
# until a deadline; and it counts no trailers.
EXCHANGE := tests/transport/test_exchange.py::test
OTHER_VERDICTS := $(EXCHANGE)_b7_the_message_has_a_piece_of_what_came \
	$(EXCHANGE)_a_head_that_is_no_http_is_bad_http_and_not_sent_again \
	$(EXCHANGE)_a_body_ends_as_its_form_proves \
	tests/transport/test_failures.py::test_f27_k1_secrets_that_the_service_echoes_do_not_show

test-variants: install ## parts of the suite again: without asserts (P3), and with aiohttp's parser in Python (P4)
	@PYTHONOPTIMIZE=1 $(BIN)/python -m pytest -W ignore::pytest.PytestConfigWarning \
		tests/formats tests/providers tests/limits tests/gateway/test_[a-e]*.py tests/gateway/test_service.py \
		tests/transport/test_stream.py tests/test_client.py tests/test_reply.py
	@AIOHTTP_NO_EXTENSIONS=1 $(BIN)/python -m pytest tests/transport tests/embedded/test_responders.py \
		$(OTHER_VERDICTS:%=--deselect %)

test-clients: .venv-clients/installed .venv-clients-openai2/installed $(NODE_MODULES) ## real clients against a real gateway (needs Node.js)
	@.venv-clients/bin/python $(CLIENT_TESTS) tests/clients $(OPENAI2:%=--ignore=%)
	@.venv-clients-openai2/bin/python $(CLIENT_TESTS) $(OPENAI2) tests/clients/test_openai_*.py

.venv-%/installed: requirements-%.txt pyproject.toml
	@echo "setting up .venv-$*, once"
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip --quiet --disable-pip-version-check install --no-compile --require-hashes -r $<
	@.venv-$*/bin/python -m pip --quiet --disable-pip-version-check install --no-build-isolation --no-deps --editable .
	@touch $@

$(NODE_MODULES): tests/clients/node/package.json tests/clients/node/package-lock.json
	@cd tests/clients/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

fix: install ## format, and mend what the linter can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: install ## measure beside floors, into benchmarks/RESULTS.md (under 10 min; benchmarks/README.md)
	@$(BIN)/python -m benchmarks

PORTKEY := benchmarks/peers/node/node_modules/.package-lock.json
bench-peers: install .venv-peers-g4f/installed .venv-peers-litellm/installed $(PORTKEY) ## measure beside g4f, LiteLLM, OpenAI's SDK, httpx and Portkey (11 min)
	@$(BIN)/python -m benchmarks.peers

# The peers' environments have no flowgpt in them.
.venv-peers-%/installed: requirements-peers-%.txt
	@echo "setting up .venv-peers-$*, once"
	@$(PYTHON) -m venv .venv-peers-$*
	@.venv-peers-$*/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r $<
	@touch $@

$(PORTKEY): benchmarks/peers/node/package.json benchmarks/peers/node/package-lock.json
	@cd $(dir $<) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

load: install ## 10,000 streams through the library, 2,000 through the gateway, at once; one in 20 fails (1 min)
	@$(BIN)/python -m load

SOAK_S ?= 600
soak: install ## streams for SOAK_S seconds: does memory or anything else grow?
	@$(BIN)/python -m load soak $(SOAK_S)

KILLS ?= 1000
crash: install ## kill -9 at KILLS moments of processes that write conversations: is anything lost? (5 min)
	@$(BIN)/python -m load crash $(KILLS)

FUZZ_S ?= 60
fuzz: .venv-fuzz/installed ## the parsers under a fuzzer, FUZZ_S seconds in all (docs/fuzzing.md)
	@.venv-fuzz/bin/python -m fuzz $(FUZZ_S)

lock: ## renew the pinned requirements (needs uv; those of tests/clients/node and benchmarks/peers/node: by npm install)
	@for group in dev clients clients-openai2 fuzz; do UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal \
		--python-version 3.11 --upgrade --generate-hashes --group $$group pyproject.toml \
		--output-file requirements-$$group.txt || exit; done
	@for group in peers-g4f peers-litellm; do UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal \
		--python-version 3.11 --upgrade --generate-hashes --group $$group --output-file requirements-$$group.txt || exit; done

clean: ## remove what the other words made
	@rm -rf $(VENV) .venv-clients .venv-clients-openai2 .venv-fuzz .venv-peers-* .fuzz tests/clients/node/node_modules benchmarks/peers/node/node_modules dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
