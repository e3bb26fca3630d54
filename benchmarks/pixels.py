"""Decoded images in memory, as notebooks have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from models.input_pipeline import LabeledImages

_BLOCK_IMAGES = 1_000


def decode(examples: LabeledImages) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a split.

    Args:
        examples: encoded images, n of them.

    Returns:
        uint8 [n, 32, 32, 3] and the labels, int64 [n].
    """
    from models import preprocessing

    starts = range(0, len(examples), _BLOCK_IMAGES)
    blocks = [preprocessing.decode_images(examples.images[start : start + _BLOCK_IMAGES]).numpy() for start in starts]
    return np.concatenate(blocks), examples.labels.numpy()
