# make demo: install, then close the loop on a wind farm (about 6 minutes on 2 cores)
# make test: install what the tests need, then run them all
# Needs Python 3.11 or later and make; no compiler. A second call installs nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

# One thread a process: the learners bring their own processes, and results then do not depend on the machine's cores.
export OMP_NUM_THREADS := 1

.PHONY: help demo test check ci clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, then close the loop on a wind farm; results are in runs/"
	@echo "make test    install, then run all tests"
	@echo "make check   install, then lint, types and import rules"
	@echo "make ci      both, as the continuous integration runs them"
	@echo "make clean   remove the environment, caches and build products; runs/ stays"

demo: $(VENV)/installed-all
	$(BIN)/twinloop demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ci:
	.ci/run

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "twinloop needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@echo "Creating the environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "On Debian and Ubuntu, install python3-venv first." >&2; exit 1; }
	@touch $@

# The stamps are older than what they were made from as soon as a dependency changes; the rest is installed as links.
$(VENV)/installed-all $(VENV)/installed-dev: $(VENV)/installed-%: $(VENV)/created pyproject.toml constraints.txt
	@echo "Installing twinloop[$*]; the first time this fetches about 1 GB and takes some minutes ..."
	@$(INSTALL) '.[$*]'
	@touch $@
