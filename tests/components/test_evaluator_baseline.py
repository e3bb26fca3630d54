import re
from types import SimpleNamespace

import pytest
import tensorflow as tf
from tfx.components.evaluator import executor as tfx_evaluator
from tfx.types import standard_artifacts

from components import model_classes
from components.evaluator import executor
from components.model_report import results
from components.served_model.component import ServedModel
from components.served_model.executor import Executor as ServedModelExecutor


class StoppedError(Exception):
    """Ends what is not tested here."""


@pytest.fixture
def given(monkeypatch):
    """The inputs that TFX's Evaluator gets."""
    inputs = []

    def do(_, input_dict, *__):
        inputs.append(input_dict)
        raise StoppedError

    monkeypatch.setattr(tfx_evaluator.Executor, "Do", do)
    return inputs


class Classifier(tf.Module):
    """Answers its classes as AlexNet's signature does."""

    def __init__(self, *class_names):
        super().__init__()
        self.class_names = class_names

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        images = tf.io.parse_example(inputs, {"image": tf.io.FixedLenFeature([], tf.string)})["image"]
        size = tf.shape(
            tf.map_fn(lambda file: tf.shape(tf.io.decode_image(file)), images, fn_output_signature=tf.int32)
        )
        return {"classes": tf.tile(tf.constant([self.class_names]), [size[0], 1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def scores_only(self, inputs):
        return {"scores": tf.zeros([tf.size(inputs), len(self.class_names)])}


def model(folder, *class_names, signature="classify"):
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder)
    if class_names:
        classifier = Classifier(*class_names)
        functions = {"classify": classifier.classify, "scores_only": classifier.scores_only}
        tf.saved_model.save(classifier, str(folder / "Format-Serving"), {"classify": functions[signature]})
    return artifact


NOW = ("dent", "ok", "scratch")


def evaluate(tmp_path, baselines):
    executor.Executor().Do({"model": [model(tmp_path / "candidate", *NOW)], "baseline_model": baselines}, {}, {})


def nothing_served(tmp_path):
    found = model(tmp_path / "served")
    component = ServedModel(base_directory=str(tmp_path / "serving_model"))
    ServedModelExecutor().Do({}, {"model": [found]}, dict(component.exec_properties))
    return found


def test_a_candidate_is_compared_with_the_baseline_that_there_is(tmp_path, given):
    baseline = model(tmp_path / "baseline", *NOW)
    with pytest.raises(StoppedError):
        evaluate(tmp_path, [baseline])
    assert given[0]["baseline_model"] == [baseline]
    assert given[0]["model"][0].uri == str(tmp_path / "candidate")


@pytest.mark.parametrize(
    "before",
    [("dent", "scratch", "ok"), ("bump", "ok", "scratch"), ("dent", "ok"), (*NOW, "rust"), ("dent", "ok", "Scratch")],
)
def test_a_baseline_of_other_classes_is_no_measure(tmp_path, given, before):
    with pytest.raises(StoppedError):
        evaluate(tmp_path, [model(tmp_path / "baseline", *before)])
    assert given[0]["baseline_model"] == []


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (NOW, ""),
        (("dent", "scratch", "ok"), "classes differ (another order: class 1 was scratch and is ok)"),
        (("bump", "ok", "scratch"), "classes differ (new: dent; gone: bump)"),
        (("dent", "ok"), "classes differ (new: scratch)"),
        ((*NOW, *"abcdefg"), "classes differ (gone: a, b, c, d, e and 2 more)"),
    ],
)
def test_it_says_how_the_classes_differ(before, reason):
    assert model_classes.why_incomparable(NOW, before) == reason


def test_why_there_was_no_comparison_is_recorded(tmp_path, monkeypatch):
    evaluations = []

    def do(_, input_dict, *__):
        return None

    monkeypatch.setattr(tfx_evaluator.Executor, "Do", do)
    monkeypatch.setattr(results, "load", lambda _: SimpleNamespace(accuracy=0.5, num_examples=4))
    baselines = {
        "same": model(tmp_path / "same", *NOW),
        "order": model(tmp_path / "order", *reversed(NOW)),
        "silent": model(tmp_path / "silent", *NOW, signature="scores_only"),
    }
    for name, baseline in {**baselines, "none": None}.items():
        evaluation = standard_artifacts.ModelEvaluation()
        candidate = model(tmp_path / f"candidate-{name}", *NOW)
        inputs = {"model": [candidate], "baseline_model": [baseline] if baseline else []}
        executor.Executor().Do(inputs, {"evaluation": [evaluation]}, {})
        evaluations.append(evaluation.get_string_custom_property("not_compared"))
    same, order, silent, none = evaluations
    assert same == ""
    assert order == "no comparable earlier model: classes differ (another order: class 0 was scratch and is dent)"
    assert silent.startswith("no comparable earlier model: ")
    assert silent.endswith("has no signature 'classify' that answers its classes.")
    assert none == "no earlier blessed model to compare with"


@pytest.mark.parametrize("served", [False, True])
def test_before_any_model_was_blessed_there_is_no_baseline(tmp_path, given, served):
    with pytest.raises(StoppedError):
        evaluate(tmp_path, [nothing_served(tmp_path)] if served else [])
    assert given[0]["baseline_model"] == []


def test_a_baseline_whose_files_are_gone_is_an_error(tmp_path, given):
    lost = model(tmp_path / "lost")
    with pytest.raises(FileNotFoundError, match=re.escape(f"gone from {tmp_path / 'lost' / 'Format-Serving'}")):
        evaluate(tmp_path, [lost])
    assert given == []
