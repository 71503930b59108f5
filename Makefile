# `make` builds the environment; `make help` lists what else there is.
.DEFAULT_GOAL := env
MAKEFLAGS += --no-print-directory
PYTHON_BIN := .venv/bin/python
CHECKED := $(wildcard services qila tests bench sandbox)
# Files of tests that run at a time. They wait for processes and for the network, so more cores would not need more.
WORKERS ?= 2

.PHONY: help env engine image requirements protos format check test test-unit attacks attacks-long demo bench up down clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: ## build the Python environment in .venv (the default)
	@scripts/environment

engine: ## make sure that a Docker Engine answers; as root on Debian or Ubuntu, install one
	@scripts/engine

image: env engine ## build the sandbox image unless it is there
	@scripts/image

requirements: env ## lock the requirements again (UPGRADE=--upgrade takes the newest versions)
	@scripts/requirements $(UPGRADE)

protos: env ## generate the code of the protos
	@scripts/protos

format: env ## format the Python code
	@.venv/bin/ruff format
	@.venv/bin/ruff check --fix

check: env ## formatting, lint, types, and that generated code is current
	@.venv/bin/ruff format --check
	@.venv/bin/ruff check
	@.venv/bin/mypy $(CHECKED)
	@scripts/protos --check
	@echo 'check: all is well'

test: image ## every test, with Docker, but for those that take minutes each (WORKERS=1: one at a time)
	@if $(PYTHON_BIN) -m pytest -m 'not long and not alone' -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    && $(PYTHON_BIN) -m pytest -m 'alone and not long'; then echo 'test: all passed'; \
	else code=$$?; echo "test: FAILED (pytest's exit code $$code)"; exit $$code; fi

test-unit: env ## the tests that need no Docker
	@$(PYTHON_BIN) -m pytest -m 'not docker' tests/unit

attacks: image ## attack what is shipped, and prove that each attack could have succeeded
	@if $(PYTHON_BIN) -m pytest -m 'not long' tests/attacks; then echo 'attacks: the wall held'; \
	else code=$$?; echo "attacks: FAILED (pytest's exit code $$code)"; exit $$code; fi

attacks-long: image ## the same, with soaks and public tools (half an hour)
	@if $(PYTHON_BIN) -m pytest tests/attacks; then echo 'attacks-long: the wall held'; \
	else code=$$?; echo "attacks-long: FAILED (pytest's exit code $$code)"; exit $$code; fi

demo: image ## run a program that nobody prepared for, twice
	@if scripts/demo; then echo 'demo: done; nothing that it started is running'; \
	else code=$$?; echo "demo: FAILED (exit code $$code)"; exit $$code; fi

bench: image ## measure, and write bench/out/report.json
	@$(PYTHON_BIN) -m bench

up: image ## start the three services
	@.venv/bin/qila up

down: env ## stop the three services
	@.venv/bin/qila down

clean: ## remove what tools left in the tree; .venv, images and workspaces stay
	@rm -rf build dist bench/out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0r rm -rf
