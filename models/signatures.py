"""What the exported SavedModel answers, each signature through the one Transform graph."""

import functools
from typing import Any

import keras
import tensorflow as tf

from models import features, image_checks, input_pipeline
from models.alexnet import EMBEDDING_LAYER
from models.hyperparameters import Hyperparameters


class AlexNetServing(tf.Module):
    """AlexNet and its preprocessing, as TensorFlow Serving and TensorFlow Model Analysis call them."""

    def __init__(self, model: keras.Model, transform_graph: Any, hyperparameters: Hyperparameters) -> None:
        """Holds what the SavedModel has to contain.

        Args:
            model: from `build_alexnet`, trained.
            transform_graph: from `input_pipeline.load_transform_graph`.
            hyperparameters: uses `test_time_flip` and `test_time_shift`: which views of an image the probabilities
                and embeddings are means over.
        """
        super().__init__(name="alexnet_serving")
        network = keras.Model(model.inputs, [model.get_layer(EMBEDDING_LAYER).output, model.outputs[0]])
        # TensorFlow Serving restores the tf.Variables that a module holds by itself. It must not hold the Keras model:
        # that would save its variables once more, as copies that no signature reads.
        self._call_network = functools.partial(network, training=False)
        self._weights = [weight.value for weight in network.weights]
        self.transform_graph = transform_graph
        self._shift = hyperparameters.test_time_shift
        self._flip = hyperparameters.test_time_flip

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies images.

        Args:
            image_bytes: string [N], encoded image files (PNG, JPEG, BMP or GIF) of any size. They are sent as they are:
                what a camera stored turned (EXIF Orientation, in a JPEG or PNG) is seen upright.

        Returns:
            `probabilities` float32 [N, 10] in label order, and `classes` string [N, 10], the names; of the most
            probable class its `class_id` int64 [N], `label` string [N] and `score` float32 [N].
        """
        _, probabilities = self._predict(image_bytes, "image_bytes")
        class_id = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "classes": _class_names(batch_size=tf.shape(probabilities)[0]),
            "class_id": class_id,
            "label": tf.gather(tf.constant(features.CLASS_NAMES), class_id),
            "score": tf.reduce_max(probabilities, axis=-1),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies tf.Examples, in the form of TensorFlow Serving's Classify call. This is what is evaluated.

        Args:
            inputs: string [N], serialized tf.Examples with `image`; other features are ignored.

        Returns:
            `classes` string [N, 10], the class names in label order; `scores` float32 [N, 10], their probabilities.
        """
        spec = {features.IMAGE_KEY: input_pipeline.RAW_FEATURE_SPEC[features.IMAGE_KEY]}
        _, scores = self._predict(tf.io.parse_example(inputs, spec)[features.IMAGE_KEY], "inputs")
        return {"classes": _class_names(batch_size=tf.shape(scores)[0]), "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def embeddings(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Describes images by the last hidden layer; with several views at test time by its mean over them.

        Args:
            image_bytes: string [N], encoded image files.

        Returns:
            `embeddings` float32 [N, 1024], not negative.
        """
        embeddings, _ = self._predict(image_bytes, "image_bytes")
        return {"embeddings": embeddings}

    def _predict(self, image_bytes: tf.Tensor, input_name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """String [N] to embeddings float32 [N, 1024] and probabilities float32 [N, 10]."""
        image_bytes = image_checks.ensure_decodable(image_bytes, input_name)
        batch_size = tf.shape(image_bytes)[0]
        # The Transform graph was traced with a label; it has no part in the image.
        images, _ = input_pipeline.transform(self.transform_graph, image_bytes, tf.zeros([batch_size], tf.int64))
        # TensorFlow's convolution on the CPU fails on an empty batch: it gets a blank image, whose answer is cut off.
        images = tf.cond(batch_size > 0, lambda: images, lambda: tf.zeros([1, *images.shape[1:]]))
        embeddings, probabilities = self._answer_with_shifts(images)
        return embeddings[:batch_size], probabilities[:batch_size]

    def _answer_with_shifts(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Float32 [N, 64, 64, 3] to the means of embeddings and probabilities over the images and the shifted ones."""
        if not self._shift:
            return self._answer_with_flips(images)
        size, edge = features.MODEL_IMAGE_SIZE, self._shift
        # What a shift brings in is the mirror image of what is beside it.
        padded = tf.pad(images, [[0, 0], [edge, edge], [edge, edge], [0, 0]], mode="REFLECT")
        # One after another: all in one batch would take three times the memory, gigabytes for a thousand images.
        answers = tf.map_fn(
            lambda start: self._answer_with_flips(padded[:, start : start + size, start : start + size]),
            tf.constant([0, edge, 2 * edge]),
            parallel_iterations=1,
            fn_output_signature=(tf.float32, tf.float32),
        )
        embeddings, probabilities = (tf.reduce_mean(answer, axis=0) for answer in answers)
        return embeddings, probabilities

    def _answer_with_flips(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Float32 [N, 64, 64, 3] to the means of embeddings and probabilities over images and mirror images."""
        views = [images, images[:, :, ::-1]] if self._flip else [images]
        answers = self._call_network(tf.concat(views, axis=0))
        embeddings, probabilities = (tf.add_n(tf.split(answer, len(views))) / len(views) for answer in answers)
        return embeddings, probabilities


def _class_names(batch_size: tf.Tensor) -> tf.Tensor:
    """The names of the classes in label order, string [batch_size, 10]."""
    return tf.tile(tf.constant([features.CLASS_NAMES]), [batch_size, 1])


def export(model: keras.Model, transform_graph: Any, export_dir: str, hyperparameters: Hyperparameters) -> None:
    """Writes the SavedModel with the signatures `serving_default`, `classify` and `embeddings`.

    Args:
        model: from `build_alexnet`, trained, of dtype policy float32.
        transform_graph: from `input_pipeline.load_transform_graph`.
        export_dir: where to; made when absent.
        hyperparameters: as for `AlexNetServing`.
    """
    serving = AlexNetServing(model, transform_graph, hyperparameters)
    signatures = {
        "serving_default": serving.serving_default,
        "classify": serving.classify,
        "embeddings": serving.embeddings,
    }
    tf.saved_model.save(serving, export_dir, signatures=signatures)
