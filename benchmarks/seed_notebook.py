"""The notebook that this project started from, as functions: its input, network and training, in plain Keras.

What everything else is compared with, so it imports nothing of ours and is written as such notebooks are: whole epochs
of float images in the shuffle buffer, no parallel map, no prefetching. It validates on the test split.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

EPOCHS = 20
BATCH_SIZE = 32
LEARNING_RATE = 0.001


def process_image(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Standardizes an image, uint8 [32, 32, 3], and enlarges it to float32 [64, 64, 3]."""
    image = tf.image.per_image_standardization(image)
    return tf.image.resize(image, (64, 64)), label


def dataset(images: np.ndarray, labels: np.ndarray, batch_size: int = BATCH_SIZE) -> tf.data.Dataset:
    """Shuffled batches of one epoch, for training and validation alike; what does not fill the last one is dropped.

    Args:
        images: uint8 [n, 32, 32, 3].
        labels: int [n], in 0..9.
        batch_size: images a batch.

    Returns:
        Batches of float32 [batch_size, 64, 64, 3] and the labels, [batch_size].
    """
    examples = tf.data.Dataset.from_tensor_slices((images, labels))
    return examples.map(process_image).shuffle(buffer_size=len(images)).batch(batch_size, drop_remainder=True)


def build_model() -> keras.Sequential:
    """The network, compiled: the layers of `models.alexnet`."""
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(128, 11, strides=4, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Conv2D(256, 5, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(3),
            layers.Conv2D(256, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(256, 1, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(256, 1, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=keras.optimizers.SGD(learning_rate=LEARNING_RATE),
        metrics=["accuracy"],
    )
    return model
