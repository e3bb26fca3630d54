"""The same test images, encoded otherwise: what a model that has seen JPEGs only makes of the lossless originals.

The bundled sample has 1,000 of CIFAR-10's test images without loss. Where a data set holds re-encodings of them, each
is found by its pixels, and accuracy on both is compared: nothing else differs.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MIN_PSNR_DB = 22.5
"""Two images at least as close are taken for one. Of the sample's 1,000 test images, re-encodings as JPEG (30.5 dB on
average) had 23.3 dB or more, and the most alike of all other test images of the class 22.1 dB or less."""


@dataclass(frozen=True)
class ShiftedSet:
    """Test images of a data set that the sample has too, encoded otherwise.

    Attributes:
        pixels: uint8 [n, 32, 32, 3], the sample's, lossless.
        counterparts: int64 [n], each one's index in the data set's test split.
        labels: int64 [n].
        psnr_db: mean peak signal-to-noise ratio between the two, in decibels.
    """

    pixels: np.ndarray
    counterparts: np.ndarray
    labels: np.ndarray
    psnr_db: float

    def __len__(self) -> int:
        return len(self.labels)


def sample_test_images(archive: Path) -> tuple[np.ndarray, np.ndarray]:
    """The test batch of an archive in CIFAR-10's binary layout: uint8 [n, 32, 32, 3] and int64 [n]."""
    with tarfile.open(archive) as tar:
        name = next(name for name in tar.getnames() if name.endswith("test_batch.bin"))
        file = tar.extractfile(name)
        assert file is not None
        records = np.frombuffer(file.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64)


def find_shifted(
    lossless: np.ndarray, lossless_labels: np.ndarray, pixels: np.ndarray, labels: np.ndarray
) -> ShiftedSet | None:
    """Finds a data set's version of each lossless image: the nearest one of the same label.

    Args:
        lossless: uint8 [m, 32, 32, 3].
        lossless_labels: int64 [m].
        pixels: uint8 [n, 32, 32, 3], the data set's test images, decoded.
        labels: int64 [n].

    Returns:
        Those that were found, or None where none was, or all are there without loss: nothing is shifted then.

    Raises:
        ValueError: two lossless images have the same counterpart, so at least one was not found.
    """
    errors = np.full(len(lossless), np.inf)
    counterparts = np.full(len(lossless), -1)
    for label in np.unique(lossless_labels):
        ours, theirs = np.flatnonzero(lossless_labels == label), np.flatnonzero(labels == label)
        if theirs.size:
            distances = _mean_squared_errors(lossless[ours], pixels[theirs])
            counterparts[ours] = theirs[distances.argmin(axis=1)]
            errors[ours] = distances.min(axis=1)
    found = errors <= 255**2 / 10 ** (MIN_PSNR_DB / 10)
    if not found.any() or not errors[found].any():
        return None
    indices, counts = np.unique(counterparts[found], return_counts=True)
    if counts.max() > 1:
        raise ValueError(
            f"Test image {indices[counts.argmax()]} of the data is the nearest to {counts.max()} of the sample's test "
            "images: the data is not a re-encoding of CIFAR-10's test images."
        )
    psnr_db = 10 * np.log10(255**2 / np.maximum(errors[found], 1e-3))
    return ShiftedSet(lossless[found], counterparts[found], lossless_labels[found], float(psnr_db.mean()))


def _mean_squared_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Between all pairs: uint8 [m, ...] and [n, ...] to float [m, n]."""
    a, b = (images.reshape(len(images), -1).astype(np.float64) for images in (ours, theirs))
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(squares, 0) / a.shape[1]
