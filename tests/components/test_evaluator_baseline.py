from tfx.components.evaluator import executor as tfx_evaluator
from tfx.types import standard_artifacts

from components.evaluator import executor


def model(folder, holds=True):
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder)
    if holds:
        (folder / "Format-Serving").mkdir(parents=True)
        (folder / "Format-Serving" / "saved_model.pb").write_bytes(b"graph")
    return artifact


def test_a_baseline_that_is_empty_counts_as_none(tmp_path, monkeypatch):
    given = []

    class Stopped(Exception):  # noqa: N818 (no error: it ends what is not tested here)
        pass

    def do(_, input_dict, *__):
        given.append(input_dict)
        raise Stopped

    monkeypatch.setattr(tfx_evaluator.Executor, "Do", do)
    candidate, baseline = model(tmp_path / "candidate"), model(tmp_path / "baseline")
    for baselines in ([baseline], [model(tmp_path / "empty", holds=False)], []):
        try:
            executor.Executor().Do({"model": [candidate], "baseline_model": baselines}, {}, {})
        except Stopped:
            continue
    assert [inputs["baseline_model"] for inputs in given] == [[baseline], [], []]
    assert all(inputs["model"] == [candidate] for inputs in given)
