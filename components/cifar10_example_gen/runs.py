"""Examples on their way from the readers to the files that they are written to, in order, and in little memory.

An external sort: a reader collects some examples, puts them into bins, which are in order, and writes them to a file of
their own, a *run*; who writes an output file reads the next bins from all runs and sorts them, a piece at a time. What
goes through Beam is where things are. Beam's own grouping would hold all examples in memory, several times.
"""

from __future__ import annotations

import pickle
import posixpath
import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tfx.dsl.io import fileio

RUN_BYTES = 32 * 2**20
"""Entries that a reader collects before it writes them."""

PIECE_BYTES = 32 * 2**20
"""Entries that are sorted at once when an output file is written; a single bin may be larger."""

ENTRY_BYTES = 200
"""Memory that an entry takes beside its payload: Python objects."""

NUM_BINS = 64
"""Pieces of a run can begin at each of so many places in an output file's order."""


class Entry(NamedTuple):
    """A serialized example, or what `duplicates` wants to know of one.

    Attributes:
        digest: What output files are ordered by; its first byte is spread evenly.
        label: Index into `models.features.CLASS_NAMES`.
        payload: The serialized tf.Example, or the split and the name of an image.
    """

    digest: bytes
    label: int
    payload: bytes

    @property
    def bin(self) -> int:
        """The bin that it is in, in [0, NUM_BINS): bins are in the order of the digests."""
        return self.digest[0] * NUM_BINS // 256

    @property
    def size(self) -> int:
        """Memory, in bytes, about."""
        return len(self.payload) + ENTRY_BYTES


class Section(NamedTuple):
    """What a run has for one output file.

    Attributes:
        path: Of the run.
        offsets: In bytes: bin i is from offsets[i] to offsets[i + 1]. NUM_BINS + 1 of them.
        sizes: Bytes of memory that the entries in each bin take.
    """

    path: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def write_run(folder: str, entries: Iterable[Entry]) -> Section:
    """Writes examples of one output file as a run, bin after bin.

    Args:
        folder: That all workers share; made when absent.
        entries: In any order.
    """
    bins: list[list[Entry]] = [[] for _ in range(NUM_BINS)]
    for entry in entries:
        bins[entry.bin].append(entry)
    fileio.makedirs(folder)
    # A worker that is asked to do its work again writes another file; nobody is told of the first one.
    path = posixpath.join(folder, uuid.uuid4().hex)
    offsets = [0]
    with fileio.open(path, "wb") as file:
        for members in bins:
            content = pickle.dumps([tuple(entry) for entry in members]) if members else b""
            file.write(content)
            offsets.append(offsets[-1] + len(content))
    sizes = tuple(sum(entry.size for entry in members) for members in bins)
    return Section(path, tuple(offsets), sizes)


def merge(sections: Iterable[Section]) -> Iterator[Entry]:
    """Yields all examples of an output file, ordered by digest, label and content.

    Args:
        sections: Of all runs.
    """
    sections = list(sections)
    first = 0
    while first < NUM_BINS:
        last = _end_of_piece(sections, first)
        piece: list[Entry] = []
        for section in sections:
            piece += _read(section, first, last)
        yield from sorted(piece)
        first = last


def _end_of_piece(sections: list[Section], first: int) -> int:
    """The bin before which a piece that begins with bin `first` ends: as many as fit PIECE_BYTES, at least one."""
    last, size = first, 0
    while last < NUM_BINS:
        size += sum(section.sizes[last] for section in sections)
        if size > PIECE_BYTES and last > first:
            break
        last += 1
    return last


def _read(section: Section, first: int, last: int) -> Iterator[Entry]:
    begin, end = section.offsets[first], section.offsets[last]
    if begin == end:
        return
    with fileio.open(section.path, "rb") as file:
        file.seek(begin)
        content = file.read(end - begin)
    for start, stop in zip(section.offsets[first:last], section.offsets[first + 1 : last + 1], strict=True):
        if start < stop:
            # Nobody else writes here: it is a folder of this execution.
            yield from map(Entry._make, pickle.loads(content[start - begin : stop - begin]))
