"""Trains AlexNet: what TFX's Trainer runs, by the name `models.training.run_fn`."""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from models import base_model, checkpoint, fitting, input_pipeline, label_subset, signatures, warmup
from models.alexnet import build_alexnet
from models.augmentation import build_augmentation, rgb_principal_components
from models.base_model import BaseModel
from models.devices import Devices, configure_devices
from models.fitting import TrainingConfig, count_steps
from models.hyperparameters import Hyperparameters
from models.input_pipeline import LabeledImages

PRINCIPAL_COMPONENTS_EXAMPLES = 1000
"""Training images whose colours are analysed for the colour jitter: a million colours and more."""


def run_fn(fn_args: FnArgs) -> None:
    """Trains, or goes on with a run that was interrupted, and exports the SavedModel.

    Writes to `fn_args.serving_model_dir` the SavedModel (see `signatures.export`) with its warm-up requests, and to
    `fn_args.model_run_dir` history.csv (a row an epoch, see `checkpoint.Epoch`) and the TensorBoard logs. The number
    of steps comes from the data and the recipe: `train_steps` and `eval_steps` are not used.

    Args:
        fn_args: from TFX; `custom_config` as `TrainingConfig` describes it; `base_model`, where there is one, is what
            pre-training wrote (see `base_model.save`): the convolutions start from it.

    Raises:
        ValueError: a setting, the data or the base model is not usable; the message says which.
        callbacks.NonFiniteLossError: training diverged.
    """
    config = TrainingConfig.from_custom_config(fn_args.custom_config)
    hyperparameters = config.hyperparameters
    savedmodel_dir = tft.TFTransformOutput(fn_args.transform_graph_path).transform_savedmodel_dir
    train = input_pipeline.read_examples(fn_args.train_files)
    if config.label_fraction < 1:
        train = _with_few_labels(train, config.label_fraction, hyperparameters.seed)
    validation = input_pipeline.read_examples(fn_args.eval_files)
    base = base_model.load(fn_args.base_model) if fn_args.base_model else None
    definition = {"label_fraction": config.label_fraction, "base_model": base and base.digest()}
    run_dir = fitting.run_dir(config, definition, savedmodel_dir, train, validation)

    keras.utils.set_random_seed(hyperparameters.seed)
    devices = configure_devices(hyperparameters)
    transform_graph = input_pipeline.load_transform_graph(savedmodel_dir)
    network, history = _train(config, train, validation, transform_graph, devices, base, run_dir)

    signatures.export(network, transform_graph, fn_args.serving_model_dir)
    warmup.write_requests(train.images[: max(warmup.BATCH_SIZES)].numpy(), fn_args.serving_model_dir)
    fitting.publish(run_dir, history, fn_args.model_run_dir)
    # Only now: until here an interrupted run can go on from it.
    shutil.rmtree(run_dir)


def compile_model(
    hyperparameters: Hyperparameters,
    devices: Devices,
    total_steps: int,
    principal_components: np.ndarray | None = None,
) -> tuple[keras.Sequential, keras.Model]:
    """Builds what `fit` is called on, with every variable that a checkpoint holds.

    Args:
        hyperparameters: the recipe.
        devices: from `configure_devices`.
        total_steps: of the whole run, all epochs together.
        principal_components: of the training images' colours, for the recipe's colour jitter.

    Returns:
        The compiled model from standardized images, float32 [N, 64, 64, 3], through the augmentation to probabilities,
        float32 [N, 10]; and the network in it, the part that is exported.
    """
    with devices.strategy.scope():
        network = build_alexnet(hyperparameters.dropout, hyperparameters.seed, devices.dtype)
        model = keras.Sequential([build_augmentation(hyperparameters, principal_components), network], name="training")
        fitting.compile_for_fit(model, hyperparameters, devices, total_steps)
    return model, network


def _train(
    config: TrainingConfig,
    train: LabeledImages,
    validation: LabeledImages,
    transform_graph: Any,
    devices: Devices,
    base: BaseModel | None,
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
    components = _principal_components(hyperparameters, train, transform_graph)
    model, network = compile_model(hyperparameters, devices, epochs * steps, components)
    if base:
        base.initialize(network)
        print(f"Starting from the convolutions in {base.source}.", flush=True)

    def training_data(initial_epoch: int) -> tf.data.Dataset:
        return input_pipeline.training_dataset(
            train,
            transform_graph,
            batch_size=hyperparameters.batch_size,
            steps_per_epoch=steps,
            epochs=epochs,
            initial_epoch=initial_epoch,
            seed=hyperparameters.seed,
        )

    state = fitting.fit(
        model,
        network,
        config,
        run_dir,
        steps=steps,
        training_data=training_data,
        validation_data=input_pipeline.evaluation_dataset(
            validation, transform_graph, batch_size=hyperparameters.batch_size
        ),
    )
    exported = build_alexnet()
    exported.set_weights(state.best_weights or network.get_weights())
    return exported, state.history


def _with_few_labels(train: LabeledImages, fraction: float, seed: int) -> LabeledImages:
    """A part of the labelled images, repeated to the size of the split: an epoch stays as many steps as with all."""
    chosen = label_subset.choose(train, fraction, seed)
    print(
        f"Using the labels of {len(chosen):,} of {len(train):,} training images, each about "
        f"{len(train) / len(chosen):.0f} times an epoch.",
        flush=True,
    )
    return label_subset.repeat(chosen, len(train))


def _principal_components(
    hyperparameters: Hyperparameters, train: LabeledImages, transform_graph: Any
) -> np.ndarray | None:
    """Of the colours of the first training images; None when the recipe has no colour jitter."""
    if not hyperparameters.color_jitter:
        return None
    first = slice(0, PRINCIPAL_COMPONENTS_EXAMPLES)
    images, _ = input_pipeline.transform(transform_graph, train.images[first], train.labels[first])
    return rgb_principal_components(images.numpy())
