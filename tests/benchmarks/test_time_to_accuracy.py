"""Time to accuracy: what the page makes of known rows, and trainings of a few images that are interrupted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import experiments, machine, rows, speed_charts, time_to_accuracy, time_to_accuracy_table
from models.callbacks import run_variables


def row(recipe: str, epochs: int, accuracies: list[float], seconds: float) -> dict[str, Any]:
    """A row, of epochs that take so many seconds each."""
    history = [
        {"epoch": epoch, "val_accuracy": accuracy, "seconds": seconds} for epoch, accuracy in enumerate(accuracies, 1)
    ]
    return {
        "recipe": recipe,
        "epochs": epochs,
        "history": history,
        "data": {"name": "cifar-10.zip", "test": 10000},
        "threads": 2,
        "command": "python -m benchmarks.time_to_accuracy",
        "machine": machine.describe(),
        "versions": {"python": "3.10"},
        "date": "2026-01-02T03:04:05+00:00",
    }


NOTEBOOK_ROW = row("notebook", 4, [0.4, 0.6, 0.7, 0.65], 100.0)


@pytest.mark.parametrize(
    ("accuracies", "cells"),
    [
        ([0.69, 0.7, 0.8], "| 37.5 | 80.00 | 75 s, epoch 2 | 0.25 | reached |"),
        ([0.69, 0.69, 0.8], "| 37.5 | 80.00 | 112 s, epoch 3 | 0.38 | **missed** |"),
        ([0.69, 0.69, 0.69], "| 37.5 | 69.00 | not reached |  | **missed** |"),
    ],
)
def test_the_page_compares_with_the_notebooks_best(accuracies: list[float], cells: str):
    page = time_to_accuracy_table.markdown([NOTEBOOK_ROW, row("cifar10", 3, accuracies, 37.5)])
    assert f"| cifar10, 3 epochs {cells}" in page
    assert "| notebook, 4 epochs | 100.0 | 70.00 | 300 s, epoch 3 | 1.00 |  |" in page


@pytest.mark.parametrize("change", [{"data": {"name": "sample.zip", "test": 1000}}, {"threads": 1}])
def test_a_notebook_on_other_data_or_fewer_cores_is_not_compared_with(change: dict[str, Any]):
    page = time_to_accuracy_table.markdown([NOTEBOOK_ROW, row("cifar10", 1, [0.9], 37.5) | change])
    assert "| cifar10, 1 epochs | 37.5 | 90.00 |  |  |  |" in page


def test_an_unfinished_training_is_no_verdict():
    page = time_to_accuracy_table.markdown([NOTEBOOK_ROW, row("cifar10", 3, [0.5], 37.5)])
    assert "| cifar10, 3 epochs (so far 1) | 37.5 | 50.00 | not reached |  |  |" in page


def test_without_the_notebook_nothing_is_compared():
    page = time_to_accuracy_table.markdown([row("cifar10", 1, [0.5], 37.5)])
    assert "| cifar10, 1 epochs | 37.5 | 50.00 |  |  |  |" in page


def test_chart(tmp_path: Path):
    speed_charts.draw_time_to_accuracy([NOTEBOOK_ROW, row("cifar10", 3, [0.5, 0.7, 0.8], 37.5)], tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as chart:
        assert chart.width > 800


@pytest.fixture
def few(few_examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "make_examples", lambda settings, work_dir: few_examples)


@pytest.mark.usefixtures("few")
def test_both_recipes_add_to_their_rows_epoch_by_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--data", "few.zip", "--epochs", "1", "--work-dir", str(tmp_path), "--output-dir", str(tmp_path)]
    assert time_to_accuracy.main(arguments) == 0
    found = rows.read(tmp_path / time_to_accuracy.RESULTS_FILE)
    assert [(each["recipe"], each["epochs"], len(each["history"])) for each in found] == [
        ("notebook", 1, 1),
        ("cifar10", 1, 1),
    ]
    assert all(0 <= each["history"][0]["val_accuracy"] <= 1 and each["history"][0]["seconds"] > 0 for each in found)
    assert found[0]["command"] == "python -m benchmarks.time_to_accuracy --data few.zip --epochs 1"
    # Again: everything is done, nothing is trained or added.
    capsys.readouterr()
    assert time_to_accuracy.main(arguments) == 0
    assert "epoch 1 of 1," not in capsys.readouterr().out
    assert rows.read(tmp_path / time_to_accuracy.RESULTS_FILE) == found


@pytest.mark.usefixtures("few")
def test_an_interrupted_training_goes_on_with_its_state(tmp_path: Path):
    first, about = time_to_accuracy.make_profile(2, "few.zip", tmp_path)
    first.run_epoch()
    again, about_again = time_to_accuracy.make_profile(2, "few.zip", tmp_path)
    assert about_again == about
    assert again.state.history == first.state.history
    assert not again.finished
    for one, other in zip(run_variables(first.model), run_variables(again.model), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert time_to_accuracy.make_profile(3, "few.zip", tmp_path)[0].state.history == []
