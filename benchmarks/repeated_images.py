"""More images than there are: the bundled sample again and again, each time shifted by other pixels."""

from __future__ import annotations

import itertools
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models import features
from serving.server_process import PROJECT_ROOT

SAMPLE_ARCHIVE = PROJECT_ROOT / "data" / "cifar-10-sample-binary.tar.gz"
SAMPLE_IMAGES = 6_000

MAX_IMAGES = SAMPLE_IMAGES * features.SOURCE_IMAGE_SIZE**2
"""From here on an image would come twice."""


def write_archive(path: Path, count: int) -> None:
    """Writes a zip of PNG files, `train|test/<class>/<file>`, five of six images in train.

    Copy c of an image is the image rolled down by c // 32 and to the right by c % 32 pixels, so all images differ and
    are about as hard to compress and to decode as those of CIFAR-10.

    Args:
        path: of the archive; its name ends in `.zip`.
        count: number of images: a multiple of 6,000, at most 6,144,000.

    Raises:
        ValueError: `count` is not such a number.
    """
    from components.cifar10_example_gen.images import png_from_pixels

    copies, rest = divmod(count, SAMPLE_IMAGES)
    if rest or not 1 <= count <= MAX_IMAGES:
        raise ValueError(f"count is {count}; it has to be a multiple of {SAMPLE_IMAGES}, at most {MAX_IMAGES}.")
    images = list(sample())
    # Not compressed: PNG files are already.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for copy, (index, (split, label, pixels)) in itertools.product(range(copies), enumerate(images)):
            shifted = np.roll(pixels, divmod(copy, features.SOURCE_IMAGE_SIZE), axis=(0, 1))
            name = f"{split}/{features.CLASS_NAMES[label]}/{copy}-{index}.png"
            archive.writestr(name, png_from_pixels(shifted))


def sample() -> Iterator[tuple[str, int, np.ndarray]]:
    """Split, label and pixels (uint8 [32, 32, 3]) of each image of the bundled sample, in the archive's order."""
    from components.cifar10_example_gen.readers import batches, binary

    with tarfile.open(SAMPLE_ARCHIVE) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None or not member.name.endswith(".bin"):
                continue
            split = batches.split_of(member.name)
            for record in binary.read_batch(member.name, file.read()):
                assert not isinstance(record.image, bytes)  # the binary layout holds pixels
                yield split, record.label, record.image
