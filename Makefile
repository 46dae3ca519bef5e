# make train   the main job on an embedded data set: S=2 x K=2, four processes
# make test    tests, but for wide matrices (real data sets are used where DATA holds them)
# make test-all  all of them
# make test-part PART=0/2  those of make test, and each second one of the others; 1/2 has the rest
# make check   ruff, mypy --strict (alone: make types), import layers
# make docs    the site, into site/, strictly; it needs no network when it is read
# make bench   speed, as ratios (see docs/performance.md)

PYTHON ?= python3
BIN := .venv/bin
DATA ?= data
SHARED := ../shared/data/unpack.py
PART ?= 0/2

.PHONY: train test test-all test-part check types docs bench clean

train: .venv/ready
	$(BIN)/stalegrid train --out runs/$$(date +%Y%m%d-%H%M%S)

# Some hundred processes are started, which would each compile the package anew where bytecode is not kept.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 STALEGRID_DATA=$(DATA) $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

test: .venv/ready $(DATA)
	$(PYTEST) -m "not thorough"

test-all: .venv/ready $(DATA)
	$(PYTEST)

test-part: .venv/ready $(DATA)
	$(PYTEST) --part $(PART)

check: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/test_layers.py

types: .venv/ready
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/mkdocs build --strict

bench: .venv/ready $(DATA)
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks --data-dir $(DATA)

# torch first and alone: any other route may draw several GB of CUDA packages.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

# Real data is optional: tests that need it skip where the folder is empty.
$(DATA):
	mkdir -p $(DATA)
	if [ -f $(SHARED) ]; then $(BIN)/python $(SHARED) $(DATA) cifar10 mnist; fi

clean:
	rm -rf .venv runs site .mypy_cache .ruff_cache .pytest_cache .hypothesis
