# Everything runs in .venv, made from constraints.txt. `make` lists what there is.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
BUILD := build
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Rebuilt when what is to be installed changes; holds which extras are there.
BASE := $(VENV)/.base
TESTS := $(VENV)/.tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-gpu bench bench-gpu scale-rules aot style quality golden clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(BASE): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[demo]'
	touch $@

$(TESTS): $(BASE)
	$(PIP) --editable '.[demo,test,quality]'
	touch $@

setup: $(BASE)  ## make .venv with gptoss-convert and llama.cpp in it

demo: $(BASE)  ## make a small checkpoint, convert it to GGUF, prove it, run it in llama.cpp
	@rm -rf $(BUILD)/demo && mkdir -p $(BUILD)/demo
	@$(BIN)/python tests/support/demo.py $(BUILD)/demo

test: $(TESTS)  ## run the tests
	$(BIN)/pytest -m "not gpu and not slow" --numprocesses auto --maxprocesses 8 --dist loadfile

test-slow: $(TESTS)  ## run the proofs that take minutes
	$(BIN)/pytest -m "slow" --timeout 1800

test-gpu: $(TESTS)  ## run the tests that need a GPU
	$(BIN)/pytest -m "gpu"

bench-gpu: $(TESTS)  ## measure the experts on a GPU, print the tables of docs/benchmarks.md
	$(BIN)/python tests/support/bench_gpu.py

bench: $(TESTS)  ## measure every conversion beside cp and dd; needs 18 GB of disk
	$(BIN)/python tests/support/bench.py $(BUILD)/bench

scale-rules: $(TESTS)  ## print the tables of docs/scale-rules.md
	$(BIN)/python tests/support/measure_scale_rules.py

aot: $(TESTS)  ## compile every kernel for every GPU, print the tables of docs/hardware.md
	@env -u TRITON_INTERPRET $(BIN)/python tests/support/aot.py $(BUILD)/aot

style: $(TESTS)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: $(TESTS)  ## check format, lint and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/support/check_types.py

golden: $(TESTS)  ## write tests/golden anew from the tools named there
	$(BIN)/python tests/support/make_golden.py

clean:  ## remove what was built, .venv too
	rm -rf $(VENV) $(BUILD) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
