import re

import pytest
from tfx.components.evaluator import executor as tfx_evaluator
from tfx.types import standard_artifacts

from components.evaluator import executor
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


def model(folder, holds=True):
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder)
    if holds:
        (folder / "Format-Serving").mkdir(parents=True)
        (folder / "Format-Serving" / "saved_model.pb").write_bytes(b"graph")
    return artifact


def evaluate(tmp_path, baselines):
    executor.Executor().Do({"model": [model(tmp_path / "candidate")], "baseline_model": baselines}, {}, {})


def nothing_served(tmp_path):
    found = model(tmp_path / "served", holds=False)
    component = ServedModel(base_directory=str(tmp_path / "serving_model"))
    ServedModelExecutor().Do({}, {"model": [found]}, dict(component.exec_properties))
    return found


def test_a_candidate_is_compared_with_the_baseline_that_there_is(tmp_path, given):
    baseline = model(tmp_path / "baseline")
    with pytest.raises(StoppedError):
        evaluate(tmp_path, [baseline])
    assert given[0]["baseline_model"] == [baseline]
    assert given[0]["model"][0].uri == str(tmp_path / "candidate")


@pytest.mark.parametrize("served", [False, True])
def test_before_any_model_was_blessed_there_is_no_baseline(tmp_path, given, served):
    with pytest.raises(StoppedError):
        evaluate(tmp_path, [nothing_served(tmp_path)] if served else [])
    assert given[0]["baseline_model"] == []


def test_a_baseline_whose_files_are_gone_is_an_error(tmp_path, given):
    lost = model(tmp_path / "lost", holds=False)
    with pytest.raises(FileNotFoundError, match=re.escape(f"gone from {tmp_path / 'lost' / 'Format-Serving'}")):
        evaluate(tmp_path, [lost])
    assert given == []
