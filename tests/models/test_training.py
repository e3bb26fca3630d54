"""Whole runs on a few real images: reproducible, resumable after a kill, and refused when they cannot work."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import Sample, encode, example, write_examples
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tfx.components.trainer.fn_args_utils import FnArgs

from models import callbacks, checkpoint, devices, fitting, tensorboard_log, training, warmup
from models.callbacks import NonFiniteLossError
from models.hyperparameters import Hyperparameters

EPOCHS = 3
NUM_TRAIN, NUM_VALIDATION = 100, 30
RECIPE = {
    "epochs": EPOCHS,
    "batch_size": 32,
    "learning_rate": 0.01,
    "color_jitter": 0.1,
    "seed": 5,
    "steps_per_execution": 1,  # so that a run can be killed between the 3 steps of an epoch
}

KILLED_RUN = """
import json, sys, time
from tfx.components.trainer.fn_args_utils import FnArgs
from models import callbacks, training

def hang(self, batch, logs=None):
    if self._state.history and batch == 1:
        print("in the middle of epoch", len(self._state.history) + 1, flush=True)
        time.sleep(600)

callbacks.RunRecorder.on_train_batch_end = hang
training.run_fn(FnArgs(**json.loads(sys.argv[1])))
"""


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The inputs of a run, and where its attempts write."""

    root: Path
    examples: Path
    transform_output_dir: str

    @property
    def checkpoint_dir(self) -> Path:
        return self.root / "checkpoints"

    def arguments(self, attempt: str, recipe: dict[str, Any] | None = None) -> dict[str, Any]:
        return {
            "train_files": [str(self.examples / "Split-train" / "*")],
            "eval_files": [str(self.examples / "Split-validation" / "*")],
            "transform_graph_path": self.transform_output_dir,
            "serving_model_dir": str(self.root / attempt / "Format-Serving"),
            "model_run_dir": str(self.root / attempt / "model_run"),
            "custom_config": {
                "hyperparameters": Hyperparameters.from_dict(RECIPE | (recipe or {})).to_dict(),
                "source_digest": "0",
                "validation_split": "validation",
                "checkpoint_dir": str(self.checkpoint_dir),
            },
        }

    def run(self, attempt: str, recipe: dict[str, Any] | None = None) -> None:
        training.run_fn(FnArgs(**self.arguments(attempt, recipe)))

    def history(self, attempt: str) -> list[dict[str, str]]:
        with (self.root / attempt / "model_run" / fitting.HISTORY_FILE).open() as file:
            return list(csv.DictReader(file))

    def scores(self, attempt: str, images: list[bytes]) -> np.ndarray:
        served = tf.saved_model.load(str(self.root / attempt / "Format-Serving")).signatures["classify"]
        return served(inputs=tf.constant([example(image) for image in images]))["scores"].numpy()


def without_seconds(history: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]


@pytest.fixture(scope="module")
def examples_dir(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Path:
    root = tmp_path_factory.mktemp("examples")
    for split, chosen in (
        ("train", slice(0, NUM_TRAIN)),
        ("validation", slice(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION)),
    ):
        write_examples(root / f"Split-{split}" / "data.gz", sample.pngs[chosen], sample.labels[chosen])
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, examples_dir: Path, transform_output_dir: str) -> Workspace:
    """A run that nothing interrupted."""
    workspace = Workspace(tmp_path_factory.mktemp("whole"), examples_dir, transform_output_dir)
    workspace.run("first")
    return workspace


@pytest.fixture
def workspace(tmp_path: Path, examples_dir: Path, transform_output_dir: str) -> Workspace:
    return Workspace(tmp_path, examples_dir, transform_output_dir)


def test_history_has_a_row_an_epoch(whole: Workspace):
    history = whole.history("first")
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert list(history[0]) == [field.name for field in dataclasses.fields(checkpoint.Epoch)]
    assert all(np.isfinite([float(value) for value in row.values()]).all() for row in history)
    assert float(history[-1]["learning_rate"]) == 0
    assert float(history[0]["learning_rate"]) > 0


def test_tensorboard_logs_hold_the_learning_rate(whole: Workspace):
    files = list((whole.root / "first" / "model_run" / fitting.TENSORBOARD_DIR / "train").iterdir())
    tags = {
        value.tag
        for file in files
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"} <= tags


def test_tensorboard_logs_hold_a_picture_an_epoch_and_the_recipe(whole: Workspace):
    logs = whole.root / "first" / "model_run" / fitting.TENSORBOARD_DIR
    values = [
        (event.step, value)
        for file in logs.glob("events.*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    pictures = [(step, value.tensor.string_val) for step, value in values if value.tag == tensorboard_log.PICTURES_TAG]
    assert [step for step, _ in pictures] == list(range(EPOCHS))
    assert all(picture[2].startswith(b"\x89PNG") for _, picture in pictures)
    assert any("hparams" in value.tag for _, value in values)


def test_the_checkpoint_is_gone_after_the_export(whole: Workspace):
    assert (whole.root / "first" / "Format-Serving" / "saved_model.pb").exists()
    assert list(whole.checkpoint_dir.iterdir()) == []


def test_what_is_exported_has_the_best_accuracy_of_the_history(whole: Workspace, sample: Sample):
    chosen = slice(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION)
    scores = whole.scores("first", sample.pngs[chosen])
    accuracy = (scores.argmax(axis=-1) == sample.labels[chosen]).mean()
    assert accuracy == pytest.approx(max(float(row["val_accuracy"]) for row in whole.history("first")))


def test_a_run_killed_in_an_epoch_goes_on_there_and_ends_as_if_nothing_had_happened(
    whole: Workspace, workspace: Workspace, sample: Sample, capsys: pytest.CaptureFixture[str]
):
    arguments = json.dumps(workspace.arguments("killed"))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if "in the middle of epoch 2" in line:
                break
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, output
    assert not (workspace.root / "killed" / "Format-Serving").exists()

    workspace.run("again")

    assert f"Resuming at epoch 2 of {EPOCHS} from {workspace.checkpoint_dir}" in capsys.readouterr().out
    assert without_seconds(workspace.history("again")) == without_seconds(whole.history("first"))
    images = sample.pngs[:50]
    np.testing.assert_array_equal(workspace.scores("again", images), whole.scores("first", images))


def test_a_run_with_all_of_the_recipes_options_resumes_exactly(
    workspace: Workspace, sample: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recipe = {
        "epochs": 2,
        "network": "alexnet_fit",
        "without_convolution": 4,
        "batch_norm_momentum": 0.8,
        "label_smoothing": 0.1,
        "weight_averaging": 0.9,
        "test_time_flip": True,
        "export_weights": "last",
        "steps_per_execution": 3,
    }
    workspace.run("whole", recipe)
    begin = callbacks.RunRecorder.on_epoch_begin

    def interrupt(self: callbacks.RunRecorder, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    monkeypatch.setattr(callbacks.RunRecorder, "on_epoch_begin", interrupt)
    with pytest.raises(KeyboardInterrupt):
        workspace.run("interrupted", recipe)
    monkeypatch.undo()

    workspace.run("again", recipe)

    assert "Resuming at epoch 2 of 2" in capsys.readouterr().out
    assert without_seconds(workspace.history("again")) == without_seconds(workspace.history("whole"))
    images = sample.pngs[:20]
    scores = workspace.scores("again", images)
    np.testing.assert_array_equal(scores, workspace.scores("whole", images))
    mirrored = [encode(pixels[:, ::-1]) for pixels in sample.pixels[:20]]
    np.testing.assert_allclose(workspace.scores("again", mirrored), scores, atol=1e-5)


def test_how_often_a_step_waits_for_python_does_not_change_what_is_learned(whole: Workspace, workspace: Workspace):
    workspace.run("together", {"steps_per_execution": 16})
    for one, other in zip(whole.history("first"), workspace.history("together"), strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-3), name


def test_a_failed_export_is_repeated_without_training_and_with_the_last_weights(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recipe = {"export_weights": "last", "steps_per_execution": 2, "schedule": "constant", "momentum": 0.0}

    def disk_full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(training.signatures, "export", disk_full)
    with pytest.raises(OSError, match="No space left"):
        workspace.run("full", recipe)
    monkeypatch.undo()
    (state_file,) = workspace.checkpoint_dir.glob(f"*/{checkpoint.STATE_FILE}")
    state = checkpoint.load(state_file)
    assert state is not None
    assert not state.best_weights
    assert capsys.readouterr().out.count("val_accuracy") == EPOCHS

    workspace.run("again", recipe)

    output = capsys.readouterr().out
    assert f"Resuming after epoch {EPOCHS} of {EPOCHS}" in output
    assert "val_accuracy" not in output
    exported = tf.train.load_checkpoint(str(workspace.root / "again" / "Format-Serving" / "variables" / "variables"))
    shapes = exported.get_variable_to_shape_map()
    (kernel,) = [exported.get_tensor(name) for name, shape in shapes.items() if shape == [11, 11, 3, 128]]
    assert any(np.array_equal(kernel, array) for array in state.variables)


def test_another_recipe_or_source_does_not_resume(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def remember(config: Any, *others: Any) -> None:
        seen.append(others[-1].name)
        raise InterruptedError

    monkeypatch.setattr(training, "train_network", remember)
    variants = [workspace.arguments("a"), workspace.arguments("b"), workspace.arguments("c", {"seed": 6})]
    variants.append(workspace.arguments("d"))
    variants[-1]["custom_config"]["source_digest"] = "1"
    variants.append(workspace.arguments("e") | {"train_files": variants[0]["eval_files"]})
    for arguments in variants:
        with pytest.raises(InterruptedError):
            training.run_fn(FnArgs(**arguments))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4


def test_with_weight_averaging_the_network_is_trained_and_its_average_is_exported():
    recipe = Hyperparameters(weight_averaging=0.9)
    model, exported = training.compile_model(recipe, devices.configure_devices(recipe), steps=1)
    trained = training.trained_network(model)
    assert [weight.path for weight in model.trainable_variables] == [w.path for w in trained.trainable_variables]
    assert exported is not trained
    for mine, its in zip(exported.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    plain, same = training.compile_model(Hyperparameters(), devices.configure_devices(recipe), steps=1)
    assert training.trained_network(plain) is same


def test_divergence_is_an_error_that_says_where(workspace: Workspace):
    with pytest.raises(NonFiniteLossError, match=r"by epoch 1 of 3, step \d\. Lower learning_rate \(it is 1e\+30\)"):
        workspace.run("diverged", {"learning_rate": 1e30})
    assert not (workspace.root / "diverged").exists()


def test_fewer_examples_than_a_batch_are_an_error(workspace: Workspace):
    with pytest.raises(ValueError, match=r"batch_size 101 .* 100 training examples; lower it to 100"):
        workspace.run("large", {"batch_size": 101})


@pytest.mark.parametrize(
    ("batch_size", "at_most", "steps", "per_execution"),
    [(32, 1, 3, 1), (32, 2, 3, 1), (32, 3, 3, 3), (100, 16, 1, 1), (7, 4, 14, 2), (8, 16, 12, 12), (4, 16, 25, 5)],
)
def test_an_epoch_is_whole_executions_of_all_whole_batches(
    batch_size: int, at_most: int, steps: int, per_execution: int
):
    recipe = Hyperparameters(batch_size=batch_size, steps_per_execution=at_most)
    assert fitting.count_steps(recipe, 100) == steps
    assert fitting.steps_per_execution(recipe, steps) == per_execution
    assert fitting.steps_per_execution(recipe, steps, replicas=2) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_digest": None}, r"lacks \['source_digest'\]"),
        ({"hyper": {}}, r"unknown \['hyper'\]"),
        ({"hyperparameters": {"epochs": 0}}, r"Hyperparameters\.epochs is 0"),
        ({"verbose": 3}, r"'verbose'\] is 3"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(workspace: Workspace, change: dict[str, Any], message: str):
    config = workspace.arguments("wrong")["custom_config"] | change
    config = {name: value for name, value in config.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        training.TrainingConfig.from_custom_config(config)


def test_the_export_holds_warm_up_requests_of_training_images(whole: Workspace, sample: Sample):
    file = whole.root / "first" / "Format-Serving" / warmup.WARMUP_FILE
    records = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    sent = [image for record in records for image in record.predict_log.request.inputs["image_bytes"].string_val]
    assert set(sent) == set(sample.pngs[: max(warmup.BATCH_SIZES)])
