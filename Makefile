# Everything a person or CI runs. `make help` lists it. Needs git, make and a CPython >= 3.12 (or uv); the rest is installed into the clone.
SHELL := /bin/sh
.DEFAULT_GOAL := help

UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_PREFERENCE ?= system
ALONE := not services and not images and not cluster
AGAIN := $(if $(CI),--reruns 1 -raR)  # where servers and a cluster that are not ours take part: what fails runs once more, and is named
unexport PYTHONDONTWRITEBYTECODE  # images set it: each of the hundreds of processes of a test run would compile all that it imports

# -- for users -----------------------------------------------------------------------------------------------------------------

.PHONY: help
help: ## list every target
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: .venv/.installed ## install everything into the clone (.tools, .venv)

.tools/bin/uv: tools/bootstrap.sh
	@PYTHON="$(PYTHON)" sh tools/bootstrap.sh
	@touch -h $@

.venv/.installed: .tools/bin/uv uv.lock pyproject.toml runner/pyproject.toml
	@python=$$(cat .tools/python); $(UV) sync --quiet --locked --all-packages --compile-bytecode $${python:+--python "$$python"}
	@touch $@

.PHONY: demo
demo: install ## the whole thing on this machine in about a minute
	@$(BIN)/stac-watch demo $(if $(KEEP),--keep)

# -- for developers ------------------------------------------------------------------------------------------------------------

.PHONY: test
test: install ## what needs nothing but Python and is over in minutes, on all cores
	$(BIN)/pytest -q -n auto --dist worksteal -m "$(ALONE) and not long"

.PHONY: test-long
test-long: install ## the rest of it: crashes at every point, every pixel of every form, a simulated week
	$(BIN)/pytest -q -n auto --dist worksteal -m "$(ALONE) and long"

.PHONY: lint
lint: install ## ruff: rules and format; import-linter: who may use whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

.PHONY: types
types: install ## mypy, strict
	$(BIN)/mypy

.PHONY: docs
docs: install ## write the pages of docs/reference and the runbook's alerts from the code
	$(BIN)/python tools/reference.py --write

.PHONY: docs-site
docs-site: install ## the documentation as a site in build/site, strictly: dead links and anchors end it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site
	@echo "build/site/index.html"

.PHONY: packages
packages: install ## both packages as an index takes them, in dist/
	@$(UV) build --quiet --all-packages --out-dir dist
	@ls dist

.PHONY: version
version: ## give both packages, the manifests and the chart another version: make version TO=0.2.0
	@test -n "$(TO)" || { echo "make version TO=0.2.0" >&2; exit 2; }
	sed -i 's/^version = ".*"/version = "$(TO)"/; s/"stac-watch==[^"]*"/"stac-watch==$(TO)"/' pyproject.toml runner/pyproject.toml
	$(UV) lock --quiet
	@$(MAKE) --no-print-directory install manifests

.PHONY: audit-deps
audit-deps: install ## known vulnerabilities of what is locked; 69 when the database cannot be reached
	@$(BIN)/python tools/audit_dependencies.py

include tests/cluster/cluster.mk
-include tests/services/services.mk
-include benchmarks/bench.mk
include images.mk
include operations.mk

.PHONY: ci
ci: lint types test test-long test-services test-images test-cluster ## what .ci/run runs

.PHONY: distclean
distclean: ## remove what install, the demo and development made; a ledger, outputs and runs of yours stay
	rm -rf .venv .tools build dist var/demo var/bench var/cluster-evidence var/cluster-build.log
	@if [ -d var ] && ! rmdir var 2>/dev/null; then echo "var/ stays, it has what is yours:" $$(ls -A var); fi
