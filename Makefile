# make help lists the targets. Everything runs in .venv, which `make setup` creates and keeps up to date.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
VENV_LABEL := .venv-label
STAMP_LABEL := $(VENV_LABEL)/.setup-done
VENV_DEEPLAB := .venv-deeplab
STAMP_DEEPLAB := $(VENV_DEEPLAB)/.setup-done
VENV_NNUNET := .venv-nnunet
STAMP_NNUNET := $(VENV_NNUNET)/.setup-done
VENV_SNAKEMAKE := .venv-snakemake
STAMP_SNAKEMAKE := $(VENV_SNAKEMAKE)/.setup-done

.DEFAULT_GOAL := help
.PHONY: help setup setup-label setup-deeplab setup-nnunet setup-snakemake demo label test test-label test-deeplab test-slow lint format bench clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv with the pinned packages (fast when nothing changed)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[scans,export,test,dev]"
	@touch $@

# MONAI Label brings many packages and asks for older ones, so it has an environment of its own, with the same torch.
setup-label: $(STAMP_LABEL) ## create .venv-label, the environment of MONAI Label

$(STAMP_LABEL): requirements-label.txt requirements-label-nodeps.txt setup.cfg pyproject.toml
	@test -x $(VENV_LABEL)/bin/python || $(PYTHON) -m venv $(VENV_LABEL)
	$(VENV_LABEL)/bin/python -m pip install -q --disable-pip-version-check -r requirements-label.txt
	$(VENV_LABEL)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r requirements-label-nodeps.txt
	$(VENV_LABEL)/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
	$(VENV_LABEL)/bin/python -m grn_monai.monailabel.pydicom_names
	@touch $@

# DeepLab needs packages that ask for torchvision, which has no CPU build beside this torch, so it stays apart. This
# environment sees the packages of .venv: torch is not installed twice.
setup-deeplab: $(STAMP_DEEPLAB) ## create .venv-deeplab, for DeepLabV3 and DeepLabV3+

$(STAMP_DEEPLAB): $(STAMP) requirements-deeplab.txt requirements-deeplab-nodeps.txt
	@test -x $(VENV_DEEPLAB)/bin/python || $(PYTHON) -m venv $(VENV_DEEPLAB)
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	own=$$($(VENV_DEEPLAB)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	echo "import site; site.addsitedir('$$site')" > $$own/project.pth
	$(VENV_DEEPLAB)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r requirements-deeplab-nodeps.txt
	$(VENV_DEEPLAB)/bin/python -m pip install -q --disable-pip-version-check -r requirements-deeplab.txt
	@touch $@

setup-nnunet: $(STAMP_NNUNET) ## create .venv-nnunet, the environment of nnU-Net (docs/nnunet.md)

$(STAMP_NNUNET): requirements-nnunet.txt requirements-nnunet-nodeps.txt
	@test -x $(VENV_NNUNET)/bin/python || $(PYTHON) -m venv $(VENV_NNUNET)
	$(VENV_NNUNET)/bin/python -m pip install -q --disable-pip-version-check -r requirements-nnunet.txt
	$(VENV_NNUNET)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r requirements-nnunet-nodeps.txt
	@touch $@

setup-snakemake: $(STAMP_SNAKEMAKE) ## create .venv-snakemake, which runs studies on clusters (docs/study.md)

$(STAMP_SNAKEMAKE): requirements-snakemake.txt
	@test -x $(VENV_SNAKEMAKE)/bin/python || $(PYTHON) -m venv $(VENV_SNAKEMAKE)
	$(VENV_SNAKEMAKE)/bin/python -m pip install -q --disable-pip-version-check -r requirements-snakemake.txt
	@touch $@

# One thread per worker: two workers with two threads each would wait for each other on two cores.
test: export OMP_NUM_THREADS = 1
test: setup ## run the default tests
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not graphs"
	$(BIN)/python -m pytest -m "graphs and not slow and not gpu"

test-label: export OMP_NUM_THREADS = 1
test-label: setup-label ## run the tests that need MONAI Label, on real servers (Orthanc too, where it is installed)
	$(VENV_LABEL)/bin/python -m pytest -n 2 --dist loadfile tests/monailabel

test-deeplab: setup-deeplab ## run the tests that need DeepLab
	$(VENV_DEEPLAB)/bin/python -m pytest tests/networks/test_comparators.py tests/bundles/test_networks.py -k deeplab

test-slow: setup ## run the slow tests too
	$(BIN)/python -m pytest -m "not gpu"

lint: setup ## ruff, ruff format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The settings of the demo. COHORT=/path/to/cohort runs it on your own scans (README.md, "Your own scans").
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
METHODS ?= default

export OUT COHORT FRACTION EPOCHS SLICE SEED BASE DEPTH SIMULATE WORKERS METHODS VENV
demo: setup ## simulate, train U-Net and GRN+, segment, evaluate, report (COHORT=/path: own scans; METHODS=all)
	@tools/demo.sh

RUNS ?= runs
STUDIES ?=
PORT ?= 8000
LABEL_OUT ?= runs/label
LABEL_ARGS ?=
export RUNS STUDIES PORT LABEL_OUT LABEL_ARGS VENV_LABEL
label: setup setup-label ## serve trained bundles in MONAI Label, for 3D Slicer (STUDIES=… PORT=8000; own runs: RUNS=…)
	@tools/label.sh

bench: setup ## measure speed (JSON in benchmarks/results, tables in README.md)
	$(BIN)/python -m benchmarks.training_step --compile --out benchmarks/results/training_step.json
	$(BIN)/python -m benchmarks.inference --compile --out benchmarks/results/inference.json
	$(BIN)/python -m benchmarks.readme

clean: ## remove the environments and caches (runs/ stays)
	rm -rf $(VENV) $(VENV_LABEL) $(VENV_DEEPLAB) $(VENV_NNUNET) $(VENV_SNAKEMAKE) .mypy_cache .ruff_cache .pytest_cache *.egg-info build
