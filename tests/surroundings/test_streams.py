"""A process goes on, whatever becomes of its standard streams. Each case is a process of its own."""

import os
import subprocess
import sys

import pytest

from pipeline.settings import PROJECT_ROOT

SCRIPT = r"""
import sys
from surroundings import streams
streams.prepare(only_prints="only" in sys.argv)
opened = open(__import__("os").devnull)
for _ in range(3):
    print("\u2026 \xe9 caf\udce9")
sys.stdout.write("half a line")
sys.stdout.flush()
print(f"done, {opened.fileno()}", file=sys.stderr)
"""
DONE = "done, 3\n"
FULL = "Standard output cannot be written: No space left on device. The rest of it is lost.\n"


def ran(redirection: str = "", only: str = "", **environment: str) -> tuple[int, str, str]:
    """Exit status, standard output (as Latin-1) and standard error of the script."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {only} {redirection}', sys.executable, SCRIPT]
    ended = subprocess.run(
        command, cwd=PROJECT_ROOT, env={**os.environ, **environment}, capture_output=True, timeout=60, check=False
    )
    return ended.returncode, ended.stdout.decode("latin-1"), ended.stderr.decode()


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"PYTHONIOENCODING": "utf-8"}, "… é caf\\udce9".encode().decode("latin-1")),
        ({"PYTHONIOENCODING": "latin-1"}, "\\u2026 é caf\\udce9"),
        ({"PYTHONIOENCODING": "ascii:strict"}, "\\u2026 \\xe9 caf\\udce9"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "\\u2026 \\xe9 caf\\udce9"),
    ],
)
def test_what_cannot_be_shown_is_an_escape(environment, shown):
    assert ran(**environment) == (0, f"{shown}\n" * 3 + "half a line", DONE)


@pytest.mark.parametrize("only", ["", "only"])
def test_closed_streams_stay_reserved(only):
    assert ran(">&-", only) == (0, "", DONE)
    assert ran("<&- >&- 2>&-", only) == (0, "", "")


def test_a_full_disk_is_said_once_and_the_work_goes_on():
    assert ran(">/dev/full") == (0, "", FULL + DONE)
    assert ran(">/dev/full 2>&1") == (0, "", "")
    status, shown, _ = ran("2>/dev/full")
    assert (status, shown[-11:]) == (0, "half a line")


def test_a_full_disk_ends_a_command_that_only_prints():
    assert ran(">/dev/full", "only") == (os.EX_IOERR, "", FULL)


@pytest.mark.parametrize(("only", "said"), [("", DONE), ("only", "")])
def test_a_reader_that_is_gone_is_no_failure(only, said):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", SCRIPT, only]
    try:
        ended = subprocess.run(command, cwd=PROJECT_ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (0, said)


def test_a_stream_that_does_not_block_is_made_to():
    read, write = os.pipe()
    os.set_blocking(write, False)
    script = SCRIPT.replace(r'"\u2026 \xe9 caf\udce9"', "'x' * 100_000")
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT_ROOT, stdout=write) as process:
        os.close(write)
        with os.fdopen(read, "rb") as output:
            assert len(output.read()) == 3 * 100_001 + 11
    assert process.returncode == 0


def test_every_command_prepares_its_streams():
    for room in ("benchmarks", "components", "models", "pipeline", "serving"):
        for file in (PROJECT_ROOT / room).rglob("*.py"):
            _, starts, ending = file.read_text(encoding="utf-8").partition('if __name__ == "__main__":')
            assert not starts or "streams.prepare(" in ending, file
