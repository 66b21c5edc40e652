# setup demo test lint are all a new user needs; every target prepares what it depends on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test test-all lint check docs dist bench gpu-check results real images tables index screenshot sources animals pins clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make .venv and install the package with its developer tools (safe to repeat)

# The mark is written last, so that a failed or killed installation is simply done again.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("transferbench needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.12 setup" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	@touch $(READY)

demo: setup ## train and attack letters -> digits, print the table and name its page (3 to 5 minutes on two fast cores)
	$(BIN)/transferbench run letters-to-digits

test: setup ## the test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: setup ## the test suite with the full-scale checks
	$(BIN)/python -m pytest -n 2 --dist worksteal -m ''

lint: setup ## ruff, formatting, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: setup ## committed tables against their records, and the records' stamps
	$(BIN)/transferbench leaderboard --check

docs: setup ## the documentation site, built into site/ without a network
	OMP_NUM_THREADS=1 $(BIN)/python docs/site/build.py site

dist: setup ## wheel and source archive, built into dist/ without a network
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

bench: setup ## speed against the reference, written to docs/performance.md
	$(BIN)/python -m pytest -o addopts= -q tests/benchmarks --benchmark-only

DEVICE := cuda
gpu-check: setup ## tests and figures of a GPU, written to docs/performance-gpu.md (8 minutes; DEVICE=cpu tries it out)
	$(BIN)/python tests/support/gpu_check.py --device $(DEVICE)

results: setup ## the committed leaderboard: three seeds of letters -> digits, published
	$(BIN)/transferbench run letters-to-digits --seeds 0,1,2
	$(BIN)/transferbench verify runs/letters-to-digits
	$(BIN)/transferbench publish runs/letters-to-digits

# Copies of the official data sets are read where those are not there; the lines that make prints say so.
# 16 rows at once stay in a CPU's cache: on one with 512 KB a core a pass of them took two thirds of that of 60. A GPU takes
# more at once, and several processes: make real FLOWERS='--device cuda --workers 14 --batch-size 128'.
FLOWERS := --device cpu --batch-size 16
REAL := nice -n 19 $(BIN)/transferbench
COPIED = $(if $(wildcard $(TRANSFERBENCH_DATA)/cifar-10-batches-py),,--dataset cifar10=cifar10-jpeg)
real: images setup ## the boards of real images, published: TRANSFERBENCH_DATA=DIR make real (hours, at low priority, resumable)
	$(REAL) run imagenet-to-flowers --data-dir "$(TRANSFERBENCH_DATA)" $(FLOWERS)
	$(REAL) verify runs/imagenet-to-flowers --data-dir "$(TRANSFERBENCH_DATA)"
	$(BIN)/transferbench publish runs/imagenet-to-flowers
	$(REAL) run cifar-animals-to-vehicles --data-dir "$(TRANSFERBENCH_DATA)" $(COPIED)
	$(REAL) verify runs/cifar-animals-to-vehicles --data-dir "$(TRANSFERBENCH_DATA)"
	$(BIN)/transferbench publish runs/cifar-animals-to-vehicles

images:
	@test -n "$(TRANSFERBENCH_DATA)" || { echo "make real: TRANSFERBENCH_DATA must name the folder of images (docs/datasets.md, Copies)" >&2; exit 2; }

tables: setup ## the tables of methods and attacks in docs/, from the plugins' docstrings
	PYTHONPATH=tests $(BIN)/python -m support.plugin_tables

index: setup ## the lists of RobustBench's models and of all architectures, from the installed packages
	$(BIN)/python -m transferbench.models.make_index

sources: setup ## the networks of the built-in task that come with the package, trained anew
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/embedded_sources.py letters

animals: setup ## the networks on the animals of CIFAR-10 that come with the package, trained anew from TRANSFERBENCH_DATA
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/embedded_sources.py animals

pins: setup ## what every version of an attack or a method computes, and the names of the suites' jobs
	PYTHONPATH=tests $(BIN)/python tests/methods/test_versions.py
	$(BIN)/python tests/scheduling/test_job_names.py

screenshot: setup ## the README's picture of the page (needs chromium and chromedriver)
	PYTHONPATH=tests $(BIN)/python -m support.screenshot leaderboards/cifar-animals-to-vehicles

clean: ## remove what runs and tests leave behind (not .venv)
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist site *.egg-info
