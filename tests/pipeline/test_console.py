import contextlib
import logging
import os
import pty
import re
import subprocess
import sys

import absl.logging
import pytest

from pipeline import console
from pipeline.settings import PROJECT_ROOT


def test_frameworks_write_to_the_log_file_and_not_to_the_console(tmp_path, capfd):
    log_file = tmp_path / "logs" / "run.log"
    with console.frameworks_to(log_file):
        os.write(2, b"from C++\n")
        print("from Python", file=sys.__stderr__)
        print("our line")
    os.write(2, b"after\n")
    shown = capfd.readouterr()
    assert shown.out == "our line\n"
    assert shown.err == "after\n"
    assert "from C++" in log_file.read_text()
    assert "from Python" in log_file.read_text()


def test_verbose_leaves_standard_error_alone(capfd):
    with console.frameworks_to(None):
        os.write(2, b"from C++\n")
    assert capfd.readouterr().err == "from C++\n"


def test_standard_error_comes_back_after_an_error(tmp_path, capfd):
    with pytest.raises(ValueError, match="broken"), console.frameworks_to(tmp_path / "run.log"):
        raise ValueError("broken")
    os.write(2, b"after\n")
    # Before it there may be the error itself: under capfd, Python's standard error is not file descriptor 2.
    assert capfd.readouterr().err.endswith("after\n")


def announce(component, event):
    # Written as TFX's LocalDagRunner writes it; the end-to-end tests hold that to be so in the installed release.
    absl.logging.info(f"Component %s is {event}.", component)


def test_a_line_a_component(capfd):
    finished: list[str] = []
    with console.component_lines(lambda component: f"{component} done", finished):
        announce("Trainer", "running")
        announce("Trainer", "finished")
        logging.getLogger("absl").info("Something else.")
    announce("Pusher", "finished")
    assert finished == ["Trainer"]
    assert capfd.readouterr().out == "Trainer done\n"


def test_a_failure_names_its_component():
    with pytest.raises(ValueError, match="no") as raised, console.component_lines(str, []):
        announce("Transform", "running")
        raise ValueError("no")
    assert console.failed_component(raised.value) == " in Transform"
    assert console.failed_component(ValueError("before any component")) == ""


def test_an_error_in_describing_a_component_ends_the_run():
    def describe(component):
        raise RuntimeError(f"{component} failed")

    with pytest.raises(RuntimeError, match="Resolver failed"), console.component_lines(describe, []):
        announce("Resolver", "running")
        announce("Resolver", "finished")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("bad record", "bad record"),
        ("bad record [while running 'Read/ParDo']", "bad record"),
        ("bad\nrecord [while running 'a'] [while running 'b']", "bad\nrecord"),
        ("", "ValueError"),
    ],
)
def test_root_message_is_free_of_beams_wrapping(message, shown):
    assert console.root_message(ValueError(message)) == shown


def test_root_message_says_the_cause():
    error = ValueError("could not import models.training")
    error.__cause__ = ModuleNotFoundError("No module named 'models.warmup'")
    assert console.root_message(error) == "could not import models.training (No module named 'models.warmup')"


CLOCK = """
import threading
from pipeline import console

ticks = threading.Semaphore(0)
draw = console._RunningLine._draw

def draw_and_count(line):
    draw(line)
    if threading.current_thread().name == "running-line":
        ticks.release()

console._RunningLine._draw = draw_and_count

def wait_for_ticks(count):
    while ticks.acquire(blocking=False):
        pass
    for _ in range(count):
        assert ticks.acquire(timeout=60)
"""
"""Waits for the line's own clock, however late it is."""

NO_CLOCK = "wait_for_ticks = int"

RUN = """
import absl.logging
from pipeline import console

with console.component_lines(lambda component: f"  {component} has run: NOT BLESSED", []):
    absl.logging.info("Component %s is %s.", "Ignored", "there")
    absl.logging.info("Component %s is running.", "StatisticsGen")
    wait_for_ticks(2)
    absl.logging.info("Component %s is finished.", "StatisticsGen")
    absl.logging.info("Component %s is running.", "Trainer")
    print("Epoch 1/2", flush=True)
    wait_for_ticks(2)
    absl.logging.info("Component %s is finished.", "Trainer")
"""


def run_on_a_terminal(script, **environment):
    """What a script writes to a terminal, byte for byte."""
    try:
        ours, theirs = pty.openpty()
    except OSError as error:  # a container without /dev/pts
        pytest.skip(f"no pseudo-terminal here: {error}")
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=PROJECT_ROOT,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm"} | environment,
    ):
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while chunk := os.read(ours, 4096):
                written += chunk
    os.close(ours)
    return written.decode()


def screen_lines(written):
    """The lines that are left of what was written: the cursor goes back at \\r, ESC[K clears from there."""
    lines = []
    for line in re.sub(r"\x1b\[\d*m", "", written).split("\n"):
        shown = ""
        for part in line.rstrip("\r").split("\r"):
            text = part.removeprefix("\x1b[K")
            shown = text + ("" if part.startswith("\x1b[K") else shown[len(text) :])
        lines.append(shown)
    return lines


def test_a_terminal_shows_what_is_running_and_then_what_came_of_it():
    written = run_on_a_terminal(CLOCK + RUN)
    assert re.search(r"\r  StatisticsGen +0 s  …", written)
    assert re.search(r"\r  StatisticsGen +[1-9]\d* s  …", written)
    # A component that prints shows by itself how far it is: nothing is drawn over its lines.
    assert re.search(r"\r  Trainer +0 s  …", written)
    assert "…" not in written.partition("Epoch 1/2")[2]
    assert screen_lines(written) == [
        "  StatisticsGen has run: NOT BLESSED",
        "Epoch 1/2",
        "  Trainer has run: NOT BLESSED",
        "",
    ]
    assert "\x1b[31mNOT BLESSED\x1b[0m" in written


def test_no_color_is_respected():
    assert "\x1b[31m" not in run_on_a_terminal(NO_CLOCK + RUN, NO_COLOR="1")


def test_a_pipe_gets_plain_lines():
    ended = subprocess.run([sys.executable, "-c", NO_CLOCK + RUN], cwd=PROJECT_ROOT, capture_output=True, check=True)
    expected = "  StatisticsGen has run: NOT BLESSED\nEpoch 1/2\n  Trainer has run: NOT BLESSED\n"
    assert ended.stdout.decode() == expected


def test_colors_say_what_was_decided(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = console.colored("gate: BLESSED\n  ok  accuracy\n  NO  latency")
    assert shown == "gate: \x1b[32mBLESSED\x1b[0m\n\x1b[32m  ok \x1b[0m accuracy\n\x1b[31m  NO \x1b[0m latency"
    monkeypatch.setenv("TERM", "dumb")
    assert console.colored("BLESSED") == "BLESSED"
