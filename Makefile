# One line each; .venv is made on first use. Python 3.11 or newer as PYTHON=...
PYTHON ?= python3
VENV := .venv/bin
PIP := $(VENV)/python -m pip --quiet --disable-pip-version-check

.PHONY: venv repro test ui lint lock study zoo profiles readme bench prepare-bench merge-bench \
        corruptions-bench clean-cache

venv: .venv/installed  ## newest versions that pyproject.toml allows; those of the lock file: LOCKED=1
.venv/installed: pyproject.toml $(if $(LOCKED),requirements.lock)
	$(PYTHON) -m venv .venv
	$(if $(LOCKED),$(PIP) install --require-hashes --requirement requirements.lock)
	$(PIP) install $(if $(LOCKED),--no-deps --editable .,--editable '.[dev]')
	@touch $@

repro: venv  ## the whole pipeline: make repro [PROFILE=mini] [FORCE=1]
	@PATH="$(CURDIR)/$(VENV):$$PATH" $(VENV)/python -m stages.repro $(if $(PROFILE),--profile $(PROFILE)) $(if $(FORCE),--force)

test: venv  ## on all cores, a file of tests at a time
	$(VENV)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

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

lock:  ## renew requirements.lock: the newest versions, for Linux x86_64 and Python 3.11
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/pip install --quiet --disable-pip-version-check uv
	.cache/uv/bin/uv pip compile --quiet --upgrade pyproject.toml --extra dev --generate-hashes \
	  --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
	  --custom-compile-command 'make lock' --output-file requirements.lock

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

clean-cache:  ## all but stage runs that no MLflow server has taken yet
	@[ ! -d .cache ] || find .cache -mindepth 1 -maxdepth 1 ! -name mlflow-pending -exec rm -rf {} +
