# Two commands do everything on a bare machine: `make demo` and `make test`. Both make .venv themselves.

SHELL := /bin/bash
PYTHON ?= python3
JOBS ?= 2
ARGS ?=

# PyTorch goes in first and alone: left to the resolver, any newer release may come, and on Linux the newest wheels bring
# several GB of CUDA. 2.13.0 is what we test, and the CPU build of it is taken wherever pip is shown one (a wheel folder
# in PIP_FIND_LINKS or PyTorch's own CPU index; README, "Installing"). A GPU machine overrides it, as in
# `make demo TORCH='torch>=2.13'`.
TORCH ?= torch==2.13.0

# Programs that some tests use for real; without them those tests are skipped by name.
SERVERS := postgresql chromium

BIN := .venv/bin
INSTALLED := .venv/.installed
DOCS_INSTALLED := .venv/.installed-docs
BENCHMARKS = $(shell grep -l '__name__ == "__main__"' benchmarks/*.py 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs servers format

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## the whole way on the real data that the package ships; ends with a report
	@echo "== demo: two real years of a shop, from the log to a chosen model (results in ./demo)"
	$(BIN)/desireline demo --out demo $(ARGS)

test: $(INSTALLED)  ## every test; what needs a missing server is skipped by name (see `make servers`)
	@echo "== test: pytest in $(JOBS) processes"
	$(BIN)/pytest -n $(JOBS) --dist worksteal -rs $(ARGS)

check: $(DOCS_INSTALLED)  ## format, lint, types, import floors, docs: run before each commit
	@echo "== check: format"
	$(BIN)/ruff format --check .
	@echo "== check: lint"
	$(BIN)/ruff check .
	@echo "== check: types"
	$(BIN)/mypy
	@echo "== check: import floors"
	$(BIN)/lint-imports --no-logo
	@echo "== check: generated pages and the documentation"
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "== check: all well"

format: $(INSTALLED)  ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## every benchmark, in its quick form; tables here, JSON in benchmarks/results
	@test -n "$(BENCHMARKS)" || { echo "benchmarks/ holds no benchmark"; exit 1; }
	@for file in $(BENCHMARKS); do \
	  name=$$(basename $$file .py); echo "== bench: $$name"; \
	  $(BIN)/python -m benchmarks.$$name --quick $(ARGS) || exit 1; \
	done

# Not with --quiet: --strict counts only the warnings that are shown.
docs: $(DOCS_INSTALLED)  ## generate the reference pages and build the documentation into ./site
	@echo "== docs: reference pages from the code, then the site"
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

servers:  ## install the servers that some tests use (Debian packages: PostgreSQL, Chromium; as root or by sudo)
	@missing=""; for package in $(SERVERS); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then echo "== servers: all installed"; else \
	  command -v apt-get >/dev/null || { echo "make servers needs apt-get (Debian, Ubuntu). Install by hand:$$missing"; exit 1; }; \
	  sudo=""; if [ "$$(id -u)" != 0 ]; then command -v sudo >/dev/null || { echo "make servers needs root: run it as root, or install sudo"; exit 1; }; sudo=sudo; fi; \
	  echo "== servers: installing$$missing"; \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing || exit 1; \
	fi; \
	for package in $(SERVERS); do dpkg-query -W -f '   $${Package} $${Version}\n' $$package; done

# The environment: made once, brought up to date when what it is made of changes.
$(INSTALLED): pyproject.toml src/desireline/version.py
	@echo "== environment: $(TORCH), then desireline with everything, into .venv (once, some minutes)"
	@test -x $(BIN)/python || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "desireline needs Python 3.11 or newer, and $(PYTHON) is none. Name another: make PYTHON=python3.11"; exit 1; }; \
	  $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet -e '.[all,dev]'
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	@echo "== environment: what the documentation is built with"
	$(BIN)/python -m pip install --quiet -e '.[all,dev,docs]'
	@touch $@
