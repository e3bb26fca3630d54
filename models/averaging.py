"""Validates and exports an average of the weights over many steps, rather than those of the last step alone."""

from typing import Any

import keras
from keras import ops


class AveragedModel(keras.Model):
    """Trains a network, keeps the exponential moving average of its weights, and answers with the average.

    Averaging: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992. The running batch
    statistics are averaged as the weights are, so that they belong to them. Step t, counted from 0, keeps the part
    min(momentum, (1 + t) / (10 + t)) of the average, as `tf.train.ExponentialMovingAverage` does: the initial weights
    are soon forgotten. Trains with Keras' TensorFlow backend.

    Attributes:
        average: the network with the averaged weights.
    """

    def __init__(self, augmentation: keras.Model, network: keras.Model, average: keras.Model, momentum: float) -> None:
        """Joins the parts.

        Args:
            augmentation: changes training images only.
            network: is trained.
            average: of the same architecture; its weights become the average.
            momentum: part of the average that is kept at each step, in (0, 1).
        """
        super().__init__(name="training")
        average.trainable = False
        self.augmentation = augmentation
        self.network = network
        self.average = average
        self.momentum = momentum
        self.built = True  # the parts are

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """float32 [N, 64, 64, 3] to probabilities, float32 [N, 10]: of the network in training, else of the average."""
        if training:
            return self.network(self.augmentation(images, training=True), training=True)
        return self.average(images, training=False)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of the optimizer, then one of the average."""
        step = ops.cast(self.optimizer.iterations, "float32")
        logs = super().train_step(data)
        kept = ops.minimum(self.momentum, (1 + step) / (10 + step))
        for average, weight in zip(self.average.weights, self.network.weights, strict=True):
            average.assign(kept * average + (1 - kept) * weight)
        return logs
