"""Rotations of images by quarter turns. Runs on every Keras 3 backend."""

import keras
from keras import layers, ops

NUM_ROTATIONS = 4
"""By 0, 1, 2 and 3 quarter turns, counter-clockwise."""


class RotateImages(layers.Layer):
    """`rotate`, as a layer."""

    def call(self, images: keras.KerasTensor, quarter_turns: keras.KerasTensor) -> keras.KerasTensor:
        """float32 [N, S, S, C] and int [N] to float32 [N, S, S, C]."""
        return rotate(images, quarter_turns)


def rotate(images: keras.KerasTensor, quarter_turns: keras.KerasTensor) -> keras.KerasTensor:
    """Rotates each image counter-clockwise, as `np.rot90` does. Nothing is interpolated: no trace tells the angle.

    Args:
        images: [N, S, S, C], square.
        quarter_turns: int [N], in 0..3.

    Returns:
        The images' shape and dtype.
    """
    turns = ops.reshape(quarter_turns, (-1, 1, 1, 1))
    images = ops.where(turns % 2 == 1, ops.transpose(images, (0, 2, 1, 3)), images)
    images = ops.where((turns == 1) | (turns == 2), ops.flip(images, axis=1), images)
    return ops.where((turns == 2) | (turns == 3), ops.flip(images, axis=2), images)
