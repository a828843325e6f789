# Targets explain themselves: `make` lists them. Everything happens in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## create .venv and install edgeleaf with everything (once)

# constraints.txt pins what the figures in this repository were measured with.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "setup: a virtual environment in $(VENV), about two minutes the first time" >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## the main job: texts on this machine to a certified out/demo/query_encoder.onnx, 15 minutes
	$(BIN)/edgeleaf run export/recipes/demo.toml -o out/demo

test: $(VENV)/.installed ## the tests (point EDGELEAF_DATA at a folder of real texts for the ones that need it)
	$(BIN)/python -m pytest

lint: $(VENV)/.installed ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
