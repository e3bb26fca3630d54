"""Which of the three layouts a set of file names is, and whether it is whole."""

from __future__ import annotations

import enum
import posixpath
import re

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import batches, image_tree
from serving.file_names import printable

_BATCH_NAME = re.compile(r"(?P<stem>data_batch_\d+|test_batch)(?P<suffix>\.bin)?")
_IGNORED_FILES = frozenset({"batches.meta", "batches.meta.txt", "readme.html", "thumbs.db", "desktop.ini", "icon\r"})
_IGNORED_FOLDERS = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
_MAX_NAMES_SHOWN = 5

ACCEPTED = (
    "expected the CIFAR-10 binary batches (data_batch_1.bin to data_batch_5.bin and test_batch.bin), the Python "
    "batches (the same names without .bin), or images as train|test/<class>/*.png|jpg|jpeg; as a folder, .tar.gz, "
    ".tar or .zip"
)


class Layout(enum.Enum):
    """How the images are stored."""

    BINARY = "CIFAR-10 binary batches"
    PYTHON = "CIFAR-10 Python batches"
    IMAGES = "image files"


def is_ignored(name: str) -> bool:
    """Whether a file is one that archives and desktops leave beside the data: hidden, a readme, a thumbnail index."""
    parts = name.split("/")
    return parts[-1].lower() in _IGNORED_FILES or any(
        part.startswith(".") or part in _IGNORED_FOLDERS for part in parts
    )


class Inventory:
    """Takes the names of a source one by one, tells what each is, and at the end whether anything is missing."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._layout: Layout | None = None
        self._batches: dict[str, str] = {}
        self._split_folder: str | None = None
        self._other_names: list[str] = []

    def add(self, name: str) -> Layout | None:
        """Returns the layout that a file belongs to, None for a file that holds no data (readme, hidden file).

        Args:
            name: Path in the source, with `/` between its parts.

        Raises:
            DataError: The file is of another layout or another folder of splits than the ones before it, a batch with
                a number that there is not or that came before, or a file in a class folder that is no image.
        """
        if is_ignored(name):
            return None
        name = printable(name)
        layout = self._layout_of(name, posixpath.basename(name))
        if layout is None:
            self._other_names.append(name)
            return None
        if self._layout is not None and self._layout is not layout:
            raise DataError(
                f"{self._source}: mixes {self._layout.value} and {layout.value} (at {name}), "
                "expected one layout. Remove what is not to be read."
            )
        self._layout = layout
        return layout

    def check_complete(self) -> None:
        """Raises DataError when there was no data, or a batch is missing."""
        if self._layout is None:
            shown = ", ".join(self._other_names[:_MAX_NAMES_SHOWN]) or "no file"
            more = len(self._other_names) - _MAX_NAMES_SHOWN
            found = shown + (f" and {more} more" if more > 0 else "")
            raise DataError(f"{self._source}: no known layout. Found {found}; {ACCEPTED}.")
        if self._layout is not Layout.IMAGES:
            suffix = ".bin" if self._layout is Layout.BINARY else ""
            missing = [
                stem + suffix for stem in (*batches.TRAIN_BATCHES, batches.TEST_BATCH) if stem not in self._batches
            ]
            if missing:
                raise DataError(
                    f"{self._source}: {', '.join(missing)} missing. Found {self._layout.value}, which need "
                    "five training batches and a test batch. Fetch or copy it again."
                )

    def _layout_of(self, name: str, base: str) -> Layout | None:
        batch = _BATCH_NAME.fullmatch(base)
        if batch:
            stem = batch["stem"]
            if stem not in (*batches.TRAIN_BATCHES, batches.TEST_BATCH):
                raise DataError(
                    f"{self._source}, {name}: unknown batch, expected data_batch_1 to data_batch_5 and test_batch."
                )
            if stem in self._batches:
                raise DataError(
                    f"{self._source}, {name}: a second {stem} beside {self._batches[stem]}, expected one. "
                    "Remove the other."
                )
            self._batches[stem] = name
            return Layout.BINARY if batch["suffix"] else Layout.PYTHON
        if base.lower().endswith(image_tree.IMAGE_SUFFIXES):
            image_tree.split_and_class_of(name)
            self._check_same_data_set(posixpath.dirname(posixpath.dirname(name)))
            return Layout.IMAGES
        if name.count("/") >= 2 and name.split("/")[-2] not in image_tree.SPLIT_FOLDERS:
            raise DataError(
                f"{self._source}, {name}: not a {', '.join(image_tree.IMAGE_SUFFIXES)} file. Convert or remove it."
            )
        return None

    def _check_same_data_set(self, split_folder: str) -> None:
        self._split_folder = self._split_folder or split_folder
        if posixpath.dirname(split_folder) != posixpath.dirname(self._split_folder):
            raise DataError(
                f"{self._source}: holds two data sets, in {self._split_folder} and in {split_folder}, expected one "
                "with train and test side by side. Remove one, or give its folder alone."
            )
