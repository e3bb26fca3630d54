"""What the two official layouts have in common: six batch files of 32x32 RGB images stored plane by plane."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.records import Record
from models import features

IMAGE_BYTES = features.NUM_CHANNELS * features.SOURCE_IMAGE_SIZE**2
"""3,072: all red, then all green, then all blue values, each row by row (https://www.cs.toronto.edu/~kriz/cifar.html)."""

MAX_BATCH_RECORDS = 10_000
"""Images in an official batch file."""

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"


def split_of(name: str) -> str:
    """Returns the split that a batch file belongs to, by its name (any folder, with or without `.bin`)."""
    stem = posixpath.basename(name).removesuffix(".bin")
    return features.TEST_SPLIT if stem == TEST_BATCH else features.TRAIN_SPLIT


def records_of(name: str, labels: npt.NDArray[np.int64], planes: npt.NDArray[np.uint8]) -> Iterator[Record]:
    """Yields the images of one batch.

    Args:
        name: The batch file, for the split and for messages.
        labels: int64 [records].
        planes: uint8 [records, 3072], red, green and blue plane of each image.

    Raises:
        DataError: There is no record, more than 10,000, or a label outside 0-9.
    """
    if not 1 <= len(labels) <= MAX_BATCH_RECORDS:
        raise DataError(f"{name}: holds {len(labels)} records, expected 1 to {MAX_BATCH_RECORDS}.")
    wrong = np.flatnonzero((labels < 0) | (labels >= features.NUM_CLASSES))
    if wrong.size:
        index = int(wrong[0])
        raise DataError(
            f"{name}, record {index}: label {labels[index]}, expected 0 to {features.NUM_CLASSES - 1}. "
            "The file is damaged or is not a CIFAR-10 batch (CIFAR-100 has another record layout)."
        )
    size = features.SOURCE_IMAGE_SIZE
    images = planes.reshape(-1, features.NUM_CHANNELS, size, size).transpose(0, 2, 3, 1)
    split = split_of(name)
    for index, (label, image) in enumerate(zip(labels.tolist(), images, strict=True)):
        yield Record(split, name, index, label, image)
