"""A whole run with everything that can come before training: pre-training, few labels, a search for a better recipe."""

import csv
import json
import re
from pathlib import Path

import pytest

from pipeline import local_run, runs

CHANGES = {
    "pretraining_epochs": 1,
    "label_fraction": 0.5,
    "tuning_trials": 2,
    "tuning_epochs": 1,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def settings(settings_for):
    return settings_for(**CHANGES)


@pytest.fixture(scope="module")
def output(settings):
    """What the console shows of the run."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *texts, **_: lines.append(" ".join(map(str, texts))))
        assert local_run.run(settings) == 0, "\n".join(lines)
    return "\n".join(lines)


def test_each_part_takes_what_the_one_before_has_found(output, settings):
    run = runs.last_run(settings)
    names = list(run)
    assert names.index("PreTrainer") < names.index("Tuner") < names.index("Trainer")
    assert run["Trainer"].inputs["base_model"] == run["PreTrainer"].outputs["model"]
    weights = Path(run["PreTrainer"].outputs["model"].uri) / "Format-Serving" / "weights.npz"
    assert output.count(f"Starting from the convolutions in {weights}.") == 3  # two trials and the training
    (trials_file,) = Path(run["Tuner"].outputs["tuner_results"].uri).iterdir()
    best = json.loads(trials_file.read_text())[0]
    found = re.search(r"Using what the Tuner found: (.*)\.\n", output)
    assert found is not None
    used = dict(pair.split(" ") for pair in found[1].split(", "))
    assert used == {name: str(value) for name, value in best.items() if name not in ("trial_id", "score")}
    assert f"ALEXNET_LEARNING_RATE={best['learning_rate']}" in output
    with open(
        Path(run["PreTrainer"].outputs["model_run"].uri) / "history.csv", encoding="utf-8", newline=""
    ) as history:
        (epoch,) = csv.DictReader(history)
    assert f"1 epoch, tells {float(epoch['val_accuracy']):.4f} of the rotations" in output


def test_the_same_again_is_cached_and_another_recipe_does_not_pre_train_again(output, settings, settings_for):
    assert local_run.run(settings) == 0
    again = runs.last_run(settings)
    assert all(again[name].cached for name in ("PreTrainer", "Tuner", "Trainer"))
    smoothed = settings_for(**CHANGES | {"label_smoothing": 0.1, "tuning_trials": 0})
    assert local_run.run(smoothed) == 0
    other = runs.last_run(smoothed)
    assert other["PreTrainer"].cached
    assert "Tuner" not in other
    assert not other["Trainer"].cached
