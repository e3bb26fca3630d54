"""What a run shows: our own lines on the console, the frameworks' in the run's log file."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


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
def component_lines(describe: Callable[[str], str]) -> Iterator[list[str]]:
    """Print a line, made by `describe(component)`, when a component has finished; yield the names of those that have.

    TFX's runner announces that in its log and nowhere else. An exception raised within gets the attribute
    `component`: the one that was running.
    """
    import absl.logging

    absl.logging.set_verbosity(absl.logging.INFO)
    absl.logging.use_absl_handler()
    handler = _ComponentHandler(describe)
    logger = absl.logging.get_absl_logger()
    logger.addHandler(handler)
    try:
        yield handler.finished
    except Exception as error:
        # An exception takes any attribute; its type does not declare them.
        error.component = handler.running  # type: ignore[attr-defined]
        raise
    finally:
        logger.removeHandler(handler)


class _ComponentHandler(logging.Handler):
    """Turns the runner's two log messages about a component into console lines."""

    def __init__(self, describe: Callable[[str], str]):
        super().__init__(logging.INFO)
        self._describe = describe
        self.running = ""
        self.finished: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "Component %s is running." and isinstance(record.args, tuple):
            self.running = str(record.args[0])
            if sys.stdout.isatty():
                print(f"  {self.running} …", end="\r", flush=True)
        elif record.msg == "Component %s is finished.":
            print(self._describe(self.running), flush=True)
            self.finished.append(self.running)
            self.running = ""


def failed_component(error: BaseException) -> str:
    """`" in <component>"` where a component raised the error, else nothing."""
    component = getattr(error, "component", "")
    return f" in {component}" if component else ""


def root_message(error: BaseException) -> str:
    """An error's message without what Beam wraps around it, and the message of what caused it."""
    message = re.sub(r"\s*\[while running '.*?'\]", "", str(error), flags=re.DOTALL).strip() or type(error).__name__
    cause = error.__cause__
    return message if cause is None or str(cause) in message else f"{message} ({root_message(cause)})"
