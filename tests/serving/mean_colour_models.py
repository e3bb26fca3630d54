"""A small model with AlexNet's signatures, and what it has to answer, in NumPy."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from models import features

KERNEL = np.linspace(-2, 2, 3 * features.NUM_CLASSES, dtype=np.float32).reshape(3, features.NUM_CLASSES)


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 [height, width, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def random_images(count: int) -> tuple[np.ndarray, list[bytes]]:
    """Pixels, uint8 [count, 8, 8, 3], each image of a colour of its own, and their PNG files."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 200, [count, 1, 1, 3])
    pixels = (colours + rng.integers(0, 56, [count, 8, 8, 3])).astype(np.uint8)
    return pixels, [png(image) for image in pixels]


def probabilities(pixels: np.ndarray, favourite: int) -> np.ndarray:
    """What a model answers, float32 [count, 10]: softmax(mean colour @ KERNEL + 1 for its favourite class)."""
    logits = pixels.mean(axis=(1, 2)) / 255 @ KERNEL + np.eye(features.NUM_CLASSES)[favourite]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def save(model_dir: Path, favourite: int) -> Path:
    """Exports the model whose answers lean to a class of its own, so that each version can be told by them."""
    import tensorflow as tf

    class MeanColour(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = tf.Variable(tf.one_hot(favourite, features.NUM_CLASSES))

        def _probabilities(self, images: tf.Tensor) -> tf.Tensor:
            def mean_colour(image: tf.Tensor) -> tf.Tensor:
                return tf.reduce_mean(tf.cast(tf.io.decode_png(image, channels=3), tf.float32), axis=[0, 1])

            colours = tf.map_fn(mean_colour, images, fn_output_signature=tf.TensorSpec([3], tf.float32))
            return tf.nn.softmax(colours / 255 @ KERNEL + self.bias)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serving_default(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = self._probabilities(image_bytes)
            return {"probabilities": probabilities, "class_id": tf.argmax(probabilities, axis=-1)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            spec = {features.IMAGE_KEY: tf.io.FixedLenFeature([], tf.string)}
            scores = self._probabilities(tf.io.parse_example(inputs, spec)[features.IMAGE_KEY])
            return {"classes": tf.tile(tf.constant([features.CLASS_NAMES]), [tf.shape(scores)[0], 1]), "scores": scores}

    model = MeanColour()
    signatures = {"serving_default": model.serving_default, "classify": model.classify}
    tf.saved_model.save(model, str(model_dir), signatures=signatures)
    return model_dir


def tell(answers: Sequence[Sequence[float]], pixels: np.ndarray, favourites: Sequence[int]) -> int:
    """Which model has answered.

    Raises:
        AssertionError: none of them answers so.
    """
    for favourite in favourites:
        expected = probabilities(pixels, favourite)
        if np.shape(answers) == expected.shape and np.allclose(answers, expected, rtol=0, atol=1e-5):
            return favourite
    raise AssertionError(f"no model with favourites {favourites} answers {answers}")
