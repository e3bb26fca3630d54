"""Rotations against NumPy's, and whole pre-trainings on a few real images, handed on to training."""

import csv
import dataclasses
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Sample, write_examples
from tfx.components.trainer.fn_args_utils import FnArgs

from models import base_model, callbacks, fitting, pretraining, rotation, training
from models.hyperparameters import Hyperparameters

NUM_TRAIN, NUM_VALIDATION = 40, 12
RECIPE = {"epochs": 2, "batch_size": 32, "learning_rate": 0.01, "color_jitter": 0.1, "export_weights": "last"}


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The inputs of a run, and where its attempts write."""

    root: Path
    examples: Path
    transform_output_dir: str

    def run(self, attempt: str, run_fn: Any = pretraining.run_fn, recipe: Any = None, **options: Any) -> None:
        custom_config = {
            "hyperparameters": Hyperparameters.from_dict(RECIPE | (recipe or {})).to_dict(),
            "source_digest": "0",
            "validation_split": "validation",
            "checkpoint_dir": str(self.root / "checkpoints"),
            **options.pop("config", {}),
        }
        run_fn(
            FnArgs(
                train_files=[str(self.examples / "Split-train" / "*")],
                eval_files=[str(self.examples / "Split-validation" / "*")],
                transform_graph_path=self.transform_output_dir,
                serving_model_dir=self.model_dir(attempt),
                model_run_dir=str(self.root / attempt / "model_run"),
                custom_config=custom_config,
                **options,
            )
        )

    def model_dir(self, attempt: str) -> str:
        return str(self.root / attempt / "Format-Serving")

    def history(self, attempt: str) -> list[dict[str, float]]:
        with (self.root / attempt / "model_run" / fitting.HISTORY_FILE).open() as file:
            return [{name: float(value) for name, value in epoch.items()} for epoch in csv.DictReader(file)]


def write_splits(root: Path, sample: Sample, labels: np.ndarray) -> Path:
    train, validation = slice(0, NUM_TRAIN), slice(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION)
    for split, chosen in (("train", train), ("validation", validation)):
        write_examples(root / f"Split-{split}" / "data.gz", sample.pngs[chosen], labels[chosen])
    return root


@pytest.fixture(scope="module")
def examples_dir(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Path:
    return write_splits(tmp_path_factory.mktemp("examples"), sample, sample.labels)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, examples_dir: Path, transform_output_dir: str) -> Workspace:
    """A pre-training that nothing interrupted."""
    workspace = Workspace(tmp_path_factory.mktemp("whole"), examples_dir, transform_output_dir)
    workspace.run("first")
    return workspace


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_rotated_as_numpy_does(dtype: Any):
    images = np.random.default_rng(0).integers(0, 255, (8, 6, 6, 3)).astype(dtype)
    turns = np.array([0, 1, 2, 3, 3, 2, 1, 0])
    rotated = rotation.rotate(keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(turns))
    expected = np.stack([np.rot90(image, turn) for image, turn in zip(images, turns.tolist(), strict=True)])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(rotated), expected)


def test_an_image_is_mirrored_before_it_is_rotated_so_that_its_label_stays_right():
    recipe = Hyperparameters(translation=0, horizontal_flip=True)
    see = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Identity()])
    model = pretraining.build_training_model(recipe, see)
    image = np.random.default_rng(0).normal(size=(64, 64, 3)).astype(np.float32)
    turns = np.arange(40) % 4
    seen = model({"image": np.repeat(image[None], 40, axis=0), "rotation": turns}, training=True).numpy()
    views = list(zip(seen, turns.tolist(), strict=True))
    mirrored = np.array([np.array_equal(view, np.rot90(image[:, ::-1], turn)) for view, turn in views])
    upright = np.array([np.array_equal(view, np.rot90(image, turn)) for view, turn in views])
    assert np.array_equal(mirrored, ~upright)
    assert 5 < mirrored.sum() < 35


def test_every_image_comes_in_all_rotations():
    images = np.random.default_rng(0).normal(size=(3, 64, 64, 3)).astype(np.float32)
    inputs, labels = pretraining.in_all_rotations(tf.constant(images))
    assert labels.numpy().tolist() == inputs["rotation"].numpy().tolist() == [0, 1, 2, 3] * 3
    np.testing.assert_array_equal(inputs["image"], np.repeat(images, 4, axis=0))


def test_the_network_is_alexnet_but_for_its_last_layer():
    network = pretraining.build_rotation_network(Hyperparameters(seed=4))
    assert network.output_shape == (None, 4)
    plain = training.build_network(Hyperparameters(seed=4))
    assert [layer.name for layer in network.layers[:-1]] == [layer.name for layer in plain.layers[:-1]]
    for ours, theirs in zip(network.layers[:-1], plain.layers[:-1], strict=True):
        for found, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_it_writes_the_convolutions_and_a_row_an_epoch(whole: Workspace):
    history = whole.history("first")
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    assert np.isfinite([list(epoch.values()) for epoch in history]).all()
    base = base_model.load(whole.model_dir("first"))
    before = base_model.trunk_variables(pretraining.build_rotation_network(Hyperparameters.from_dict(RECIPE)))
    assert base.weights.keys() == before.keys()
    assert not np.array_equal(base.weights["conv1/kernel"], before["conv1/kernel"].numpy())
    assert not list((whole.root / "checkpoints").iterdir())


def test_labels_play_no_part_and_an_interruption_changes_nothing(
    whole: Workspace,
    sample: Sample,
    tmp_path: Path,
    transform_output_dir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    examples = write_splits(tmp_path / "examples", sample, (sample.labels + 3) % 10)
    workspace = Workspace(tmp_path, examples, transform_output_dir)
    begin = callbacks.RunRecorder.on_epoch_begin

    def interrupt(self: callbacks.RunRecorder, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    monkeypatch.setattr(callbacks.RunRecorder, "on_epoch_begin", interrupt)
    with pytest.raises(KeyboardInterrupt):
        workspace.run("interrupted")
    monkeypatch.undo()
    workspace.run("again")

    assert "Resuming at epoch 2 of 2" in capsys.readouterr().out
    first, again = (base_model.load(run.model_dir(name)) for run, name in ((whole, "first"), (workspace, "again")))
    assert first.digest() == again.digest()


def test_a_batch_holds_whole_images(whole: Workspace):
    with pytest.raises(ValueError, match="batch_size is 30; for pre-training it has to be a multiple of 4"):
        whole.run("odd", recipe={"batch_size": 30})


def test_training_starts_from_the_pre_trained_convolutions(
    whole: Workspace, examples_dir: Path, transform_output_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    standstill = {"epochs": 1, "learning_rate": 1e-12, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    workspace = Workspace(tmp_path, examples_dir, transform_output_dir)
    workspace.run("tuned", training.run_fn, standstill, base_model=whole.model_dir("first"))
    assert f"Starting from the convolutions in {whole.model_dir('first')}" in capsys.readouterr().out
    exported = tf.train.load_checkpoint(f"{workspace.model_dir('tuned')}/variables/variables")
    shapes = exported.get_variable_to_shape_map()
    (kernel,) = [exported.get_tensor(name) for name, shape in shapes.items() if shape == [11, 11, 3, 128]]
    np.testing.assert_allclose(kernel, base_model.load(whole.model_dir("first")).weights["conv1/kernel"], atol=1e-6)


def test_the_base_model_and_the_part_of_the_labels_make_another_run(
    whole: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    workspace = Workspace(tmp_path, whole.examples, whole.transform_output_dir)
    base = base_model.load(whole.model_dir("first"))
    network = pretraining.build_rotation_network(Hyperparameters())
    base.initialize(network)
    network.get_layer("conv1").bias.assign_add(keras.ops.ones(128))
    base_model.save(network, str(tmp_path / "other"))
    seen = []

    def remember(config: Any, inputs: training.Inputs, run_dir: Path) -> None:
        seen.append((run_dir.name, inputs.train))
        raise InterruptedError

    monkeypatch.setattr(training, "train_network", remember)
    for options in (
        {},
        {"base_model": whole.model_dir("first")},
        {"base_model": str(tmp_path / "other")},
        {"config": {"label_fraction": 0.1}},
    ):
        with pytest.raises(InterruptedError):
            workspace.run("any", training.run_fn, **options)
    assert len({name for name, _ in seen}) == 4
    few = seen[-1][1]
    assert len(few) == NUM_TRAIN
    different = len(set(few.images.numpy()))
    assert different < NUM_TRAIN / 2
    said = re.search(r"Using the labels of (\d+) of 40 training images", capsys.readouterr().out)
    assert said is not None
    assert int(said[1]) == different
