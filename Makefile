# Callboard. `make demo` to see it, `make test` to trust it, `make help` for the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SOURCES := bot handlers deploy sandbox tests bench

.PHONY: help setup demo story pictures test check format bench lock clean

help: ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.ready ## The locked environment in .venv

# uv is in the lock like everything else: pip fetches it, checked by its hashes, and it installs the rest.
$(VENV)/.ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Callboard needs Python 3.11 or newer: make PYTHON=/path/to/python3 ..."; exit 1; }
	@command -v git > /dev/null || { echo "Callboard needs git: the sandbox's Azure DevOps keeps its repository with it."; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 1; }
	@awk '/^[^ #]/ { on = /^uv==/ } on' requirements.lock > $(VENV)/uv.lock
	$(RUN) -m pip install --quiet --no-deps --require-hashes -r $(VENV)/uv.lock
	$(VENV)/bin/uv pip sync --quiet --python $(RUN) --require-hashes --compile-bytecode requirements.lock
	@touch $@

demo: setup ## The whole product in the sandbox, with a page to click in
	@$(RUN) -m sandbox demo

story: setup ## The same story, headless; exits non-zero if any step fails
	@$(RUN) -m sandbox story

pictures: setup ## A picture of everything one sees, in docs/pictures, and README's (needs Chromium)
	@$(RUN) -m sandbox pictures --folder docs/pictures && cp docs/pictures/channel.png docs/channel.png

test: setup ## Every test
	$(RUN) -m pytest --cov --cov-report=term -q

check: setup ## Format, lint, strict types, import contracts
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup ## Put the code into shape
	$(VENV)/bin/ruff format $(SOURCES)
	$(VENV)/bin/ruff check --fix $(SOURCES)

bench: setup ## Speed, as ratios beside their floors
	@$(RUN) -m bench

lock: setup ## Renew requirements.lock and those of the ML jobs and the two images
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group pyproject.toml:dev pyproject.toml -o requirements.lock
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group pyproject.toml:ml -c requirements.lock -o deploy/ml/requirements.lock
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header deploy/ml/serving/requirements.in -c requirements.lock -o deploy/ml/serving/requirements.lock
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -c requirements.lock -o deploy/bot/requirements.lock

clean: ## Forget the sandbox's world, the bot's data and the caches; keep .venv
	rm -rf .sandbox .callboard .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
