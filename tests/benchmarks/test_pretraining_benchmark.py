"""The benchmark's cases, rows, table and chart, on trainings that are made up."""

import json
import multiprocessing
import struct
from pathlib import Path
from typing import Any

import pytest

from benchmarks import experiments, pretraining, pretraining_chart, pretraining_table, rows
from benchmarks.experiments import Examples
from benchmarks.pretraining import Case
from pipeline.settings import PROFILES, make_settings

DATA = {"name": "images.zip", "digest": "d" * 64, "train": 45_000, "validation": 5_000, "test": 10_000}
ACCURACIES = {"scratch": 0.4, "pretrained": 0.5, "longer": 0.45}
SETTINGS = make_settings("pretrained", {"epochs": 3, "pretraining_epochs": 2})


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """Nothing is trained: the cases that would have been."""
    measured: list[Case] = []

    def measure_case(case: Case, examples: Examples, data_digest: str, work_dir: Path) -> dict[str, Any]:
        measured.append(case)
        return {
            "test_accuracy": ACCURACIES[case.arm] + case.label_fraction / 10 + case.training.seed / 100,
            "val_accuracy": 0.4,
            "labels": round(45_000 * case.label_fraction),
            "steps": 351 * case.training.epochs,
            "seconds": 60.0 * case.training.epochs,
            "pretraining_seconds": 480.0 if case.pretraining else 0.0,
            "history": [{"epoch": epoch + 1, "val_accuracy": 0.1 * epoch} for epoch in range(case.training.epochs)],
            "pretraining_history": [],
        }

    monkeypatch.setattr(pretraining, "measure_case", measure_case)
    monkeypatch.setattr(experiments, "make_examples", lambda settings, work_dir: Examples("images.zip", "", "", ""))
    monkeypatch.setattr(Examples, "describe", lambda self: DATA)
    monkeypatch.setattr(experiments, "circumstances", lambda: CIRCUMSTANCES)
    return measured


CIRCUMSTANCES = {
    "machine": {"processor": "Processor", "cores": 2, "memory_gib": 8, "gpus": []},
    "threads": 2,
    "versions": {"python": "3.10.13", "tensorflow": "2.16.2"},
    "date": "2026-11-23T07:00:00+00:00",
}


def run(folder: Path, *options: str) -> int:
    given = ["--data", "images.zip", "--epochs", "3", "--pretraining-epochs", "2", "--fractions", "0.01,1"]
    return pretraining.main([*given, "--output-dir", str(folder), "--work-dir", str(folder / "work"), *options])


def test_the_arms_have_the_same_steps_on_labels_and_longer_those_of_pre_training_too():
    scratch, pretrained, longer = (Case.of(arm, 0.1, SETTINGS) for arm in pretraining.ARMS)
    assert scratch.training == pretrained.training
    assert scratch.training.epochs == 3
    assert longer.training.epochs == 3 + 4 * 2
    assert pretrained.pretraining is not None
    assert pretrained.pretraining.epochs == 2
    assert scratch.pretraining is longer.pretraining is None


def test_a_row_a_case_and_none_twice(tmp_path: Path, made_up: list[Case], capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path) == 0
    assert [(case.label_fraction, case.arm) for case in made_up] == [
        (0.01, "scratch"),
        (0.01, "pretrained"),
        (1.0, "scratch"),
        (1.0, "pretrained"),
    ]
    assert all(case.training.export_weights == "last" for case in made_up)
    run(tmp_path, "--seeds", "0,1")
    assert [case.training.seed for case in made_up] == [0] * 4 + [1] * 4
    assert capsys.readouterr().out.count("There is a row already") == 4
    found = rows.read(tmp_path / "pretraining.json")
    assert len(found) == 8
    assert found[-1]["command"] == (
        "python -m benchmarks.pretraining --data images.zip --profile pretrained --epochs 3 --pretraining-epochs 2 "
        "--fractions 1 --arms pretrained --seeds 1"
    )


def test_a_row_is_found_by_all_that_defines_it(tmp_path: Path, made_up: list[Case]):
    run(tmp_path)
    run(tmp_path, "--pretraining-epochs", "1")  # from scratch nothing is different
    assert [case.arm for case in made_up[4:]] == ["pretrained", "pretrained"]
    run(tmp_path, "--epochs", "4")
    assert len(made_up) == 10


def test_a_new_field_of_recipes_leaves_the_rows_what_they_are(tmp_path: Path, made_up: list[Case]):
    run(tmp_path)
    file = tmp_path / "pretraining.json"
    old = rows.read(file)
    table = (tmp_path / "pretraining.md").read_text()
    for row in old[:2]:
        del row["training"]["color_jitter"]  # which the recipe does not use
    file.write_text(json.dumps(old))
    run(tmp_path)
    assert len(made_up) == 4
    assert (tmp_path / "pretraining.md").read_text() == table


def test_table_and_chart_show_the_newest_experiment(tmp_path: Path, made_up: list[Case]):
    run(tmp_path, "--epochs", "9")
    run(tmp_path, "--seeds", "0,1", "--arms", "scratch,pretrained,longer")
    lines = (tmp_path / "pretraining.md").read_text().splitlines()
    assert [line.split(" | ")[:5] for line in lines[2:8]] == [
        ["| 450 (1%)", "from scratch", "2", "40.6 ± 0.7", ""],
        ["| 450 (1%)", "pre-trained, then trained", "2", "50.6 ± 0.7", "+10.0"],
        ["| 450 (1%)", "from scratch, as many images as both", "2", "45.6 ± 0.7", "+5.0"],
        ["| 45,000 (100%)", "from scratch", "2", "50.5 ± 0.7", ""],
        ["| 45,000 (100%)", "pre-trained, then trained", "2", "60.5 ± 0.7", "+10.0"],
        ["| 45,000 (100%)", "from scratch, as many images as both", "2", "55.5 ± 0.7", "+5.0"],
    ]
    assert [line.split(" | ")[5] for line in lines[2:5]] == ["0", "2", "0"]
    assert lines[3].endswith("| 2 | 1,053 |")
    content = (tmp_path / "pretraining.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width > height > 300


def test_without_rows_there_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pretraining.main(["--table", "--output-dir", str(tmp_path)]) == 1
    assert "There is no row in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "scratch,both"], "--arms has both; there are scratch, pretrained, longer"),
        (["--fractions", "0.1,2"], "label_fraction is 2.0"),
        (["--fractions", "few"], "'few' is not a list of floats"),
        (["--profile", "cifar10"], "the profile cifar10 has no pre-training"),
        (["--epochs", "0"], "epochs is 0"),
    ],
)
def test_a_wrong_command_line_is_refused(options: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        pretraining.main(options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_all_rows_have_a_place_in_table_and_chart():
    assert set(pretraining_table.ARM_NAMES) == set(pretraining_chart.COLOURS) == set(pretraining.ARMS)
    assert PROFILES["pretrained"].pretraining_epochs > 0


def _put(file: Path, process: int) -> None:
    for number in range(20):
        rows.put(file, {"process": process, "number": number}, {"value": number * process})


def test_rows_of_processes_that_write_at_once_are_all_kept(tmp_path: Path):
    file = tmp_path / "results" / "rows.json"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_put, args=(file, process)) for process in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {(row["process"], row["number"]) for row in rows.read(file)} == {(p, n) for p in range(4) for n in range(20)}


def test_a_row_takes_the_place_of_the_one_with_its_key(tmp_path: Path):
    file = tmp_path / "rows.json"
    rows.put(file, {"name": "a"}, {"value": 1})
    rows.put(file, {"name": "b"}, {"value": 2})
    rows.put(file, {"name": "a"}, {"value": 3})
    assert rows.read(file) == [{"name": "b", "value": 2}, {"name": "a", "value": 3}]
    assert rows.find(file, {"name": "a"}) == {"name": "a", "value": 3}
    assert rows.find(file, {"name": "c"}) is None
    assert rows.read(tmp_path / "absent.json") == []


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[1]"])
def test_a_damaged_file_of_rows_is_named(tmp_path: Path, content: str):
    file = tmp_path / "rows.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"rows\.json .* remove it to measure anew"):
        rows.put(file, {"name": "a"}, {})
    assert file.read_text() == content
