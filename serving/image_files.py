"""The images that a command line names: files, folders, standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STDIN = "-"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
"""What is taken from a folder; a file that is named itself may have any name."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Batches are cut before they pass this, as servers limit the size of a request; a larger image is sent alone."""


@dataclass(frozen=True)
class ImageFile:
    """A file as it was named or found, and its bytes."""

    name: str
    content: bytes


def find(arguments: Sequence[str]) -> list[str]:
    """Names of all files that are meant: folders are searched at all depths, in the order of the names.

    Raises:
        ValueError: a file or folder is not there, or a folder holds no image; the message names it.
    """
    names: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if argument == STDIN or path.is_file():
            names.append(argument)
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not found:
                raise ValueError(f"{argument}: the folder holds no image ({' '.join(SUFFIXES)}).")
            names += [str(file) for file in found]
        else:
            raise ValueError(f"{argument}: there is no such file or folder.")
    if names.count(STDIN) > 1:
        raise ValueError("- is named more than once; standard input can be read once.")
    return names


def read(name: str) -> ImageFile:
    """Reads a file, or standard input to its end.

    Raises:
        OSError: it cannot be read.
    """
    return ImageFile(name, sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes())


def batches(files: Iterable[ImageFile], batch_size: int) -> Iterator[list[ImageFile]]:
    """Groups files in their order: at most `batch_size` and, where there are several, at most MAX_BATCH_BYTES."""
    batch: list[ImageFile] = []
    size_bytes = 0
    for file in files:
        if batch and (len(batch) == batch_size or size_bytes + len(file.content) > MAX_BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(file)
        size_bytes += len(file.content)
    if batch:
        yield batch
