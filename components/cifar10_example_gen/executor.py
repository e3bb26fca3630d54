"""Runs the readers on Beam, and publishes the examples when every class is in every split."""

from __future__ import annotations

import json
import math
import posixpath
from pathlib import Path
from typing import Any

from google.protobuf import struct_pb2
from tfx import types
from tfx.components.example_gen import write_split
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components.cifar10_example_gen import download, duplicates, examples, published, transforms
from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import sources
from models import features

DATA_KEY = "data"
VALIDATION_FRACTION_KEY = "validation_fraction"
MAX_TEST_OVERLAP_KEY = "max_test_overlap"
DOWNLOAD_KEY = "download"

EXAMPLES_PROPERTY = "{split}_examples"
"""Custom property (int) of the examples artifact: number of examples in a split."""

DATA_SHA256_PROPERTY = "data_sha256"
"""Custom property (str) of the examples artifact: digest of the archive; absent for a folder."""

_REPORT_FILE = "report.json"
_RUNS_DIR = "runs"
_MAX_PROBLEMS_SHOWN = 10


class Executor(base_beam_executor.BaseBeamExecutor):
    """Executor of Cifar10ExampleGen."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads the data and writes the examples artifact.

        Args:
            input_dict: Not used.
            output_dict: `examples`, one artifact.
            exec_properties: `custom_config`, JSON of a CustomConfig that packs a Struct with data,
                validation_fraction, max_test_overlap and, where the official archive may be fetched, download.

        Raises:
            DataError: The data cannot be used; the message says why.
            download.DownloadError: The official archive could not be fetched.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = _settings(exec_properties)
        path, fraction = str(settings[DATA_KEY]), float(settings[VALIDATION_FRACTION_KEY])
        output = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        if DOWNLOAD_KEY in settings.fields:
            path = str(download.fetch_official_archive(Path(path).parent))
        splits = examples.splits_of(fraction)
        parts = sources.plan(path)
        if not fileio.isdir(path):
            with fileio.open(path, "rb") as file:
                output.set_string_custom_property(DATA_SHA256_PROPERTY, published.verify(path, file))

        report_path = posixpath.join(output.uri, _REPORT_FILE)
        runs_uri = posixpath.join(output.uri, _RUNS_DIR)  # there all workers write anyway
        with self._make_beam_pipeline() as pipeline:
            transforms.read_and_write(pipeline, parts, fraction, output.uri, runs_uri, report_path)
        if fileio.exists(runs_uri):  # not where no record could be used
            fileio.rmtree(runs_uri)
        with fileio.open(report_path, "r") as file:
            report = json.load(file)
        _check_report(path, report, splits)
        _check_overlap(path, report, float(settings[MAX_TEST_OVERLAP_KEY]))

        output.split_names = artifact_utils.encode_split_names(splits)
        for split in splits:
            output.set_int_custom_property(EXAMPLES_PROPERTY.format(split=split), sum(report[transforms.COUNTS][split]))
        for name, number in report[transforms.IMAGES].items():  # as `duplicates` names them
            output.set_int_custom_property(name, number)
        examples_utils.set_payload_format(output, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(
            output, write_split.to_file_format_str(example_gen_pb2.FileFormat.FORMAT_TFRECORDS_GZIP)
        )


def _settings(exec_properties: dict[str, Any]) -> struct_pb2.Struct:
    custom_config = example_gen_pb2.CustomConfig()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY], custom_config)
    settings = struct_pb2.Struct()
    custom_config.custom_config.Unpack(settings)
    return settings


def _check_report(path: str, report: dict[str, Any], splits: list[str]) -> None:
    """Raises DataError for what was found wrong while reading, or for a class that a split does not have."""
    if features.NUM_CLASSES < 2:
        raise DataError(
            f"{path}: is of one class only, {features.CLASS_NAMES[0]}: there is nothing to tell apart. Expected at "
            "least two classes."
        )
    problems = report[transforms.PROBLEMS]
    if len(problems) == 1:
        raise DataError(problems[0] if problems[0].startswith(path) else f"{path}: {problems[0]}")
    if problems:
        shown = problems[:_MAX_PROBLEMS_SHOWN]
        raise DataError("\n".join([f"{path}: {len(problems)} problems, the first {len(shown)}:", *shown]))
    for split in splits:
        counts = report[transforms.COUNTS].get(split)
        if counts is None:
            raise DataError(f"{path}: split {split!r} is empty. {_advice(split)}")
        missing = [name for name, count in zip(features.CLASS_NAMES, counts, strict=True) if not count]
        if missing:
            raise DataError(f"{path}: split {split!r} has no image of {', '.join(missing)}. {_advice(split)}")


def _check_overlap(path: str, report: dict[str, Any], max_test_overlap: float) -> None:
    """Raises DataError where more test images than this share of them are in train or validation as well."""
    test = sum(report[transforms.COUNTS][features.TEST_SPLIT])
    overlap = report[transforms.IMAGES][duplicates.TEST_OVERLAP]
    if overlap / test > max_test_overlap:
        raise DataError(
            f"{path}: {overlap:,} of {test:,} test images are also in train or validation, by their pixels; "
            f"max_test_overlap is {max_test_overlap:g}, which allows {math.floor(max_test_overlap * test + 1e-6):,}. "
            f"The first: {'; '.join(report[transforms.OVERLAP])}. The test accuracy would be of images that the model "
            "has seen. Remove them from test or from train; to go on all the same, set ALEXNET_MAX_TEST_OVERLAP="
            f"{math.ceil(1e4 * overlap / test) / 1e4:g}."
        )


def _advice(split: str) -> str:
    if split == features.VALIDATION_SPLIT:
        return "Raise validation_fraction, set it to 0, or add training images."
    return f"Every class needs images; add some to {split}."
