"""ExampleValidator's executor: anomalies stop the run."""

from __future__ import annotations

import os
import re
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx import types
from tfx.components.example_validator import executor as example_validator_executor
from tfx.components.example_validator import labels
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.io import fileio
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import writer_utils

from models import features


class AnomaliesError(ValueError):
    """The data are not what the schema says. The message lists every anomaly by split and feature."""


class Executor(example_validator_executor.Executor):
    """Validates each split against the schema, and the test split against the training split; stops on any anomaly.

    TFX's own executor records anomalies and lets the run go on, and never evaluates the schema's skew comparators.
    """

    _training_statistics: statistics_pb2.DatasetFeatureStatisticsList

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> execution_result_pb2.ExecutorOutput:
        """Validate every split.

        Args:
          input_dict: `statistics` of all splits, and `schema`.
          output_dict: `anomalies`: one file a split.
          exec_properties: As TFX's ExampleValidator has them.

        Raises:
          AnomaliesError: There is an anomaly.
        """
        statistics = artifact_utils.get_single_instance(input_dict[standard_component_specs.STATISTICS_KEY])
        self._training_statistics = stats_artifact_utils.load_statistics(statistics, features.TRAIN_SPLIT).proto()
        output = super().Do(input_dict, output_dict, exec_properties)
        anomalies = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        found = [
            line
            for split in artifact_utils.decode_split_names(anomalies.split_names)
            for line in describe(split, read_anomalies(anomalies, split))
        ]
        if found:
            raise AnomaliesError(
                "The data are not what the schema says:\n  "
                + "\n  ".join(found)
                + "\nMend the data, or the schema (data/schema.pbtxt) where the data are right."
            )
        return output

    def _Validate(  # noqa: N802 (TFX's name)
        self, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> anomalies_pb2.Anomalies:
        """Validate one split's statistics and write its anomalies; as TFX does, but compares the test split too."""
        folder = outputs[labels.SCHEMA_DIFF_PATH]
        # The validation split is held out of the training split at random: a difference would be chance.
        is_test = os.path.basename(folder) == f"Split-{features.TEST_SPLIT}"
        anomalies = tfdv.validate_statistics(
            statistics=inputs[standard_component_specs.STATISTICS_KEY],
            schema=inputs[standard_component_specs.SCHEMA_KEY],
            serving_statistics=self._training_statistics if is_test else None,
        )
        path = os.path.join(folder, example_validator_executor.DEFAULT_FILE_NAME)
        writer_utils.write_anomalies(path, anomalies)
        return anomalies


def read_anomalies(artifact: types.Artifact, split: str) -> anomalies_pb2.Anomalies:
    """Read the anomalies of one split from an ExampleAnomalies artifact."""
    folder = artifact_utils.get_split_uri([artifact], split)
    path = os.path.join(folder, example_validator_executor.DEFAULT_FILE_NAME)
    with fileio.open(path, "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def describe(split: str, anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """Say each anomaly of a split in a line: split, feature, what was found."""
    lines = [
        f"{split} split, feature {feature!r}: "
        + _in_our_names(split, feature, f"{info.short_description}: {info.description}")
        for feature, info in sorted(anomalies.anomaly_info.items())
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        info = anomalies.dataset_anomaly_info
        lines.append(f"{split} split: {info.short_description}: {info.description}")
    if anomalies.data_missing:
        lines.append(f"{split} split: no data")
    return lines


def _in_our_names(split: str, feature: str, text: str) -> str:
    """TFDV's words on an anomaly with the splits and the class that they mean.

    Its skew comparator takes what it validates for training data, and what that is compared with for serving data; a
    label is a number to it.
    """
    text = text.replace("training and serving", f"the {split} and the {features.TRAIN_SPLIT} split")
    if feature == features.LABEL_KEY:
        text = re.sub(r"(?<=maximum difference is: )\d+", lambda label: features.CLASS_NAMES[int(label[0])], text)
    return text
