# 'make help' lists the targets. Needs Python 3.11 or newer and make; everything else goes into .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

PYTHON ?= python3.11 python3# the first of these that is new enough makes .venv
# Independent programs that tests and benchmarks compare with; they ask for other versions of what we use, and for
# more than what is compared, hence --no-deps.
ORACLES := steering-vectors repeng vendi-score 'diversity; python_version < "3.13"'
# Tests run on all cores, those of a file together; SPREAD= runs them one by one, as a debugger needs it.
SPREAD ?= --numprocesses auto --dist loadfile --no-loadscope-reorder
ARGS ?=# more words for pytest, such as ARGS="-k store -x"
RUNS ?= runs/demo# the run folders that 'make board' shows
OUT ?= site# where it puts the page

.PHONY: help demo test test-all fast lint types check board clean

help: ## say what there is (this text)
	@echo "make TARGET; .venv is set up first where that is needed"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## run the mini suite, build the board, say where it lies
	@$(BIN)/steerboard demo

test: $(STAMP) ## run all tests
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

test-all: $(STAMP) ## run all tests and the full samples of simulations, as every night
	$(BIN)/python -m pytest -m "" $(SPREAD) $(ARGS)

fast: $(STAMP) ## run the tests that take no more than a few seconds each
	$(BIN)/python -m pytest -m "not slow and not nightly" $(SPREAD) $(ARGS)

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## check types
	$(BIN)/mypy

check: lint types test ## lint, types and test

board: $(STAMP) ## build the board again: RUNS="runs/demo ..." OUT=site
	@$(BIN)/steerboard board build $(RUNS) --out $(OUT)

clean: ## remove caches, built packages and site/; keeps runs/ and .venv
	rm -rf site build dist .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# Set-up, skipped while the stamp is newer than both files. A .venv that does not work is made anew.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		found=; \
		for python in $(PYTHON); do \
			if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				found=$$python; break; \
			fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "make: no Python 3.11 or newer (tried: $(PYTHON))." \
				"Install one, or say: make PYTHON=/path/to/python3.11" >&2; \
			exit 1; \
		fi; \
		echo "making $(VENV) with $$found"; \
		"$$found" -m venv --clear $(VENV) || { \
			echo "make: $$found cannot make $(VENV), see above" \
				"(Debian and Ubuntu: install the package python3-venv)." >&2; \
			exit 1; \
		}; \
	fi; \
	echo "installing what is needed into $(VENV): some minutes the first time"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(ORACLES); \
	touch $@
