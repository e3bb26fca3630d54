"""Trains AlexNet: what TFX's Trainer runs, by the name `models.training.run_fn`."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from models import (
    base_model,
    checkpoint,
    fitting,
    input_pipeline,
    label_subset,
    multi_worker,
    signatures,
    warmup,
    worker,
)
from models.alexnet import build_network
from models.augmentation import build_augmentation
from models.averaging import AveragedModel
from models.base_model import BaseModel
from models.devices import Devices, configure_devices
from models.fitting import TrainingConfig, count_steps
from models.hyperparameters import Hyperparameters
from models.input_pipeline import LabeledImages
from models.preprocessing import decode_images
from models.tensorboard_log import RunLog, Samples, one_of_each_class


@worker.shared
def run_fn(fn_args: FnArgs) -> None:
    """Trains, or goes on with a run that was interrupted, and exports the SavedModel.

    Writes to `fn_args.serving_model_dir` the SavedModel (see `signatures.export`) with its warm-up requests, and to
    `fn_args.model_run_dir` history.csv (a row an epoch, see `checkpoint.Epoch`) and the TensorBoard logs. The number
    of steps comes from the data and the recipe: `train_steps` and `eval_steps` are not used. Where TF_CONFIG names
    several workers, they train together (see `models.worker`); the first one writes.

    Args:
        fn_args: from TFX; `custom_config` as `TrainingConfig` describes it; `base_model`, where there is one, is what
            pre-training wrote (see `base_model.save`): the convolutions start from it; `hyperparameters`, where there
            are any, are the Tuner's: their values take the place of the recipe's.

    Raises:
        ValueError: a setting, the data or the base model is not usable; the message says which.
        callbacks.NonFiniteLossError: training diverged.
    """
    config = with_tuned(TrainingConfig.from_custom_config(fn_args.custom_config), fn_args.hyperparameters)
    inputs = read_inputs(fn_args, config)
    run_dir = inputs.run_dir(config)
    network, history = train_network(config, inputs, run_dir)
    if not multi_worker.is_chief():
        return

    signatures.export(network, inputs.transform_graph, fn_args.serving_model_dir, config.hyperparameters)
    warmup.write_requests(inputs.train.images[: max(warmup.BATCH_SIZES)].numpy(), fn_args.serving_model_dir)
    fitting.publish(run_dir, history, fn_args.model_run_dir)
    # Only now: until here an interrupted run can go on from it.
    shutil.rmtree(run_dir)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run learns from.

    Attributes:
        train: the images and labels to learn.
        validation: those that the epochs are compared on.
        base: the weights to start from; None for random ones.
        transform_graph: from `input_pipeline.load_transform_graph`.
        savedmodel_dir: where it is.
    """

    train: LabeledImages
    validation: LabeledImages
    base: BaseModel | None
    transform_graph: Any
    savedmodel_dir: str

    def run_dir(self, config: TrainingConfig) -> Path:
        """The folder of the checkpoint of a run on these inputs, see `fitting.run_dir`."""
        definition = {"label_fraction": config.label_fraction, "base_model": self.base and self.base.digest()}
        return fitting.run_dir(config, definition, self.savedmodel_dir, self.train, self.validation)


def read_inputs(fn_args: FnArgs, config: TrainingConfig) -> Inputs:
    """Reads what TFX hands to the Trainer or the Tuner.

    Args:
        fn_args: from TFX.
        config: uses `label_fraction`, and `hyperparameters.seed` for the choice of the labels.

    Raises:
        ValueError: the data or the base model is not usable; the message says which.
    """
    train = input_pipeline.read_examples(fn_args.train_files)
    if config.label_fraction < 1:
        train = _with_few_labels(train, config.label_fraction, config.hyperparameters.seed)
    savedmodel_dir = tft.TFTransformOutput(fn_args.transform_graph_path).transform_savedmodel_dir
    return Inputs(
        train=train,
        validation=input_pipeline.read_examples(fn_args.eval_files),
        base=base_model.load(fn_args.base_model) if fn_args.base_model else None,
        transform_graph=input_pipeline.load_transform_graph(savedmodel_dir),
        savedmodel_dir=savedmodel_dir,
    )


def with_tuned(config: TrainingConfig, tuned: Mapping[str, Any] | None) -> TrainingConfig:
    """The config with the hyperparameters that the Tuner found, which it prints.

    Args:
        config: of the run.
        tuned: a keras_tuner.HyperParameters' config, whose `values` are by the names of Hyperparameters; or None.

    Raises:
        ValueError: an unknown name, or a value that is not allowed.
    """
    if not tuned:
        return config
    print(f"Using what the Tuner found: {describe_values(tuned['values'])}.", flush=True)
    return with_values(config, tuned["values"])


def with_values(config: TrainingConfig, values: Mapping[str, Any]) -> TrainingConfig:
    """The config with some hyperparameters changed.

    Raises:
        ValueError: an unknown name, or a value that is not allowed.
    """
    hyperparameters = Hyperparameters.from_dict({**config.hyperparameters.to_dict(), **values})
    return dataclasses.replace(config, hyperparameters=hyperparameters)


def describe_values(values: Mapping[str, Any]) -> str:
    """Hyperparameters in a line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def compile_model(
    hyperparameters: Hyperparameters,
    devices: Devices,
    steps: int,
    principal_components: np.ndarray | None = None,
) -> tuple[keras.Model, keras.Model]:
    """Builds what `fit` is called on, with every variable that a checkpoint holds.

    Args:
        hyperparameters: the recipe.
        devices: from `configure_devices`.
        steps: an epoch.
        principal_components: of the training images' colours, for the recipe's colour jitter.

    Returns:
        The compiled model from standardized images, float32 [N, 64, 64, 3], through the augmentation to probabilities,
        float32 [N, 10]; and the part of it that is exported: the network, or with `weight_averaging` its average.
    """
    with devices.strategy.scope():
        augmentation = build_augmentation(hyperparameters, principal_components)
        synchronized = devices.num_replicas > 1
        network = build_network(hyperparameters, devices.dtype, synchronized=synchronized)
        if hyperparameters.weight_averaging:
            exported = build_network(hyperparameters, devices.dtype, synchronized=synchronized)
            model = AveragedModel(augmentation, network, exported, hyperparameters.weight_averaging)
        else:
            exported = network
            model = keras.Sequential([augmentation, network], name="training")
        fitting.compile_for_fit(model, hyperparameters, devices, steps)
    return model, exported


def trained_network(model: keras.Model) -> keras.Model:
    """The network in a model of `compile_model` that the optimizer changes."""
    return model.network if isinstance(model, AveragedModel) else model.layers[-1]


def train_network(config: TrainingConfig, inputs: Inputs, run_dir: Path) -> tuple[keras.Model, list[checkpoint.Epoch]]:
    """Runs the epochs that are not done yet.

    Args:
        config: of the run.
        inputs: from `read_inputs`.
        run_dir: gets the checkpoint and the TensorBoard logs.

    Returns:
        The network to export, in float32 and on the default device, and the history of all epochs.

    Raises:
        ValueError: a setting or the checkpoint is not usable; the message says which.
        callbacks.NonFiniteLossError: training diverged.
    """
    hyperparameters = config.hyperparameters
    train, validation, transform_graph = inputs.train, inputs.validation, inputs.transform_graph
    keras.utils.set_random_seed(hyperparameters.seed)
    devices = configure_devices(hyperparameters)
    epochs = hyperparameters.epochs
    steps = count_steps(hyperparameters, len(train))
    print(
        f"Training AlexNet on {len(train):,} images: {epochs} epochs of {steps:,} steps of "
        f"{hyperparameters.batch_size} images; validating on {len(validation):,} images ({config.validation_split}); "
        f"{devices.description}.",
        flush=True,
    )
    components = fitting.principal_components(hyperparameters, train, transform_graph)
    model, network = compile_model(hyperparameters, devices, steps, components)
    if inputs.base:
        inputs.base.initialize(trained_network(model))
        print(f"Starting from the convolutions in {inputs.base.source}.", flush=True)

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
            validation, transform_graph, batch_size=hyperparameters.batch_size, replicas=devices.num_replicas
        ),
        more_callbacks=[
            RunLog(
                run_dir / fitting.TENSORBOARD_DIR,
                network,
                _samples(validation, transform_graph),
                {**hyperparameters.to_dict(), "label_fraction": config.label_fraction},
            )
        ],
    )
    exported = build_network(hyperparameters)
    exported.set_weights(state.best_weights or network.get_weights())
    return exported, state.history


def _samples(validation: LabeledImages, transform_graph: Any) -> Samples:
    """A validation image of each class, to be shown epoch by epoch."""
    chosen = one_of_each_class(validation.labels.numpy())
    images, labels = tf.gather(validation.images, chosen), tf.gather(validation.labels, chosen)
    inputs, _ = input_pipeline.transform(transform_graph, images, labels)
    return Samples(decode_images(images).numpy(), inputs.numpy(), labels.numpy())


def _with_few_labels(train: LabeledImages, fraction: float, seed: int) -> LabeledImages:
    """A part of the labelled images, repeated to the size of the split: an epoch stays as many steps as with all."""
    chosen = label_subset.choose(train, fraction, seed)
    print(
        f"Using the labels of {len(chosen):,} of {len(train):,} training images, each about "
        f"{len(train) / len(chosen):.0f} times an epoch.",
        flush=True,
    )
    return label_subset.repeat(chosen, len(train))
