"""Trains AlexNet: what TFX's Trainer runs, by the name `models.training.run_fn`."""

import dataclasses
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from models import checkpoint, input_pipeline, signatures, warmup
from models.alexnet import build_alexnet
from models.augmentation import build_augmentation, rgb_principal_components
from models.callbacks import EpochLine, RunRecorder, StopOnNonFiniteLoss, run_variables
from models.devices import Devices, configure_devices
from models.hyperparameters import Hyperparameters
from models.input_pipeline import LabeledImages
from models.optimization import build_optimizer

PRINCIPAL_COMPONENTS_EXAMPLES = 1000
"""Training images whose colours are analysed for the colour jitter: a million colours and more."""

HISTORY_FILE = "history.csv"
TENSORBOARD_DIR = "tensorboard"


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The Trainer's `custom_config`.

    Attributes:
        hyperparameters: the recipe.
        source_digest: of the code that trains; other code never resumes from this code's checkpoint.
        validation_split: name of the split that the epochs are compared on.
        checkpoint_dir: local folder for the checkpoints of unfinished runs, the same in every attempt.
        verbose: Keras' progress: 1 is a bar, 2 a line an epoch, 0 nothing, `auto` a bar on a terminal, else lines.
    """

    hyperparameters: Hyperparameters
    source_digest: str
    validation_split: str
    checkpoint_dir: str
    verbose: int | str = "auto"

    @classmethod
    def from_custom_config(cls, custom_config: dict[str, Any] | None) -> "TrainingConfig":
        """Reads a JSON-like dictionary with the names above; `verbose` may be absent.

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
        return cls(**values)


def run_fn(fn_args: FnArgs) -> None:
    """Trains, or goes on with a run that was interrupted, and exports the SavedModel.

    Writes to `fn_args.serving_model_dir` the SavedModel (see `signatures.export`) with its warm-up requests, and to
    `fn_args.model_run_dir` history.csv (a row an epoch, see `checkpoint.Epoch`) and the TensorBoard logs. The number
    of steps comes from the data and the recipe: `train_steps` and `eval_steps` are not used.

    Args:
        fn_args: from TFX; `custom_config` as `TrainingConfig` describes it.

    Raises:
        ValueError: a setting or the data is not usable; the message says which.
        callbacks.NonFiniteLossError: training diverged.
    """
    config = TrainingConfig.from_custom_config(fn_args.custom_config)
    hyperparameters = config.hyperparameters
    savedmodel_dir = tft.TFTransformOutput(fn_args.transform_graph_path).transform_savedmodel_dir
    train = input_pipeline.read_examples(fn_args.train_files)
    validation = input_pipeline.read_examples(fn_args.eval_files)
    key = checkpoint.run_key(
        {
            "hyperparameters": hyperparameters.to_dict(),
            "source": config.source_digest,
            "train": train.digest(),
            "validation": validation.digest(),
            "transform_graph": input_pipeline.transform_graph_digest(savedmodel_dir),
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        }
    )
    run_dir = Path(config.checkpoint_dir) / key

    keras.utils.set_random_seed(hyperparameters.seed)
    devices = configure_devices(hyperparameters)
    transform_graph = input_pipeline.load_transform_graph(savedmodel_dir)
    network, history = _train(config, train, validation, transform_graph, devices, run_dir)

    signatures.export(network, transform_graph, fn_args.serving_model_dir)
    warmup.write_requests(train.images[: max(warmup.BATCH_SIZES)].numpy(), fn_args.serving_model_dir)
    _publish(run_dir, history, fn_args.model_run_dir)
    # Only now: until here an interrupted run can go on from it.
    shutil.rmtree(run_dir)


def count_steps(hyperparameters: Hyperparameters, num_examples: int) -> int:
    """Training steps an epoch: whole batches only, in whole executions.

    Raises:
        ValueError: there are not enough examples for one.
    """
    per_execution = hyperparameters.batch_size * hyperparameters.steps_per_execution
    if per_execution > num_examples:
        raise ValueError(
            f"batch_size {hyperparameters.batch_size} times steps_per_execution "
            f"{hyperparameters.steps_per_execution} is more than the {num_examples:,} training examples; lower it to "
            f"{num_examples:,} or less."
        )
    return num_examples // per_execution * hyperparameters.steps_per_execution


def _train(
    config: TrainingConfig,
    train: LabeledImages,
    validation: LabeledImages,
    transform_graph: Any,
    devices: Devices,
    run_dir: Path,
) -> tuple[keras.Model, list[checkpoint.Epoch]]:
    """Runs the epochs that are not done yet.

    Returns:
        The network to export, in float32 and on the default device, and the history of all epochs.
    """
    hyperparameters = config.hyperparameters
    epochs = hyperparameters.epochs
    steps = count_steps(hyperparameters, len(train))
    print(
        f"Training AlexNet on {len(train):,} images: {epochs} epochs of {steps:,} steps of "
        f"{hyperparameters.batch_size} images; validating on {len(validation):,} images ({config.validation_split}); "
        f"{devices.description}.",
        flush=True,
    )
    with devices.strategy.scope():
        network = build_alexnet(hyperparameters.dropout, hyperparameters.seed, devices.dtype)
        components = _principal_components(hyperparameters, train, transform_graph)
        model = keras.Sequential([build_augmentation(hyperparameters, components), network], name="training")
        model.compile(
            optimizer=build_optimizer(hyperparameters, epochs * steps),
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
            steps_per_execution=hyperparameters.steps_per_execution,
            jit_compile=devices.jit_compile,
        )
        model.optimizer.build(model.trainable_variables)

    state_file = run_dir / checkpoint.STATE_FILE
    state = checkpoint.load(state_file) or checkpoint.TrainingState(history=[], variables=[], best_weights=[])
    done = len(state.history)
    if done:
        _restore(model, state, state_file)
        at = f"at epoch {done + 1} of {epochs}" if done < epochs else f"after epoch {done} of {epochs}"
        print(f"Resuming {at} from {state_file}.", flush=True)
    keep_best = hyperparameters.export_weights == "best"
    verbose = config.verbose if config.verbose != "auto" else 1 if sys.stdout.isatty() else 2
    callbacks: list[keras.callbacks.Callback] = [
        StopOnNonFiniteLoss(epochs, hyperparameters.learning_rate),
        RunRecorder(network, state_file, keep_best, state),
        keras.callbacks.TensorBoard(str(run_dir / TENSORBOARD_DIR), write_graph=False),
    ]
    if verbose == 2:
        callbacks.append(EpochLine(epochs, state.history))
    if done < epochs:
        model.fit(
            input_pipeline.training_dataset(
                train,
                transform_graph,
                batch_size=hyperparameters.batch_size,
                steps_per_epoch=steps,
                epochs=epochs,
                initial_epoch=done,
                seed=hyperparameters.seed,
            ),
            epochs=epochs,
            initial_epoch=done,
            steps_per_epoch=steps,
            validation_data=input_pipeline.evaluation_dataset(
                validation, transform_graph, batch_size=hyperparameters.batch_size
            ),
            callbacks=callbacks,
            verbose=1 if verbose == 1 else 0,
        )
    exported = build_alexnet()
    exported.set_weights(state.best_weights if keep_best else network.get_weights())
    return exported, state.history


def _principal_components(
    hyperparameters: Hyperparameters, train: LabeledImages, transform_graph: Any
) -> np.ndarray | None:
    """Of the colours of the first training images; None when the recipe has no colour jitter."""
    if not hyperparameters.color_jitter:
        return None
    first = slice(0, PRINCIPAL_COMPONENTS_EXAMPLES)
    images, _ = input_pipeline.transform(transform_graph, train.images[first], train.labels[first])
    return rgb_principal_components(images.numpy())


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


def _publish(run_dir: Path, history: Sequence[checkpoint.Epoch], model_run_dir: str) -> None:
    """Copies the history and the TensorBoard logs to where TFX keeps them, which may be remote."""
    tf.io.gfile.makedirs(model_run_dir)
    with tf.io.gfile.GFile(f"{model_run_dir}/{HISTORY_FILE}", "w") as file:
        file.write(checkpoint.history_csv(list(history)))
    logs = run_dir / TENSORBOARD_DIR
    for source in sorted(path for path in logs.rglob("*") if path.is_file()):
        target = f"{model_run_dir}/{TENSORBOARD_DIR}/{source.relative_to(logs).as_posix()}"
        tf.io.gfile.makedirs(target.rsplit("/", 1)[0])
        tf.io.gfile.copy(str(source), target, overwrite=True)
