"""The one way from an encoded image to the tensor that AlexNet takes.

TFX's Transform component traces `preprocessing_fn` into a graph; training, evaluation and serving all call that
graph, so nothing else in this repository decodes or scales an image for the model.
"""

import tensorflow as tf

from models import decoding, features


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Decode, standardize at 32x32, then resize to 64x64. Called by TensorFlow Transform; holds no statistics.

    Args:
        inputs: `image`: string [N, 1] or [N], encoded image files; `label`: int64 [N, 1] or [N].

    Returns:
        `image`: float32 [N, 64, 64, 3], each image of mean 0 and standard deviation 1 before the resize;
        `label`: int64 [N].
    """
    encoded = tf.reshape(inputs[features.IMAGE_KEY], [-1])
    return {
        features.IMAGE_KEY: resize(standardize(decode_images(encoded))),
        features.LABEL_KEY: tf.reshape(tf.cast(inputs[features.LABEL_KEY], tf.int64), [-1]),
    }


def decode_images(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes image files of any size to three-channel images of CIFAR-10's size.

    PNG, JPEG, 24-bit BMP and GIF (its first frame). Greyscale is repeated in the three channels, an alpha channel
    is dropped, 16-bit samples keep their upper 8 bits. An image that is not 32x32 is resized to it, whatever its
    aspect, with antialiasing.

    Args:
        encoded: string [N], each a whole image file.

    Returns:
        uint8 [N, 32, 32, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: when run, on a file that cannot be decoded.
    """
    shape = [features.SOURCE_IMAGE_SIZE, features.SOURCE_IMAGE_SIZE, features.NUM_CHANNELS]
    return tf.map_fn(_decode_image, encoded, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def standardize(images: tf.Tensor) -> tf.Tensor:
    """Brings each image to mean 0 and standard deviation 1, over its pixels and channels together.

    The divisor is at least 1 / sqrt(number of values), so that an image of one colour becomes 0.

    Args:
        images: uint8 or float [N, H, W, 3].

    Returns:
        float32 [N, H, W, 3].
    """
    return tf.image.per_image_standardization(images)


def resize(images: tf.Tensor) -> tf.Tensor:
    """Enlarges to the model's size: bilinear, half-pixel centres, edges repeated.

    Args:
        images: float32 [N, H, W, 3].

    Returns:
        float32 [N, 64, 64, 3].
    """
    return tf.image.resize(images, [features.MODEL_IMAGE_SIZE, features.MODEL_IMAGE_SIZE], method="bilinear")


def _decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """String [] to uint8 [32, 32, 3]."""
    size = features.SOURCE_IMAGE_SIZE
    image = decoding.decode(encoded)
    has_source_size = tf.reduce_all(tf.shape(image)[:2] == size)
    image = tf.cond(has_source_size, lambda: image, lambda: _shrink(image))
    image.set_shape([size, size, features.NUM_CHANNELS])
    return image


def _shrink(image: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] to uint8 [32, 32, 3]; enlarges too."""
    size = features.SOURCE_IMAGE_SIZE
    resized = tf.image.resize(image, [size, size], method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
