"""Counts over a split, from which every metric of a classifier with single labels follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

NUM_BUCKETS = 20
"""Of the calibration histograms: equally wide, over [0, 1]."""

BUCKET_EDGES = np.arange(NUM_BUCKETS + 1) / NUM_BUCKETS
"""float64 [21]. A bucket holds its lower edge; a probability of exactly 1 is in a bucket of its own."""

MIN_PROBABILITY = 1e-7
"""Probabilities are brought to at least this, and to at most 1 less this, before the logarithm, as Keras does it."""


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts and sums over n images and C classes. Tallies of parts of a split add up to that of the split.

    Attributes:
        confusion: int64 [C, C], images by label (row) and most probable class (column).
        ranks: int64 [C], images by how many classes are more probable than the label.
        loss: sum over the images of the cross-entropy, in nats.
        bucket_images: int64 [C, 21], images by the bucket that their probability of the class is in.
        bucket_labels: int64 [C, 21], those of them that are of the class.
        bucket_probabilities: float64 [C, 21], sum of those probabilities.
    """

    confusion: np.ndarray
    ranks: np.ndarray
    loss: float
    bucket_images: np.ndarray
    bucket_labels: np.ndarray
    bucket_probabilities: np.ndarray

    def __add__(self, other: Tally) -> Tally:
        """Counts of both."""
        return Tally(
            self.confusion + other.confusion,
            self.ranks + other.ranks,
            self.loss + other.loss,
            self.bucket_images + other.bucket_images,
            self.bucket_labels + other.bucket_labels,
            self.bucket_probabilities + other.bucket_probabilities,
        )

    @property
    def num_images(self) -> int:
        """How many images were counted."""
        return int(self.confusion.sum())


def count(labels: np.ndarray, probabilities: np.ndarray) -> Tally:
    """Counts images.

    Args:
        labels: int [n], in 0..C-1.
        probabilities: float [n, C].

    Raises:
        ValueError: a label is not in 0..C-1.
    """
    probabilities = np.asarray(probabilities, np.float64)
    num_classes = probabilities.shape[1]
    labels = np.asarray(labels, np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"labels are in {labels.min()}..{labels.max()}; they have to be in 0..{num_classes - 1}.")
    rows = np.arange(len(labels))
    confusion = np.zeros([num_classes, num_classes], np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    own = probabilities[rows, labels]
    clipped = np.clip(probabilities, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    buckets = np.searchsorted(BUCKET_EDGES, probabilities, side="right") - 1
    cells = np.broadcast_to(np.arange(num_classes), buckets.shape), buckets
    shape = [num_classes, NUM_BUCKETS + 1]
    images, of_class, sums = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
    np.add.at(images, cells, 1)
    np.add.at(of_class, (labels, buckets[rows, labels]), 1)
    np.add.at(sums, cells, probabilities)
    return Tally(
        confusion=confusion,
        ranks=np.bincount((probabilities > own[:, np.newaxis]).sum(axis=1), minlength=num_classes),
        # Keras divides by the sum once more, after clipping.
        loss=float(-np.log(clipped[rows, labels] / clipped.sum(axis=1)).sum()),
        bucket_images=images,
        bucket_labels=of_class,
        bucket_probabilities=sums,
    )


def accuracy(tally: Tally) -> float:
    """Part of the images whose most probable class is right."""
    return _ratio(np.trace(tally.confusion), tally.num_images)


def top_k_accuracy(tally: Tally, k: int) -> float:
    """Part of the images whose label is among the k most probable classes; as many as are equally probable."""
    return _ratio(tally.ranks[:k].sum(), tally.num_images)


def loss(tally: Tally) -> float:
    """Cross-entropy, in nats an image."""
    return _ratio(tally.loss, tally.num_images)


def precision(tally: Tally, class_id: int) -> float:
    """Of the images whose most probable class this is, the part that is of the class."""
    return _ratio(tally.confusion[class_id, class_id], tally.confusion[:, class_id].sum())


def recall(tally: Tally, class_id: int) -> float:
    """Of the images of the class, the part whose most probable class this is."""
    return _ratio(tally.confusion[class_id, class_id], tally.confusion[class_id].sum())


def f1(tally: Tally, class_id: int) -> float:
    """Harmonic mean of precision and recall."""
    own_row_and_column = tally.confusion[class_id].sum() + tally.confusion[:, class_id].sum()
    return _ratio(2 * tally.confusion[class_id, class_id], own_row_and_column)


STATISTICS: Mapping[str, Callable[..., float]] = {
    function.__name__: function for function in (accuracy, top_k_accuracy, loss, precision, recall, f1)
}
"""By name; the first argument is the tally."""


def _ratio(part: float, whole: float) -> float:
    """0 where there is nothing to divide by: of no image, none is right."""
    return float(part / whole) if whole else 0.0
