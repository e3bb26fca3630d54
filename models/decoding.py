"""The one decoder of image files: what it refuses is refused where files come in, and it decodes in every graph."""

import tensorflow as tf

from models import features


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG, JPEG, 24-bit BMP, or a GIF's first frame, as it is stored.

    Args:
        encoded: string [], a whole image file.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: when run, on a file that cannot be decoded.
    """
    # tf.io.decode_image is this op, behind a wrapper that costs as much as decoding an image of CIFAR-10 does.
    return tf.raw_ops.DecodeImage(contents=encoded, channels=features.NUM_CHANNELS, expand_animations=False)
