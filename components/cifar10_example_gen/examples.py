"""From a record to the tf.Example that stands for it, and to the split that it goes to."""

from __future__ import annotations

import hashlib

import tensorflow as tf

from components.cifar10_example_gen import images
from components.cifar10_example_gen.records import Record
from models import features


def splits_of(validation_fraction: float) -> list[str]:
    """Returns the names of the splits that are written."""
    if validation_fraction == 0:
        return [features.TRAIN_SPLIT, features.TEST_SPLIT]
    return [features.TRAIN_SPLIT, features.VALIDATION_SPLIT, features.TEST_SPLIT]


def image_digest(record: Record) -> bytes:
    """Returns 16 bytes that stand for the image itself: of its pixels, or of its file where it came as one.

    The label is left out, so that an image that is there twice with two labels is not in train and in validation.
    """
    content = record.image if isinstance(record.image, bytes) else record.image.tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def split_of(record: Record, digest: bytes, validation_fraction: float) -> str:
    """Returns the split that a record goes to. The first half of its digest decides, as a number in [0, 1)."""
    held_out = int.from_bytes(digest[:8], "big") < validation_fraction * 2**64
    return features.VALIDATION_SPLIT if record.split == features.TRAIN_SPLIT and held_out else record.split


def example_of(record: Record) -> tf.train.Example:
    """Returns the tf.Example of a record. An image file goes in as it is: see `images.check_images`."""
    encoded = record.image if isinstance(record.image, bytes) else images.png_from_pixels(record.image)
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                features.LABEL_KEY: tf.train.Feature(int64_list=tf.train.Int64List(value=[record.label])),
            }
        )
    )
