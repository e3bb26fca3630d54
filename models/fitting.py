"""Fits a Keras model so that a run that was killed goes on at its last whole epoch and ends as if nothing had happened.

What training and pre-training share: the Trainer's `custom_config`, the name of a run, the loop, and what it leaves.
"""

import dataclasses
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models import checkpoint, input_pipeline, multi_worker
from models.augmentation import rgb_principal_components
from models.callbacks import EpochLine, RunRecorder, StopOnNonFiniteLoss, run_variables
from models.devices import Devices
from models.hyperparameters import Hyperparameters
from models.input_pipeline import LabeledImages
from models.optimization import build_loss, build_optimizer
from models.progress import ProgressBar

HISTORY_FILE = "history.csv"
TENSORBOARD_DIR = "tensorboard"

PRINCIPAL_COMPONENTS_EXAMPLES = 1000
"""Training images whose colours are analysed for the colour jitter: a million colours and more."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The Trainer's `custom_config`.

    Attributes:
        hyperparameters: the recipe.
        source_digest: of the code that trains; other code never resumes from this code's checkpoint.
        validation_split: name of the split that the epochs are compared on.
        checkpoint_dir: local folder for the checkpoints of unfinished runs, the same in every attempt.
        label_fraction: part of the training labels that is used, in (0, 1].
        verbose: what is shown: 1 a line an epoch and a bar, 2 the lines, 0 nothing, `auto` 1 on a terminal, else 2.
    """

    hyperparameters: Hyperparameters
    source_digest: str
    validation_split: str
    checkpoint_dir: str
    label_fraction: float = 1.0
    verbose: int | str = "auto"

    @classmethod
    def from_custom_config(cls, custom_config: dict[str, Any] | None) -> "TrainingConfig":
        """Reads a JSON-like dictionary with the names above; those with a default may be absent.

        Raises:
            ValueError: a field is missing or unknown, or a hyperparameter is not allowed.
        """
        values = dict(custom_config or {})
        fields = {field.name: field for field in dataclasses.fields(cls)}
        missing = [
            name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values
        ]
        unknown = sorted(set(values) - set(fields))
        if missing or unknown:
            raise ValueError(
                f"The Trainer's custom_config lacks {missing or 'nothing'} and has the unknown {unknown or 'nothing'}; "
                f"it has to hold {', '.join(fields)}."
            )
        values["hyperparameters"] = Hyperparameters.from_dict(values["hyperparameters"])
        if values.get("verbose", "auto") not in ("auto", 0, 1, 2):
            raise ValueError(f"custom_config['verbose'] is {values['verbose']!r}; it has to be auto, 0, 1 or 2.")
        if not 0 < values.get("label_fraction", 1.0) <= 1:
            raise ValueError(
                f"custom_config['label_fraction'] is {values['label_fraction']!r}; it has to be in (0, 1]."
            )
        return cls(**values)

    @property
    def progress(self) -> int:
        """`verbose` as a number, `auto` decided."""
        return int(self.verbose) if self.verbose != "auto" else 1 if sys.stdout.isatty() else 2


def run_dir(config: TrainingConfig, definition: Mapping[str, Any], savedmodel_dir: str, *splits: LabeledImages) -> Path:
    """The folder of a run's checkpoint, named after everything that the run depends on.

    Args:
        config: of the run.
        definition: what else defines the run, as values that JSON can hold.
        savedmodel_dir: of the Transform graph.
        *splits: the images and labels that the run reads.
    """
    key = checkpoint.run_key(
        {
            "hyperparameters": config.hyperparameters.to_dict(),
            "source": config.source_digest,
            "splits": [split.digest() for split in splits],
            "transform_graph": input_pipeline.transform_graph_digest(savedmodel_dir),
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            **definition,
        }
    )
    return Path(config.checkpoint_dir) / key


def count_steps(hyperparameters: Hyperparameters, num_examples: int) -> int:
    """Training steps an epoch: whole batches only.

    Raises:
        ValueError: there are not enough examples for one.
    """
    if hyperparameters.batch_size > num_examples:
        raise ValueError(
            f"batch_size {hyperparameters.batch_size} is more than the {num_examples:,} training examples; lower it to "
            f"{num_examples:,} or less."
        )
    return num_examples // hyperparameters.batch_size


def steps_per_execution(hyperparameters: Hyperparameters, steps: int, replicas: int = 1) -> int:
    """Training steps in one call of the compiled function: whole calls make an epoch.

    Args:
        hyperparameters: uses `steps_per_execution`.
        steps: an epoch.
        replicas: devices that share a batch. With several, Keras' loop over the steps fails in TensorFlow ("You must
            feed a value for placeholder tensor"; Keras 3.12, TensorFlow 2.16), so there a call is one step.
    """
    if replicas > 1:
        return 1
    return max(n for n in range(1, hyperparameters.steps_per_execution + 1) if steps % n == 0)


def principal_components(
    hyperparameters: Hyperparameters, train: LabeledImages, transform_graph: Any
) -> np.ndarray | None:
    """Of the colours of the first training images, for `build_augmentation`.

    Args:
        hyperparameters: uses `color_jitter`.
        train: the training split.
        transform_graph: from `input_pipeline.load_transform_graph`.

    Returns:
        float32 [3, 3], see `rgb_principal_components`; None when the recipe has no colour jitter.
    """
    if not hyperparameters.color_jitter:
        return None
    first = slice(0, PRINCIPAL_COMPONENTS_EXAMPLES)
    images, _ = input_pipeline.transform(transform_graph, train.images[first], train.labels[first])
    return rgb_principal_components(images.numpy())


def compile_for_fit(model: keras.Model, hyperparameters: Hyperparameters, devices: Devices, steps: int) -> None:
    """Compiles a classifier, with every variable that a checkpoint holds. Call it in the devices' strategy scope.

    Args:
        model: its output is probabilities [N, number of classes].
        hyperparameters: the recipe.
        devices: from `configure_devices`.
        steps: an epoch.

    Raises:
        ValueError: the batch does not fall into equal parts for all devices.
    """
    if hyperparameters.batch_size % devices.num_replicas:
        raise ValueError(
            f"batch_size is {hyperparameters.batch_size}; it has to be a multiple of {devices.num_replicas}, the "
            f"devices that share a batch ({devices.description})."
        )
    model.compile(
        optimizer=build_optimizer(hyperparameters, hyperparameters.epochs * steps),
        loss=build_loss(hyperparameters),
        # A metric, not its name: its variables are made here, in the strategy's scope, and so add up all replicas'.
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        steps_per_execution=steps_per_execution(hyperparameters, steps, devices.num_replicas),
        jit_compile=devices.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)


def fit(
    model: keras.Model,
    network: keras.Model,
    config: TrainingConfig,
    directory: Path,
    *,
    steps: int,
    training_data: Callable[[int], tf.data.Dataset],
    validation_data: tf.data.Dataset,
    more_callbacks: Sequence[keras.callbacks.Callback] = (),
) -> checkpoint.TrainingState:
    """Runs the epochs that are not done yet.

    Args:
        model: compiled by `compile_for_fit`.
        network: the part of it whose weights at the best epoch are kept, where the recipe asks for them.
        config: of the run.
        directory: from `run_dir`; gets the checkpoint after each epoch, and the TensorBoard logs.
        steps: training steps an epoch.
        training_data: makes the batches of all epochs from the given one on, counted from 0.
        validation_data: batches to compare the epochs on.
        more_callbacks: called last.

    Returns:
        The state after the last epoch; the model has the weights of that epoch. In a worker that is not the chief, the
        state at the beginning: it writes and records nothing.

    Raises:
        ValueError: there is a checkpoint and it cannot be used; says which.
        callbacks.NonFiniteLossError: training diverged.
    """
    hyperparameters = config.hyperparameters
    epochs = hyperparameters.epochs
    state_file = directory / checkpoint.STATE_FILE
    state = checkpoint.load(state_file) or checkpoint.TrainingState(history=[], variables=[], best_weights=[])
    done = len(state.history)
    if done:
        _restore(model, state, state_file)
        at = f"at epoch {done + 1} of {epochs}" if done < epochs else f"after epoch {done} of {epochs}"
        print(f"Resuming {at} from {state_file}.", flush=True)
    _share_among_replicas(model, done, state_file)
    callbacks: list[keras.callbacks.Callback] = [StopOnNonFiniteLoss(epochs, hyperparameters.learning_rate)]
    if multi_worker.is_chief():
        callbacks.append(RunRecorder(network, state_file, hyperparameters.export_weights == "best", state))
        callbacks.append(keras.callbacks.TensorBoard(str(directory / TENSORBOARD_DIR), write_graph=False))
        if config.progress == 1:
            callbacks.append(ProgressBar(epochs, steps, state.history))
        if config.progress:
            callbacks.append(EpochLine(epochs, state.history))
        callbacks += more_callbacks
    if done < epochs:
        model.fit(
            training_data(done),
            epochs=epochs,
            initial_epoch=done,
            steps_per_epoch=steps,
            validation_data=validation_data,
            callbacks=callbacks,
            verbose=0,
        )
    return state


def publish(directory: Path, history: Sequence[checkpoint.Epoch], model_run_dir: str) -> None:
    """Copies the history and the TensorBoard logs to where TFX keeps them, which may be remote.

    Args:
        directory: of the run.
        history: becomes history.csv, a row an epoch.
        model_run_dir: folder or URI of the Trainer's `model_run`; made when absent.
    """
    tf.io.gfile.makedirs(model_run_dir)
    with tf.io.gfile.GFile(f"{model_run_dir}/{HISTORY_FILE}", "w") as file:
        file.write(checkpoint.history_csv(list(history)))
    logs = directory / TENSORBOARD_DIR
    for source in sorted(path for path in logs.rglob("*") if path.is_file()):
        target = f"{model_run_dir}/{TENSORBOARD_DIR}/{source.relative_to(logs).as_posix()}"
        tf.io.gfile.makedirs(target.rsplit("/", 1)[0])
        tf.io.gfile.copy(str(source), target, overwrite=True)


def _share_among_replicas(model: keras.Model, done: int, state_file: Path) -> None:
    """What several replicas need before they fit a model, whose variables have their values."""
    replicas = model.distribute_strategy
    if replicas.num_replicas_in_sync == 1:
        return
    multi_worker.draw_apart(model, replicas)
    multi_worker.prepare_for_fit(model)
    if multi_worker.strategy() is not None:
        multi_worker.check_same_start(replicas, done, state_file)


def _restore(model: keras.Model, state: checkpoint.TrainingState, state_file: Path) -> None:
    """Sets the model's and the optimizer's variables to those of the state."""
    variables = run_variables(model)
    expected = [tuple(variable.shape) for variable in variables]
    found = [array.shape for array in state.variables]
    if expected != found:
        raise ValueError(
            f"{state_file} holds {len(found)} variables that are not the {len(expected)} of this model; delete it to "
            "train from the beginning."
        )
    for variable, array in zip(variables, state.variables, strict=True):
        variable.assign(array)
