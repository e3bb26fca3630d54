"""A part of the training labels, for learning from few: class-balanced, and the same one wherever it is drawn."""

import hashlib

import numpy as np
import tensorflow as tf

from models.input_pipeline import LabeledImages


def choose(examples: LabeledImages, fraction: float, seed: int) -> LabeledImages:
    """Keeps a part of each class, the images of lowest SHA-256 of seed and file.

    The choice depends on nothing but the images and the seed, and a smaller fraction's is part of a larger one's.

    Args:
        examples: a split, n of them.
        fraction: in (0, 1], of each class; rounded, at least one image of each class that the split has.
        seed: of the choice.

    Returns:
        The examples kept, in their order.

    Raises:
        ValueError: the fraction is out of its range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"label_fraction is {fraction}; it has to be in (0, 1].")
    salt = seed.to_bytes(8, "little")
    ranks = np.array([hashlib.sha256(salt + image).digest() for image in examples.images.numpy()])
    labels = examples.labels.numpy()
    chosen = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(of_class)))
        chosen.append(of_class[np.argsort(ranks[of_class], kind="stable")[:count]])
    return _gather(examples, np.sort(np.concatenate(chosen)))


def repeat(examples: LabeledImages, count: int) -> LabeledImages:
    """Goes through the examples again and again, up to `count` of them: each as often as any other, or once more."""
    return _gather(examples, np.arange(count) % len(examples))


def _gather(examples: LabeledImages, indices: np.ndarray) -> LabeledImages:
    return LabeledImages(tf.gather(examples.images, indices), tf.gather(examples.labels, indices))
