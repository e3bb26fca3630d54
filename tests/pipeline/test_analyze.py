"""The tables of a run and of two, on evaluations that are written by hand."""

import json
import subprocess
import sys

import pytest
from evaluation_files import CLASSES, measure, predictions, write_evaluation
from run_records import RunRecords, add_whole_run, trainer

from pipeline import analyze
from pipeline.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An output folder with two evaluated runs and a failed one; their numbers; labels and both models' answers."""
    output_dir = tmp_path_factory.mktemp("outputs")
    labels, first = predictions(0.5, seed=3)
    _, second = predictions(0.8, seed=3)
    uris = [
        write_evaluation(output_dir / "1", labels, first),
        write_evaluation(output_dir / "2", labels, second, first),
    ]
    records = RunRecords(output_dir / "smoke" / "metadata.db")
    numbers = [add_whole_run(records, f"{100 + i}", str(uri))[0].id for i, uri in enumerate(uris)]
    failed = records.start_run()
    failed.add(trainer(records.artifact_of_no_run("Examples", "/x"), state="failed"))
    return output_dir, [*numbers, failed.id], labels, first, second


@pytest.fixture
def command(written, monkeypatch, capfd):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["analyze", "--output-dir", str(written[0]), "--profile", "smoke", *arguments])
        status = analyze.main()
        shown = capfd.readouterr()
        return status, shown.out, shown.err

    return run


def rows(shown):
    """Cells of the table's lines, by the first one."""
    return {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}


def test_a_run_by_class(command, written):
    _, numbers, labels, _, second = written
    status, shown, _ = command("101")
    whole = measure(labels, second)
    assert status == 0
    assert shown.startswith(f"smoke/{numbers[1]}, version 101 on cifar-10-sample-binary.tar.gz, 400 test images: ")
    assert "12 of the test images are training or validation images as well." in shown
    assert f"accuracy {whole['accuracy']:.4f}" in shown
    for index, name in enumerate(CLASSES):
        cells = rows(shown)[name]
        of_class = measure(labels[labels == index], second[labels == index])
        precision = "–" if name == "truck" else f"{whole[f'precision_{name}']:.4f}"
        assert cells[1:4] == [str((labels == index).sum()), precision, f"{whole[f'recall_{name}']:.4f}"]
        assert cells[5:7] == [f"{of_class['top_3_accuracy']:.4f}", f"{of_class['loss']:.4f}"]
    assert "NO  recall of truck, the class nearest to its floor 0.0000 < 0.0500" in shown
    assert "(last blessed: " in shown


def test_everything_as_json(command, written):
    _, numbers, labels, _, second = written
    status, shown, _ = command("--json", str(numbers[1]))
    found = json.loads(shown)
    assert status == 0
    assert found["run"]["run"] == numbers[1]
    assert found["num_examples"] == 400
    assert found["metrics"]["accuracy"] == pytest.approx(measure(labels, second)["accuracy"])
    assert found["metrics"]["precision_truck"] is None  # JSON has no NaN
    assert sum(map(sum, found["confusion"])) == 400
    assert found["thresholds"][0]["bound"] == 0.3
    assert found["blessed"] is False


def test_two_runs_and_what_has_changed(command, written):
    _, _, labels, first, second = written
    status, shown, _ = command("--compare", "100", "101")
    before, after = measure(labels, first), measure(labels, second)
    assert status == 0
    change = after["accuracy"] - before["accuracy"]
    assert rows(shown)["accuracy"][1:] == [f"{before['accuracy']:.4f}", f"{after['accuracy']:.4f}", f"{change:+.4f}"]
    (cat,) = [line.split()[-1] for line in shown.splitlines() if line.startswith("recall of cat")]
    assert cat == f"{after['recall_cat'] - before['recall_cat']:+.4f}"
    (truck,) = [line.split()[-3:] for line in shown.splitlines() if line.startswith("precision of truck")]
    assert truck == ["–", "–", "–"]
    status, shown, _ = command("--json", "--compare", "100", "101")
    assert [run["run"]["version"] for run in json.loads(shown)] == ["100", "101"]


def test_a_run_without_an_evaluation_is_told_from_those_with_one(command, written):
    _, numbers, *_ = written
    status, shown, error = command("last")
    assert (status, shown) == (1, "")
    assert f"Run {numbers[2]} of profile smoke (failed in Trainer) has no evaluation; these have one: " in error
    assert f"{numbers[0]}, {numbers[1]}." in error


@pytest.mark.parametrize("module", ["analyze", "run_history", "version_lineage", "tensorboard"])
def test_help_needs_no_framework(module):
    slow = "any(name in sys.modules for name in ('tensorflow', 'tfx', 'ml_metadata', 'keras', 'rich', 'pandas'))"
    script = f"import sys; from pipeline import {module}; sys.exit(2 if {slow} else 0)"
    assert subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, check=False).returncode == 0
