"""A whole run, artifact by artifact, and what the gate does with bad models."""

import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma

from components.model_report import results
from models import features
from pipeline import evaluation, local_run, runs

# 240 steps on 540 images: enough for a model that is better than chance.
TRAINED = {"epochs": 8, "batch_size": 18, "learning_rate": 0.02}
# Weights that stay as they were initialized: about one class for all images.
UNTRAINED = {"epochs": 1, "learning_rate": 1e-12}


def read_test_examples(run):
    """Serialized examples of the test split and their labels, int64 [n]."""
    folder = os.path.join(run["Cifar10ExampleGen"].outputs["examples"].uri, "Split-test")
    files = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    records = list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())
    labels = [tf.train.Example.FromString(r).features.feature["label"].int64_list.value[0] for r in records]
    return records, np.array(labels)


def failed_thresholds(run):
    """(slice by class or whole split, kind of threshold) of everything that TFMA refused."""
    result = tfma.load_validation_result(run["Evaluator"].outputs["evaluation"].uri)
    return {
        ("by class" if validation.slice_key.single_slice_keys else "whole", kind)
        for validation in result.metric_validations_per_slice
        for failure in validation.failures
        for kind in ("value_threshold", "change_threshold")
        if failure.metric_threshold.HasField(kind)
    }


def shown_in_report(run):
    """Values by name, as texts, of everything that the run's page shows; and the page."""
    with open(os.path.join(run["ModelReport"].outputs["report"].uri, "report.html"), encoding="utf-8") as file:
        page = file.read()
    return dict(re.findall(r'<data data-name="([^"]*)" value="([^"]*)"', page)), page


def pushed_versions(settings):
    return sorted(os.listdir(settings.serving_dir))


@pytest.fixture(scope="module")
def trained(settings_for):
    """The module's first run: a trained model, blessed and pushed."""
    settings = settings_for(**TRAINED)
    assert local_run.run(settings) == 0
    return settings, runs.last_run(settings)


def test_examples_hold_every_record_once(trained):
    _, run = trained
    counts = run["Cifar10ExampleGen"].outputs["examples"].properties
    by_split = {split: counts[f"{split}_examples"] for split in ("train", "validation", "test")}
    assert by_split["train"] + by_split["validation"] == 600
    assert by_split["test"] == 200
    assert 30 <= by_split["validation"] <= 90  # a tenth, by a hash of the image


def test_every_component_ran_and_left_its_artifact(trained):
    _, run = trained
    outputs = {name: set(component.outputs) for name, component in run.items()}
    assert outputs == {
        "Cifar10ExampleGen": {"examples"},
        "ImportSchemaGen": {"schema"},
        "StatisticsGen": {"statistics"},
        "ExampleValidator": {"anomalies"},
        "Transform": {"transform_graph"},
        "Trainer": {"model", "model_run"},
        "LastBlessedModel": {"candidate"},
        "Evaluator": {"evaluation", "blessing"},
        "ServingValidator": {"blessing"},
        "Pusher": {"pushed_model"},
        "ModelReport": {"report"},
    }
    assert not any(component.cached or component.failed for component in run.values())
    assert json.loads(run["Trainer"].outputs["model"].properties["library_versions"])["tensorflow"] == tf.__version__
    for component in run.values():
        for artifact in component.outputs.values():
            assert os.listdir(artifact.uri)


def test_the_gate_measured_what_the_pushed_model_answers(trained):
    settings, run = trained
    records, labels = read_test_examples(run)
    (version,) = pushed_versions(settings)
    served = tf.saved_model.load(str(settings.serving_dir / version))
    scores = served.signatures["classify"](inputs=tf.constant(records))["scores"].numpy()
    right = scores.argmax(axis=1) == labels

    verdict = evaluation.read_verdict(run["Evaluator"])
    found = results.load(run["Evaluator"].outputs["evaluation"].uri)
    metrics = found.metrics
    assert verdict.blessed
    assert run["Evaluator"].outputs["evaluation"].properties["accuracy"] == verdict.accuracy
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, scores.argmax(axis=1)), 1)
    np.testing.assert_array_equal(found.confusion, confusion)
    assert verdict.accuracy == pytest.approx(right.mean(), abs=1e-6)
    assert verdict.accuracy > 0.15  # it has learned something: chance is 0.1
    top_3 = (np.argsort(-scores, axis=1)[:, :3] == labels[:, None]).any(axis=1).mean()
    assert metrics["top_3_accuracy"] == pytest.approx(top_3, abs=1e-6)
    assert metrics["loss"] == pytest.approx(-np.log(scores[np.arange(len(labels)), labels]).mean(), rel=1e-4)
    for index, name in enumerate(features.CLASS_NAMES):
        assert metrics[f"recall_{name}"] == pytest.approx(right[labels == index].mean(), abs=1e-6)
    predicted = scores.argmax(axis=1)
    for index in set(predicted):
        expected = (labels[predicted == index] == index).mean()
        assert metrics[f"precision_{features.CLASS_NAMES[index]}"] == pytest.approx(expected, abs=1e-6)


def test_the_report_shows_what_tfma_and_ml_metadata_have(trained):
    settings, run = trained
    shown, page = shown_in_report(run)
    found = results.load(run["Evaluator"].outputs["evaluation"].uri)
    for name in ("accuracy", "top_3_accuracy", "loss"):
        assert float(shown[name]) == found.metrics[name]
    for name in features.CLASS_NAMES:
        assert float(shown[f"recall/{name}"]) == found.by_class[name]["recall"]
        if int(shown[f"predicted/{name}"]):
            assert float(shown[f"precision/{name}"]) == found.by_class[name]["precision"]
            assert float(shown[f"f1/{name}"]) == found.by_class[name]["f1"]
    confusion = [[int(shown[f"confusion/{a}/{p}"]) for p in features.CLASS_NAMES] for a in features.CLASS_NAMES]
    assert np.array_equal(confusion, found.confusion)
    assert [float(shown[f"threshold/accuracy/{name}/value/bound"]) for name in ("all", "cat")] == [0.0, 0.0]
    for name, component in run.items():
        if name != "ModelReport":
            assert float(shown[f"seconds/{name}"]) == component.seconds
    examples = run["Cifar10ExampleGen"].outputs["examples"].properties
    for split in ("train", "validation", "test"):
        assert int(shown[f"examples/{split}"]) == examples[f"{split}_examples"]
    assert f'<code data-name="data_sha256">{examples["data_sha256"]}</code>' in page
    assert f'<code data-name="source/Trainer">{run["Trainer"].properties["source_digest"]}</code>' in page
    assert shown["version"] == pushed_versions(settings)[0]
    assert 'data-name="no_baseline"' in page


def test_an_unchanged_run_is_cached_and_pushes_nothing(trained):
    settings, first = trained
    assert local_run.run(settings) == 0
    second = runs.last_run(settings)
    assert [name for name, component in second.items() if not component.cached] == ["LastBlessedModel"]
    assert second["Pusher"].outputs["pushed_model"].id == first["Pusher"].outputs["pushed_model"].id
    assert len(pushed_versions(settings)) == 1


@pytest.mark.parametrize(
    ("thresholds", "refused"),
    [
        ({"accuracy_floor": 0.5, "accuracy_tolerance": 1.0}, ("whole", "value_threshold")),
        ({"accuracy_floor": 0.0, "accuracy_tolerance": 0.0}, ("whole", "change_threshold")),
        ({"class_recall_floor": 0.01, "accuracy_tolerance": 1.0}, ("by class", "value_threshold")),
    ],
    ids=["accuracy_floor", "accuracy_tolerance", "class_recall_floor"],
)
def test_each_threshold_alone_blocks_a_bad_model(trained, settings_for, thresholds, refused, capfd):
    good, _ = trained
    before = pushed_versions(good)
    settings = settings_for(**UNTRAINED, **thresholds)
    assert local_run.run(settings) == 0
    run = runs.last_run(settings)
    assert failed_thresholds(run) == {refused}
    verdict = evaluation.read_verdict(run["Evaluator"])
    assert not verdict.blessed
    assert [check.startswith("NO") for check in verdict.checks].count(True) == 1
    assert run["Pusher"].outputs["pushed_model"].properties["pushed"] == 0
    assert pushed_versions(good) == before
    assert "gate: NOT BLESSED" in capfd.readouterr().out
    shown, page = shown_in_report(run)  # a refused model, a baseline, and classes that are never predicted
    assert 'data-name="blessed" data-value="false"' in page
    assert "never predicted" in page
    assert "version" not in shown
    assert float(shown["baseline/accuracy"]) > float(shown["candidate/accuracy"]) == float(shown["accuracy"])
    assert page.count('data-reached="false"') == sum(
        not threshold.reached for threshold in results.load(run["Evaluator"].outputs["evaluation"].uri).thresholds
    )


def test_the_same_bad_model_passes_where_no_threshold_stops_it(trained, settings_for):
    good, _ = trained
    before = pushed_versions(good)
    settings = settings_for(**UNTRAINED, accuracy_tolerance=1.0)
    assert local_run.run(settings) == 0
    assert len(pushed_versions(settings)) == len(before) + 1


def test_the_same_seed_gives_the_same_metrics(trained, settings_for, tmp_path):
    _, first = trained
    again = settings_for(**TRAINED, output_dir=str(tmp_path))
    assert local_run.run(again) == 0
    second = runs.last_run(again)
    assert not second["Trainer"].cached

    def history(run):
        with open(os.path.join(run["Trainer"].outputs["model_run"].uri, "history.csv"), encoding="utf-8") as file:
            return [line.rsplit(",", 1)[0] for line in file]  # all but the seconds

    def metrics(run):
        return results.load(run["Evaluator"].outputs["evaluation"].uri).metrics

    assert history(first) == history(second)
    # Beam's batches depend on the time that they take, and the sums of a matrix product on the rows beside it.
    assert metrics(second) == pytest.approx(metrics(first), rel=1e-6)
