"""What TensorBoard shows of a run beside its curves: predictions epoch by epoch, the network's graph, the recipe."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from models import features

PICTURES_TAG = "validation_images"

_COLUMNS = 5
_SCALE = 4
_PICTURE_SIZE = features.SOURCE_IMAGE_SIZE * _SCALE
_TEXT_HEIGHT = 36
_MARGIN = 6
_BACKGROUND, _TEXT = (255, 255, 255), (0, 0, 0)
# Of Okabe and Ito's palette, which colour-blind people can tell apart.
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)


@dataclasses.dataclass(frozen=True)
class Samples:
    """A few images whose predictions are shown after each epoch.

    Attributes:
        pixels: uint8 [n, 32, 32, 3], to be looked at.
        inputs: float32 [n, 64, 64, 3], as the network takes them.
        labels: int64 [n].
    """

    pixels: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray


class RunLog(keras.callbacks.Callback):
    """Writes the recipe and the graph once, and after each epoch one picture: the samples with their predictions.

    Keras' own TensorBoard callback writes the curves, into `train` and `validation` in the same folder.
    """

    def __init__(self, log_dir: Path, network: keras.Model, samples: Samples, recipe: Mapping[str, Any]) -> None:
        """Holds what to write.

        Args:
            log_dir: of the run.
            network: from float32 [N, 64, 64, 3] to probabilities float32 [N, 10]; its weights change under way.
            samples: ten images or so: each costs time and space after each epoch.
            recipe: numbers, switches and texts by name, for the HParams page.
        """
        super().__init__()
        self._log_dir = log_dir
        self._network = network
        self._samples = samples
        self._recipe = dict(recipe)
        self._writer: Any = None
        self._predict: Callable[[tf.Tensor], tf.Tensor] = tf.function(lambda images: network(images, training=False))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the log; a run that goes on has its recipe and graph there already."""
        is_new = not any(self._log_dir.glob("events.*"))
        self._writer = tf.summary.create_file_writer(str(self._log_dir))
        if is_new:
            with self._writer.as_default():
                _write_recipe(self._recipe)
                tf.summary.graph(_inference_graph(self._network))
            self._writer.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws the samples as they are seen now."""
        probabilities = np.asarray(self._predict(tf.constant(self._samples.inputs)), np.float32)
        with self._writer.as_default():
            sheet = contact_sheet(self._samples.pixels, self._samples.labels, probabilities)
            description = "actual | predicted, with its probability; blue: right, orange: wrong"
            tf.summary.image(PICTURES_TAG, sheet[np.newaxis], step=epoch, description=description)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the log."""
        self._writer.close()


def one_of_each_class(labels: np.ndarray) -> np.ndarray:
    """Index of the first example of each class that there is, in label order.

    Args:
        labels: int [n].

    Returns:
        int64 [at most 10].
    """
    return np.unique(labels, return_index=True)[1].astype(np.int64)


def contact_sheet(pixels: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Draws images with "actual | predicted p" below each; the frame says by its colour whether it is right.

    Args:
        pixels: uint8 [n, 32, 32, 3].
        labels: int [n].
        probabilities: float [n, 10].

    Returns:
        uint8 [height, width, 3].
    """
    cell_width, cell_height = _PICTURE_SIZE + 2 * _MARGIN, _PICTURE_SIZE + _TEXT_HEIGHT + 2 * _MARGIN
    rows = -(-len(pixels) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * cell_width, rows * cell_height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for index, (image, label, scores) in enumerate(zip(pixels, labels, probabilities, strict=True)):
        row, column = divmod(index, _COLUMNS)
        left, top = column * cell_width + _MARGIN, row * cell_height + _MARGIN
        predicted = int(scores.argmax())
        frame = (left - 4, top - 4, left + _PICTURE_SIZE + 3, top + _PICTURE_SIZE + 3)
        draw.rectangle(frame, fill=_RIGHT if predicted == label else _WRONG)
        sheet.paste(
            Image.fromarray(image).resize((_PICTURE_SIZE, _PICTURE_SIZE), Image.Resampling.NEAREST), (left, top)
        )
        text = f"{features.CLASS_NAMES[label]} |\n{features.CLASS_NAMES[predicted]} {scores[predicted]:.2f}"
        draw.multiline_text((left, top + _PICTURE_SIZE + 4), text, fill=_TEXT, font=font, spacing=1)
    return np.asarray(sheet)


def _write_recipe(recipe: Mapping[str, Any]) -> None:
    """For the HParams page, with the curves that it compares runs by."""
    from tensorboard.plugins.hparams import api

    metrics = [
        api.Metric("epoch_accuracy", group="validation", display_name="validation accuracy"),
        api.Metric("epoch_loss", group="validation", display_name="validation loss"),
        api.Metric("epoch_accuracy", group="train", display_name="training accuracy"),
    ]
    api.hparams_config(hparams=[api.HParam(name) for name in recipe], metrics=metrics)
    api.hparams(dict(recipe))


def _inference_graph(network: keras.Model) -> Any:
    """The network's graph, layer by layer, without what training adds to it."""

    def alexnet(images: tf.Tensor) -> tf.Tensor:
        return network(images, training=False)

    size = features.MODEL_IMAGE_SIZE
    images = tf.TensorSpec([None, size, size, features.NUM_CHANNELS], tf.float32, name=features.IMAGE_KEY)
    return tf.function(alexnet).get_concrete_function(images).graph
