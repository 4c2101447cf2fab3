# The commands of CONTRIBUTING.md. PYTHON is the environment's: `make install` makes .venv, and the others use it where it is there.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
LOWEST ?= .venv-lowest
ROOT_OF_DATA ?=
SITE ?= build/docs

.PHONY: help install test slow cluster lint types format check all-pairs benchmarks audit lowest docs docs-serve clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

install: ## a virtual environment with everything that development needs
	python3 -m venv .venv
	.venv/bin/python -m pip install -e ".[dev]"

test: ## the fast tests
	$(PYTHON) -m pytest

slow: ## the tests that take minutes
	$(PYTHON) -m pytest -m "slow and not cluster"

cluster: ## those that start a Slurm of their own, as root
	$(PYTHON) -m pytest -m cluster -n 0

lint: ## what ruff finds
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: ## what mypy finds
	$(PYTHON) -m mypy

format: ## have ruff write
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

check: lint types ## what takes seconds: lint, types, and conf/ against plugins/
	$(PYTHON) -m pytest -n 0 tests/test_architecture.py tests/test_public_names.py

all-pairs: ## every option, and every pair of options by itself: before a release
	$(PYTHON) -m pytest tests/sweeps
	$(PYTHON) -m tests.sweeps.all_pairs

benchmarks: ## the tables of the README; ROOT_OF_DATA=DIR takes Fashion-MNIST from there
	$(PYTHON) -m benchmarks.step $(if $(ROOT_OF_DATA),--root $(ROOT_OF_DATA))
	$(PYTHON) -m benchmarks.data $(if $(ROOT_OF_DATA),--root $(ROOT_OF_DATA))
	$(PYTHON) -m benchmarks.augmentation
	$(PYTHON) -m benchmarks.start
	$(PYTHON) -m benchmarks.scaling $(if $(ROOT_OF_DATA),--root $(ROOT_OF_DATA))

audit: ## known vulnerabilities of what is installed
	$(PYTHON) tests/audit.py

lowest: ## some tests with the lowest versions that pyproject.toml admits, in an environment of their own
	python3 -m venv $(LOWEST)
	$(PYTHON) tests/lowest_versions.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install -q -r $(LOWEST)/lowest.txt packaging
	$(LOWEST)/bin/python -m pip install -q --no-deps -e .
	$(LOWEST)/bin/python -m pytest $$($(PYTHON) tests/lowest_versions.py --tests)

docs: ## the documentation site, in build/docs
	NO_MKDOCS_2_WARNING=true $(PYTHON) -m mkdocs build --strict --site-dir $(SITE)

docs-serve: ## the site at http://127.0.0.1:8000, built again after each change
	NO_MKDOCS_2_WARNING=true $(PYTHON) -m mkdocs serve

clean: ## what the commands above leave, but not runs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache $(LOWEST)
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
