"""The search, on trainings that are made up; and one whole one on a few real images, as TFX's Tuner runs it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import pytest
from conftest import Sample, write_examples
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner import executor
from tfx.types.standard_artifacts import HyperParameters as HyperParametersArtifact
from tfx.types.standard_artifacts import TunerResults

from models import checkpoint, training, tuning
from models.callbacks import NonFiniteLossError
from models.fitting import TrainingConfig
from models.hyperparameters import Hyperparameters

RECIPE = Hyperparameters(epochs=2, batch_size=16, learning_rate=0.01, seed=0)


@dataclasses.dataclass
class MadeUpTrainings:
    """Takes the place of `training.train_network`: the nearer learning_rate is to `best`, the better."""

    best: float = 0.02
    seen: list[Hyperparameters] = dataclasses.field(default_factory=list)
    fails: dict[int, BaseException] = dataclasses.field(default_factory=dict)

    def __call__(self, config: TrainingConfig, inputs: Any, run_dir: Path) -> tuple[None, list[checkpoint.Epoch]]:
        self.seen.append(config.hyperparameters)
        if error := self.fails.get(len(self.seen)):
            raise error
        run_dir.mkdir(parents=True)
        accuracy = 1 / (1 + abs(config.hyperparameters.learning_rate - self.best))
        return None, [checkpoint.Epoch(i, 1, 0.1, 1, value, 0, 1) for i, value in enumerate((accuracy, 0.5))]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUpTrainings:
    trainings = MadeUpTrainings()
    monkeypatch.setattr(training, "train_network", trainings)
    monkeypatch.setattr(keras.utils, "clear_session", lambda: None)  # there is nothing to clear, and it takes a second
    return trainings


@pytest.fixture(scope="module")
def examples_dir(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Path:
    root = tmp_path_factory.mktemp("examples")
    for split, chosen in (("train", slice(0, 32)), ("validation", slice(32, 44))):
        write_examples(root / f"Split-{split}" / "data.gz", sample.pngs[chosen], sample.labels[chosen])
    return root


@pytest.fixture
def arguments(examples_dir: Path, transform_output_dir: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "train_files": [str(examples_dir / "Split-train" / "*")],
        "eval_files": [str(examples_dir / "Split-validation" / "*")],
        "transform_graph_path": transform_output_dir,
        "custom_config": {
            "hyperparameters": RECIPE.to_dict(),
            "source_digest": "0",
            "validation_split": "validation",
            "checkpoint_dir": str(tmp_path / "checkpoints"),
            "trials": 4,
        },
    }


def search(arguments: dict[str, Any], **config: Any) -> tuning.RecipeTuner:
    """As TFX's executor does it."""
    fn_args = FnArgs(**arguments | {"custom_config": arguments["custom_config"] | config})
    tuner, fit_kwargs = tuning.tuner_fn(fn_args)
    tuner.search(**fit_kwargs)
    return tuner


def test_the_recipe_itself_is_tried_first_then_others_within_the_space(
    arguments: dict[str, Any], made_up: MadeUpTrainings
):
    search(arguments, trials=12)
    assert made_up.seen[0] == RECIPE
    assert len(set(made_up.seen)) == 12
    names = {entry.name for entry in tuning.search_space(RECIPE).space}
    assert names == {"learning_rate", "weight_decay", "dropout", "label_smoothing", "translation"}
    for tried in made_up.seen:
        values = tried.to_dict()
        assert {name for name in values if values[name] != RECIPE.to_dict()[name]} <= names
        assert 0.002 <= tried.learning_rate <= 0.05
        assert 0 <= tried.label_smoothing <= 0.2
        assert 0 <= tried.translation <= 12
        assert all(float(f"{values[name]:.3g}") == values[name] for name in names)  # short enough to be typed


def test_the_search_is_the_same_for_the_same_seed(arguments: dict[str, Any], made_up: MadeUpTrainings, tmp_path: Path):
    search(arguments)
    search(arguments, checkpoint_dir=str(tmp_path / "again"))
    search(arguments, checkpoint_dir=str(tmp_path / "other"), hyperparameters=RECIPE.to_dict() | {"seed": 1})
    first, again, other = (made_up.seen[start : start + 4] for start in (0, 4, 8))
    assert first == again
    assert [dataclasses.replace(tried, seed=0) for tried in other[1:]] != first[1:]


@pytest.mark.parametrize("export_weights", ["best", "last"])
def test_the_best_is_that_of_the_weights_that_would_be_exported(
    arguments: dict[str, Any], made_up: MadeUpTrainings, export_weights: str, tmp_path: Path
):
    tuner = search(arguments, hyperparameters=RECIPE.to_dict() | {"export_weights": export_weights})
    (best,) = tuner.oracle.get_best_trials()
    nearest = min(made_up.seen, key=lambda tried: abs(tried.learning_rate - made_up.best))
    expected = 1 / (1 + abs(nearest.learning_rate - made_up.best)) if export_weights == "best" else 0.5
    assert best.score == pytest.approx(expected)
    if export_weights == "best":
        assert best.hyperparameters.values["learning_rate"] == nearest.learning_rate
    assert not [folder for folder in (tmp_path / "checkpoints").iterdir() if not folder.name.startswith("tuning-")]


def test_an_interrupted_search_goes_on_at_the_trial_it_was_in(
    arguments: dict[str, Any], made_up: MadeUpTrainings, tmp_path: Path
):
    search(arguments)
    uninterrupted = list(made_up.seen)
    arguments["custom_config"]["checkpoint_dir"] = str(tmp_path / "interrupted")
    made_up.seen.clear()
    made_up.fails = {3: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        search(arguments)
    tuner = search(arguments)
    assert made_up.seen == [*uninterrupted[:3], *uninterrupted[2:]]
    assert len(tuner.oracle.get_best_trials(10)) == 4


def test_another_search_does_not_take_up_its_state(arguments: dict[str, Any], made_up: MadeUpTrainings):
    search(arguments)
    search(arguments, source_digest="1")
    assert len(made_up.seen) == 8


def test_a_trial_that_diverges_is_left_out(
    arguments: dict[str, Any], made_up: MadeUpTrainings, capsys: pytest.CaptureFixture[str]
):
    made_up.fails = {1: NonFiniteLossError("loss is nan"), 3: NonFiniteLossError("loss is nan")}
    tuner = search(arguments)
    assert len(made_up.seen) == 4
    assert tuner.get_best_hyperparameters()[0].values["learning_rate"] in {
        made_up.seen[1].learning_rate,
        made_up.seen[3].learning_rate,
    }
    tuner.results_summary()
    assert capsys.readouterr().out.count("diverged  learning_rate") == 2


def test_a_search_in_which_all_diverge_has_no_result(arguments: dict[str, Any], made_up: MadeUpTrainings):
    made_up.fails = {trial: NonFiniteLossError("loss is nan") for trial in range(1, 5)}
    with pytest.raises(RuntimeError, match=r"diverged in all 4 trials\. Lower learning_rate \(it is 0\.01\)"):
        search(arguments)


def test_any_other_error_ends_the_search(arguments: dict[str, Any], made_up: MadeUpTrainings):
    made_up.fails = {2: ValueError("batch_size 101 is more than the 100 training examples")}
    with pytest.raises(keras_tuner.errors.FatalRuntimeError, match="Trial 2 of 4: batch_size 101"):
        search(arguments)
    assert len(made_up.seen) == 2


@pytest.mark.parametrize("trials", [None, 0, "4", True])
def test_a_number_of_trials_that_is_none_is_refused(arguments: dict[str, Any], trials: Any):
    with pytest.raises(ValueError, match=f"trials {trials!r}; it has to be a whole number"):
        search(arguments, trials=trials)


def test_the_trainer_takes_what_was_found_and_refuses_what_is_no_hyperparameter(capsys: pytest.CaptureFixture[str]):
    config = TrainingConfig(RECIPE, "0", "validation", "/nowhere")
    tuned = training.with_tuned(config, {"space": [], "values": {"learning_rate": 0.03, "translation": 4}})
    assert tuned.hyperparameters == dataclasses.replace(RECIPE, learning_rate=0.03, translation=4)
    assert capsys.readouterr().out == "Using what the Tuner found: learning_rate 0.03, translation 4.\n"
    assert training.with_tuned(config, None) is config
    with pytest.raises(ValueError, match="has no field units"):
        training.with_tuned(config, {"values": {"units": 64}})
    with pytest.raises(ValueError, match=r"dropout is 1\.5"):
        training.with_tuned(config, {"values": {"dropout": 1.5}})


def test_what_tfx_writes_of_a_real_search_is_what_the_trainer_reads(
    arguments: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tuner = search(arguments, trials=2, hyperparameters=RECIPE.to_dict() | {"epochs": 1})
    best, results = HyperParametersArtifact(), TunerResults()
    best.uri, results.uri = str(tmp_path / "best"), str(tmp_path / "results")
    executor.write_best_hyperparameters(tuner, {"best_hyperparameters": [best], "tuner_results": [results]})
    found = json.loads((tmp_path / "best" / "best_hyperparameters.txt").read_text())
    trials = json.loads((tmp_path / "results" / "tuner_results.json").read_text())
    assert len(trials) == 2
    assert max(trial["score"] for trial in trials) == trials[0]["score"]
    assert found["values"] == {name: value for name, value in trials[0].items() if name not in ("trial_id", "score")}
    output = capsys.readouterr().out
    assert output.count("val_accuracy") == 2
    config = TrainingConfig(RECIPE, "0", "validation", str(tmp_path))
    tuned = training.with_tuned(config, found).hyperparameters
    assert {name: getattr(tuned, name) for name in found["values"]} == found["values"]
