# `make run` and `make test` are all a newcomer needs. Only `make programs` installs anything outside the checkout.
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
PYTHON ?= python3
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help setup dev run test retest check slow bench bench-seed race corpora clients programs image-check demo clean lock

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.venv/.run: requirements.txt requirements-build.txt pyproject.toml
	@$(PIP) --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)")' \
	  && $(PYTHON) -m venv .venv; }
	@echo "Installing the sidecar into .venv (hash-locked) ..."
	@$(PIP) install -q --no-deps --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	@echo "Installing what the tests need into .venv (hash-locked) ..."
	@$(PIP) install -q --no-deps --require-hashes -r requirements-dev.txt
	@touch $@

setup: .venv/.run ## a virtual environment in .venv, so that .venv/bin/llm-sidecar runs

dev: .venv/.dev ## the same with what tests and checks need

run: setup ## serve on 127.0.0.1:8080: OpenAI with OPENAI_API_KEY, else a tiny real model fetched once (DEMO=0: echo; ARGS="--port 9000")
	@$(PY) deploy/demo/run.py $(ARGS)

test: dev ## the whole test suite
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -q -n 3 --dist loadfile

retest: dev ## the tests that failed last, one after the other
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -v --last-failed --last-failed-no-failures none

check: dev ## formatting, lint, types, import rules, deploy files
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@$(PY) -m proxy check --config llm.yml
	@.venv/bin/hadolint Dockerfile
	@.venv/bin/yamllint -s -c deploy/yamllint.yml llm.yml deploy
	@.venv/bin/check-jsonschema -q --builtin-schema vendor.compose-spec deploy/compose.yml

slow: dev ## the reliability and fuzz tests at full size (SOAK_MINUTES=60 for the long soak)
	@$(PY) -m pytest -q -m "slow and not alone" -n 3 --timeout 1800; \
	fuzz=$$?; $(PY) -m pytest -q -m "slow and alone" --timeout 1800 && exit $$fuzz

bench: dev ## CPU per call and per chunk beside nginx and other gateways
	@$(PY) tests/bench/run.py

bench-seed: dev ## the design document's benchmark scenarios and its acceptance table
	@$(PY) tests/bench/seed.py

race: dev ## the accounting race tests, many times over
	@$(PY) -m pytest -q tests/accounting tests/store -m 'slow or not slow' --timeout 1800

corpora: dev ## how well redaction does on labelled secrets
	@$(PY) tests/redact/corpora.py

clients: dev ## real OpenAI clients through the sidecar, with each vendor behind it
	@$(PY) tests/clients/run.py

programs: ## what some tests run beside Python: nginx and redis-server (Debian, as root), aimock (npm)
	@sh tests/programs/install.sh

image-check: dev ## build and run the image without a Docker engine (needs buildah)
	@sh deploy/image-check.sh

lock: dev ## renew the hash-locked requirements files
	@$(PIP) install -q uv
	@for name in requirements requirements-dev requirements-build deploy/demo/requirements; do \
	  .venv/bin/uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 $$name.in -o $$name.txt; done

clean: ## remove what the targets made
	rm -rf .venv .demo .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
