"""Which engine runs the Beam jobs of ExampleGen, StatisticsGen, Transform and the Evaluator, and how it is reached.

One frozen, validated value. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

PROJECT_ROOT = Path(__file__).resolve().parent.parent

DIRECT, FLINK, SPARK, DATAFLOW = "direct", "flink", "spark", "dataflow"
RUNNERS = (DIRECT, FLINK, SPARK, DATAFLOW)

WORKER = "pipeline/flink/worker.sh"
"""What Flink's task managers start for each Python worker, relative to the project."""

IDLE_WORKER_MS = 60_000
"""How long a worker without work is kept, in milliseconds. Starting one imports TensorFlow: it must outlast the pauses
between a job's stages, and between jobs."""

DATAFLOW_NEEDS = ("project", "region", "temp_location")
"""Flags that Dataflow does not run without. There is no default: nothing here chooses a cloud."""

_ENDPOINT = re.compile(r"[^\s:/]+:\d{1,5}")


@dataclasses.dataclass(frozen=True)
class Beam:
    """The engine, and how to reach it.

    Raises:
        ValueError: a field is not usable; names the field, its value and what is allowed.
    """

    beam_runner: str = DIRECT
    """What runs the Beam jobs: `direct` (in this process), `flink`, `spark` or `dataflow`."""

    beam_job_endpoint: str = "127.0.0.1:8099"
    """`host:port` of the Beam job server of Flink or Spark; `make flink` starts one there."""

    beam_parallelism: int = 2
    """Parallel tasks of a job on Flink or Spark; the cluster needs as many slots."""

    beam_pipeline_args: str = ""
    """Further flags for Beam, as on a command line. They win over those that the settings above make."""

    def __post_init__(self) -> None:
        self._check("beam_runner", self.beam_runner in RUNNERS, f"one of {', '.join(RUNNERS)}")
        self._check("beam_job_endpoint", bool(_ENDPOINT.fullmatch(self.beam_job_endpoint)), "host:port")
        self._check("beam_parallelism", self.beam_parallelism >= 1, "at least 1")
        try:
            stray = [flag for flag in shlex.split(self.beam_pipeline_args) if not re.match(r"--\w", flag)]
        except ValueError:
            stray = ["an open quotation mark"]
        self._check("beam_pipeline_args", not stray, f"flags written as --name=value, without {', '.join(stray)}")
        if self.beam_runner == DATAFLOW:
            missing = [f"--{name}" for name in DATAFLOW_NEEDS if f"--{name}=" not in self.beam_pipeline_args]
            self._check("beam_pipeline_args", not missing, f"with {', '.join(missing)} where beam_runner is dataflow")

    def _check(self, name: str, allowed: bool, expected: str) -> None:
        if not allowed:
            raise ValueError(f"Beam.{name} is {getattr(self, name)!r}; it has to be {expected}.")

    def pipeline_args(self, project_dir: str) -> list[str]:
        """Returns the flags for TFX's `beam_pipeline_args`, none for the direct runner without further ones.

        Args:
            project_dir: Folder of this repository on the machines that run the components.
        """
        flags = {
            DIRECT: [],
            FLINK: [*self._portable(), *_worker_processes(project_dir)],
            SPARK: [*self._portable(), f"--setup_file={project_dir}/setup.py"],
            DATAFLOW: ["--runner=DataflowRunner", f"--setup_file={project_dir}/setup.py"],
        }[self.beam_runner]
        return [*flags, *shlex.split(self.beam_pipeline_args)]

    def _portable(self) -> list[str]:
        return [
            "--runner=PortableRunner",
            f"--job_endpoint={self.beam_job_endpoint}",
            f"--parallelism={self.beam_parallelism}",
            f"--environment_cache_millis={IDLE_WORKER_MS}",
        ]


def _worker_processes(project_dir: str) -> list[str]:
    """Has each task manager start its own workers, from the project's folder and environment, which all can see.

    Beam's worker pool would be simpler and does not do here: it listens on every network interface, and task managers
    on one machine cannot share it, since each counts its workers from 1 and stops those of the other.
    """
    environment: dict[str, Any] = {"command": f"{project_dir}/{WORKER}"}
    if project_dir == str(PROJECT_ROOT):  # elsewhere, the Python on the PATH of the task managers
        environment["env"] = {"BEAM_PYTHON": sys.executable}
    return [
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps(environment)}",
        # Names no image: TFX packs itself up for the workers of each job where it sees nothing that brings it there.
        "--sdk_container_image=none",
    ]
