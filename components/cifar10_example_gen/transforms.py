"""The Beam part: reads, splits, writes TFRecords and a report, and never fails on bad data.

What is wrong with the data goes into the report instead: an exception inside of Beam would reach the user wrapped in a
stack trace of the runner.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator

import apache_beam as beam
import tensorflow as tf
from apache_beam.pvalue import TaggedOutput
from tfx.components.example_gen import write_split
from tfx.dsl.io import fileio

from components.cifar10_example_gen import examples, images, runs
from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import sources
from components.cifar10_example_gen.records import Record
from components.cifar10_example_gen.runs import Entry, Section
from models import features

COUNTS = "counts"
DISTINCT_IMAGES = "distinct_images"
PROBLEMS = "problems"

SHARDS = 4
"""Files a split. Fixed, so that the same images always give the same files."""

_CHECKED_AT_ONCE = 500
"""Image files."""

_Shard = tuple[str, int]
_Counted = tuple[str, list[int], int]


class _ReadPart(beam.DoFn):
    """From a part of the source to runs of serialized examples by split and shard, and to problems."""

    def __init__(self, validation_fraction: float, runs_uri: str) -> None:
        self._validation_fraction = validation_fraction
        self._runs_uri = runs_uri

    def process(self, part: sources.Part) -> Iterator[tuple[_Shard, Section] | TaggedOutput]:
        collected: dict[_Shard, list[Entry]] = {}
        collected_bytes = 0
        unchecked: list[tuple[str, bytes]] = []
        try:
            for record in sources.read(part):
                shard, entry = self._entry(record)
                collected.setdefault(shard, []).append(entry)
                collected_bytes += len(entry.serialized)
                if isinstance(record.image, bytes):
                    unchecked.append((record.source, record.image))
                is_full = collected_bytes >= runs.RUN_BYTES
                if is_full or len(unchecked) >= _CHECKED_AT_ONCE:
                    yield from self._check(unchecked)
                if is_full:
                    yield from self._write(collected)
                    collected_bytes = 0
        except DataError as error:
            yield TaggedOutput(PROBLEMS, str(error))
        yield from self._check(unchecked)
        yield from self._write(collected)

    def _check(self, files: list[tuple[str, bytes]]) -> Iterator[TaggedOutput]:
        """Takes image files, and yields what is wrong with them. Their examples are written: nobody will use them."""
        for problem in images.find_problems(files):
            yield TaggedOutput(PROBLEMS, problem)
        files.clear()

    def _write(self, collected: dict[_Shard, list[Entry]]) -> Iterator[tuple[_Shard, Section]]:
        while collected:
            shard, entries = collected.popitem()
            yield shard, runs.write_run(self._runs_uri, entries)

    def _entry(self, record: Record) -> tuple[_Shard, Entry]:
        digest = examples.image_digest(record)
        split = examples.split_of(record, digest, self._validation_fraction)
        serialized = examples.example_of(record).SerializeToString(deterministic=True)
        # The second half of the digest, since the first half is not spread evenly over the numbers within a split.
        return (split, digest[8] % SHARDS), Entry(digest[8:], record.label, serialized)


class _WriteShard(beam.DoFn):
    """Writes one file, ordered by digest, and tells how many examples of each class, and different images, are in it.

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
        distinct, last_digest = 0, b""
        with tf.io.TFRecordWriter(posixpath.join(folder, name), options) as writer:
            for entry in runs.merge(sections):
                writer.write(entry.serialized)
                counts[entry.label] += 1
                distinct += entry.digest != last_digest  # the same images come one after the other
                last_digest = entry.digest
        yield split, counts, distinct


class _WriteReport(beam.DoFn):
    """Writes counts and problems where the executor finds them, whatever machine this runs on."""

    def __init__(self, path: str) -> None:
        self._path = path

    def process(self, _: None, counted: list[_Counted], problems: list[str]) -> None:
        totals: dict[str, list[int]] = {}
        distinct: Counter[str] = Counter()
        for split, by_class, distinct_images in counted:
            total = totals.get(split, [0] * features.NUM_CLASSES)
            totals[split] = [a + b for a, b in zip(total, by_class, strict=True)]
            distinct[split] += distinct_images
        report = {COUNTS: totals, DISTINCT_IMAGES: distinct, PROBLEMS: sorted(problems)}
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
            `distinct_images`, by split their number; `problems`, a list of messages: if there is any, the examples are
            not to be used.
    """
    read = (
        pipeline
        | "Parts" >> beam.Create(parts)
        | "Read" >> beam.ParDo(_ReadPart(validation_fraction, runs_uri)).with_outputs(PROBLEMS, main="sections")
    )
    counts = read.sections | "Shards" >> beam.GroupByKey() | "Write" >> beam.ParDo(_WriteShard(examples_uri))
    (
        pipeline
        | "Once" >> beam.Create([None])
        | "Report"
        >> beam.ParDo(_WriteReport(report_path), beam.pvalue.AsList(counts), beam.pvalue.AsList(read[PROBLEMS]))
    )
