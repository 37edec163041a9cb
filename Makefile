# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export DS_BUILD_OPS := 0
export LITELLM_LOCAL_MODEL_COST_MAP := True

.PHONY: help setup run test test-fast lint bench sweep report clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## .venv with everything the tests need

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: setup ## the main job on the embedded default: table and report
	$(RUN) -m aes_r1.train +experiment=rapo $(ARGS)

test: setup ## the whole CPU suite
	$(RUN) -m pytest $(ARGS)

test-fast: setup ## the part that takes under three minutes
	$(RUN) -m pytest -m 'not slow' $(ARGS)

lint: setup ## ruff and types
	$(VENV)/bin/ruff check aes_r1 tests experiments benchmarks
	$(VENV)/bin/ruff format --check aes_r1 tests experiments benchmarks
	$(VENV)/bin/mypy

sweep: setup ## NAME=reward_ablation ARGS="...": one study of sweeps/
	$(RUN) -m aes_r1.train --config-dir . +sweeps=$(NAME) $(ARGS)

bench: setup ## ours, our plain path and TRL on one workload (GPU sizes where there is a GPU); ARGS="cpu --rounds 5"
	$(RUN) -m benchmarks $(ARGS)

clean: ## forget runs and the store (the environment stays)
	rm -rf runs store
