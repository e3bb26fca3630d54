"""What a SavedModel answers about each image of a split, and which of the images are worth a look."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models import features

SIGNATURE = "classify"
"""The signature that is gated: serialized tf.Examples in, probabilities out."""

BATCH_SIZE = 250


@dataclass(frozen=True, eq=False)
class LabeledExamples:
    """A split as ExampleGen has written it.

    Attributes:
        examples: n serialized tf.Examples.
        files: n image files, as they came: PNG or JPEG.
        labels: int64 [n], indices into CLASS_NAMES.
    """

    examples: Sequence[bytes]
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


def read_split(folder: str) -> LabeledExamples:
    """Read a split's gzipped TFRecords, in their order, which ExampleGen makes by a hash of the image.

    Raises:
        ValueError: There are none.
    """
    import tensorflow as tf

    paths = sorted(tf.io.gfile.glob(posixpath.join(folder, "*")))
    records = list(tf.data.TFRecordDataset(paths, compression_type="GZIP").as_numpy_iterator())
    if not records:
        raise ValueError(f"{folder} holds no examples to ask the model about.")
    parsed = [tf.train.Example.FromString(record).features.feature for record in records]
    return LabeledExamples(
        examples=records,
        files=[feature[features.IMAGE_KEY].bytes_list.value[0] for feature in parsed],
        labels=np.array([feature[features.LABEL_KEY].int64_list.value[0] for feature in parsed], np.int64),
    )


def predict(model_dir: str, split: LabeledExamples, batch_size: int = BATCH_SIZE) -> Predictions:
    """Ask a SavedModel about every image, batch by batch.

    Args:
        model_dir: Folder of the SavedModel.
        split: What to ask about.
        batch_size: Images in memory at once, decoded.
    """
    import tensorflow as tf

    # The signature alone would not keep the variables alive.
    loaded = tf.saved_model.load(model_dir)
    signature = loaded.signatures[SIGNATURE]
    batches = [
        signature(inputs=tf.constant(split.examples[start : start + batch_size]))["scores"].numpy()
        for start in range(0, len(split.examples), batch_size)
    ]
    num_weights = sum(int(np.prod(variable.shape)) for variable in signature.variables)
    return Predictions(split.labels, np.concatenate(batches), num_weights)


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
