"""From a path to records: an archive or a folder, local or remote, in any of the layouts."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import IO, NamedTuple, NoReturn

from tfx.dsl.io import fileio

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import archives, binary, image_tree, python_batches
from components.cifar10_example_gen.readers.inventory import Inventory, Layout, is_ignored
from components.cifar10_example_gen.records import Record
from serving.file_names import printable

_READERS = {
    Layout.BINARY: binary.read_batch,
    Layout.PYTHON: python_batches.read_batch,
    Layout.IMAGES: image_tree.read_image,
}
_IMAGES_A_PART = 500

FOLDER_DEPTH = 4
"""Names in a path below a folder: one of its own, train, class, file. The fingerprint of a folder looks as deep."""


class Part(NamedTuple):
    """What one worker reads in one go.

    Attributes:
        source: An archive, or the folder that the files are in.
        layout: Of the files; None for an archive, where it shows while reading.
        files: Paths in the folder; empty for an archive, which is read from its beginning to its end.
    """

    source: str
    layout: Layout | None = None
    files: tuple[str, ...] = ()


def plan(path: str) -> list[Part]:
    """Cuts a source into parts that can be read independently of each other.

    Args:
        path: An archive or a folder, on any filesystem that TFX knows.

    Raises:
        DataError: There is nothing at the path, it is a file but no archive, or the names in the folder are not one
            whole layout.
    """
    if not fileio.exists(path):
        raise DataError(f"{path}: does not exist. Give the path of a CIFAR-10 archive or folder.")
    if not fileio.isdir(path):
        if not archives.is_archive(path):
            suffixes = ", ".join(archives.ARCHIVE_SUFFIXES)
            raise DataError(f"{path}: not an archive by its name, expected a folder or a name that ends in {suffixes}.")
        return [Part(path)]
    if archives.is_archive(path):
        raise DataError(f"{path}: is a folder with the name of an archive. Rename it.")
    inventory = Inventory(path)
    parts, images = [], []
    for name in _list_files(path):
        layout = inventory.add(name)
        if layout is Layout.IMAGES:
            images.append(name)
        elif layout is not None:
            parts.append(Part(path, layout, (name,)))
    inventory.check_complete()
    for start in range(0, len(images), _IMAGES_A_PART):
        parts.append(Part(path, Layout.IMAGES, tuple(images[start : start + _IMAGES_A_PART])))
    return parts


def read(part: Part) -> Iterator[Record]:
    """Yields the records of a part.

    Raises:
        DataError: See the readers of the layouts and of archives.
    """
    if part.layout is None:
        return _read_archive(part.source)
    return _read_files(part.source, part.layout, part.files)


def _read_archive(path: str) -> Iterator[Record]:
    inventory = Inventory(path)
    layouts: dict[str, Layout] = {}

    def is_data(name: str) -> bool:
        layout = inventory.add(name)
        if layout is not None:
            layouts[name] = layout
        return layout is not None

    with _open(path) as file:
        for name, data in archives.iter_members(path, file, is_data):
            yield from _READERS[layouts.pop(name)](printable(name), data)
    inventory.check_complete()


def _read_files(folder: str, layout: Layout, names: tuple[str, ...]) -> Iterator[Record]:
    for name in names:
        path = posixpath.join(folder, name)
        try:
            data = _read_file(path)
        except OSError as error:
            _refuse_unreadable(error)
        yield from _READERS[layout](printable(name), data)


def _read_file(path: str) -> bytes:
    if "://" in path:
        size_bytes = fileio.stat(path).length
    else:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{printable(path)}: is a device or a pipe, expected a file. Remove it.")
        size_bytes = status.st_size
    if size_bytes > archives.MAX_MEMBER_BYTES:
        raise DataError(f"{printable(path)}: has {size_bytes} bytes, expected at most {archives.MAX_MEMBER_BYTES}.")
    with _open(path) as file:
        return file.read()


def _open(path: str) -> IO[bytes]:
    """Opens a file for reading: a local one without TensorFlow, which fails at names that are not UTF-8.

    Its `seek` inspects its own signature in each call, too. zipfile seeks three times a member: a third of the time
    that an archive of small images took.
    """
    if "://" in path:
        file: IO[bytes] = fileio.open(path, "rb")
        return file
    return open(path, "rb")


def _list_files(folder: str) -> list[str]:
    """Returns the files under a folder in the order of their names, as paths relative to it."""
    names: list[str] = []
    # TensorFlow fails at local names that are not UTF-8, without a word on which.
    walk = fileio.walk(folder) if "://" in folder else os.walk(folder, onerror=_refuse_unreadable, followlinks=True)
    for parent, folders, files in walk:
        folders[:] = [name for name in folders if not is_ignored(name)]  # nobody may read lost+found
        relative = posixpath.relpath(str(parent), folder)
        names += [posixpath.normpath(posixpath.join(relative, str(name))) for name in files]
    names = sorted(name for name in names if not is_ignored(name))
    for name in names:
        if name.count("/") >= FOLDER_DEPTH:
            raise DataError(
                f"{folder}, {printable(name)}: nested too deep, expected train|test/<class>/<file>. Move or remove it."
            )
    return names


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise DataError(
        f"{printable(str(error.filename))}: cannot be read ({error.strerror}). Remove it, or make it readable."
    ) from error
