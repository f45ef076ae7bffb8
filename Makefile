# make help lists the targets. Everything runs in .venv, which `make setup` creates and keeps up to date.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format bench clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv with the pinned packages (fast when nothing changed)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[test,dev]"
	@touch $@

# One thread per worker: two workers with two threads each would wait for each other on two cores.
test: export OMP_NUM_THREADS = 1
test: setup ## run the default tests
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: setup ## run the slow tests too
	$(BIN)/python -m pytest -m "not gpu"

lint: setup ## ruff, ruff format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# ---- make demo -------------------------------------------------------------------------------------------------
# Every step is a command that works by itself; nothing here is special to the demo. Give COHORT=/path/to/cohort to
# run it on your own scans (docs: README.md, "Your own scans").
OUT ?= runs/demo
COHORT ?=
FRACTION ?= 0.25
EPOCHS ?= 12
SLICE ?= 128
SEED ?= 0
BASE ?= 20
DEPTH ?= 2
SIMULATE ?= --subjects 26 --scans 26 --split 16 2 8 --split-scans 16 2 8 --shape 96 96 192
WORKERS ?= 2

DEMO_COHORT = $(if $(COHORT),$(abspath $(COHORT)),$(abspath $(OUT))/cohort)
DEMO_OUT = $(abspath $(OUT))
PY = $(abspath $(BIN))/python
DATA = --dataset_dir $(DEMO_COHORT) --seed $(SEED) --slice_size "[$(SLICE),$(SLICE)]" --depth_axis $(DEPTH)
TRAIN = $(PY) -m monai.bundle run training --config_file configs/train.yaml $(DATA) --fraction $(FRACTION) --epochs $(EPOCHS)
EVALUATE = $(PY) -m monai.bundle run $(DATA)
SETTINGS = $(DEMO_COHORT) $(FRACTION) $(EPOCHS) $(SLICE) $(SEED) $(BASE) $(DEPTH) $(if $(COHORT),,$(SIMULATE))

demo: setup ## simulate, train U-Net and GRN+, segment, evaluate, report (COHORT=/path: your own scans)
	@mkdir -p $(DEMO_OUT)
	@# Results of other settings are removed; those of a killed run of the same settings are gone on with.
	@test "$$(cat $(DEMO_OUT)/settings.txt 2>/dev/null)" = '$(SETTINGS)' || \
	  rm -rf $(DEMO_OUT)/unet $(DEMO_OUT)/grn_plus $(DEMO_OUT)/evaluation $(DEMO_OUT)/cohort $(DEMO_OUT)/report.*
	@echo '$(SETTINGS)' > $(DEMO_OUT)/settings.txt
	$(if $(COHORT),,$(PY) -m data_prep simulate --out $(DEMO_COHORT) --seed $(SEED) --workers $(WORKERS) $(SIMULATE))
	$(PY) -m data_prep check $(DEMO_COHORT)
	cd bundles/us_layers_supervised && $(TRAIN) --output_dir $(DEMO_OUT)/unet
	cd bundles/us_layers_grn_plus && $(TRAIN) --output_dir $(DEMO_OUT)/grn_plus --base_channels $(BASE)
	cd bundles/us_layers_supervised && $(EVALUATE) --config_file "['configs/train.yaml','configs/evaluate.yaml']" \
	  --output_dir $(DEMO_OUT)/unet --eval_dir $(DEMO_OUT)/evaluation/unet
	cd bundles/us_layers_grn_plus && $(EVALUATE) \
	  --config_file "['configs/train.yaml','configs/evaluate.yaml','configs/no_sge.yaml']" \
	  --output_dir $(DEMO_OUT)/grn_plus --base_channels $(BASE) --eval_dir $(DEMO_OUT)/evaluation/grn_plus
	cd bundles/us_layers_grn_plus && $(EVALUATE) --config_file "['configs/train.yaml','configs/evaluate.yaml']" \
	  --output_dir $(DEMO_OUT)/grn_plus --base_channels $(BASE) --save_enhanced true \
	  --eval_dir $(DEMO_OUT)/evaluation/grn_plus_sge
	$(BIN)/grn-monai report $(DEMO_OUT) --cohort $(DEMO_COHORT)
	@echo "Look at $(OUT)/report.html"

bench: setup ## measure speed (JSON in benchmarks/results, tables in README.md)
	$(PY) -m benchmarks.training_step --out benchmarks/results/training_step.json
	$(PY) -m benchmarks.inference --out benchmarks/results/inference.json
	$(PY) -m benchmarks.readme

clean: ## remove .venv and caches (runs/ stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info build
