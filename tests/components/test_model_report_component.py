"""From artifacts to the page: what the executor reads, as TFX, TFMA and TFDV write it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from evaluation_files import predictions, write_evaluation
from google.protobuf import json_format
from report_contents import Page, png
from run_records import Component, RunRecords, example_gen, trainer
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils, standard_artifacts

from components.model_report import gather, lineage, page
from components.model_report.component import Report
from components.model_report.data import split_statistics
from components.model_report.executor import Executor
from components.model_report.predictions import predict, read_images
from models import features
from pipeline.settings import make_settings

LABELS, NOW = predictions(0.6)
BEFORE = predictions(0.4, seed=0)[1]
CHARTS = ("learning_curves", "confusion_matrix", "class_metrics", "reliability_diagram", "label_distribution")
HISTORY = """epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds
1,2.1,0.2,2.0,0.31,0.01,4.0
2,1.9,0.3,1.8,0.3,0,4.0
"""


class Answers(tf.Module):
    """Answers the image number `row` with a row of the table."""

    def __init__(self, table):
        super().__init__()
        self.table = tf.Variable(table, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        rows = tf.io.parse_example(inputs, {"row": tf.io.FixedLenFeature([], tf.int64)})["row"]
        return {"scores": tf.gather(self.table, rows)}


def artifact(kind, folder: Path, **properties):
    made = kind()
    made.uri = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in properties.items():
        setter = made.set_string_custom_property if isinstance(value, str) else made.set_int_custom_property
        setter(name, value)
    return made


def save_model(folder: Path, table, **properties):
    module = Answers(table)
    tf.saved_model.save(module, str(folder / "Format-Serving"), signatures={"classify": module.classify})
    return artifact(standard_artifacts.Model, folder, **properties)


def write_examples(folder: Path) -> None:
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for row, label in enumerate(LABELS):
            example = tf.train.Example()
            example.features.feature[features.IMAGE_KEY].bytes_list.value.append(png(row % 5))
            example.features.feature[features.LABEL_KEY].int64_list.value.append(int(label))
            example.features.feature["row"].int64_list.value.append(row)
            writer.write(example.SerializeToString())


def statistics(labels, bytes_stats=False) -> statistics_pb2.DatasetFeatureStatisticsList:
    """As TFDV has them: the label categorical, the image as text or, where the schema says so, as bytes."""
    written = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = written.datasets.add(num_examples=len(labels))
    image, label = dataset.features.add(), dataset.features.add()
    image.path.step.append(features.IMAGE_KEY)
    label.path.step.append(features.LABEL_KEY)
    found = image.bytes_stats if bytes_stats else image.string_stats
    found.common_stats.num_non_missing = len(labels) - 1
    if bytes_stats:
        image.bytes_stats.avg_num_bytes = 2000.5
    else:
        image.string_stats.avg_length = 2000.5
        image.string_stats.unique = len(labels) - 2
    label.string_stats.common_stats.num_non_missing = len(labels)
    for index, count in enumerate(np.bincount(labels)):
        label.string_stats.rank_histogram.buckets.add(label=str(index), sample_count=float(count))
    return written


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The artifacts of a run that had a model to compare its own with."""
    root = tmp_path_factory.mktemp("run")
    write_examples(root / "examples" / "Split-test")
    write_evaluation(root / "evaluation", LABELS, NOW, BEFORE)
    (root / "model_run").mkdir()
    (root / "model_run" / "history.csv").write_text(HISTORY)
    (root / "serving").mkdir()
    checks = [{"name": "latency", "reached": True, "finding": "median 0.003 s"}]
    (root / "serving" / "checks.json").write_text(json.dumps(checks))
    splits = artifact_utils.encode_split_names(["test", "train"])
    for split in ("train", "test"):
        for name, content, file in (
            ("statistics", statistics(LABELS), "FeatureStats.pb"),
            ("anomalies", anomalies_pb2.Anomalies(), "SchemaDiff.pb"),
        ):
            folder = root / name / f"Split-{split}"
            folder.mkdir(parents=True)
            (folder / file).write_bytes(content.SerializeToString())
    versions = {"library_versions": json.dumps({"tensorflow": "2.0.1"}), "machine": "Linux x86_64, 4 CPU cores"}
    made = {
        "examples": artifact(
            standard_artifacts.Examples,
            root / "examples",
            data_sha256="cd" * 32,
            test_distinct_images=39,
            test_images_in_train=4,
        ),
        "statistics": artifact(standard_artifacts.ExampleStatistics, root / "statistics"),
        "anomalies": artifact(standard_artifacts.ExampleAnomalies, root / "anomalies"),
        "model": save_model(root / "model", NOW, **versions),
        "model_run": artifact(standard_artifacts.ModelRun, root / "model_run"),
        "baseline_model": save_model(root / "baseline", BEFORE),
        "evaluation": artifact(standard_artifacts.ModelEvaluation, root / "evaluation"),
        "serving_blessing": artifact(standard_artifacts.InfraBlessing, root / "serving", blessed=1),
        "pushed_model": artifact(
            standard_artifacts.PushedModel, root / "pushed", pushed=1, pushed_version="17", pushed_destination="/m/17"
        ),
    }
    made["examples"].split_names = artifact_utils.encode_split_names(["test"])
    made["statistics"].split_names = made["anomalies"].split_names = splits
    return {key: [one] for key, one in made.items()}


def parameters(**more):
    settings = dataclasses.asdict(make_settings("sample"))
    return {"settings": json.dumps(settings), "source_digests": json.dumps({"Trainer": "feed"}), **more}


def test_the_executor_writes_a_page_of_the_artifacts(inputs, tmp_path):
    records = RunRecords(tmp_path / "metadata.db")
    run = records.start_run("this-run")
    run.add(trainer(run.add(example_gen())["examples"]))
    run.add(Component("ModelReport", "running"))
    records.start_run("a-later-run").add(example_gen())
    connection = lineage.sqlite_connection(tmp_path / "metadata.db")
    report = artifact(Report, tmp_path / "report")
    executor = Executor(BaseExecutor.Context(pipeline_run_id="this-run"))
    executor.Do(inputs, {"report": [report]}, parameters(metadata_connection=json_format.MessageToJson(connection)))

    shown = Page((tmp_path / "report" / "report.html").read_text())
    values = shown.values
    predicted = NOW.argmax(axis=1)
    assert float(values["accuracy"]) == pytest.approx((predicted == LABELS).mean(), abs=1e-6)
    for index, name in enumerate(features.CLASS_NAMES):
        own = np.flatnonzero(np.equal(LABELS, index))
        assert float(values[f"recall/{name}"]) == pytest.approx((predicted[own] == index).mean(), abs=1e-6)
        assert int(values[f"labels/train/{name}"]) == len(own)
    assert "precision/truck" not in values  # the helper's models never answer it
    assert "never predicted" in shown.words
    gained = (predicted == LABELS) & (BEFORE.argmax(axis=1) != LABELS)
    assert int(values["comparison/gained"]) == gained.sum() > 0
    assert float(values["baseline/accuracy"]) == pytest.approx((BEFORE.argmax(axis=1) == LABELS).mean(), abs=1e-6)
    assert values["exported_epoch"] == "1"
    assert values["version"] == "17"
    assert values["num_weights"] == str(NOW.size)
    assert {name for name in values if name.startswith("seconds/")} == {"seconds/Cifar10ExampleGen", "seconds/Trainer"}
    for text in ("cd" * 32, "feed", "2.0.1", "Linux x86_64, 4 CPU cores", "median 0.003 s"):
        assert text in shown.words
    assert (tmp_path / "report" / "test_images.png").stat().st_size > 1000


def test_a_baseline_that_holds_no_model_counts_as_none(inputs, tmp_path):
    write_evaluation(tmp_path / "evaluation", LABELS, NOW)
    alone = {
        "evaluation": [artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")],
        "baseline_model": [artifact(standard_artifacts.Model, tmp_path / "empty")],
    }
    for changed in (alone, {**alone, "baseline_model": []}):
        contents = gather.gather(inputs | changed, dataclasses.asdict(make_settings("sample")), {})
        assert {split: found.distinct_images for split, found in contents.statistics.items()} == {
            "train": None,
            "test": 39,
        }
        assert {split: found.also_in for split, found in contents.statistics.items()} == {
            "train": {},
            "test": {"train": 4},
        }
        assert contents.baseline_predictions is None
        assert contents.baseline_results is None
        assert contents.not_compared == "no earlier blessed model to compare with"
        assert contents.components is None


def test_a_baseline_that_took_no_part_in_the_evaluation_is_not_shown(inputs, tmp_path):
    write_evaluation(tmp_path / "evaluation", LABELS, NOW)
    evaluation = artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")
    evaluation.set_string_custom_property("not_compared", "no comparable earlier model: classes differ (new: frog)")
    contents = gather.gather(inputs | {"evaluation": [evaluation]}, dataclasses.asdict(make_settings("sample")), {})
    assert contents.baseline_predictions is None
    assert contents.not_compared == "no comparable earlier model: classes differ (new: frog)"


def test_what_the_tuner_has_found_takes_the_place_of_the_settings(inputs, tmp_path):
    found = artifact(standard_artifacts.HyperParameters, tmp_path / "tuned")
    (tmp_path / "tuned" / "best_hyperparameters.txt").write_text(json.dumps({"values": {"learning_rate": 0.0123}}))
    settings = dataclasses.asdict(make_settings("sample"))
    contents = gather.gather(inputs | {"hyperparameters": [found]}, settings, {})
    assert contents.settings["training"] == settings["training"] | {"learning_rate": 0.0123}
    assert list(contents.tuned) == ["learning_rate"]
    charts = {name: page.Chart(name, "A chart.", b"", b"", 1, 1) for name in CHARTS}
    shown = Page(page.render_html(contents, charts))
    assert "found by the Tuner: learning_rate" in shown.words
    assert "0.0123" in shown.words


def test_a_run_that_ml_metadata_does_not_know_is_named(tmp_path):
    RunRecords(tmp_path / "metadata.db").start_run("known")
    with pytest.raises(LookupError, match="no run named 'unknown'"):
        gather.component_times(lineage.sqlite_connection(tmp_path / "metadata.db"), "unknown")


def test_a_cached_component_has_the_seconds_of_its_work(tmp_path):
    records = RunRecords(tmp_path / "metadata.db")
    examples = records.start_run("first").add(example_gen())["examples"]
    records.start_run("second").add(example_gen("cached", examples))
    connection = lineage.sqlite_connection(tmp_path / "metadata.db")
    (first,) = gather.component_times(connection, "first")
    (second,) = gather.component_times(connection, "second")
    assert (first.state, second.state) == (lineage.COMPLETE, lineage.CACHED)
    assert second.seconds == first.seconds


def test_predictions_are_those_of_the_signature_whatever_the_batch(inputs):
    split = artifact_utils.get_split_uri(inputs["examples"], "test")
    now, before = (f"{inputs[key][0].uri}/Format-Serving" for key in ("model", "baseline_model"))
    for batch_size in (7, 1000):
        of_now, of_before = predict([now, before], split, batch_size)
        for found, expected in ((of_now, NOW), (of_before, BEFORE)):
            assert np.array_equal(found.labels, LABELS)
            assert np.array_equal(found.probabilities, expected.astype(np.float32))


def test_images_are_read_by_their_position_in_the_split(inputs):
    split = artifact_utils.get_split_uri(inputs["examples"], "test")
    found = read_images(split, np.array([7, 3, 7]))
    assert found.files == [png(7 % 5), png(3), png(7 % 5)]
    assert np.array_equal(found.labels, LABELS[[7, 3, 7]])
    assert read_images(split, []).files == []
    with pytest.raises(IndexError, match=f"Split-test has no image {len(LABELS)}"):
        read_images(split, [0, len(LABELS), 10**6])
    with pytest.raises(IndexError, match="has no image -1"):
        read_images(split, [-1, 2])


def test_an_empty_split_is_named(inputs, tmp_path):
    model = f"{inputs['model'][0].uri}/Format-Serving"
    with pytest.raises(ValueError, match=f"{tmp_path} holds no examples"):
        predict([model], str(tmp_path))
    with tf.io.TFRecordWriter(str(tmp_path / "examples.gz"), options="GZIP"):
        pass
    with pytest.raises(ValueError, match=f"{tmp_path} holds no examples"):
        predict([model], str(tmp_path))


@pytest.mark.parametrize(("bytes_stats", "distinct_images"), [(False, 2), (True, None)])
def test_statistics_of_a_split(bytes_stats, distinct_images):
    found = split_statistics(statistics(np.array([0, 0, 3, 9]), bytes_stats))
    assert found.labels == (2, 0, 0, 1, 0, 0, 0, 0, 0, 1)
    assert (found.examples, found.missing_labels, found.missing_images) == (4, 0, 1)
    assert (found.distinct_images, found.mean_image_bytes) == (distinct_images, 2000.5)


def test_statistics_may_leave_images_out_but_not_labels():
    written = statistics(np.array([1, 2]))
    del written.datasets[0].features[0]
    found = split_statistics(written)
    assert (found.examples, found.distinct_images, found.mean_image_bytes) == (2, None, None)
    del written.datasets[0].features[0]
    with pytest.raises(ValueError, match="they lack 'label'"):
        split_statistics(written)
