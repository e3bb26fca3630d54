"""What a run shows: our own lines on the console, the frameworks' in the run's log file."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast


@contextlib.contextmanager
def frameworks_to(log_file: Path | None) -> Iterator[None]:
    """Send everything written to standard error to a file, C++ libraries' lines included; None leaves it as it is.

    Our own lines go to standard output and are not concerned. absl logs at INFO within.
    """
    # Set before TensorFlow is imported; C++ reads it once.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if log_file is None:
        yield
        return
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    saved = os.dup(2)
    with open(log_file, "ab") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            logging.getLogger(__name__).exception("The run ended early.")
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def component_lines(describe: Callable[[str], str], finished: list[str]) -> Iterator[None]:
    """Print a line, made by `describe(component)`, when a component has finished, and add its name to `finished`.

    On a terminal the component that is running is shown below them, with its seconds. TFX's runner announces both in
    its log and nowhere else. An exception raised within gets the attribute `component`: the one that was running.
    """
    import absl.logging

    absl.logging.set_verbosity(absl.logging.INFO)
    absl.logging.use_absl_handler()
    with running_line() as show_running:
        handler = _ComponentHandler(describe, show_running, finished)
        logger = absl.logging.get_absl_logger()
        logger.addHandler(handler)
        try:
            yield
        except BaseException as error:
            # An exception takes any attribute; its type does not declare them.
            error.component = handler.running  # type: ignore[attr-defined]  # added here
            raise
        finally:
            logger.removeHandler(handler)


class _ComponentHandler(logging.Handler):
    """Turns the runner's two log messages about a component into console lines."""

    def __init__(self, describe: Callable[[str], str], show_running: Callable[[str], None], finished: list[str]):
        super().__init__(logging.INFO)
        self._describe = describe
        self._show_running = show_running
        self._finished = finished
        self.running = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "Component %s is running." and isinstance(record.args, tuple):
            self.running = str(record.args[0])
            self._show_running(self.running)
        elif record.msg == "Component %s is finished.":
            self._show_running("")
            self._finished.append(self.running)
            print(colored(self._describe(self.running)), flush=True)
            self.running = ""


@contextlib.contextmanager
def running_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a name, with the seconds since then, in the last line; "" takes the line away.

    It gives way to whatever else is printed: a training shows a bar of its own. Where standard output is no terminal
    the function does nothing.
    """
    if not sys.stdout.isatty():
        yield lambda name: None
        return
    line = _RunningLine(sys.stdout)
    with contextlib.redirect_stdout(cast(TextIO, line)):
        try:
            yield line.show
        finally:
            line.close()


class _RunningLine:
    """Stands in for the terminal: passes everything on, and draws the line where nothing else is written."""

    _CLEAR = "\r\x1b[K"

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._lock = threading.RLock()
        self._name = ""
        self._begin_s = 0.0
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._tick, name="running-line", daemon=True)
        self._clock.start()

    def show(self, name: str) -> None:
        with self._lock:
            self._clear()
            self._name, self._begin_s = name, time.monotonic()
            self._draw()

    def close(self) -> None:
        self.show("")
        self._ended.set()
        self._clock.join()

    def write(self, text: str) -> int:
        with self._lock:
            self._clear()
            self._name = ""  # the component shows by itself how far it is
            return self._terminal.write(text)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._terminal, attribute)

    def _tick(self) -> None:
        while not self._ended.wait(1.0):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if self._name:
            seconds = time.monotonic() - self._begin_s
            self._terminal.write(f"\r  {self._name:<20} {seconds:>6.0f} s  …")
            self._terminal.flush()

    def _clear(self) -> None:
        if self._name:
            self._terminal.write(self._CLEAR)


_COLORS = (
    (re.compile(r"^(  ok )", re.MULTILINE), "32"),
    (re.compile(r"^(  NO )", re.MULTILINE), "31"),
    (re.compile(r"\b(NOT BLESSED|not blessed)\b"), "31"),
    (re.compile(r"(?<!NOT )\b(BLESSED)\b"), "32"),
    (re.compile(r"^(Next: )", re.MULTILINE), "1"),
)


def colored(text: str) -> str:
    """A text with what was decided in green or red, where standard output is a terminal that shows colours.

    NO_COLOR (https://no-color.org) turns them off.
    """
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    for pattern, code in _COLORS:
        text = pattern.sub(f"\x1b[{code}m\\1\x1b[0m", text)
    return text


def failed_component(error: BaseException) -> str:
    """`" in <component>"` where a component raised the error, else nothing."""
    component = getattr(error, "component", "")
    return f" in {component}" if component else ""


def root_message(error: BaseException) -> str:
    """An error's message without what Beam wraps around it, and the message of what caused it."""
    message = re.sub(r"\s*\[while running '.*?'\]", "", str(error), flags=re.DOTALL).strip() or type(error).__name__
    cause = error.__cause__
    return message if cause is None or str(cause) in message else f"{message} ({root_message(cause)})"
