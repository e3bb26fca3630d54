"""The accuracy benchmark: what it asks for, what its rows come to, and one measurement of a few real images."""

import copy
import dataclasses
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import accuracy, accuracy_chart, accuracy_table, corruptions, experiments, results_table, rows
from models import features
from models.hyperparameters import Hyperparameters
from pipeline.settings import PROFILES, PROJECT_ROOT
from pipeline.source_digest import source_digest

NUM_TRAIN, NUM_TEST = 200, 60
ROW_BYTES = 1 + 3 * 32 * 32


def row(name: str, seed: int, test_accuracy: float, **changes: Any) -> dict[str, Any]:
    """A row of the results file, measured on nothing."""
    recipe = Hyperparameters.from_dict({"seed": seed, "epochs": 2, **changes}).to_dict()
    epochs = [
        {"epoch": epoch, "val_accuracy": test_accuracy - 0.1 * (2 - epoch), "seconds": 50.0} for epoch in (1.0, 2.0)
    ]
    return {
        "name": name,
        "seed": seed,
        "data": {"name": "cifar-10.zip", "digest": "ab" * 32, "train": 45000, "validation": 5000, "test": 10000},
        "validation_fraction": 0.1,
        "hyperparameters": recipe,
        "command": f"python -m benchmarks.accuracy --rows {name}",
        "machine": {"processor": "a processor", "cores": 2},
        "threads": 1,
        "versions": {"tfx": "1.16.0", "tensorflow": "2.16.2"},
        "date": "2026-01-02T03:04:05+00:00",
        "parameters": 2915338,
        "devices": "CPU, float32",
        "seconds": 100.0 + seed,
        "evaluation_seconds": 1.0,
        "test_accuracy": test_accuracy,
        "shifted": {"images": 1000, "psnr_db": 30.5, "accuracy": 0.7, "unshifted_accuracy": 0.8},
        "corrupted": {name: {"1": 0.6, "3": 0.5, "5": 0.4} for name in corruptions.CORRUPTIONS},
        "history": epochs,
    }


@pytest.fixture
def measured() -> list[dict[str, Any]]:
    """Three seeds of two recipes, one of the network without its second convolution."""
    found = [row("cifar10", seed, value) for seed, value in ((2, 0.82), (0, 0.80), (1, 0.81))]
    found += [row("seed", seed, 0.68, learning_rate=0.001) for seed in range(3)]
    found.append(row("cifar10_without_conv2", 0, 0.75, without_convolution=2))
    return found


def test_a_spread_is_mean_and_standard_deviation_between_seeds():
    found = accuracy_table.spread([0.80, 0.81, 0.82])
    assert found.n == 3
    assert found.mean == pytest.approx(0.81)
    assert found.sd == pytest.approx(np.std([0.80, 0.81, 0.82], ddof=1))
    assert accuracy_table.spread([0.5]).sd is None
    assert accuracy_table.spread([0.80, 0.81, 0.82]).percent() == "81.0 ± 1.0"
    assert accuracy_table.spread([0.5]).percent() == "50.0"


def test_the_table_has_a_line_a_recipe(measured: list[dict[str, Any]]):
    lines = accuracy_table.markdown(measured).splitlines()
    (line,) = [line for line in lines if line.startswith("| `cifar10` | 2,915,338 |")]
    assert line == (
        "| `cifar10` | 2,915,338 | 2 | 3 | **81.0 ± 1.0** | 70.0 ± 0.0 (80.0 ± 0.0), 1,000 images | 100 to 102 "
        "| `python -m benchmarks.accuracy --rows cifar10` |"
    )
    assert "| `seed` | 68.0 |" + " 60.0 | 50.0 | 40.0 |" * 4 in lines
    assert "| conv2 | 1 | 75.0 | -6.0 |" in lines
    widths = {line.count("|") for line in lines if line.startswith(("| `", "| recipe", "|---|---|---|---|---|"))}
    assert widths == {9, 15}


def test_the_results_stand_beside_what_others_published(measured: list[dict[str, Any]]):
    table = results_table.markdown(measured).splitlines()
    assert table[2] == (
        "| `cifar10` | 2,915,338 | cifar-10.zip, 45,000 | 2 | 3 | **81.0 ± 1.0** | 1.7 "
        "| `python -m benchmarks.accuracy --rows cifar10` |"
    )
    assert {line.count("|") for line in table if line.startswith("|")} == {9}
    assert any("bearpaw/pytorch-classification" in line and "| 77.2 |" in line for line in table)


def test_the_results_stand_beside_the_notebooks_script_once_it_has_run_to_its_end(measured: list[dict[str, Any]]):
    epochs = [{"val_accuracy": 0.6, "seconds": 60.0}, {"val_accuracy": 0.5, "seconds": 30.0}]
    data = {"name": "cifar-10.zip", "train": 50_000}
    timed = {"recipe": "notebook", "epochs": 2, "history": epochs, "data": data, "threads": 2, "command": "timed"}
    page = results_table.markdown(measured, [timed])
    expected = "| the notebook's script, run again | 2,915,338 | cifar-10.zip, 50,000 | 2 | 1 | 50.0 | 1.5 | `timed` |"
    assert expected in page.splitlines()
    assert "The script had 2 cores" in page
    unfinished = results_table.markdown(measured, [{**timed, "history": epochs[:1]}, {**timed, "recipe": "cifar10"}])
    assert unfinished == results_table.markdown(measured)


def test_a_row_of_the_sample_is_trained_on_the_sample():
    (variant,) = accuracy.choose_variants("sample")
    (changed,) = accuracy.choose_variants("sample", ["epochs=3"], "sample_short")
    assert variant.settings("somewhere.zip", 0).data == changed.settings("somewhere.zip", 0).data == "sample"
    assert accuracy.VARIANTS["cifar10"].settings("somewhere.zip", 0).data == "somewhere.zip"


def test_without_shifted_images_their_cell_is_empty(measured: list[dict[str, Any]]):
    for each in measured:
        each["shifted"] = None
    assert "**81.0 ± 1.0** |  | 100 to 102 |" in accuracy_table.markdown(measured)


def test_what_was_measured_last_under_a_name_is_shown(measured: list[dict[str, Any]]):
    later = row("cifar10", 0, 0.9, epochs=3)
    groups = accuracy_table.newest([*measured, later])
    assert groups["cifar10"] == [later]
    assert [each["seed"] for each in accuracy_table.newest(measured)["cifar10"]] == [0, 1, 2]


def test_the_most_accurate_comes_first_and_the_ablation_last(measured: list[dict[str, Any]]):
    better = row("cifar10_fit", 0, 0.9, network="alexnet_fit")
    without_first = row("cifar10_without_conv1", 0, 0.95, without_convolution=1)
    names = list(accuracy_table.newest([*measured, better, without_first]))
    assert names == ["cifar10_fit", "cifar10", "seed", "cifar10_without_conv1", "cifar10_without_conv2"]


def test_a_new_field_of_recipes_leaves_the_rows_together(measured: list[dict[str, Any]]):
    before = copy.deepcopy(measured)
    for each in before[:2]:
        del each["hyperparameters"]["cutout"]
    assert accuracy_table.markdown(before) == accuracy_table.markdown(measured)


def test_a_field_that_recipes_have_no_more_makes_another_recipe(measured: list[dict[str, Any]]):
    before = copy.deepcopy(measured[0])
    before["hyperparameters"]["gone"] = 1
    assert accuracy_table.newest([before, *measured])["cifar10"] == accuracy_table.newest(measured)["cifar10"]


def test_the_ablation_compares_one_recipe_only(measured: list[dict[str, Any]]):
    other = row("cifar10_without_conv3", 0, 0.1, without_convolution=3, epochs=9)
    found = accuracy_table.ablation([*measured, other])
    assert {index: each.mean for index, each in found.items()} == pytest.approx({0: 0.81, 2: 0.75})
    assert accuracy_table.ablation(measured[-1:]) == {}


def test_charts_are_drawn(measured: list[dict[str, Any]], tmp_path: Path):
    accuracy.draw(measured, tmp_path)
    for name in (accuracy.EPOCHS_CHART, accuracy.SEED_CHART, accuracy.ABLATION_CHART):
        with Image.open(tmp_path / name) as image:
            assert image.width > 800


def test_the_notebooks_own_script_is_drawn_beside_the_seed_profile_where_the_data_is_the_same(
    measured: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn = []
    monkeypatch.setattr(accuracy_chart, "draw_epochs", lambda *arguments: drawn.append(arguments))
    history = [{"val_accuracy": value} for value in (0.43, 0.5)]
    timed: list[dict[str, Any]] = [
        {"recipe": "notebook", "data": {"digest": "cd"}, "history": []},
        {"recipe": "cifar10", "data": {"digest": "ab" * 32}, "history": []},
        {"recipe": "notebook", "data": {"digest": "ab" * 32}, "history": history},
    ]
    accuracy_chart.draw_seed(measured, timed, tmp_path / "seed.png")
    ((seeds, _, others),) = drawn
    assert {each["name"] for each in seeds} == {"seed"}
    assert list(others.values()) == [[0.43, 0.5]]


def test_a_row_without_ablation_draws_no_ablation(measured: list[dict[str, Any]], tmp_path: Path):
    accuracy.draw(measured[:3], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [accuracy.EPOCHS_CHART]


def test_a_row_is_done_when_name_data_seed_and_recipe_are_the_same(measured: list[dict[str, Any]]):
    recipe = Hyperparameters(epochs=2)
    key = {name: measured[1][name] for name in ("name", "seed", "data", "validation_fraction")}
    assert accuracy.is_done(measured, key, recipe)
    assert not accuracy.is_done(measured, key, Hyperparameters(epochs=3))
    assert not accuracy.is_done(measured, key | {"name": "other"}, recipe)
    assert not accuracy.is_done(measured, key | {"seed": 7}, recipe)
    assert not accuracy.is_done(measured, key | {"data": {**key["data"], "digest": "cd"}}, recipe)
    older = copy.deepcopy(measured)
    del older[1]["hyperparameters"]["label_smoothing"]
    assert accuracy.is_done(older, key, recipe)
    assert not accuracy.is_done(older, key, Hyperparameters(epochs=2, label_smoothing=0.1))
    older[1]["hyperparameters"]["gone"] = 1
    assert not accuracy.is_done(older, key, recipe)


def test_names_and_groups_of_rows():
    assert [variant.name for variant in accuracy.choose_variants("seed,ablation,cifar10")] == [
        "seed",
        "cifar10",
        *(f"cifar10_without_conv{index}" for index in range(1, 6)),
    ]
    assert all(variant.profile in PROFILES for variant in accuracy.VARIANTS.values())
    for name, variant in accuracy.VARIANTS.items():
        settings = variant.settings("cifar-10.zip", 4)
        assert (settings.data, settings.training.seed) == (variant.data or "cifar-10.zip", 4)
        assert settings.training.without_convolution == (int(name[-1]) if "without" in name else 0)


def test_a_changed_row_has_a_name_and_a_command_of_its_own():
    (changed,) = accuracy.choose_variants("cifar10", ["epochs=40", "label_smoothing=0.2"], "long")
    assert changed.settings("x", 0).training == dataclasses.replace(
        PROFILES["cifar10"].training, epochs=40, label_smoothing=0.2
    )
    about = accuracy._about(changed, {"data": {"name": "cifar-10.zip"}, "seed": 2})
    assert about["command"] == (
        "python -m benchmarks.accuracy --data cifar-10.zip --rows cifar10 --seeds 3 --set epochs=40 "
        "--set label_smoothing=0.2 --name long"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "resnet"], "--rows has 'resnet'; there are smoke, sample, seed, cifar10,"),
        (["--rows", "cifar10", "--set", "epochs=3"], "--set and --name go together"),
        (["--rows", "cifar10", "--name", "x"], "--set and --name go together"),
        (["--rows", "seed,cifar10", "--set", "epochs=3", "--name", "x"], "a single row"),
        (["--rows", "cifar10", "--set", "epochs=3", "--name", "seed"], "of another name"),
        (["--rows", "cifar10", "--set", "epochs", "--name", "x"], "'epochs'; it has to be FIELD=VALUE"),
        (["--rows", "cifar10", "--set", "epochs=0", "--name", "x"], "epochs is 0; it has to be at least 1"),
        (["--rows", "cifar10", "--set", "data=x", "--name", "x"], "data is not part of a recipe"),
        (["--seeds", "0"], "--seeds is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="2"):
        accuracy.main([*arguments, "--data", "x", "--work-dir", str(tmp_path), "--output-dir", str(tmp_path)])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_table_of_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert accuracy.main(["--table", "--output-dir", str(tmp_path)]) == 1
    assert "measure first" in capsys.readouterr().err


def test_help_needs_nothing_heavy():
    code = (
        "import sys, benchmarks.accuracy;"
        "sys.exit(any(module in sys.modules for module in ('numpy', 'tensorflow', 'keras', 'tfx', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False).returncode == 0


def jpeg_archive(path: Path) -> Path:
    """Real images of the sample, re-encoded: `train|test/<class>/<number>.jpg`."""
    with (
        tarfile.open(PROJECT_ROOT / "data" / "cifar-10-sample-binary.tar.gz") as tar,
        zipfile.ZipFile(path, "w") as archive,
    ):
        for split, batch, count in (("train", "data_batch_1", NUM_TRAIN), ("test", "test_batch", NUM_TEST)):
            member = tar.extractfile(f"cifar-10-batches-bin/{batch}.bin")
            assert member is not None
            records = np.frombuffer(member.read(count * ROW_BYTES), np.uint8).reshape(-1, ROW_BYTES)
            for number, record in enumerate(records):
                file = io.BytesIO()
                pixels = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
                Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=85)
                name = features.CLASS_NAMES[record[0]]
                archive.writestr(f"{split}/{name}/{number:05d}.jpg", file.getvalue())
    return path


def test_measuring_trains_evaluates_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    changes = {"epochs": 1, "batch_size": 64, "validation_fraction": 0.0, "export_weights": "last"}
    changes["mixed_precision"] = "off"  # what is exported is float32 too: both give the same answers
    command = ["--data", str(jpeg_archive(tmp_path / "small.zip")), "--rows", "cifar10", "--seeds", "1"]
    command += [argument for name, value in changes.items() for argument in ("--set", f"{name}={value}")]
    command += ["--name", "tiny", "--work-dir", str(tmp_path / "work"), "--output-dir", str(tmp_path / "results")]

    assert accuracy.main(command) == 0

    (found,) = rows.read(tmp_path / "results" / accuracy.RESULTS_FILE)
    assert (found["name"], found["seed"], found["profile"]) == ("tiny", 0, "cifar10")
    assert found["data"].items() >= {"name": "small.zip", "train": NUM_TRAIN, "test": NUM_TEST}.items()
    assert found["hyperparameters"]["epochs"] == len(found["history"]) == 1
    assert found["seconds"] == pytest.approx(found["history"][0]["seconds"], abs=0.1)
    assert found["parameters"] == 2_915_338
    assert found["source"] == source_digest("models.training")
    # The last epoch was validated on the test split: the exported model is that network.
    assert found["test_accuracy"] == pytest.approx(found["history"][-1]["val_accuracy"])
    assert found["shifted"]["images"] == NUM_TEST
    assert found["shifted"]["unshifted_accuracy"] == pytest.approx(found["test_accuracy"])
    assert 25 < found["shifted"]["psnr_db"] < 45
    measured = [value for severities in found["corrupted"].values() for value in severities.values()]
    assert len(measured) == 12
    assert all(0 <= value <= 1 for value in measured)
    assert str(tmp_path) not in json.dumps(found)
    assert "| `tiny` |" in (tmp_path / "results" / "accuracy.md").read_text()

    def again(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    capsys.readouterr()
    monkeypatch.setattr(experiments, "train", again)
    assert accuracy.main(command) == 0
    assert "There is a row already: tiny, seed 0." in capsys.readouterr().out

    (folder,) = (tmp_path / "work" / "accuracy").iterdir()
    with accuracy._claimed(folder) as ours:
        assert ours
        assert accuracy.main(command) == 0
    assert "Another process measures tiny, seed 0." in capsys.readouterr().out
