"""What a run's console lines say, of records that are written by hand."""

import pytest
from evaluation_files import predictions, write_evaluation
from run_records import RunRecords, add_whole_run

from pipeline import report
from pipeline.settings import make_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Of a profile with a run whose 12 test images are training images as well, and whose gate is open."""
    folder = tmp_path_factory.mktemp("run")
    settings = make_settings("smoke", {"output_dir": str(folder)})
    labels, probabilities = predictions(0.5, seed=3)  # no truck is ever predicted
    evaluation = write_evaluation(folder / "evaluation", labels, probabilities, class_recall_floor=0.0)
    add_whole_run(RunRecords(settings.metadata_path, settings.pipeline_name), "100", str(evaluation))
    return settings


def test_images_that_are_there_more_than_once_are_said_below_the_number_of_examples(settings):
    first, *notes = report.component_line(settings, "Cifar10ExampleGen").splitlines()
    assert first.endswith("train 4,532 · validation 468 · test 1,000")
    assert notes == [
        "  –   12 of 1,000 test images are also in train or validation",
        "  –   2 of 4,532 train images are copies of others in train",
    ]


def test_the_last_lines_say_what_the_accuracy_counts_and_what_the_gate_does_not_mind(settings, monkeypatch):
    monkeypatch.setattr(report, "_serving_verdict", lambda run: (True, []))
    lines = report.last_lines(settings, 1.0).splitlines()
    assert "  –   12 of 1,000 test images are also in train or validation: the accuracy counts them" in lines
    assert "  –   class_recall_floor is 0: truck is never recognized, and the gate does not mind" in lines
