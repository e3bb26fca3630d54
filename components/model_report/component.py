"""The TFX component ModelReport."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, component_spec, standard_artifacts
from tfx.types.artifact import Artifact

from components.model_report.executor import CONNECTION_KEY, REPORT_KEY, SETTINGS_KEY, SOURCE_DIGESTS_KEY, Executor


class Report(Artifact):
    """A folder with report.html, which needs no other file, and its charts as PNG files."""

    TYPE_NAME = "alexnet.ModelReport"  # namespace.Title: what Kubeflow takes as the name of a type of one's own


class ModelReportSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of ModelReport."""

    PARAMETERS = {  # noqa: RUF012 (TFX's convention)
        SETTINGS_KEY: component_spec.ExecutionParameter(type=str),
        SOURCE_DIGESTS_KEY: component_spec.ExecutionParameter(type=str),
        CONNECTION_KEY: component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {  # noqa: RUF012 (TFX's convention)
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "anomalies": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
        "hyperparameters": component_spec.ChannelParameter(type=standard_artifacts.HyperParameters, optional=True),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "serving_blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing),
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
    }
    OUTPUTS = {  # noqa: RUF012 (TFX's convention)
        REPORT_KEY: component_spec.ChannelParameter(type=Report),
    }


class ModelReport(base_component.BaseComponent):
    """Writes one HTML page about a run, blessed or not: what its model can do, what it cannot, and what it is made of.

    The output `report` is a folder with report.html, which needs neither network nor scripts, and the charts as PNG
    files.
    """

    SPEC_CLASS = ModelReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        examples: BaseChannel,
        statistics: BaseChannel,
        anomalies: BaseChannel,
        model: BaseChannel,
        model_run: BaseChannel,
        baseline_model: BaseChannel | None,
        evaluation: BaseChannel,
        serving_blessing: BaseChannel,
        pushed_model: BaseChannel,
        settings: Mapping[str, Any],
        source_digests: Mapping[str, str],
        hyperparameters: BaseChannel | None = None,
        metadata_connection: mlmd.ConnectionConfig | None = None,
    ) -> None:
        """Construct the component.

        Args:
            examples: Raw Examples, as ExampleGen writes them, with a test split.
            statistics: Of each split, from StatisticsGen.
            anomalies: Of each split, from ExampleValidator.
            model: The candidate, whose SavedModel has the signature `classify`.
            model_run: With the Trainer's history.csv.
            baseline_model: The last blessed model, which may be none.
            evaluation: The Evaluator's, of the candidate and, where there is one, of the baseline.
            serving_blessing: From ServingValidator or TFX's InfraValidator.
            pushed_model: The Pusher's, whether it has pushed or not.
            settings: What defines the run, as values that JSON can hold.
            source_digests: Digest of the source that each component runs, by component.
            hyperparameters: What the Tuner has found, where there is one: it takes the place of the settings.
            metadata_connection: To ML Metadata, for the seconds by component; None where executors cannot reach it.
                It becomes a parameter, which ML Metadata stores: pass none that holds a password.
        """
        spec = ModelReportSpec(
            examples=examples,
            statistics=statistics,
            anomalies=anomalies,
            model=model,
            model_run=model_run,
            hyperparameters=hyperparameters,
            baseline_model=baseline_model,
            evaluation=evaluation,
            serving_blessing=serving_blessing,
            pushed_model=pushed_model,
            settings=json.dumps(settings, sort_keys=True),
            source_digests=json.dumps(source_digests, sort_keys=True),
            metadata_connection=(
                None if metadata_connection is None else json_format.MessageToJson(metadata_connection, sort_keys=True)
            ),
            report=Channel(type=Report),
        )
        super().__init__(spec=spec)
