"""Fetches the official CIFAR-10 archive once, into a cache that survives the project.

    python -m components.cifar10_example_gen.download

prints the path of the archive. Nothing appears at that path before it has the published length and checksum.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import posixpath
import re
import shutil
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import requests
import tqdm

from components.cifar10_example_gen import published
from components.cifar10_example_gen.errors import DataError

ARCHIVE_NAME = "cifar-10-binary.tar.gz"
OFFICIAL_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE_NAME}"
CACHE_DIR_VARIABLE = "CIFAR10_CACHE_DIR"

_APP_NAME = "alexnet-cifar10"
_CHUNK_BYTES = 2**18
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_INTERRUPTIONS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DownloadError(RuntimeError):
    """The archive could not be fetched. The message says why and what to do."""


class _TransientError(Exception):
    """Worth another attempt."""


def default_cache_dir() -> Path:
    """Returns `$CIFAR10_CACHE_DIR`, or else the user's cache directory (`~/.cache/alexnet-cifar10`)."""
    return Path(os.environ.get(CACHE_DIR_VARIABLE) or platformdirs.user_cache_dir(_APP_NAME))


def fetch_official_archive(
    cache_dir: Path | None = None,
    url: str = OFFICIAL_URL,
    expected: published.PublishedArchive = published.ARCHIVES[ARCHIVE_NAME],
    *,
    attempts: int = 5,
    backoff_s: float = 1.0,
    timeout_s: float = 30.0,
) -> Path:
    """Returns the path of the verified archive, after downloading it when the cache does not have it.

    What an interrupted download got is kept as `<name>.part` and continued by the next one. A second process waits for
    the first and then finds the archive in the cache.

    Args:
        cache_dir: Where the archive is kept; `default_cache_dir()` if None.
        url: Where it is fetched from; the last part of its path is the file's name.
        expected: Length and checksum that it has to have.
        attempts: Tries before giving up, at least 1.
        backoff_s: Wait after the first failed try; doubled after each further one.
        timeout_s: Longest silence of the server, also while connecting.

    Raises:
        DownloadError: The server does not answer, refuses, or has a file of another length; or the disk is full.
        DataError: What was downloaded has not the published checksum; it is removed, the cache stays empty.
    """
    target = (cache_dir or default_cache_dir()) / posixpath.basename(urllib.parse.urlsplit(url).path)
    part = target.with_name(target.name + ".part")
    with _disk_errors(target.parent, expected):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if _is_good(target, expected):
                return target
            _say(f"Downloading {url} ({expected.size_bytes / 1e6:.1f} MB) to {target.parent}")
            for attempt in range(1, attempts + 1):
                try:
                    _download(url, part, expected.size_bytes, timeout_s)
                    break
                except _TransientError as error:
                    if attempt == attempts:
                        raise DownloadError(
                            f"{url}: {error}; gave up after {attempt} of {attempts} tries. Run the command again to "
                            "go on where it stopped, or give the path of your own copy as the data."
                        ) from error
                    wait_s = backoff_s * 2 ** (attempt - 1)
                    _say(f"{error}; trying again in {wait_s:.0f} s ({attempt} of {attempts} tries)")
                    time.sleep(wait_s)
            try:
                _verify(part, url, expected)
            except DataError as error:
                part.unlink()
                raise DataError(f"{error} The download was removed; run the command again.") from error
            os.replace(part, target)
    return target


def _download(url: str, part: Path, size_bytes: int, timeout_s: float) -> None:
    """Appends to the part file until it has its full length; starts anew where the server cannot continue it."""
    have_bytes = part.stat().st_size if part.exists() else 0
    if have_bytes > size_bytes:
        part.unlink()
        have_bytes = 0
    if have_bytes == size_bytes:
        return
    _check_free_space(part.parent, size_bytes - have_bytes)
    # identity: a server that compresses on the way would make lengths and ranges meaningless
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have_bytes}-"} if have_bytes else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
            start_bytes = _start_of(response, url, part, have_bytes, size_bytes)
            with part.open("r+b" if start_bytes else "wb") as file:
                file.seek(start_bytes)
                for chunk in _with_progress(response.iter_content(_CHUNK_BYTES), start_bytes, size_bytes):
                    file.write(chunk)
                    if file.tell() > size_bytes:
                        raise DownloadError(f"{url}: sends more than the published {size_bytes} bytes. Check the URL.")
                have_bytes = file.tell()
    except _INTERRUPTIONS as error:
        raise _TransientError(f"the download was interrupted ({_reason(error)})") from error
    except requests.RequestException as error:
        raise DownloadError(f"{url}: {error}. Check the URL.") from error
    if have_bytes < size_bytes:
        raise _TransientError(f"the server stopped after {have_bytes} of {size_bytes} bytes")


def _reason(error: requests.RequestException) -> str:
    """Returns why a connection failed, without the names of the objects that it failed in."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return str(reason or error).rpartition(">: ")[2] or type(error).__name__


def _start_of(response: requests.Response, url: str, part: Path, have_bytes: int, size_bytes: int) -> int:
    """Returns at which byte of the file the response begins."""
    status = response.status_code
    if status == requests.codes.requested_range_not_satisfiable:
        part.unlink(missing_ok=True)
        raise _TransientError(f"the server does not continue at byte {have_bytes}, the download starts anew")
    if status in _TRANSIENT_STATUS:
        raise _TransientError(f"the server answers {status} {response.reason}")
    if status == requests.codes.partial_content:
        content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not content_range or int(content_range[1]) != have_bytes:
            part.unlink(missing_ok=True)
            raise _TransientError("the server continues at another byte than asked for, the download starts anew")
        start_bytes, total_bytes = have_bytes, int(content_range[2])
    elif status == requests.codes.ok:
        start_bytes, total_bytes = 0, int(response.headers.get("Content-Length", size_bytes))
    else:
        raise DownloadError(f"{url}: the server answers {status} {response.reason}. Check the URL.")
    if total_bytes != size_bytes:
        part.unlink(missing_ok=True)
        raise DownloadError(
            f"{url}: the server's file has {total_bytes} bytes, the published archive has {size_bytes}. Check the URL, "
            "or give the path of your own copy as the data."
        )
    return start_bytes


def _with_progress(chunks: Iterator[bytes], start_bytes: int, size_bytes: int) -> Iterator[bytes]:
    """Passes the chunks on; shows a bar on a terminal, a line for each tenth elsewhere."""
    if sys.stderr.isatty():
        with tqdm.tqdm(total=size_bytes, initial=start_bytes, unit="B", unit_scale=True, unit_divisor=1000) as bar:
            for chunk in chunks:
                yield chunk
                bar.update(len(chunk))
        return
    done_bytes = start_bytes
    for chunk in chunks:
        yield chunk
        tenth = 10 * done_bytes // size_bytes
        done_bytes += len(chunk)
        if 10 * done_bytes // size_bytes > tenth:
            _say(f"  {100 * done_bytes // size_bytes} % of {size_bytes / 1e6:.1f} MB")


def _is_good(target: Path, expected: published.PublishedArchive) -> bool:
    if not target.exists():
        return False
    try:
        _verify(target, str(target), expected)
    except DataError as error:
        _say(f"{error}\nThe file in the cache is replaced.")
        return False
    return True


def _verify(path: Path, name: str, expected: published.PublishedArchive) -> None:
    with path.open("rb") as file:
        published.verify(name, file, expected)


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Lets one process at a time into the cache. The lock ends with the process, however that ends."""
    with target.with_name(target.name + ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Waiting for another process that downloads {target.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_free_space(folder: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(folder).free < needed_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextlib.contextmanager
def _disk_errors(folder: Path, expected: published.PublishedArchive) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DownloadError(
                f"{folder}: not enough space for the archive of {expected.size_bytes / 1e6:.0f} MB. Make room, or set "
                f"{CACHE_DIR_VARIABLE} to a folder on another disk."
            ) from error
        if isinstance(error, PermissionError):
            raise DownloadError(
                f"{folder}: may not be written to. Set {CACHE_DIR_VARIABLE} to a folder of yours."
            ) from error
        raise


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> int:
    """Prints the path of the archive; returns the exit status."""
    try:
        print(fetch_official_archive())
    except (DownloadError, DataError) as error:
        _say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
