"""Reads the members of tar, tar.gz and zip archives one by one, in memory, never onto the disk.

An archive may come from anywhere, so nothing in it is believed: names that leave the archive, links, devices and
encrypted members are refused, and no more than the limits below is ever decompressed.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from components.cifar10_example_gen.errors import DataError
from serving.file_names import printable

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")

MAX_MEMBER_BYTES = 128 * 2**20
"""Decompressed bytes of one member. An official batch has 31 MB, four times as much in Python 2's default pickles."""

MAX_TOTAL_BYTES = 8 * 2**30
"""Decompressed bytes of a whole archive. The official ones have 0.2 GB."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK"
_ZIP_ENCRYPTED = 0x1  # general purpose bit flag, APPNOTE.TXT 4.4.4
_ZIP_UTF8 = 0x800  # the name is in UTF-8
_LINK_OR_DEVICE = (
    "{archive}, member '{name}': is a link or a device, expected files and folders only. Remove it, or pack again what "
    "links lead to: tar with --dereference --hard-dereference, zip without --symlinks."
)
_CORRUPT = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # a zip with a compression method that zipfile does not know
    OverflowError,
    ValueError,
)


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: Its path in the archive, with `/` between its parts; bytes that are not UTF-8 as PEP 383 has them.
        data: Its decompressed content.
    """

    name: str
    data: bytes


def is_archive(path: str) -> bool:
    """Whether the name says that this is an archive. The file need not exist, or be in reach."""
    return path.lower().endswith(ARCHIVE_SUFFIXES)


def iter_members(
    archive: str,
    file: IO[bytes],
    wanted: Callable[[str], bool],
    *,
    max_member_bytes: int = MAX_MEMBER_BYTES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
) -> Iterator[Member]:
    """Yields the wanted files of an archive, in its order.

    Args:
        archive: Name of the archive, for messages.
        file: The open archive; it has to be able to seek.
        wanted: Says by name which members are read; the others are checked but not read.
        max_member_bytes: Limit to the decompressed bytes of one member.
        max_total_bytes: Limit to the decompressed bytes of all members.

    Raises:
        DataError: The archive is damaged or neither tar nor zip, has a member that is a link, a device, encrypted,
            there twice, or named outside the archive, or is larger than the limits.
    """
    limits = _Limits(archive, max_member_bytes, max_total_bytes)
    with _corruption_as_data_error(archive):
        magic = file.read(2)
        file.seek(0)
        if magic == _ZIP_MAGIC:
            try:
                yield from _iter_zip(archive, file, wanted, limits)
            except UnicodeDecodeError as error:
                name = printable(error.object.decode("utf-8", "surrogateescape"))
                raise DataError(
                    f"{archive}, member '{name}': its name is marked as UTF-8 and is not. Rename it and pack it again."
                ) from error
        elif magic == _GZIP_MAGIC:
            with gzip.GzipFile(fileobj=file) as decompressed:
                yield from _iter_tar(archive, decompressed, wanted, limits)
        else:
            yield from _iter_tar(archive, file, wanted, limits)


class _Limits:
    """Adds up what an archive decompresses to."""

    def __init__(self, archive: str, member_bytes: int, total_bytes: int) -> None:
        self._archive = archive
        self._member_bytes = member_bytes
        self._total_bytes = total_bytes
        self._seen_bytes = 0
        self._names: set[str] = set()

    def admit(self, name: str, size_bytes: int) -> str:
        """Refuses a member by its name or by the size that it claims; returns the name without a leading `./`."""
        where = f"{self._archive}, member '{printable(name)}'"
        if not name:
            raise DataError(f"{self._archive}: has a member without a name. Fetch or copy it again.")
        path = name.replace("\\", "/")  # as Windows would take it
        if path.startswith("/") or ".." in path.split("/") or path[1:2] == ":":
            raise DataError(f"{where}: its path leads out of the archive. Do not use this archive.")
        name = posixpath.normpath(name)
        if name in self._names:
            raise DataError(f"{where}: is there twice, expected each name once.")
        self._names.add(name)
        if not 0 <= size_bytes <= self._member_bytes:
            raise DataError(
                f"{where}: decompresses to {size_bytes} bytes, expected at most {self._member_bytes}. "
                "It is no CIFAR-10 batch or small image, perhaps a decompression bomb."
            )
        self._seen_bytes += size_bytes
        self.check_total(self._seen_bytes)
        return name

    def check_total(self, size_bytes: int) -> None:
        """Refuses the archive when this many bytes are more than it may decompress to."""
        if size_bytes > self._total_bytes:
            raise DataError(
                f"{self._archive}: decompresses to more than {self._total_bytes} bytes, perhaps a decompression bomb. "
                "Expected CIFAR-10 or a tree of small images."
            )

    def check_read(self, size_bytes: int) -> None:
        """Refuses one read of more than a member may have: tar headers can be as large as they claim."""
        if not 0 <= size_bytes <= self._member_bytes:
            raise DataError(
                f"{self._archive}: has a header of {size_bytes} bytes, expected at most {self._member_bytes}. "
                "Perhaps a decompression bomb; do not use this archive."
            )


class _BoundedFile(io.RawIOBase):
    """A tar stream that refuses to be read beyond the limits, whatever its headers say."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limits: _Limits) -> None:
        self._file = file
        self._limits = limits

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        self._limits.check_read(size)
        self._limits.check_total(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._limits.check_total(offset)
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return self._file.tell()


def _iter_tar(
    archive: str, file: IO[bytes] | gzip.GzipFile, wanted: Callable[[str], bool], limits: _Limits
) -> Iterator[Member]:
    bounded = _BoundedFile(file, limits)
    with tarfile.open(fileobj=bounded, mode="r:", encoding="utf-8") as tar:
        for info in tar:
            name = limits.admit(info.name, info.size)
            if not info.isdir() and not info.isreg():
                raise DataError(_LINK_OR_DEVICE.format(archive=archive, name=printable(name)))
            if info.isreg() and wanted(name):
                content = tar.extractfile(info)
                assert content is not None  # it is None for folders and links only
                yield _whole(archive, name, content.read(), info.size)
        # tarfile takes a damaged header, or the end of the file, for the end of the archive
        bounded.seek(tar.offset)
        if bounded.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end mark at byte {tar.offset}")


def _iter_zip(archive: str, file: IO[bytes], wanted: Callable[[str], bool], limits: _Limits) -> Iterator[Member]:
    with zipfile.ZipFile(file) as zipped:
        members = {limits.admit(_path_in_zip(info), info.file_size): info for info in zipped.infolist()}
        for name, info in members.items():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(_LINK_OR_DEVICE.format(archive=archive, name=printable(name)))
            if info.flag_bits & _ZIP_ENCRYPTED:
                raise DataError(
                    f"{archive}, member '{printable(name)}': is encrypted. Pack it again without a password."
                )
            if not _path_in_zip(info).endswith("/") and wanted(name):
                with zipped.open(info) as content:
                    yield _whole(archive, name, content.read(), info.file_size)


def _path_in_zip(info: zipfile.ZipInfo) -> str:
    """The name of a member with `/` between its parts, where some tools of Windows write backslashes.

    Beside a `/`, a backslash may also be half a character of a name in a code page (Shift JIS, Big5).
    """
    name = info.filename
    is_in_code_page = not (name.isascii() or info.flag_bits & _ZIP_UTF8)
    return name if "/" in name and is_in_code_page else name.replace("\\", "/")


def _whole(archive: str, name: str, data: bytes, size_bytes: int) -> Member:
    if len(data) != size_bytes:
        raise DataError(
            f"{archive}, member '{printable(name)}': has {len(data)} of {size_bytes} bytes. Fetch or copy it again."
        )
    return Member(name, data)


@contextlib.contextmanager
def _corruption_as_data_error(archive: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except _CORRUPT as error:
        raise DataError(
            f"{archive}: damaged, cut off, or neither a tar, a tar.gz nor a zip ({type(error).__name__}: {error}). "
            "Fetch or copy it again."
        ) from error
