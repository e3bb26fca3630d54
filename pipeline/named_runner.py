"""TFX's local runner, for runs that are told apart by their names."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from google.protobuf import text_format
from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable.runtime_parameter_utils import substitute_runtime_parameter
from tfx.proto.orchestration import pipeline_pb2


class NamedRunner(LocalDagRunner):
    """Runs a pipeline once, under names that are known before: other runs may share its metadata.

    Attributes:
        run_name: The time of the start, and what no other run on any machine has.
    """

    def __init__(self, pipeline_name: str = "") -> None:
        """Make the run's name.

        Args:
            pipeline_name: The pipeline's in ML Metadata; empty for its own, which the `tfx` command knows it by.
        """
        super().__init__()
        self._pipeline_name = pipeline_name
        self.run_name = f"{datetime.datetime.now().isoformat()}-{uuid.uuid4().hex[:8]}"

    def run_with_ir(
        self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None, **kwargs: Any
    ) -> None:
        """Run a compiled pipeline; see TFX's LocalDagRunner, which would name the run by the time alone."""
        if self._pipeline_name:
            pipeline = renamed(pipeline, self._pipeline_name)
        substitute_runtime_parameter(pipeline, {PIPELINE_RUN_ID_PARAMETER_NAME: self.run_name})
        super().run_with_ir(pipeline, run_options, **kwargs)


def renamed(pipeline: pipeline_pb2.Pipeline, name: str) -> pipeline_pb2.Pipeline:
    """A compiled pipeline under another name: also in its nodes' contexts and in the queries for their inputs."""
    old, text = pipeline.pipeline_info.id, text_format.MessageToString(pipeline)
    text = text.replace(f'"{old}"', f'"{name}"').replace(f'"{old}.', f'"{name}.')
    return text_format.Parse(text, pipeline_pb2.Pipeline())
