"""Gathers the model report's contents from the artifacts of a run and from ML Metadata."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import platform
import posixpath
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import tensorflow as tf
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.io import fileio
from tfx.types import Artifact, artifact_utils
from tfx.utils import io_utils, path_utils

from components.cifar10_example_gen.duplicates import DISTINCT_IMAGES, IMAGES_IN_OTHER
from components.example_validator.executor import describe, read_anomalies
from components.model_report import gallery, lineage, predictions, results
from components.model_report.contents import ComponentTime, Contents, Push, ServingCheck, Source
from components.model_report.data import split_statistics
from components.trainer.executor import LIBRARY_VERSIONS_PROPERTY, MACHINE_PROPERTY
from models import features

LIBRARIES = (
    "tfx",
    "tensorflow",
    "keras",
    "tensorflow-model-analysis",
    "tensorflow-data-validation",
    "tensorflow-transform",
    "apache-beam",
    "ml-metadata",
    "numpy",
    "pandas",
    "matplotlib",
)

_HISTORY_FILE = "history.csv"  # models.fitting.HISTORY_FILE, without what that module imports
_CHECKS_FILE = "checks.json"  # components.serving_validator.executor.CHECKS_FILE, likewise
_BLESSED = "blessed"
_SHOWN_ELSEWHERE = (
    LIBRARY_VERSIONS_PROPERTY,
    MACHINE_PROPERTY,
    "name",
    "producer_component",
    "pipeline_name",
    "tfx_version",
    "is_external",
    "state",
    "span",
    "version",
    "input_fingerprint",
    "file_format",
    "payload_format",
)


def gather(
    inputs: Mapping[str, Sequence[Artifact]],
    settings: Mapping[str, Any],
    source_digests: Mapping[str, str],
    connection: mlmd.ConnectionConfig | None = None,
    pipeline: str = "",
    run: str = "",
) -> Contents:
    """Read everything that the page shows. The model answers the whole test split, the last blessed one as well.

    Args:
        inputs: The component's input artifacts, by key; `baseline_model`, which counts where the evaluation has
            compared with it, and `hyperparameters` may be absent or none.
        settings: Of the run, as a dictionary.
        source_digests: By component.
        connection: To ML Metadata; None where it is out of reach.
        pipeline: The pipeline's name.
        run: The run's name in ML Metadata.

    Raises:
        ValueError: An artifact lacks something; the message says which and what.
    """
    one = {key: artifact_utils.get_single_instance(list(found)) for key, found in inputs.items() if found}
    evaluation_uri = one["evaluation"].uri
    baseline = one["baseline_model"] if results.has_baseline(evaluation_uri) else None
    why_not_compared = one["evaluation"].get_string_custom_property(results.NOT_COMPARED_PROPERTY)
    tuned = _tuned(one["hyperparameters"].uri) if "hyperparameters" in one else {}
    test = artifact_utils.get_split_uri([one["examples"]], features.TEST_SPLIT)
    asked = [one["model"], *([baseline] if baseline else [])]
    now, *before = predictions.predict([path_utils.serving_model_path(model.uri) for model in asked], test)
    shown = gallery.choose(now, *before)
    return Contents(
        pipeline=pipeline,
        run=run,
        written_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        results=results.load(evaluation_uri),
        not_compared="" if baseline else why_not_compared or results.NO_BASELINE,
        baseline_results=results.load(evaluation_uri, results.BASELINE) if baseline else None,
        serving_blessed=bool(one["serving_blessing"].get_int_custom_property(_BLESSED)),
        serving_checks=_serving_checks(one["serving_blessing"].uri),
        push=_push(one["pushed_model"]),
        history=_history(one["model_run"].uri),
        gallery=shown,
        image_files=dict(zip(shown.indices, predictions.read_images(test, shown.indices).files, strict=True)),
        predictions=now,
        baseline_predictions=before[0] if before else None,
        statistics={
            split: dataclasses.replace(
                split_statistics(stats_artifact_utils.load_statistics(one["statistics"], split).proto()),
                distinct_images=_count(one["examples"], DISTINCT_IMAGES.format(split=split)),
                also_in={
                    other: number
                    for other in (features.TRAIN_SPLIT, features.VALIDATION_SPLIT)
                    if (number := _count(one["examples"], IMAGES_IN_OTHER.format(split=split, other=other))) is not None
                },
            )
            for split in _in_usual_order(artifact_utils.decode_split_names(one["statistics"].split_names))
        },
        anomalies={
            split: describe(split, read_anomalies(one["anomalies"], split))
            for split in _in_usual_order(artifact_utils.decode_split_names(one["anomalies"].split_names))
        },
        settings={**settings, "training": {**settings["training"], **tuned}},
        source_digests=source_digests,
        sources=[Source(key, artifact.type_name, artifact.uri, _properties(artifact)) for key, artifact in one.items()],
        versions=library_versions(),
        trained_with=json.loads(one["model"].get_string_custom_property(LIBRARY_VERSIONS_PROPERTY) or "{}"),
        trained_on=one["model"].get_string_custom_property(MACHINE_PROPERTY),
        tuned=sorted(tuned),
        components=None if connection is None else component_times(connection, run),
    )


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a run's numbers may depend on, by name."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def component_times(connection: mlmd.ConnectionConfig, run: str) -> list[ComponentTime]:
    """The components that have ended in a run, in their order; for a cached one, the seconds of the work it reuses.

    Raises:
        LookupError: ML Metadata has no run of that name.
    """
    store = lineage.open_store(lineage.with_password(connection))
    times = []
    for execution in lineage.run_named(store, run).executions.values():
        if execution.state == lineage.UNFINISHED:  # the report itself
            continue
        output = next(iter(execution.outputs.values()), None)
        made_by = lineage.producer(store, output) if execution.cached and output else None
        times.append(ComponentTime(execution.name, execution.state, (made_by or execution).seconds))
    return times


def _serving_checks(blessing_uri: str) -> list[ServingCheck]:
    """The checks that our ServingValidator has written; TFX's InfraValidator writes none."""
    path = posixpath.join(blessing_uri, _CHECKS_FILE)
    if not fileio.exists(path):
        return []
    with fileio.open(path, "r") as file:
        return [ServingCheck(check["name"], check["reached"], check["finding"]) for check in json.load(file)]


def _push(pushed_model: Artifact) -> Push:
    if not pushed_model.get_int_custom_property("pushed"):
        return Push()
    return Push(
        version=pushed_model.get_string_custom_property("pushed_version"),
        destination=pushed_model.get_string_custom_property("pushed_destination"),
        new=bool(pushed_model.get_int_custom_property("new")),
    )


def _history(model_run_uri: str) -> list[dict[str, str]]:
    with tf.io.gfile.GFile(posixpath.join(model_run_uri, _HISTORY_FILE)) as file:
        return list(csv.DictReader(io.StringIO(file.read())))


def _tuned(hyperparameters_uri: str) -> dict[str, Any]:
    """What the Tuner has found best, by the names of `models.hyperparameters.Hyperparameters`."""
    with fileio.open(io_utils.get_only_uri_in_dir(hyperparameters_uri), "r") as file:
        return json.load(file)["values"]


def _in_usual_order(splits: Sequence[str]) -> list[str]:
    usual = (features.TRAIN_SPLIT, features.VALIDATION_SPLIT, features.TEST_SPLIT)
    return [split for split in usual if split in splits]


def _count(examples: Artifact, name: str) -> int | None:
    """As ExampleGen has counted; None for examples from before it did."""
    return examples.get_int_custom_property(name) if examples.has_custom_property(name) else None


def _properties(artifact: Artifact) -> dict[str, Any]:
    """Its custom properties, less those that TFX keeps for itself and those that the page shows elsewhere."""
    values = {
        name: getattr(value, value.WhichOneof("value"))
        for name, value in artifact.mlmd_artifact.custom_properties.items()
        if name not in _SHOWN_ELSEWHERE and value.WhichOneof("value") in ("int_value", "double_value", "string_value")
    }
    return {name: value for name, value in values.items() if value != ""}
