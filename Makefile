# `make run` and `make test` set up .venv themselves; `make help` lists the rest.
#
#   make run                                      the bundled sample
#   make run PROFILE=cifar10 DATA=~/cifar-10      another profile, one's own copy of the data
#   make run ALEXNET_EPOCHS=3                     any setting: ALEXNET_<FIELD>, see pipeline/settings.py
#   make run PYTHON=3.13                          another Python: 3.10 (TFX 1.16), 3.11 to 3.13 (TFX 1.21)

SHELL := /bin/sh
.DEFAULT_GOAL := help

ifndef PROFILE
PROFILE := $(or $(ALEXNET_PROFILE),sample)
endif
PIPELINE_NAME := alexnet_$(PROFILE)
RUNNER := $(CURDIR)/pipeline/local_runner.py

export ALEXNET_PROFILE := $(PROFILE)
ifneq ($(strip $(DATA)),)
export ALEXNET_DATA := $(DATA)
endif

# The tfx command keeps what it knows of a pipeline here; the default in $HOME would be shared by all clones.
export LOCAL_HOME := $(CURDIR)/outputs/tfx
# Google's libraries warn of this Python at each import, TensorFlow of missing GPUs.
export PYTHONWARNINGS ?= ignore::FutureWarning
export TF_CPP_MIN_LOG_LEVEL ?= 3

# tfx runs `pip` and `python` from PATH.
VENV := PATH="$(CURDIR)/.venv/bin:$$PATH"
# A pyenv shim for python3 fails where pyenv lacks the version in .python-version: the first that runs is taken.
SYSTEM_PYTHON = $(shell for python in python3 /usr/bin/python3 /usr/local/bin/python3; do \
	if $$python -c '' 2>/dev/null; then echo $$python; break; fi; done)

JSON_FLAG = $(if $(JSON),--json)

.PHONY: help run tune kubeflow serve runs analyze lineage report notebook tensorboard flink flink-stop flink-fetch benchmark test lint format environment lock clean distclean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' "$(CURDIR)/Makefile"

run: environment  ## Run the pipeline: PROFILE=smoke|sample|seed|cifar10|cifar10_fit|pretrained, DATA=path of one's own data
	@if [ -d "$(LOCAL_HOME)/$(PIPELINE_NAME)" ]; then verb=update; else verb=create; fi; \
	$(VENV) python -m pipeline.tfx_cli pipeline $$verb --engine local --pipeline_path "$(RUNNER)" && \
	$(VENV) python -m pipeline.tfx_cli run create --engine local --pipeline_name "$(PIPELINE_NAME)"

# Trainer and Tuner are parts of one run: what the trials found is what the model is trained with.
tune: export ALEXNET_TUNING_TRIALS := $(or $(ALEXNET_TUNING_TRIALS),10)
tune: run  ## Search for better hyperparameters (ALEXNET_TUNING_TRIALS=10 ALEXNET_TUNING_EPOCHS=5), then run with them

kubeflow: environment  ## Compile for Kubeflow: ALEXNET_IMAGE=, ALEXNET_VOLUME_CLAIM=; SUBMIT=1 and ALEXNET_KUBEFLOW_HOST= run it
	@$(VENV) python -m pipeline.kubeflow_runner $(if $(SUBMIT),--submit)

serve: environment  ## Serve the model that PROFILE has pushed, on ports 8500 (gRPC) and 8501 (REST)
	@$(VENV) python -m serving.launch

runs: environment  ## List the runs of all profiles: what each came to
	@$(VENV) python -m pipeline.run_history $(JSON_FLAG)

analyze: environment  ## Show PROFILE's last run by class; RUN=a number or version, COMPARE="before after", JSON=1
	@$(VENV) python -m pipeline.analyze $(JSON_FLAG) $(if $(COMPARE),--compare $(COMPARE),$(RUN))

lineage: environment  ## Say which data, code and settings made a version: VERSION=, the last one without it
	@$(VENV) python -m pipeline.version_lineage $(JSON_FLAG) $(VERSION)

report: environment  ## Open the model report of PROFILE's last run, or of RUN=a number or version
	@$(VENV) python -m pipeline.open_report $(RUN)

# JupyterLab refuses to run as root, which a container's user is, unless it is told to.
notebook: environment  ## Open the notebooks in JupyterLab, on PROFILE's last run
	@$(VENV) jupyter lab --LabApp.default_url=/lab/tree/notebooks/01_explore_data.ipynb \
		$(if $(filter 0,$(shell id -u)),--allow-root)

tensorboard: environment  ## Show the learning curves of all runs, the one under way included, at PORT=6006
	@$(VENV) python -m pipeline.tensorboard $(if $(PORT),--port $(PORT))

flink: environment  ## Start a Flink cluster for the Beam jobs on this machine; STOP=1 or flink-stop ends it
	@$(VENV) python -m pipeline.flink $(if $(STOP),stop,start)

flink-stop: environment
	@$(VENV) python -m pipeline.flink stop

flink-fetch: environment  ## Fetch Flink and Beam's job server into the user's cache (160 MB, needs Maven)
	@$(VENV) python -m pipeline.flink fetch

benchmark: environment  ## Measure what fits in a quarter of an hour, and write benchmarks/README.md anew
	@$(VENV) python -m benchmarks.training_rate
	@$(VENV) python -m benchmarks.stages
	@$(VENV) python -m benchmarks.untrained --profile smoke --accuracy-floor 0 --output-dir outputs/benchmarks/served
	@ALEXNET_PROFILE=smoke ALEXNET_DATA= ALEXNET_OUTPUT_DIR=outputs/benchmarks/served $(VENV) python -m benchmarks.serving --seconds 120
	@$(VENV) python -m benchmarks.readme

test: lint  ## Check style and types, and run all tests, two files at a time
	@$(VENV) python -m pytest -n 2 --dist loadfile

lint: environment  ## Check style, format and types
	@$(VENV) ruff check
	@$(VENV) ruff format --check
	@$(VENV) mypy

format: environment  ## Format the code, sort the imports, take the outputs out of the notebooks
	@$(VENV) ruff check --select I --fix
	@$(VENV) ruff format
	@$(VENV) jupyter nbconvert --log-level=ERROR --inplace --clear-output --ClearMetadataPreprocessor.enabled=True \
		--ClearMetadataPreprocessor.preserve_nb_metadata_mask="{'kernelspec', ('language_info', 'name')}" notebooks/*.ipynb

environment:  ## Set up .venv from requirements.lock, when needed: PYTHON=3.13 or a path chooses the Python
	@$(or $(SYSTEM_PYTHON),python3) -I pipeline/environment.py

lock:  ## Write requirements.lock anew from pyproject.toml
	@$(or $(SYSTEM_PYTHON),python3) -I pipeline/environment.py --lock

clean:  ## Remove what `make run` made
	@held=$$(find outputs -name .lock ! -exec flock --nonblock {} true \; -print 2>/dev/null); if [ -n "$$held" ]; then \
		echo "A run is under way (it holds $$held): wait for it, or interrupt it." >&2; exit 1; fi
	@if [ -e outputs/flink/cluster.json ]; then .venv/bin/python -m pipeline.flink stop; fi
	rm -rf outputs

distclean: clean  ## Remove .venv and .tools as well
	rm -rf .venv .venv.lock .tools
