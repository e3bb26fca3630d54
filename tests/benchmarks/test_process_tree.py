"""What is read of processes, against processes that take known amounts."""

import os
import subprocess
import sys
import threading

import pytest

from benchmarks import process_tree
from benchmarks.process_tree import Reading, Watch

MIB = 2**20


def test_a_child_of_a_child_is_seen_with_its_memory_its_work_and_what_it_writes(tmp_path):
    grandchild = (
        "import os, sys, time\n"
        "block = b'x' * (64 * 2**20)\n"
        f"with open({str(tmp_path / 'written')!r}, 'wb') as file:\n"
        "    file.write(block[: 8 * 2**20])\n"
        "    file.flush()\n"
        "    os.fsync(file.fileno())\n"
        # The kernel counts user and system time in hundredths of a second, each rounded down.
        "while time.process_time() < 0.22: pass\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}], check=True)"
    with (
        subprocess.Popen(
            [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
        process_tree.watching(process.pid) as watch,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        watch.read()
        assert len(process_tree.descendants(process.pid)) == 2
        process.communicate("")
    reading = max(watch.readings, key=lambda each: each.memory_bytes)
    assert 64 * MIB < reading.memory_bytes < 200 * MIB
    last = watch.readings[-1]
    assert last.cpu_s >= 0.2
    # Whole pages, and the kernel may count one twice; nothing where the folder is in memory.
    assert last.written_bytes == 0 or 8 * MIB <= last.written_bytes < 64 * MIB
    assert process_tree.descendants(process.pid) == []


def test_this_process_is_its_own_tree():
    assert os.getpid() in process_tree.descendants(os.getpid())
    assert process_tree.resident_bytes(os.getpid()) > MIB


def test_a_process_whose_threads_come_and_go_stays_in_its_tree():
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()

    coming = threading.Thread(target=come_and_go)
    coming.start()
    try:
        found = [process_tree.descendants(os.getpid()) for _ in range(2000)]
    finally:
        ended.set()
        coming.join()
    assert all(os.getpid() in each for each in found)


def watch_of(*readings: Reading) -> Watch:
    return Watch(1, list(readings))


def test_usage_is_the_difference_and_the_peak_within():
    watch = watch_of(
        Reading(0.0, 500, 1.0, 10),
        Reading(1.0, 100, 2.0, 20),
        Reading(2.0, 300, 4.0, 50),
        Reading(3.0, 200, 7.0, 50),
        Reading(4.0, 900, 9.0, 99),
    )
    usage = watch.usage(1.0, 3.5)
    assert (usage.peak_memory_bytes, usage.cpu_s, usage.written_bytes) == (300, 5.0, 30)


def test_a_stretch_between_two_readings_took_nothing_that_was_seen():
    usage = watch_of(Reading(0.0, 500, 1.0, 10), Reading(1.0, 100, 2.0, 20)).usage(0.2, 0.4)
    assert (usage.peak_memory_bytes, usage.cpu_s, usage.written_bytes) == (500, 0.0, 0)


def test_no_reading_is_an_error():
    with pytest.raises(ValueError, match="no reading of process 1"):
        watch_of(Reading(5.0, 1, 1.0, 1)).usage(0.0, 1.0)
