"""What a process and its children take, watched from outside through /proc (see proc(5))."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine

INTERVAL_S = 0.05


@dataclass(frozen=True)
class Reading:
    """The state of a process and all its descendants at a moment.

    Attributes:
        time_s: since 1970.
        memory_bytes: resident, summed up: what processes share counts in each.
        cpu_s: processor time up to now, of processes that have ended too.
        written_bytes: that they caused to be written to disks up to now, likewise.
    """

    time_s: float
    memory_bytes: int
    cpu_s: float
    written_bytes: int


@dataclass(frozen=True)
class Usage:
    """What was taken in a stretch of time.

    Attributes:
        peak_memory_bytes: the largest reading.
        cpu_s: processor time.
        written_bytes: to disks, temporary files included.
    """

    peak_memory_bytes: int
    cpu_s: float
    written_bytes: int


@dataclass
class Watch:
    """Readings of a process tree, the oldest first."""

    pid: int
    readings: list[Reading] = field(default_factory=list)
    _last_of: dict[int, tuple[float, int]] = field(default_factory=dict)

    def read(self) -> None:
        """Adds a reading."""
        memory_bytes = 0
        for pid in descendants(self.pid):
            try:
                memory_bytes += resident_bytes(pid)
                self._last_of[pid] = machine.process_cpu_s(pid), written_bytes(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
        cpu_s = sum(cpu for cpu, _ in self._last_of.values())
        written = sum(count for _, count in self._last_of.values())
        self.readings.append(Reading(time.time(), memory_bytes, cpu_s, written))

    def usage(self, begin_s: float, end_s: float) -> Usage:
        """What was taken between two moments, in seconds since 1970; what lies between two readings goes to the later.

        Raises:
            ValueError: there is no reading up to the end.
        """
        until_end = [reading for reading in self.readings if reading.time_s <= end_s]
        if not until_end:
            raise ValueError(f"no reading of process {self.pid} before {end_s}.")
        before = [reading for reading in until_end if reading.time_s <= begin_s] or until_end[:1]
        # A stretch shorter than the interval has the reading before it.
        within = [reading for reading in until_end if reading.time_s > begin_s] or before[-1:]
        first, last = before[-1], within[-1]
        return Usage(
            peak_memory_bytes=max(reading.memory_bytes for reading in within),
            cpu_s=last.cpu_s - first.cpu_s,
            written_bytes=last.written_bytes - first.written_bytes,
        )


@contextmanager
def watching(pid: int) -> Iterator[Watch]:
    """Reads every INTERVAL_S, in a thread, until the block ends."""
    watch = Watch(pid)
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(INTERVAL_S):
            watch.read()

    watch.read()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def descendants(pid: int) -> list[int]:
    """A process that runs, its children, theirs, and so on; none where it has ended."""
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            continue
        for task in tasks:
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended: its process may go on
                waiting += [int(child) for child in (task / "children").read_text(encoding="utf-8").split()]
        found.append(parent)
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def written_bytes(pid: int) -> int:
    """What a process has caused to be written to disks so far."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text(encoding="utf-8").splitlines())
    return int(fields["write_bytes"])
