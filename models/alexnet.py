"""AlexNet (Krizhevsky et al., 2012), scaled to 64x64 images. Runs on every Keras 3 backend."""

import keras
import numpy as np
from keras import layers

from models import features

EMBEDDING_LAYER = "dense7"
"""The last hidden layer: 1,024 non-negative values an image."""


def build_alexnet(dropout: float = 0.5, seed: int = 0, dtype: str = "float32") -> keras.Model:
    """Builds the network, with 2,915,338 parameters of which 2,304 (the batch statistics) are not trained.

    Args:
        dropout: part of the units dropped after each hidden dense layer, in [0, 1).
        seed: of the initial weights (Glorot uniform) and of dropout.
        dtype: a Keras dtype policy: `float32` or `mixed_bfloat16`.

    Returns:
        A model from float32 [N, 64, 64, 3], standardized images, to float32 [N, 10], probabilities in the order of
        `features.CLASS_NAMES`.
    """
    # One seed a layer: Keras would draw the same numbers for layers of the same shape and seed.
    seeds = iter(np.random.SeedSequence(seed).generate_state(10).tolist())

    def initializer() -> keras.Initializer:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    def conv(x: keras.KerasTensor, index: int, filters: int, size: int, **options: object) -> keras.KerasTensor:
        """Convolution, ReLU, then batch normalization."""
        x = layers.Conv2D(
            filters,
            size,
            activation="relu",
            kernel_initializer=initializer(),
            dtype=dtype,
            name=f"conv{index}",
            **options,
        )(x)
        return layers.BatchNormalization(dtype=dtype, name=f"norm{index}")(x)

    def pool(x: keras.KerasTensor, index: int, size: int) -> keras.KerasTensor:
        return layers.MaxPooling2D(size, dtype=dtype, name=f"pool{index}")(x)

    def dense(x: keras.KerasTensor, index: int) -> keras.KerasTensor:
        x = layers.Dense(1024, activation="relu", kernel_initializer=initializer(), dtype=dtype, name=f"dense{index}")(
            x
        )
        return layers.Dropout(dropout, seed=next(seeds), dtype=dtype, name=f"dropout{index}")(x)

    size = features.MODEL_IMAGE_SIZE
    images = keras.Input((size, size, features.NUM_CHANNELS), dtype="float32", name=features.IMAGE_KEY)
    x = pool(conv(images, 1, 128, 11, strides=4), 1, 2)  # 64 -> 14 -> 7
    x = pool(conv(x, 2, 256, 5, padding="same"), 2, 3)  # 7 -> 2
    x = conv(x, 3, 256, 3, padding="same")
    x = conv(x, 4, 256, 1)
    x = pool(conv(x, 5, 256, 1), 5, 2)  # 2 -> 1
    x = layers.Flatten(dtype=dtype, name="flatten")(x)
    x = dense(dense(x, 6), 7)
    # The softmax stays in float32 under mixed precision: bfloat16 keeps 3 digits, too few for the loss.
    probabilities = layers.Dense(
        features.NUM_CLASSES,
        activation="softmax",
        kernel_initializer=initializer(),
        dtype="float32",
        name="dense8",
    )(x)
    return keras.Model(images, probabilities, name="alexnet")
