# One line each; .venv is made on first use. Python 3.11 or newer as PYTHON=...
PYTHON ?= python3
VENV := .venv/bin

.PHONY: venv repro test ui lint study zoo profiles readme bench prepare-bench merge-bench \
        corruptions-bench clean-cache

venv: .venv/installed
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

repro: venv  ## the whole pipeline: make repro [PROFILE=mini] [FORCE=1]
	@PATH="$(CURDIR)/$(VENV):$$PATH" $(VENV)/python -m stages.repro $(if $(PROFILE),--profile $(PROFILE)) $(if $(FORCE),--force)

test: venv
	$(VENV)/python -m pytest

lint: venv
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

ui: venv  ## MLflow's compare view
	$(VENV)/adamerge ui

study: venv  ## three seeds, and studies of coefficient learning: resumable
	@$(MAKE) --no-print-directory repro PROFILE=study
	@$(VENV)/python -m stages.study --profile study
	@$(MAKE) --no-print-directory repro PROFILE=mini
	@$(MAKE) --no-print-directory readme

zoo: venv  ## pretrain the miniature's CLIP again
	$(VENV)/python -m stages.pretrain

profiles: venv  ## write profiles/vit-*.yaml from their table
	$(VENV)/python -m stages.profiles

readme: venv  ## write the tables and figures of README.md and docs/ from the metrics
	$(VENV)/python -m benchmarks.corruption_sheet
	$(VENV)/python -m stages.readme

bench: venv  ## time the coefficient-learning step beside its peers: make bench [BENCH=--quick]
	@$(VENV)/python -m benchmarks.learning_step $(BENCH)

merge-bench: venv  ## time and weigh merging beside FusionBench's functions
	@$(VENV)/python -m benchmarks.merging

corruptions-bench: venv  ## time the corruptions beside imagecorruptions, likewise
	@OMP_NUM_THREADS=1 .venv-bench/bin/python -m benchmarks.corruptions

prepare-bench: venv  ## time decoding, zero-shot heads and conversion of weights
	@$(VENV)/python -m benchmarks.preparing

clean-cache:
	rm -rf .cache
