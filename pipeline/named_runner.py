"""TFX's local runner, for runs that are told apart by their names."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable.runtime_parameter_utils import substitute_runtime_parameter
from tfx.proto.orchestration import pipeline_pb2


class NamedRunner(LocalDagRunner):
    """Runs a pipeline once, under a name that is known before: other runs may share its metadata.

    Attributes:
        run_name: The time of the start, and what no other run on any machine has.
    """

    def __init__(self) -> None:
        """Make the name."""
        super().__init__()
        self.run_name = f"{datetime.datetime.now().isoformat()}-{uuid.uuid4().hex[:8]}"

    def run_with_ir(
        self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None, **kwargs: Any
    ) -> None:
        """Run a compiled pipeline; see TFX's LocalDagRunner, which would name the run by the time alone."""
        substitute_runtime_parameter(pipeline, {PIPELINE_RUN_ID_PARAMETER_NAME: self.run_name})
        super().run_with_ir(pipeline, run_options, **kwargs)
