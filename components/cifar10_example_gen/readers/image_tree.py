"""One's own images: `train|test/<class>/<file>`, where the folder is the label."""

from __future__ import annotations

from collections.abc import Iterator

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.records import Record
from models import features

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
SPLIT_FOLDERS = (features.TRAIN_SPLIT, features.TEST_SPLIT)


def read_image(name: str, data: bytes) -> Iterator[Record]:
    """Yields the one record of an image file. Its bytes are not looked at: see `images.check_images`.

    Args:
        name: Path `[<folder>/]<split>/<class>/<file>` with `/` between its parts.
        data: The file's content.

    Raises:
        DataError: The path has other parts, or names a split or a class that there is not.
    """
    split, class_name = split_and_class_of(name)
    yield Record(split, name, 0, features.CLASS_NAMES.index(class_name), data)


def split_and_class_of(name: str) -> tuple[str, str]:
    """Returns the split and the class folder of an image's path.

    Raises:
        DataError: As for `read_image`.
    """
    parts = name.split("/")
    if not 3 <= len(parts) <= 4:  # four when the folders are in one of their own
        raise DataError(f"{name}: expected an image as train/<class>/<file> or test/<class>/<file>.")
    split, class_name = parts[-3], parts[-2]
    if split not in SPLIT_FOLDERS:
        raise DataError(
            f"{name}: unknown split folder '{split}', expected {' or '.join(SPLIT_FOLDERS)}. Rename or remove it "
            "(validation is held out of train by the pipeline)."
        )
    if class_name not in features.CLASS_NAMES:
        raise DataError(
            f"{name}: unknown class folder '{class_name}', expected one of {', '.join(features.CLASS_NAMES)}. "
            "Rename or remove it."
        )
    return split, class_name
