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

.PHONY: help run serve test lint format environment lock clean distclean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' "$(CURDIR)/Makefile"

run: environment  ## Run the pipeline: PROFILE=sample|seed|cifar10, DATA=path of one's own data
	@if [ -d "$(LOCAL_HOME)/$(PIPELINE_NAME)" ]; then verb=update; else verb=create; fi; \
	$(VENV) tfx pipeline $$verb --engine local --pipeline_path "$(RUNNER)" && \
	$(VENV) tfx run create --engine local --pipeline_name "$(PIPELINE_NAME)"

serve: environment  ## Serve the model that PROFILE has pushed, on ports 8500 (gRPC) and 8501 (REST)
	@$(VENV) python -m serving.launch

test: lint  ## Check style and types, and run all tests
	@$(VENV) python -m pytest

lint: environment  ## Check style, format and types
	@$(VENV) ruff check
	@$(VENV) ruff format --check
	@$(VENV) mypy

format: environment  ## Format the code and sort the imports
	@$(VENV) ruff check --select I --fix
	@$(VENV) ruff format

environment:  ## Set up .venv from requirements.lock, when needed: PYTHON=3.13 or a path chooses the Python
	@$(or $(SYSTEM_PYTHON),python3) pipeline/environment.py

lock:  ## Write requirements.lock anew from pyproject.toml
	@$(or $(SYSTEM_PYTHON),python3) pipeline/environment.py --lock

clean:  ## Remove what `make run` made
	rm -rf outputs

distclean: clean  ## Remove .venv and .tools as well
	rm -rf .venv .tools
