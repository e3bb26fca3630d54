"""Pre-trains AlexNet's convolutions without labels: what the PreTrainer runs, by the name `models.pretraining.run_fn`.

The objective is to tell by how many quarter turns an image was rotated (Gidaris, Singh and Komodakis, "Unsupervised
Representation Learning by Predicting Image Rotations", ICLR 2018): a network that knows what an object looks like
upright can, and the answers cost nothing. As there, a step sees each of its images in all four rotations, after the
same random shifts and mirroring as in training.
"""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from keras import layers
from tfx.components.trainer.fn_args_utils import FnArgs

from models import base_model, checkpoint, features, fitting, input_pipeline, multi_worker, worker
from models.alexnet import build_network
from models.augmentation import build_augmentation
from models.devices import Devices, configure_devices
from models.fitting import TrainingConfig
from models.hyperparameters import Hyperparameters
from models.input_pipeline import LabeledImages
from models.rotation import NUM_ROTATIONS, RotateImages

ROTATION_KEY = "rotation"


@worker.shared
def run_fn(fn_args: FnArgs) -> None:
    """Pre-trains, or goes on with a run that was interrupted, and writes the weights of the convolutions.

    Reads images only: labels have no part in what it does. Writes to `fn_args.serving_model_dir` what `base_model.load`
    reads, and to `fn_args.model_run_dir` history.csv, whose accuracies are of rotations, and the TensorBoard logs.

    Args:
        fn_args: from TFX; `custom_config` as `TrainingConfig` describes it, with `epochs` as the number of passes over
            the images, each in all four rotations. `weight_averaging` and what
            begins with `test_time` are not used.

    Raises:
        ValueError: a setting or the data is not usable; the message says which.
        callbacks.NonFiniteLossError: training diverged.
    """
    config = TrainingConfig.from_custom_config(fn_args.custom_config)
    savedmodel_dir = tft.TFTransformOutput(fn_args.transform_graph_path).transform_savedmodel_dir
    train = _without_labels(input_pipeline.read_examples(fn_args.train_files))
    validation = _without_labels(input_pipeline.read_examples(fn_args.eval_files))
    run_dir = fitting.run_dir(config, {"objective": "rotation"}, savedmodel_dir, train, validation)

    keras.utils.set_random_seed(config.hyperparameters.seed)
    devices = configure_devices(config.hyperparameters)
    transform_graph = input_pipeline.load_transform_graph(savedmodel_dir)
    network, history = _train(config, train, validation, transform_graph, devices, run_dir)
    if not multi_worker.is_chief():
        return

    base_model.save(network, fn_args.serving_model_dir)
    fitting.publish(run_dir, history, fn_args.model_run_dir)
    # Only now: until here an interrupted run can go on from it.
    shutil.rmtree(run_dir)


def build_rotation_network(
    hyperparameters: Hyperparameters, dtype: str = "float32", *, synchronized: bool = False
) -> keras.Model:
    """Builds AlexNet with another last layer.

    Args:
        hyperparameters: uses what `build_network` does.
        dtype: a Keras dtype policy: `float32` or `mixed_bfloat16`.
        synchronized: see `build_alexnet`.

    Returns:
        A model from float32 [N, 64, 64, 3], standardized images, to float32 [N, 4], the probabilities of 0 to 3
        quarter turns.
    """
    alexnet = build_network(hyperparameters, dtype, synchronized=synchronized)
    (head_seed,) = np.random.SeedSequence([hyperparameters.seed, 2]).generate_state(1).tolist()
    probabilities = layers.Dense(
        NUM_ROTATIONS,
        activation="softmax",
        kernel_initializer=keras.initializers.GlorotUniform(seed=head_seed),
        dtype="float32",
        name="rotation_head",
    )(alexnet.layers[-1].input)
    return keras.Model(alexnet.inputs, probabilities, name="rotation_network")


def build_training_model(
    hyperparameters: Hyperparameters, network: keras.Model, principal_components: np.ndarray | None = None
) -> keras.Model:
    """Puts augmentation and rotation before the network, in this order.

    The mirror image of an image turned left is the mirrored image turned right: mirrored after its rotation, an image
    would have a wrong label every second time.

    Args:
        hyperparameters: uses what `build_augmentation` does.
        network: from `build_rotation_network`.
        principal_components: of the training images' colours, for the recipe's colour jitter.

    Returns:
        A model from `image` float32 [N, 64, 64, 3] and `rotation` int [N], in quarter turns, to the network's answer.
    """
    size = features.MODEL_IMAGE_SIZE
    images = keras.Input((size, size, features.NUM_CHANNELS), dtype="float32", name=features.IMAGE_KEY)
    rotations = keras.Input((), dtype="int32", name=ROTATION_KEY)
    augmentation = build_augmentation(hyperparameters, principal_components)
    rotated = RotateImages()(augmentation(images), rotations)
    inputs = {features.IMAGE_KEY: images, ROTATION_KEY: rotations}
    return keras.Model(inputs, network(rotated), name="pretraining")


def in_all_rotations(images: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Repeats each image for each rotation; the training model rotates them.

    Args:
        images: float32 [N, 64, 64, 3].

    Returns:
        The training model's inputs, 4 N rows, an image's four in succession; and the rotations once more, as labels,
        int32 [4 N].
    """
    rotations = tf.tile(tf.range(NUM_ROTATIONS), [tf.shape(images)[0]])
    return {features.IMAGE_KEY: tf.repeat(images, NUM_ROTATIONS, axis=0), ROTATION_KEY: rotations}, rotations


def _train(
    config: TrainingConfig,
    train: LabeledImages,
    validation: LabeledImages,
    transform_graph: Any,
    devices: Devices,
    run_dir: Path,
) -> tuple[keras.Model, list[checkpoint.Epoch]]:
    """Runs the epochs that are not done yet; returns the network and the history of all epochs."""
    hyperparameters = config.hyperparameters
    if hyperparameters.batch_size % NUM_ROTATIONS:
        raise ValueError(
            f"batch_size is {hyperparameters.batch_size}; for pre-training it has to be a multiple of {NUM_ROTATIONS}: "
            "a batch holds each of its images in all rotations."
        )
    images_a_step = hyperparameters.batch_size // NUM_ROTATIONS
    steps = fitting.count_steps(hyperparameters, NUM_ROTATIONS * len(train))
    print(
        f"Pre-training AlexNet on {len(train):,} images without labels, each in {NUM_ROTATIONS} rotations: "
        f"{hyperparameters.epochs} epochs of {steps:,} steps of {hyperparameters.batch_size} images; validating on "
        f"{len(validation):,} images ({config.validation_split}); {devices.description}.",
        flush=True,
    )
    components = fitting.principal_components(hyperparameters, train, transform_graph)
    with devices.strategy.scope():
        network = build_rotation_network(hyperparameters, devices.dtype, synchronized=devices.num_replicas > 1)
        model = build_training_model(hyperparameters, network, components)
        fitting.compile_for_fit(model, hyperparameters, devices, steps)

    def training_data(initial_epoch: int) -> tf.data.Dataset:
        return input_pipeline.training_dataset(
            train,
            transform_graph,
            batch_size=images_a_step,
            steps_per_epoch=steps,
            epochs=hyperparameters.epochs,
            initial_epoch=initial_epoch,
            seed=hyperparameters.seed,
        ).map(lambda images, _: in_all_rotations(images))

    validation_data = input_pipeline.evaluation_dataset(
        validation, transform_graph, batch_size=images_a_step, replicas=devices.num_replicas
    )
    state = fitting.fit(
        model,
        network,
        config,
        run_dir,
        steps=steps,
        training_data=training_data,
        validation_data=validation_data.map(lambda images, _: in_all_rotations(images)),
    )
    if state.best_weights:
        network.set_weights(state.best_weights)
    return network, state.history


def _without_labels(examples: LabeledImages) -> LabeledImages:
    """The images; every label is 0, whatever it was."""
    return LabeledImages(examples.images, tf.zeros_like(examples.labels))
