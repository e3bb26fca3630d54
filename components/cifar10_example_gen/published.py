"""Archives with a known content, and the check that a file of that name has it."""

from __future__ import annotations

import hashlib
import posixpath
from typing import IO, NamedTuple

from components.cifar10_example_gen.errors import DataError

_CHUNK_BYTES = 2**20


class PublishedArchive(NamedTuple):
    """What is known of an archive.

    Attributes:
        size_bytes: Its length.
        md5: Hexadecimal, as published with the archive; empty where only a SHA-256 is known.
        sha256: Hexadecimal; empty where only an MD5 is published.
    """

    size_bytes: int
    md5: str = ""
    sha256: str = ""


ARCHIVES = {
    # https://www.cs.toronto.edu/~kriz/cifar.html
    "cifar-10-binary.tar.gz": PublishedArchive(170_052_171, md5="c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar-10-python.tar.gz": PublishedArchive(170_498_071, md5="c58f30108f718f92721af3b95e74349a"),
    # data/ of this repository
    "cifar-10-sample-binary.tar.gz": PublishedArchive(
        16_963_569, sha256="77b448e44c1f2f7fda258c8174cab8b7f71439a667032abf6b515c2d1f29d53b"
    ),
}


def verify(path: str, file: IO[bytes], expected: PublishedArchive | None = None) -> str:
    """Reads a file once and compares it with what is known of a file of its name, if anything is.

    Args:
        path: The file's path or name; its last part is looked up in `ARCHIVES`.
        file: Open at its beginning.
        expected: What to compare with, instead of the entry in `ARCHIVES`.

    Returns:
        The file's SHA-256, hexadecimal.

    Raises:
        DataError: Length or checksum are not those of the published file.
    """
    expected = expected or ARCHIVES.get(posixpath.basename(path))
    md5 = hashlib.md5(usedforsecurity=False)
    sha256 = hashlib.sha256()
    size_bytes = 0
    while chunk := file.read(_CHUNK_BYTES):
        md5.update(chunk)
        sha256.update(chunk)
        size_bytes += len(chunk)
    if expected is not None:
        wrong = []
        if size_bytes != expected.size_bytes:
            wrong.append(f"has {size_bytes} bytes, expected {expected.size_bytes}")
        if expected.md5 and md5.hexdigest() != expected.md5:
            wrong.append(f"has MD5 {md5.hexdigest()}, expected {expected.md5}")
        if expected.sha256 and sha256.hexdigest() != expected.sha256:
            wrong.append(f"has SHA-256 {sha256.hexdigest()}, expected {expected.sha256}")
        if wrong:
            raise DataError(
                f"{path}: not the published archive of this name: {'; '.join(wrong)}. "
                "Fetch it again, or rename it if the content is yours."
            )
    return sha256.hexdigest()
