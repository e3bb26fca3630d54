#!/bin/sh
# What a task manager starts for each Python worker, with the flags of Beam's worker contract. BEAM_PYTHON is the
# interpreter that has the pipeline's packages; without it, the first on the PATH.
cd "$(dirname "$0")/../.." && exec "${BEAM_PYTHON:-python3}" -m pipeline.flink.worker "$@"
