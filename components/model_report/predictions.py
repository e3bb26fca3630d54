"""What a SavedModel answers about each image of a split, and which of the images are worth a look."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models import features

if TYPE_CHECKING:
    import tensorflow as tf

SIGNATURE = "classify"
"""The signature that is gated: serialized tf.Examples in, probabilities out."""

BATCH_SIZE = 250


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Some images of a split.

    Attributes:
        files: n image files, as they came: PNG or JPEG.
        labels: int64 [n], indices into CLASS_NAMES.
    """

    files: Sequence[bytes]
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's answers.

    Attributes:
        labels: int64 [n], the actual classes.
        probabilities: float32 [n, 10], in label order.
        num_weights: values in the variables that the signature reads, normalization statistics included.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    num_weights: int

    @property
    def classes(self) -> np.ndarray:
        """The most probable class, int64 [n]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """Its probability, float32 [n], in [0, 1]."""
        return self.probabilities.max(axis=1).clip(0, 1)

    @property
    def correct(self) -> np.ndarray:
        """Whether it is the actual class, bool [n]."""
        return self.classes == self.labels


def read_images(split_dir: str, indices: Iterable[int]) -> LabeledImages:
    """Read some images of a split. Goes through the files up to the last of them and keeps no others in memory.

    Args:
        split_dir: The split as ExampleGen has written it.
        indices: Positions in the split, as in `Predictions`; in any order, which the result has too.

    Raises:
        ValueError: The split holds no examples.
        IndexError: It has fewer than that.
    """
    import tensorflow as tf

    wanted = [int(index) for index in indices]
    found: dict[int, tf.train.Example] = {}
    for position, record in enumerate(_records(split_dir).take(max(wanted, default=-1) + 1).as_numpy_iterator()):
        if position in wanted:
            found[position] = tf.train.Example.FromString(record)
    absent = sorted(set(wanted) - set(found))
    if absent:
        raise IndexError(f"{split_dir} has no image {absent[0]}.")
    chosen = [found[index].features.feature for index in wanted]
    return LabeledImages(
        files=[feature[features.IMAGE_KEY].bytes_list.value[0] for feature in chosen],
        labels=np.array([feature[features.LABEL_KEY].int64_list.value[0] for feature in chosen], np.int64),
    )


def predict(model_dirs: Sequence[str], split_dir: str, batch_size: int = BATCH_SIZE) -> list[Predictions]:
    """Ask SavedModels about every image of a split, which is read once, batch by batch.

    Args:
        model_dirs: Folders of the SavedModels.
        split_dir: The split as ExampleGen has written it.
        batch_size: Images in memory at once.

    Returns:
        A model each, with the images in the order of the files, which ExampleGen makes by a hash of the image.

    Raises:
        ValueError: The split holds no examples.
    """
    import tensorflow as tf

    # The signatures alone would not keep the variables alive.
    loaded = [tf.saved_model.load(model_dir) for model_dir in model_dirs]
    signatures = [model.signatures[SIGNATURE] for model in loaded]
    label = {features.LABEL_KEY: tf.io.FixedLenFeature([], tf.int64)}
    labels: list[np.ndarray] = []
    scores: list[list[np.ndarray]] = [[] for _ in signatures]
    for examples in _records(split_dir).batch(batch_size):
        labels.append(tf.io.parse_example(examples, label)[features.LABEL_KEY].numpy())
        for answers, signature in zip(scores, signatures, strict=True):
            answers.append(signature(inputs=examples)["scores"].numpy())
    if not labels:
        raise ValueError(f"{split_dir} holds no examples to ask the model about.")
    return [
        Predictions(
            labels=np.concatenate(labels),
            probabilities=np.concatenate(answers),
            num_weights=sum(int(np.prod(variable.shape)) for variable in signature.variables),
        )
        for answers, signature in zip(scores, signatures, strict=True)
    ]


def _records(split_dir: str) -> tf.data.Dataset:
    """A split's serialized tf.Examples.

    Raises:
        ValueError: There are no files.
    """
    import tensorflow as tf

    paths = sorted(tf.io.gfile.glob(posixpath.join(split_dir, "*")))
    if not paths:
        raise ValueError(f"{split_dir} holds no examples.")
    return tf.data.TFRecordDataset(paths, compression_type="GZIP")


def most_confident_mistakes(predictions: Predictions, count: int) -> np.ndarray:
    """Indices, int64 [at most count], of the wrong answers given with the highest probability, that first."""
    wrong = np.flatnonzero(~predictions.correct)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:count]


def flips(before: Predictions, now: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Images whose answer has changed between right and wrong.

    Args:
        before: Of the one model.
        now: Of the other, on the same images.

    Returns:
        Indices, int64 [m], of the images that were wrong and are right, and of those that were right and are wrong;
        those with the most confident new answer first.

    Raises:
        ValueError: The images are not the same.
    """
    if not np.array_equal(before.labels, now.labels):
        raise ValueError("The two models were not asked about the same images.")
    order = np.argsort(-now.confidence, kind="stable")
    gained, lost = now.correct & ~before.correct, before.correct & ~now.correct
    return order[gained[order]], order[lost[order]]


def accuracy_interval(correct: int, images: int, z: float = 1.96) -> tuple[float, float]:
    """The range that a model's accuracy on all images of the kind is in, going by a sample of them.

    Wilson's score interval (E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927).

    Args:
        correct: Rightly classified images.
        images: All images, at least 1.
        z: Standard deviations; 1.96 for 95 %.

    Returns:
        Lower and upper end, in [0, 1].
    """
    share, spread = correct / images, z * z / images
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / images + spread / (4 * images)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
