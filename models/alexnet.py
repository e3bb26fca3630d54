"""AlexNet (Krizhevsky et al., 2012), scaled to 64x64 images. Runs on every Keras 3 backend."""

import dataclasses

import keras
import numpy as np
from keras import layers

from models import features
from models.hyperparameters import Hyperparameters

EMBEDDING_LAYER = "dense7"
"""The last hidden layer: 1,024 non-negative values an image."""


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One of the five convolutions, with the pooling behind it.

    Attributes:
        filters: number of them.
        size: height and width of the kernel, in pixels.
        strides: in both directions, in pixels.
        padding: `same` keeps the map's size (where the stride is 1), `valid` uses whole windows only.
        pool: window and stride of the max pooling that follows, in pixels; 1 is none.
    """

    filters: int
    size: int
    strides: int = 1
    padding: str = "same"
    pool: int = 1


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What tells the networks apart. All have five convolutions and three dense layers.

    Attributes:
        convolutions: the five, in order.
        norm_first: convolution without bias, pooling, batch normalization, ReLU (normalization before the ReLU: Ioffe
            and Szegedy, 2015; pooling as early as its result allows, on a quarter of whose values the rest then works)
            in place of convolution, ReLU, batch normalization, pooling.
        dense_units: of each of the two hidden dense layers.
    """

    convolutions: tuple[Convolution, ...]
    norm_first: bool = False
    dense_units: int = 1024


GEOMETRIES = {
    # The notebook's: AlexNet's first kernel and stride, made for 227x227 images. 64 -> 14 -> 7 -> 2 -> 1.
    "alexnet": Geometry(
        (
            Convolution(128, 11, strides=4, padding="valid", pool=2),
            Convolution(256, 5, pool=3),
            Convolution(256, 3),
            Convolution(256, 1),
            Convolution(256, 1, pool=2),
        )
    ),
    # A first layer that fits small images, and a 3x3 kernel on each map before it is pooled. 64 -> 32 -> 16 -> 8 -> 4.
    "alexnet_fit": Geometry(
        (
            Convolution(64, 5, strides=2),
            Convolution(128, 3, pool=2),
            Convolution(256, 3, pool=2),
            Convolution(256, 3),
            Convolution(256, 3, pool=2),
        ),
        norm_first=True,
    ),
}
"""By the name in `Hyperparameters.network`."""


def build_network(
    hyperparameters: Hyperparameters, dtype: str = "float32", *, synchronized: bool = False
) -> keras.Model:
    """Builds the network that a recipe asks for.

    Args:
        hyperparameters: uses `network`, `without_convolution`, `batch_norm_momentum`, `dropout` and `seed`.
        dtype: a Keras dtype policy: `float32` or `mixed_bfloat16`.
        synchronized: see `build_alexnet`.

    Returns:
        As `build_alexnet`.
    """
    return build_alexnet(
        hyperparameters.dropout,
        hyperparameters.seed,
        dtype,
        geometry=GEOMETRIES[hyperparameters.network],
        without_convolution=hyperparameters.without_convolution,
        batch_norm_momentum=hyperparameters.batch_norm_momentum,
        synchronized=synchronized,
    )


def build_alexnet(
    dropout: float = 0.5,
    seed: int = 0,
    dtype: str = "float32",
    *,
    geometry: Geometry = GEOMETRIES["alexnet"],
    without_convolution: int = 0,
    batch_norm_momentum: float = 0.99,
    synchronized: bool = False,
) -> keras.Model:
    """Builds a network. By default it has 2,915,338 parameters, of which 2,304 (the batch statistics) are not trained.

    Leaving a convolution out leaves out its normalization and its ReLU too. Its pooling stays, and takes over its
    stride: the maps behind it are as large as before (`alexnet` without its first convolution: 8 pixels wide after
    the first pooling in place of 7, then the same), and the next layer sees the channels of the one before. The other
    layers keep their names and the seeds of their weights.

    Args:
        dropout: part of the units dropped after each hidden dense layer, in [0, 1).
        seed: of the initial weights (Glorot uniform) and of dropout.
        dtype: a Keras dtype policy: `float32` or `mixed_bfloat16`.
        geometry: sizes of the layers.
        without_convolution: 1 to 5 to leave that convolution out, 0 for the whole network.
        batch_norm_momentum: part of the running batch statistics that is kept at each step, in [0, 1).
        synchronized: takes batch statistics over all replicas' images, so that several devices learn what one would;
            Keras' TensorFlow backend only.

    Returns:
        A model from float32 [N, 64, 64, 3], standardized images, to float32 [N, 10], probabilities in the order of
        `features.CLASS_NAMES`.
    """
    # One seed a layer: Keras would draw the same numbers for layers of the same shape and seed.
    seeds = dict(
        zip(
            [*(f"conv{i}" for i in range(1, 6)), "dense6", "dropout6", "dense7", "dropout7", "dense8"],
            np.random.SeedSequence(seed).generate_state(10).tolist(),
            strict=True,
        )
    )

    def initializer(name: str) -> keras.Initializer:
        return keras.initializers.GlorotUniform(seed=seeds[name])

    def pool(x: keras.KerasTensor, index: int, size: int) -> keras.KerasTensor:
        return layers.MaxPooling2D(size, dtype=dtype, name=f"pool{index}")(x) if size > 1 else x

    def conv(x: keras.KerasTensor, index: int, convolution: Convolution) -> keras.KerasTensor:
        """Convolution, ReLU, batch normalization and pooling, in the geometry's order."""
        x = layers.Conv2D(
            convolution.filters,
            convolution.size,
            strides=convolution.strides,
            padding=convolution.padding,
            activation=None if geometry.norm_first else "relu",
            use_bias=not geometry.norm_first,
            kernel_initializer=initializer(f"conv{index}"),
            dtype=dtype,
            name=f"conv{index}",
        )(x)
        if geometry.norm_first:
            x = pool(x, index, convolution.pool)
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum, synchronized=synchronized, dtype=dtype, name=f"norm{index}"
        )(x)
        if geometry.norm_first:
            return layers.ReLU(dtype=dtype, name=f"relu{index}")(x)
        return pool(x, index, convolution.pool)

    def dense(x: keras.KerasTensor, index: int) -> keras.KerasTensor:
        name = f"dense{index}"
        x = layers.Dense(
            geometry.dense_units, activation="relu", kernel_initializer=initializer(name), dtype=dtype, name=name
        )(x)
        return layers.Dropout(dropout, seed=seeds[f"dropout{index}"], dtype=dtype, name=f"dropout{index}")(x)

    size = features.MODEL_IMAGE_SIZE
    images = keras.Input((size, size, features.NUM_CHANNELS), dtype="float32", name=features.IMAGE_KEY)
    x = images
    for index, convolution in enumerate(geometry.convolutions, start=1):
        if index == without_convolution:
            x = pool(x, index, convolution.pool * convolution.strides)
        else:
            x = conv(x, index, convolution)
    x = layers.Flatten(dtype=dtype, name="flatten")(x)
    x = dense(dense(x, 6), 7)
    # The softmax stays in float32 under mixed precision: bfloat16 keeps 3 digits, too few for the loss.
    probabilities = layers.Dense(
        features.NUM_CLASSES,
        activation="softmax",
        kernel_initializer=initializer("dense8"),
        dtype="float32",
        name="dense8",
    )(x)
    return keras.Model(images, probabilities, name="alexnet")
