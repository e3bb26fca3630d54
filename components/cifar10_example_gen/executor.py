"""Runs the readers on Beam, splits, writes TFRecords and checks that every class is in every split.

What is wrong with the data is collected while Beam runs and raised after it, as one DataError: an exception inside
of Beam would reach the user wrapped in a stack trace of the runner.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.pvalue import TaggedOutput
from google.protobuf import struct_pb2
from tfx import types
from tfx.components.example_gen import write_split
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components.cifar10_example_gen import images, published
from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import sources
from components.cifar10_example_gen.records import Record
from models import features

DATA_KEY = "data"
VALIDATION_FRACTION_KEY = "validation_fraction"
SOURCE_DIGEST_KEY = "source_digest"

EXAMPLES_PROPERTY = "{split}_examples"
"""Custom property (int) of the examples artifact: number of examples in a split."""

DATA_SHA256_PROPERTY = "data_sha256"
"""Custom property (str) of the examples artifact: digest of the archive; absent for a folder."""

SHARDS = 4
"""Files a split. Fixed, so that the same images always give the same files."""

_REPORT_FILE = "report.json"
_PROBLEMS = "problems"
_BLOCK_RECORDS = 500
_MAX_PROBLEMS_SHOWN = 10

_Shard = tuple[str, int]
_Block = list[tuple[bytes, int, bytes]]


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
                validation_fraction and source_digest.

        Raises:
            DataError: The data cannot be used; the message says why.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = _settings(exec_properties)
        path, fraction = str(settings[DATA_KEY]), float(settings[VALIDATION_FRACTION_KEY])
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        parts = sources.plan(path)
        if not fileio.isdir(path):
            with fileio.open(path, "rb") as file:
                examples.set_string_custom_property(DATA_SHA256_PROPERTY, published.verify(path, file))

        report_path = posixpath.join(examples.uri, _REPORT_FILE)
        with self._make_beam_pipeline() as pipeline:
            _build(pipeline, parts, fraction, examples.uri, report_path)
        with fileio.open(report_path, "r") as file:
            report = json.load(file)
        _check_report(path, report, splits_of(fraction))

        examples.split_names = artifact_utils.encode_split_names(splits_of(fraction))
        for split in splits_of(fraction):
            examples.set_int_custom_property(EXAMPLES_PROPERTY.format(split=split), sum(report["counts"][split]))
        examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(
            examples, write_split.to_file_format_str(example_gen_pb2.FileFormat.FORMAT_TFRECORDS_GZIP)
        )


def splits_of(validation_fraction: float) -> list[str]:
    """Returns the names of the splits that are written."""
    if validation_fraction == 0:
        return [features.TRAIN_SPLIT, features.TEST_SPLIT]
    return [features.TRAIN_SPLIT, features.VALIDATION_SPLIT, features.TEST_SPLIT]


def image_digest(record: Record) -> bytes:
    """Returns 16 bytes that stand for the image itself: of its pixels, or of its file where it came as one.

    The label is left out, so that an image that is there twice with two labels is not in train and in validation.
    """
    content = record.image if isinstance(record.image, bytes) else record.image.tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def split_of(record: Record, digest: bytes, validation_fraction: float) -> str:
    """Returns the split that a record goes to. The first half of its digest decides, as a number in [0, 1)."""
    held_out = int.from_bytes(digest[:8], "big") < validation_fraction * 2**64
    return features.VALIDATION_SPLIT if record.split == features.TRAIN_SPLIT and held_out else record.split


def example_of(record: Record) -> tf.train.Example:
    """Returns the tf.Example of a record.

    Raises:
        DataError: Its image file is not a PNG or JPEG that decodes.
    """
    if isinstance(record.image, bytes):
        images.check_image(record.source, record.image)
        encoded = record.image
    else:
        encoded = images.png_from_pixels(record.image)
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                features.LABEL_KEY: tf.train.Feature(int64_list=tf.train.Int64List(value=[record.label])),
            }
        )
    )


class _ReadPart(beam.DoFn):
    """From a part of the source to blocks of serialized examples by split and shard, and to problems."""

    def __init__(self, validation_fraction: float) -> None:
        self._validation_fraction = validation_fraction

    def process(self, part: sources.Part) -> Iterator[tuple[_Shard, _Block] | TaggedOutput]:
        blocks: dict[_Shard, _Block] = {}
        try:
            for record in sources.read(part):
                try:
                    shard, entry = self._entry(record)
                except DataError as error:
                    yield TaggedOutput(_PROBLEMS, str(error))
                    continue
                block = blocks.setdefault(shard, [])
                block.append(entry)
                if len(block) == _BLOCK_RECORDS:
                    yield shard, blocks.pop(shard)
        except DataError as error:
            yield TaggedOutput(_PROBLEMS, str(error))
        yield from blocks.items()

    def _entry(self, record: Record) -> tuple[_Shard, tuple[bytes, int, bytes]]:
        digest = image_digest(record)
        split = split_of(record, digest, self._validation_fraction)
        serialized = example_of(record).SerializeToString(deterministic=True)
        # The second half of the digest, since the first half is not spread evenly over the numbers within a split.
        return (split, digest[8] % SHARDS), (digest[8:], record.label, serialized)


class _WriteShard(beam.DoFn):
    """Writes one file, ordered by digest, and tells how many examples of each class are in it.

    A worker that has to write the file again writes the same bytes to the same place.
    """

    def __init__(self, examples_uri: str) -> None:
        self._examples_uri = examples_uri

    def process(self, keyed_blocks: tuple[_Shard, Iterable[_Block]]) -> Iterator[tuple[str, list[int]]]:
        (split, shard), blocks = keyed_blocks
        entries = sorted(entry for block in blocks for entry in block)
        folder = posixpath.join(self._examples_uri, f"Split-{split}")
        fileio.makedirs(folder)
        name = f"{write_split.DEFAULT_TF_RECORD_FILE_NAME}-{shard:05d}-of-{SHARDS:05d}.gz"
        # PNG and JPEG do not get smaller: the lowest level that is still gzip is as good and several times faster.
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
        counts = [0] * features.NUM_CLASSES
        with tf.io.TFRecordWriter(posixpath.join(folder, name), options) as writer:
            for _, label, serialized in entries:
                writer.write(serialized)
                counts[label] += 1
        yield split, counts


class _WriteReport(beam.DoFn):
    """Writes counts and problems where the executor finds them, whatever machine this runs on."""

    def __init__(self, path: str) -> None:
        self._path = path

    def process(self, _: None, counts: list[tuple[str, list[int]]], problems: list[str]) -> None:
        totals: dict[str, list[int]] = {}
        for split, by_class in counts:
            total = totals.get(split, [0] * features.NUM_CLASSES)
            totals[split] = [a + b for a, b in zip(total, by_class, strict=True)]
        with fileio.open(self._path, "w") as file:
            file.write(json.dumps({"counts": totals, _PROBLEMS: sorted(problems)}, indent=1, sort_keys=True))


def _build(
    pipeline: beam.Pipeline, parts: list[sources.Part], validation_fraction: float, examples_uri: str, report_path: str
) -> None:
    read = (
        pipeline
        | "Parts" >> beam.Create(parts)
        | "Read" >> beam.ParDo(_ReadPart(validation_fraction)).with_outputs(_PROBLEMS, main="blocks")
    )
    counts = read.blocks | "Shards" >> beam.GroupByKey() | "Write" >> beam.ParDo(_WriteShard(examples_uri))
    (
        pipeline
        | "Once" >> beam.Create([None])
        | "Report"
        >> beam.ParDo(_WriteReport(report_path), beam.pvalue.AsList(counts), beam.pvalue.AsList(read[_PROBLEMS]))
    )


def _settings(exec_properties: dict[str, Any]) -> struct_pb2.Struct:
    custom_config = example_gen_pb2.CustomConfig()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY], custom_config)
    settings = struct_pb2.Struct()
    custom_config.custom_config.Unpack(settings)
    return settings


def _check_report(path: str, report: dict[str, Any], splits: list[str]) -> None:
    """Raises DataError for what was found wrong while reading, or for a class that a split does not have."""
    problems = report[_PROBLEMS]
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        shown = "\n".join(problems[:_MAX_PROBLEMS_SHOWN])
        raise DataError(
            f"{path}: {len(problems)} problems, the first {min(len(problems), _MAX_PROBLEMS_SHOWN)}:\n{shown}"
        )
    for split in splits:
        counts = report["counts"].get(split)
        if counts is None:
            raise DataError(f"{path}: split {split!r} is empty. {_advice(split)}")
        missing = [name for name, count in zip(features.CLASS_NAMES, counts, strict=True) if not count]
        if missing:
            raise DataError(f"{path}: split {split!r} has no image of {', '.join(missing)}. {_advice(split)}")


def _advice(split: str) -> str:
    if split == features.VALIDATION_SPLIT:
        return "Raise validation_fraction, set it to 0, or add training images."
    return f"Every class needs images; add some to {split}."
