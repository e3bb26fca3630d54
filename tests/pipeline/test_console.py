import logging
import os
import sys

import absl.logging
import pytest

from pipeline import console


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
    with console.component_lines(lambda component: f"{component} done") as finished:
        announce("Trainer", "running")
        announce("Trainer", "finished")
        logging.getLogger("absl").info("Something else.")
    announce("Pusher", "finished")
    assert finished == ["Trainer"]
    assert capfd.readouterr().out == "Trainer done\n"


def test_a_failure_names_its_component():
    with pytest.raises(ValueError, match="no") as raised, console.component_lines(str):
        announce("Transform", "running")
        raise ValueError("no")
    assert console.failed_component(raised.value) == " in Transform"
    assert console.failed_component(ValueError("before any component")) == ""


def test_an_error_in_describing_a_component_ends_the_run():
    def describe(component):
        raise RuntimeError(f"{component} failed")

    with pytest.raises(RuntimeError, match="Resolver failed"), console.component_lines(describe):
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
