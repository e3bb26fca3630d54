"""A run's hold on the folder that it writes to."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder against other runs: the artifacts, checkpoints and SQLite metadata in it are one run's at a time.

    Runs that share a metadata server only, each with a folder of its own, go on side by side.

    Raises:
      RuntimeError: Another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another run is using {folder}: wait for it, or choose another output_dir") from None
        yield


def in_use(folder: Path) -> bool:
    """Whether a run holds a folder at this moment."""
    lock = folder / ".lock"
    if not lock.exists():
        return False
    with open(lock, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
