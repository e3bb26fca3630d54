"""The Beam part: reads, splits, writes TFRecords and a report, and never fails on bad data.

What is wrong with the data goes into the report instead: an exception inside of Beam would reach the user wrapped in a
stack trace of the runner.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator

import apache_beam as beam
import tensorflow as tf
from apache_beam.pvalue import TaggedOutput
from tfx.components.example_gen import write_split
from tfx.dsl.io import fileio

from components.cifar10_example_gen import duplicates, examples, images, runs
from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import sources
from components.cifar10_example_gen.runs import Entry, Section
from models import features

COUNTS = "counts"
IMAGES = "images"
OVERLAP = "overlap"
PROBLEMS = "problems"

SHARDS = 4
"""Files a split. Fixed, so that the same images always give the same files."""

_CHECKED_AT_ONCE = 500
"""Image files."""

_Shard = tuple[str, int]
_Counted = tuple[str, list[int]]
_File = tuple[str, bytes, int, str]  # name, content, label, split

_ALL_IMAGES: _Shard = ("", 0)
"""Of no split: what `duplicates` counts."""


class _ReadPart(beam.DoFn):
    """From a part of the source to runs: of examples by split and shard, of all images; and to problems."""

    def __init__(self, validation_fraction: float, runs_uri: str) -> None:
        self._validation_fraction = validation_fraction
        self._runs_uri = runs_uri

    def process(self, part: sources.Part) -> Iterator[tuple[_Shard, Section] | TaggedOutput]:
        collected: dict[_Shard, list[Entry]] = {}
        collected_bytes = 0
        unchecked: list[_File] = []
        try:
            for record in sources.read(part):
                digest = examples.image_digest(record)
                split = examples.split_of(record, digest, self._validation_fraction)
                serialized = examples.example_of(record).SerializeToString(deterministic=True)
                # The second half, since the first half is not spread evenly over the numbers within a split.
                entry = Entry(digest[8:], record.label, serialized)
                collected.setdefault((split, digest[8] % SHARDS), []).append(entry)
                collected_bytes += entry.size
                if isinstance(record.image, bytes):
                    unchecked.append((record.source, record.image, record.label, split))
                else:
                    name = f"{record.source}, record {record.index}"
                    image = duplicates.entry_of(digest, record.label, split, name)
                    collected.setdefault(_ALL_IMAGES, []).append(image)
                is_full = collected_bytes >= runs.RUN_BYTES
                if is_full or len(unchecked) >= _CHECKED_AT_ONCE:
                    yield from self._check(unchecked, collected)
                if is_full:
                    yield from self._write(collected)
                    collected_bytes = 0
        except DataError as error:
            yield TaggedOutput(PROBLEMS, str(error))
        yield from self._check(unchecked, collected)
        yield from self._write(collected)

    def _check(self, files: list[_File], collected: dict[_Shard, list[Entry]]) -> Iterator[TaggedOutput]:
        """Takes image files, collects what is to be compared, and yields what is wrong with them.

        The examples of a wrong one are written: nobody will use them.
        """
        problems, digests = images.check_images([(name, data) for name, data, _, _ in files])
        for problem in problems:
            yield TaggedOutput(PROBLEMS, problem)
        if not problems:
            for digest, (name, _, label, split) in zip(digests, files, strict=True):
                collected.setdefault(_ALL_IMAGES, []).append(duplicates.entry_of(digest, label, split, name))
        files.clear()

    def _write(self, collected: dict[_Shard, list[Entry]]) -> Iterator[tuple[_Shard, Section] | TaggedOutput]:
        while collected:
            shard, entries = collected.popitem()
            section = runs.write_run(self._runs_uri, entries)
            yield TaggedOutput(IMAGES, section) if shard == _ALL_IMAGES else (shard, section)


class _WriteShard(beam.DoFn):
    """Writes one file, ordered by digest, and tells how many examples of each class are in it.

    A worker that has to write the file again writes the same bytes to the same place.
    """

    def __init__(self, examples_uri: str) -> None:
        self._examples_uri = examples_uri

    def process(self, keyed_sections: tuple[_Shard, Iterable[Section]]) -> Iterator[_Counted]:
        (split, shard), sections = keyed_sections
        folder = posixpath.join(self._examples_uri, f"Split-{split}")
        fileio.makedirs(folder)
        name = f"{write_split.DEFAULT_TF_RECORD_FILE_NAME}-{shard:05d}-of-{SHARDS:05d}.gz"
        # On photographs the lowest level that is still gzip is nearly as good as the highest, and several times faster.
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
        counts = [0] * features.NUM_CLASSES
        with tf.io.TFRecordWriter(posixpath.join(folder, name), options) as writer:
            for entry in runs.merge(sections):
                writer.write(entry.payload)
                counts[entry.label] += 1
        yield split, counts


class _WriteReport(beam.DoFn):
    """Counts images, and writes counts and problems where the executor finds them, whatever machine this runs on."""

    def __init__(self, path: str, splits: list[str]) -> None:
        self._path = path
        self._splits = splits

    def process(self, _: None, counted: list[_Counted], all_images: list[Section], problems: list[str]) -> None:
        totals: dict[str, list[int]] = {}
        for split, by_class in counted:
            total = totals.get(split, [0] * features.NUM_CLASSES)
            totals[split] = [a + b for a, b in zip(total, by_class, strict=True)]
        image_counts, overlap = duplicates.count(runs.merge(all_images), self._splits)
        report = {COUNTS: totals, IMAGES: image_counts, OVERLAP: overlap, PROBLEMS: sorted(problems)}
        with fileio.open(self._path, "w") as file:
            file.write(json.dumps(report, indent=1, sort_keys=True))


def read_and_write(
    pipeline: beam.Pipeline,
    parts: list[sources.Part],
    validation_fraction: float,
    examples_uri: str,
    runs_uri: str,
    report_path: str,
) -> None:
    """Adds everything to a pipeline: the parts are read, split, and written below `examples_uri`.

    Args:
        pipeline: The pipeline that is added to.
        parts: What `sources.plan` returned.
        validation_fraction: Share of train that is held out, in [0, 1).
        examples_uri: Folder of the examples artifact; gets `Split-<name>/data_tfrecord-<shard>-of-00004.gz`.
        runs_uri: Folder for what is on its way; the workers share it, and nothing reads it afterwards.
        report_path: Gets a JSON object: `counts`, by split a list of the number of examples of each class;
            `images` and `overlap`, what `duplicates.count` returns; `problems`, a list of messages: if there is any,
            the examples are not to be used.
    """
    read = (
        pipeline
        | "Parts" >> beam.Create(parts)
        | "Read" >> beam.ParDo(_ReadPart(validation_fraction, runs_uri)).with_outputs(IMAGES, PROBLEMS, main="sections")
    )
    counts = read.sections | "Shards" >> beam.GroupByKey() | "Write" >> beam.ParDo(_WriteShard(examples_uri))
    (
        pipeline
        | "Once" >> beam.Create([None])
        | "Report"
        >> beam.ParDo(
            _WriteReport(report_path, examples.splits_of(validation_fraction)),
            beam.pvalue.AsList(counts),
            beam.pvalue.AsList(read[IMAGES]),
            beam.pvalue.AsList(read[PROBLEMS]),
        )
    )
