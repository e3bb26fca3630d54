"""What our Trainer and Evaluator leave in ML Metadata beside what TFX's do."""

import json
import platform

import keras
import pytest
import tensorflow as tf
from evaluation_files import measure, predictions, write_evaluation
from tfx.components.evaluator import executor as evaluator_executor
from tfx.components.trainer import executor as trainer_executor
from tfx.types import standard_artifacts

from components import model_classes
from components.evaluator.component import Evaluator
from components.trainer.component import Trainer


@pytest.fixture
def done(monkeypatch):
    """Names of the TFX executors that were called in place of the real work."""
    calls = []
    monkeypatch.setattr(trainer_executor.GenericExecutor, "Do", lambda *_: calls.append("train"))
    monkeypatch.setattr(evaluator_executor.Executor, "Do", lambda *_: calls.append("evaluate"))
    return calls


def test_a_model_says_with_what_it_was_made(done, tmp_path):
    model, model_run = standard_artifacts.Model(), standard_artifacts.ModelRun()
    model.uri = str(tmp_path)  # holds no SavedModel: as pre-training leaves it
    Trainer.EXECUTOR_SPEC.executor_class().Do({}, {"model": [model], "model_run": [model_run]}, {})
    assert done == ["train"]
    versions = json.loads(model.get_string_custom_property("library_versions"))
    assert versions["python"] == platform.python_version()
    assert versions["tensorflow"] == tf.__version__
    assert versions["keras"] == keras.__version__
    assert {"tfx", "tensorflow-transform", "numpy"} <= set(versions)
    assert "CPU cores" in model.get_string_custom_property("machine")
    assert not model.has_custom_property("class_names")


def test_a_saved_model_says_which_classes_it_tells_apart(done, tmp_path, monkeypatch):
    model = standard_artifacts.Model()
    model.uri = str(tmp_path)
    (tmp_path / "Format-Serving").mkdir()
    (tmp_path / "Format-Serving" / "saved_model.pb").touch()
    monkeypatch.setattr(model_classes, "class_names", lambda folder: ("dent", "ok"))
    Trainer.EXECUTOR_SPEC.executor_class().Do({}, {"model": [model]}, {})
    assert json.loads(model.get_string_custom_property("class_names")) == ["dent", "ok"]


def test_an_evaluation_says_its_accuracy(done, tmp_path):
    labels, candidate = predictions(0.6)
    _, baseline = predictions(0.9)
    evaluation = standard_artifacts.ModelEvaluation()
    evaluation.uri = str(write_evaluation(tmp_path / "1", labels, candidate, baseline))
    Evaluator.EXECUTOR_SPEC.executor_class().Do({}, {"evaluation": [evaluation]}, {})
    assert done == ["evaluate"]
    recorded = evaluation.get_float_custom_property("accuracy")
    assert recorded == pytest.approx(measure(labels, candidate)["accuracy"])
    assert evaluation.get_int_custom_property("num_examples") == len(labels)
