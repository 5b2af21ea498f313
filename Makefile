# Everything runs from here on a machine with Python 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
# Where pip looks for torch; for small CPU builds on x86 Linux use
#   make install TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: help install demo serve test check test-gpu fuzz chaos format bench containers clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 10

# torch first and by itself: a resolver that meets it as somebody's dependency may choose a
# build with CUDA, which is several gigabytes larger.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spreadtrain needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

install: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## train on real digits, end with a sample grid
	$(BIN)/spreadtrain demo

serve: $(STAMP) ## the service in the foreground, on PORT
	$(BIN)/spreadtrain serve --port $(PORT)

# Side by side, file by file; two keep two cores busy, and three take longer. Files begin in the
# order of tests/conftest.py, not by their number of tests.
# One thread of linear algebra in each of two processes: more wait for one another, and spin.
test: $(STAMP) ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP) ## format, lint, types and tests, as CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers 2
	$(MAKE) test

test-gpu: $(STAMP) ## the tests that need a CUDA device, and its figures
	$(BIN)/python -m pytest -m gpu tests
	$(BIN)/python -m tests.bench.bench_gpu

fuzz: $(STAMP) ## 500 random requests and chains an operation, against the OpenAPI document
	$(BIN)/python -m tests.fuzz

format: $(STAMP) ## put the code into the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure, and print figures beside their bars
	$(BIN)/python -m tests.bench

containers: $(STAMP) ## build the image and run the whole stack, with buildah and podman
	$(BIN)/python -m tests.containers

chaos: $(STAMP) ## kill everything in every phase, then leaders and databases, and count what is lost
	$(BIN)/python -m tests.chaos
	$(BIN)/python -m tests.chaos.leaders

clean: ## remove what the targets above made, but not data
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
