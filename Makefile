# The commands of Headgate; each sets up what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PY := .venv/bin/python
# The quick ones first, on all cores; those on real services by themselves: a server that gets no time looks dead.
UNIT := -n auto --dist loadfile tests/unit
REAL := tests/integration tests/e2e tests/faults
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup demo up test unit check format bench faults faults-full triton-image sandbox-image lock

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: ## system packages for the demo, Python packages, Triton
	@bash ci/install-system.sh demo
	@bash ci/setup-venv.sh

demo: setup ## the whole story on this machine; DATA=<csv[.gz]> takes real rows
	@$(PY) -m examples.airbnb.demo $(if $(DATA),--data "$(DATA)")

up: setup ## every process of a one-machine installation, until Ctrl-C
	@headgate up

test: ## every test: units, real services, stories; on SQLite and on PostgreSQL
	@bash ci/install-system.sh test
	@bash ci/setup-venv.sh
	$(PY) -m pytest -q $(UNIT)
	$(PY) -m pytest -q $(REAL)
	$(PY) -m pytest -q --database postgresql -m database $(UNIT)
	$(PY) -m pytest -q --database postgresql -m database $(REAL)

unit: setup ## only the quick tests
	$(PY) -m pytest -q $(UNIT)

check: ## format, lint, types, import contracts
	@bash ci/setup-venv.sh
	ruff format --check .
	ruff check .
	mypy
	lint-imports

format: ## write the format and the safe fixes
	ruff format .
	ruff check --fix .

bench: setup ## figures, as ratios measured side by side in one run; it installs PostgreSQL, too
	@bash ci/install-system.sh test
	$(PY) -m ci.bench

faults: ## kill processes at named points on both databases, about five minutes
	@bash ci/install-system.sh test
	@bash ci/setup-venv.sh
	$(PY) -m tests.crash

faults-full: ## thousands of kills, about an hour; the table goes to docs/benchmarks.md
	@bash ci/install-system.sh test
	@bash ci/setup-venv.sh
	$(PY) -m tests.crash --kills 2600 --write-docs

triton-image: setup ## the base image of releases on the CPU, for target docker
	@$(PY) -m app.triton_image

sandbox-image: setup ## the image of the container sandbox, for HEADGATE_SANDBOX=docker
	@$(PY) -m app.sandbox_image

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra s3 --group dev \
	  pyproject.toml -o requirements.lock -q
