import io
import json
import os
import random
import re
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow as tf
from cifar10_builders import (
    SAMPLE,
    batch_files,
    encoded,
    image_files,
    png,
    random_images,
    write_folder,
    write_tar,
    write_zip,
)
from hypothesis import given
from hypothesis import strategies as st
from ml_metadata.proto import metadata_store_pb2
from PIL import Image
from tfx.components.example_gen import input_processor
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local import local_dag_runner
from tfx.types import artifact_utils, standard_artifacts

from components.cifar10_example_gen import download, driver, duplicates, examples, executor, runs
from components.cifar10_example_gen.component import Cifar10ExampleGen
from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import sources
from components.cifar10_example_gen.records import Record
from models import features

FRACTION = 0.5


def generate(data, folder, validation_fraction=FRACTION, max_test_overlap=0.01):
    """Runs the executor on Beam's direct runner; returns the artifact."""
    component = Cifar10ExampleGen(str(data), validation_fraction, max_test_overlap=max_test_overlap)
    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    executor.Executor().Do({}, {"examples": [examples]}, dict(component.exec_properties))
    return examples


def read(examples, split):
    """The (image, label) of each example of a split, in the order of the files and in the files."""
    paths = sorted(tf.io.gfile.glob(f"{examples.uri}/Split-{split}/*"))
    result = []
    for serialized in tf.data.TFRecordDataset(paths, compression_type="GZIP").as_numpy_iterator():
        example = tf.train.Example.FromString(serialized)
        assert set(example.features.feature) == {"image", "label"}
        (image,) = example.features.feature["image"].bytes_list.value
        (label,) = example.features.feature["label"].int64_list.value
        result.append((image, label))
    return result


def pixels_of(png):
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image).tobytes()


def files_of(examples):
    folder = Path(examples.uri)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def source_pixels(path, split):
    return [(np.ascontiguousarray(r.image).tobytes(), r.label) for r in records_of(path) if r.split == split]


def records_of(path):
    return [record for part in sources.plan(str(path)) for record in sources.read(part)]


@pytest.fixture(scope="module")
def batches_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "batches", batch_files("binary"))


@pytest.fixture(scope="module")
def batches_examples(batches_folder, tmp_path_factory):
    return generate(batches_folder, tmp_path_factory.mktemp("examples"))


def test_pixels_come_through_as_png(batches_folder, batches_examples):
    train, validation, test = (
        [(pixels_of(image), label) for image, label in read(batches_examples, split)]
        for split in ("train", "validation", "test")
    )
    assert sorted(train + validation) == sorted(source_pixels(batches_folder, "train"))
    assert sorted(test) == sorted(source_pixels(batches_folder, "test"))


def test_the_artifact_tells_what_is_in_it(batches_examples):
    assert artifact_utils.decode_split_names(batches_examples.split_names) == ["train", "validation", "test"]
    counts = {split: len(read(batches_examples, split)) for split in ("train", "validation", "test")}
    assert {s: batches_examples.get_int_custom_property(f"{s}_examples") for s in counts} == counts
    assert counts["train"] + counts["validation"] == 150
    distinct = {split: len({image for image, _ in read(batches_examples, split)}) for split in counts}
    assert {s: batches_examples.get_int_custom_property(f"{s}_distinct_images") for s in counts} == distinct
    assert batches_examples.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
    assert batches_examples.get_string_custom_property("file_format") == "tfrecords_gzip"
    assert not batches_examples.has_custom_property("data_sha256")


def test_train_and_validation_are_disjoint_and_mixed(batches_examples):
    train, validation = read(batches_examples, "train"), read(batches_examples, "validation")
    assert not set(train) & set(validation)
    assert 0.35 < len(validation) / (len(train) + len(validation)) < 0.65
    labels = [label for _, label in train]
    assert len(set(labels[:30])) > 5
    assert labels != sorted(labels)


def test_python_batches_in_an_archive_give_the_same_files(batches_examples, tmp_path):
    path = write_tar(tmp_path / "mine.tar.gz", {f"py/{name}": data for name, data in batch_files("python").items()})
    examples = generate(path, tmp_path / "examples")
    assert files_of(examples) == files_of(batches_examples)
    assert len(examples.get_string_custom_property("data_sha256")) == 64


def test_a_second_run_gives_the_same_files(batches_folder, batches_examples, tmp_path):
    assert files_of(generate(batches_folder, tmp_path)) == files_of(batches_examples)


def test_many_runs_and_pieces_give_the_same_files_and_leave_nothing_behind(
    batches_folder, batches_examples, tmp_path, monkeypatch
):
    monkeypatch.setattr(runs, "RUN_BYTES", 20_000)
    monkeypatch.setattr(runs, "PIECE_BYTES", 20_000)
    write_run = Mock(side_effect=runs.write_run)
    monkeypatch.setattr(runs, "write_run", write_run)
    examples = generate(batches_folder, tmp_path)
    assert write_run.call_count > 20
    assert files_of(examples) == files_of(batches_examples)
    assert not [path for path in tmp_path.rglob("*") if path.name == "runs"]


def test_image_files_come_through_unchanged(tmp_path):
    files = image_files(images_a_class=16)
    examples = generate(write_zip(tmp_path / "images.zip", files), tmp_path / "examples")
    written = [image for split in ("train", "validation", "test") for image, _ in read(examples, split)]
    assert sorted(written) == sorted(files.values())
    assert {image[:3] for image in written} == {b"\xff\xd8\xff", b"\x89PN"}
    for split in ("train", "test"):
        expected = {data: name.split("/")[1] for name, data in files.items() if name.startswith(split)}
        for image, label in read(examples, split):
            assert expected[image] == features.CLASS_NAMES[label]


def test_the_order_of_the_data_does_not_matter(tmp_path):
    files = image_files(images_a_class=16)
    shuffled = list(files.items())
    random.Random(1).shuffle(shuffled)
    folder = write_folder(tmp_path / "folder", files)
    reordered = write_tar(tmp_path / "reordered.tar", dict(shuffled))
    first, second = generate(folder, tmp_path / "1"), generate(reordered, tmp_path / "2")
    assert read(first, "validation")
    assert files_of(first) == files_of(second)


def test_an_added_image_moves_no_other(tmp_path):
    files = image_files(images_a_class=16)
    more = files | {"train/frog/new.png": encoded(random_images(1, 999)[0], "PNG")}
    before = generate(write_zip(tmp_path / "1.zip", files), tmp_path / "1")
    after = generate(write_zip(tmp_path / "2.zip", more), tmp_path / "2")
    for split in ("train", "validation"):
        assert set(read(before, split)) <= set(read(after, split))


def test_an_image_that_is_there_twice_is_counted_once(tmp_path):
    files = image_files(images_a_class=16)
    copied = {f"train/cat/copy-{Path(name).name}": files[name] for name in list(files) if name.startswith("train/cat/")}
    assert len(copied) == 16
    examples = generate(write_folder(tmp_path / "tree", files | copied), tmp_path / "examples", validation_fraction=0)
    number = examples.get_int_custom_property("train_examples")
    assert examples.get_int_custom_property("train_distinct_images") == number - len(copied)


def with_test_images_in_train(count):
    """A tree of 200 train and 10 test images, and copies in train of as many of the test images."""
    files = image_files(images_a_class=20)
    names = sorted(name for name in files if name.startswith("test/"))[:count]
    return files | {f"train/{name.split('/')[1]}/copy.png": files[name] for name in names}


def test_test_images_that_are_training_images_end_it_with_both_numbers_and_what_to_do(tmp_path):
    data = write_folder(tmp_path / "tree", with_test_images_in_train(10))
    with pytest.raises(DataError) as refusal:
        generate(data, tmp_path / "examples")
    message = str(refusal.value)
    assert message.startswith(f"{data}: 10 of 10 test images are also in train or validation")
    assert "max_test_overlap is 0.01, which allows 0." in message
    for class_name in ("airplane", "automobile", "bird", "cat", "deer"):  # three of those, with both names
        message = message.replace(f"test/{class_name}/0000.png is also train/{class_name}/copy.png", "pair")
    assert "; " in message
    assert message.endswith("to go on all the same, set ALEXNET_MAX_TEST_OVERLAP=1.")
    examples = generate(data, tmp_path / "allowed", max_test_overlap=1)
    counts = {name: examples.get_int_custom_property(f"test_{name}") for name in ("images_in_train", "overlap")}
    in_validation = examples.get_int_custom_property("test_images_in_validation")
    assert counts["overlap"] == counts["images_in_train"] + in_validation == 10
    assert counts["images_in_train"] > 0 < in_validation


def test_the_share_that_is_allowed_is_still_allowed(tmp_path):
    data = write_zip(tmp_path / "images.zip", with_test_images_in_train(3))
    examples = generate(data, tmp_path / "1", max_test_overlap=0.3)
    assert examples.get_int_custom_property("test_overlap") == 3
    with pytest.raises(DataError, match=r"3 of 10 .* allows 2\..* set ALEXNET_MAX_TEST_OVERLAP=0\.3\.$"):
        generate(data, tmp_path / "2", max_test_overlap=0.29)


def test_overlap_is_found_between_batches_too_and_named_by_record(tmp_path):
    files = batch_files("binary")
    files["test_batch.bin"] = files["data_batch_2.bin"]
    data = write_tar(tmp_path / "batches.tar.gz", files)
    with pytest.raises(DataError, match="30 of 30 test images") as refusal:
        generate(data, tmp_path / "1", validation_fraction=0)
    assert re.search(r"test_batch\.bin, record (\d+) is also data_batch_2\.bin, record \1[;.]", str(refusal.value))


def test_without_validation_there_is_no_such_split(batches_folder, tmp_path):
    examples = generate(batches_folder, tmp_path, validation_fraction=0)
    assert artifact_utils.decode_split_names(examples.split_names) == ["train", "test"]
    assert not (tmp_path / "Split-validation").exists()
    assert len(read(examples, "train")) == examples.get_int_custom_property("train_examples") == 150
    assert not examples.has_custom_property("validation_examples")


def test_the_bundled_sample(tmp_path):
    examples = generate(SAMPLE, tmp_path, validation_fraction=0.1)
    counts = {
        split: Counter(features.CLASS_NAMES[label] for _, label in read(examples, split))
        for split in ("train", "validation", "test")
    }
    assert counts["test"].total() == 1000
    assert counts["train"].total() + counts["validation"].total() == 5000
    assert 420 <= counts["validation"].total() <= 580  # 500, within four standard deviations
    assert counts["test"]["airplane"] == 103
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"]["train"] == [counts["train"][name] for name in features.CLASS_NAMES]
    assert report["problems"] == []
    assert duplicates.notes({**report["images"], **{f"{s}_examples": counts[s].total() for s in counts}}) == []


@given(seed=st.integers(0, 2**32), label=st.integers(0, 9), other_label=st.integers(0, 9))
def test_an_image_with_two_labels_is_held_out_with_both_or_with_none(seed, label, other_label):
    image = random_images(1, seed)[0]
    records = [Record("train", "a", 0, label, image), Record("train", "b", 1, other_label, image.copy())]
    assert len({examples.split_of(r, examples.image_digest(r), 0.5) for r in records}) == 1


@given(seed=st.integers(0, 2**32), fraction=st.floats(0, 0.99))
def test_the_test_split_is_never_held_out_of(seed, fraction):
    record = Record("test", "a", 0, 0, random_images(1, seed)[0])
    assert examples.split_of(record, examples.image_digest(record), fraction) == "test"


@given(seed=st.integers(0, 2**32), smaller=st.floats(0, 0.99), larger=st.floats(0, 0.99))
def test_a_larger_fraction_holds_out_what_a_smaller_one_did(seed, smaller, larger):
    smaller, larger = sorted((smaller, larger))
    digest = random.Random(seed).randbytes(16)
    record = Record("train", "a", 0, 0, b"")
    if examples.split_of(record, digest, smaller) == "validation":
        assert examples.split_of(record, digest, larger) == "validation"


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("train/", r"split 'train' is empty\. Every class needs images; add some to train"),
        ("test/", "split 'test' is empty"),
        ("train/ship/", "split 'train' has no image of ship"),
        ("test/cat/", "split 'test' has no image of cat"),
    ],
)
def test_an_empty_split_or_a_missing_class(tmp_path, removed, message):
    files = {name: data for name, data in image_files().items() if not name.startswith(removed)}
    path = write_zip(tmp_path / "images.zip", files)
    with pytest.raises(DataError, match=r"images\.zip: " + message):
        generate(path, tmp_path / "examples", validation_fraction=0)


def test_images_of_one_class_only(tmp_path):
    files = {name: data for name, data in image_files(images_a_class=16).items() if "/cat/" in name}
    message = r"split 'train' has no image of airplane, automobile, bird, deer, .*, truck\. Every class needs images"
    with pytest.raises(DataError, match=message):
        generate(write_folder(tmp_path / "images", files), tmp_path / "examples")


def test_one_class_alone_is_refused(tmp_path, monkeypatch):
    files = {name: data for name, data in image_files(images_a_class=16).items() if "/cat/" in name}
    monkeypatch.setattr(features, "CLASS_NAMES", ("cat",))
    monkeypatch.setattr(features, "NUM_CLASSES", 1)
    with pytest.raises(DataError, match="is of one class only, cat: there is nothing to tell apart"):
        generate(write_folder(tmp_path / "images", files), tmp_path / "examples")


@pytest.mark.parametrize(
    ("fraction", "message"),
    [(1e-9, r"split 'validation' is empty\. Raise validation_fraction"), (0.05, "split 'validation' has no image of")],
)
def test_too_little_to_validate_on(batches_folder, tmp_path, fraction, message):
    with pytest.raises(DataError, match=message):
        generate(batches_folder, tmp_path, fraction)


def test_all_broken_images_are_named_at_once(tmp_path):
    broken = {f"train/cat/broken-{number:02d}.png": b"not an image" for number in range(12)}
    path = write_zip(tmp_path / "images.zip", image_files() | broken | {"test/dog/empty.jpg": b""})
    with pytest.raises(DataError) as refusal:
        generate(path, tmp_path / "examples")
    lines = str(refusal.value).splitlines()
    assert lines[0].endswith("images.zip: 13 problems, the first 10:")
    assert lines[1].startswith("test/dog/empty.jpg: the image file is empty")
    assert lines[2].startswith("train/cat/broken-00.png: not a PNG or JPEG, but a file that begins")
    assert len(lines) == 11


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_png_that_only_tensorflow_refuses_is_named(tmp_path, split):
    files = image_files() | {f"{split}/cat/short.png": png((b"\0" + bytes(96)) * 31)}
    with pytest.raises(DataError, match=rf"/images: {split}/cat/short\.png: TensorFlow, .*cannot decode this PNG"):
        generate(write_folder(tmp_path / "images", files), tmp_path / "examples")


def test_an_error_while_reading_arrives_as_it_was_raised(tmp_path):
    files = batch_files("binary")
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:-5]
    with pytest.raises(DataError) as refusal:
        generate(write_tar(tmp_path / "cut.tar.gz", files), tmp_path / "examples")
    message = f"{tmp_path}/cut.tar.gz: data_batch_3.bin, record 29: has 3068 of 3073 bytes"
    assert str(refusal.value).startswith(message)


def test_an_archive_with_a_published_name_and_another_content(tmp_path):
    path = write_tar(tmp_path / "cifar-10-binary.tar.gz", batch_files("binary"))
    with pytest.raises(DataError, match=r"not the published archive of this name: has \d+ bytes, expected 170052171"):
        generate(path, tmp_path / "examples")


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_fractions_that_make_no_sense(fraction):
    with pytest.raises(ValueError, match="expected 0 <= validation_fraction < 1"):
        Cifar10ExampleGen("data.zip", fraction)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_overlaps_that_make_no_sense(share):
    with pytest.raises(ValueError, match="expected 0 <= max_test_overlap <= 1"):
        Cifar10ExampleGen("data.zip", max_test_overlap=share)


@pytest.mark.parametrize("data", ["data/*.zip", "cifar[1].tar.gz", "{SPAN}/x.zip"])
def test_paths_that_tfx_would_take_for_patterns(data):
    with pytest.raises(DataError, match="which TFX takes for a pattern"):
        Cifar10ExampleGen(data)


@pytest.mark.parametrize(
    ("data", "base", "patterns"),
    [
        ("gs://bucket/a/cifar-10-binary.tar.gz", "gs://bucket/a", ["cifar-10-binary.tar.gz"]),
        ("s3://bucket/images", "s3://bucket/images", ["*", "*/*", "*/*/*", "*/*/*/*"]),
        ("/nowhere/images.zip", "/nowhere", ["images.zip"]),
        ("here.zip", str(Path.cwd()), ["here.zip"]),
    ],
)
def test_constructed_by_name_alone(data, base, patterns):
    properties = Cifar10ExampleGen(data).exec_properties
    assert properties["input_base"] == base
    assert [split["pattern"] for split in json.loads(properties["input_config"])["splits"]] == patterns


def test_parameters_are_deterministic():
    first, again = (Cifar10ExampleGen("x.zip", 0.1).exec_properties for _ in range(2))
    assert first == again
    assert first != Cifar10ExampleGen("x.zip", 0.2).exec_properties
    assert first != Cifar10ExampleGen("y.zip", 0.1).exec_properties
    assert first != Cifar10ExampleGen("x.zip", 0.1, max_test_overlap=0.02).exec_properties


class _Runs:
    """A pipeline of this component alone, run again and again against one metadata store."""

    def __init__(self, folder):
        self._folder = folder
        self._metadata = metadata.sqlite_metadata_connection_config(str(folder / "metadata.sqlite"))

    def run(self, data):
        """Returns whether the component was run or taken from the cache."""
        dsl = pipeline.Pipeline(
            pipeline_name="example_gen",
            pipeline_root=str(self._folder / "root"),
            metadata_connection_config=self._metadata,
            enable_cache=True,
            components=[Cifar10ExampleGen(str(data), FRACTION)],
        )
        local_dag_runner.LocalDagRunner().run(dsl)
        with metadata.Metadata(self._metadata) as store:
            executions = store.store.get_executions()
        last = max(executions, key=lambda execution: execution.id)
        return "cached" if last.last_known_state == metadata_store_pb2.Execution.CACHED else "run"


def test_tfx_runs_it_again_only_when_the_data_changed(tmp_path):
    files = image_files(images_a_class=16)
    data = write_folder(tmp_path / "images", files)
    runs = _Runs(tmp_path)
    assert runs.run(data) == "run"
    assert runs.run(data) == "cached"
    write_folder(data, {"train/frog/new.jpg": encoded(random_images(1, 999)[0], "JPEG")})
    assert runs.run(data) == "run"
    assert runs.run(data) == "cached"


def test_tfx_runs_it_again_when_an_image_was_moved_to_another_class(tmp_path):
    data = write_folder(tmp_path / "images", image_files(images_a_class=16))
    for folder in data.glob("*/*"):
        os.utime(folder, (1e9, 1e9))
    runs = _Runs(tmp_path)
    assert runs.run(data) == "run"
    (data / "train/cat/0000.png").rename(data / "train/dog/moved.png")
    assert runs.run(data) == "run"


def test_tfx_runs_on_names_that_are_not_utf8_and_again_when_one_changed(tmp_path):
    files = image_files(images_a_class=16)
    data = write_folder(tmp_path / "images", {f"mine/{name}": content for name, content in files.items()})
    named = data / "mine" / "train" / "cat" / os.fsdecode(b"caf\xe9.png")
    (data / "mine" / "train" / "cat" / "0000.png").rename(named)
    runs = _Runs(tmp_path)
    assert runs.run(data) == "run"
    assert runs.run(data) == "cached"
    os.utime(named, (1e9, 1e9))
    assert runs.run(data) == "run"
    named.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"mine/train/cat/caf\\xe9\.png: not a PNG or JPEG, but a file that begins"):
        runs.run(data)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    data = write_folder(tmp_path / "images", image_files(images_a_class=16))
    (data / "train" / "cat" / "z.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"train/cat/z\.png: cannot be read \(No such file or directory\)"):
        _Runs(tmp_path).run(data)


def test_only_the_fingerprint_of_local_files_is_taken_without_tensorflow():
    remote, local = (driver.Driver(None).get_input_processor([], None, base) for base in ("gs://bucket/x", "/x"))
    assert type(remote) is input_processor.FileBasedInputProcessor
    assert type(local) is not type(remote)


def test_a_path_that_is_not_utf8():
    with pytest.raises(
        DataError, match=r"/d\\xe9j\\xe0/x\.zip: its path is not UTF-8, which TFX cannot hold"
    ) as refusal:
        Cifar10ExampleGen(os.fsdecode(b"/d\xe9j\xe0/x.zip"))
    assert str(refusal.value).encode()


def test_the_local_runner_raises_the_error_itself(tmp_path):
    data = write_zip(tmp_path / "images.zip", {"train/zebra/1.png": b"x"})
    with pytest.raises(DataError, match=r"train/zebra/1\.png: unknown class folder 'zebra'"):
        _Runs(tmp_path).run(data)
    with pytest.raises(DataError, match=r"nowhere\.zip: does not exist"):
        _Runs(tmp_path).run(tmp_path / "nowhere.zip")


def test_the_official_archive_is_fetched_to_where_the_data_is_to_be(tmp_path, monkeypatch):
    archive = tmp_path / "volume" / download.ARCHIVE_NAME
    asked = []

    def fetch(cache_dir):
        asked.append(cache_dir)
        cache_dir.mkdir()
        return write_tar(archive, batch_files("binary"))

    monkeypatch.setattr(download, "fetch_official_archive", fetch)
    # Not the official archive, so without its published checksum.
    monkeypatch.setattr(executor.published, "verify", lambda *_: "digest")
    component = Cifar10ExampleGen(str(archive), FRACTION, download=True)
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path / "examples")
    executor.Executor().Do({}, {"examples": [examples]}, dict(component.exec_properties))
    assert asked == [archive.parent]
    assert read(examples, "test")


def test_what_is_downloaded_has_the_archives_own_name():
    with pytest.raises(ValueError, match=r"mine\.tar\.gz.*has to be named cifar-10-binary\.tar\.gz"):
        Cifar10ExampleGen("/data/mine.tar.gz", download=True)
