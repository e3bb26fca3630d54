"""Fetches Flink and Beam's Flink runner from Maven Central once, into a cache that survives the project.

Maven resolves `pom.xml` and checks the checksum of every file; a folder of jars that is there is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

POM = Path(__file__).resolve().with_name("pom.xml")
CACHE_DIR_VARIABLE = "FLINK_CACHE_DIR"
BEAM_VARIABLE = "FLINK_BEAM_VERSION"

FLINK_LINE = "1.19"
"""The release line of Flink."""

RUNNER = "2.62.0"
"""Version of Beam's runner and job server on it. They need not be as old as the Python SDK, since the protocol between
them is kept: the tests pass with the SDK of both stacks, 2.59 (on Java 17) and 2.77 (on Java 21)."""

NO_JAVA = "java is not on the PATH: install Java 17 or 21 (Debian, Ubuntu: apt-get install default-jre-headless)"

FETCH_TIMEOUT_S = 1800.0
"""About 160 files, 160 MB."""

_APP_NAME = "alexnet-cifar10"

# Beam's job server uploads its class path to the cluster with each job, 160 MB, but for what lies below a folder of
# this name (PipelineResources.isStageable). Here the cluster has the same files on its own class path.
_UNSTAGED = Path("gradle", "wrapper")


class FlinkError(RuntimeError):
    """Flink cannot be had or does not run. The message says why and what to do."""


@dataclass(frozen=True)
class Release:
    """Which Flink, with which Beam.

    Attributes:
        flink_line: Release line of Flink, such as 1.19.
        beam: Version of Beam's runner and job server on it.
    """

    flink_line: str
    beam: str

    def __str__(self) -> str:
        return f"Flink {self.flink_line} with Beam's runner {self.beam}"


def chosen_release() -> Release:
    """Returns the release to use: `$FLINK_BEAM_VERSION` names another one of Beam's runner."""
    return Release(FLINK_LINE, os.environ.get(BEAM_VARIABLE) or RUNNER)


def jar_dir(release: Release, cache_dir: Path | None = None) -> Path:
    """Where a release's jars are or will be: in `cache_dir`, `$FLINK_CACHE_DIR`, or else the user's cache folder."""
    cache_dir = cache_dir or Path(os.environ.get(CACHE_DIR_VARIABLE) or Path(platformdirs.user_cache_dir(_APP_NAME)))
    return cache_dir / f"flink-{release.flink_line}-beam-{release.beam}" / _UNSTAGED


def missing(release: Release, cache_dir: Path | None = None) -> str | None:
    """Says what keeps Flink from running here and what to do, None where nothing does."""
    if shutil.which("java") is None:
        return NO_JAVA
    folder = jar_dir(release, cache_dir)
    return None if folder.is_dir() else f"the jars of {release} are not in {folder}: `make flink-fetch` gets them"


def fetch(release: Release, cache_dir: Path | None = None) -> Path:
    """Returns the folder of a release's jars, after downloading them where the cache does not have them.

    A second process waits for the first and then finds them.

    Raises:
        FlinkError: Maven is not there, or could not get a file, or a checksum is wrong; nothing appears in the cache.
    """
    folder = jar_dir(release, cache_dir)
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise FlinkError("mvn is not on the PATH: install Maven (Debian, Ubuntu: apt-get install maven).")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder), tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        if not folder.is_dir():
            shutil.copy(POM, temporary)  # Maven writes beside it
            _maven(release, Path(temporary))
            os.replace(Path(temporary) / "jars", folder)
    return folder


def _maven(release: Release, work_dir: Path) -> None:
    command = [
        *("mvn", "--batch-mode", "--quiet", "--strict-checksums", "--file", str(work_dir / POM.name)),
        *(f"-Dflink.line={release.flink_line}", f"-Dbeam.version={release.beam}"),
        *("dependency:copy-dependencies", f"-DoutputDirectory={work_dir / 'jars'}", "-DincludeScope=runtime"),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise FlinkError(
            f"Maven has not got {release} within {FETCH_TIMEOUT_S:.0f} s. Run the command again."
        ) from error
    if done.returncode:
        errors = re.findall(r"\[ERROR\] (.+)", done.stdout) or [done.stderr.strip()]  # colour codes may come before it
        raise FlinkError(
            f"Maven could not get {release}: {errors[0]}\nWhere the repository does not have "
            f"this version, {BEAM_VARIABLE} names another one of Beam's runner, for example {RUNNER}."
        )


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lets one process at a time fetch a release. The lock ends with the process, however that ends."""
    with folder.with_name(folder.name + ".lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
