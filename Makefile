# Every target sets up what it needs: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
SETTLED := .venv/.settled

.PHONY: help demo test check lint types bench clean

help:            ## what can be made here
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(SETTLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tickring needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(SETTLED) ## a simulated Binance, live in the terminal; needs no network
	@$(BIN)/tickring demo

test: $(SETTLED) ## the test suite
	$(BIN)/python -m pytest

lint: $(SETTLED) ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETTLED) ## strict types
	$(BIN)/mypy

check: lint types test ## style, strict types and tests: what CI runs

bench: $(SETTLED) ## every figure of the README, beside its peers
	$(BIN)/python -m benchmarks

clean: ## remove the environment and every cache
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
