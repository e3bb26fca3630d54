"""Times what a new user does, in a fresh clone: `python -m benchmarks.first_run`.

    python -m benchmarks.first_run                    `make run`, then the same again
    python -m benchmarks.first_run --profile smoke
    python -m benchmarks.first_run --table            only the table, from the last figures

Clones the last commit to a temporary folder, sets up the environment there (`make environment`, which `make run` does
by itself), then runs the pipeline twice: the second time everything is cached. Packages come from the index, or from
the installer's cache where they have been downloaded before. A row for each profile in
benchmarks/results/first_run.json.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import experiments, rows
from benchmarks import markdown as md
from pipeline.settings import DEFAULT_PROFILE, ENVIRONMENT_PREFIX, PROFILES, PROJECT_ROOT

RESULTS_FILE = "first_run.json"
SET_UP, RUN = "make environment", "make run"
COMMANDS = (SET_UP, RUN, RUN)
HEADER = ("profile", "setting up, s", "first run, s", "second run, s", "test accuracy", "commit")
NOT_THE_CLONES = ("DATA", "GPU", "MAKEFLAGS", "PYTHON", "PYTHONPATH", "RUNTIME", "VIRTUAL_ENV")
"""Variables of the calling shell that a new user's has not: other data, another Python, another environment."""


class FirstRunError(RuntimeError):
    """A command failed; the message has the end of what it said."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where a command failed or there is no row to make a table of.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_run", description="Time what a new user does, in a fresh clone."
    )
    parser.add_argument("--profile", choices=PROFILES, default=DEFAULT_PROFILE, help="to run: %(default)s")
    parser.add_argument("--output-dir", type=Path, default=experiments.RESULTS_DIR, help="where to write: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write the table, from the last figures")
    options = parser.parse_args(arguments)
    file: Path = options.output_dir / RESULTS_FILE
    if not options.table:
        circumstances = experiments.circumstances()
        try:
            figures = measure(options.profile)
        except FirstRunError as error:
            print(error, file=sys.stderr)
            return 1
        command = f"python -m benchmarks.first_run --profile {options.profile}"
        rows.put(file, {"profile": options.profile}, {**circumstances, "command": command, **figures})
    return rows.write_table(file, markdown)


def measure(profile: str, project: Path = PROJECT_ROOT) -> dict[str, Any]:
    """Clones the last commit and runs the commands in the clone, which is removed.

    Args:
        profile: to run.
        project: the repository.

    Returns:
        `commit`; `seconds` of each of COMMANDS; `test_accuracy` that the first run printed, in [0, 1].

    Raises:
        FirstRunError: a command failed, or a run printed no accuracy.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_THE_CLONES
    }
    environment["PROFILE"] = profile
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        run(["git", "clone", "--quiet", str(project), str(clone)], Path(folder), environment)
        commit = run(["git", "rev-parse", "--short", "HEAD"], clone, environment).strip()
        seconds, said = [], []
        for command in COMMANDS:
            print(f"{command} …", file=sys.stderr, flush=True)
            started = time.monotonic()
            said.append(run(command.split(), clone, environment))
            seconds.append(round(time.monotonic() - started, 1))
    return {"commit": commit, "seconds": seconds, "test_accuracy": printed_accuracy(said[1])}


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Runs a command; returns what it printed.

    Raises:
        FirstRunError: it failed.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        errors="replace",
    )
    if done.returncode:
        raise FirstRunError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def printed_accuracy(output: str) -> float:
    """What a run's last lines say of the test split.

    Raises:
        FirstRunError: they do not.
    """
    found = re.search(r"^Test accuracy (\d\.\d+)", output, flags=re.MULTILINE)
    if not found:
        raise FirstRunError(f"The run printed no test accuracy:\n{output[-2000:]}")
    return float(found[1])


def markdown(found: Sequence[rows.Row]) -> str:
    """The table.

    Args:
        found: content of first_run.json; not empty.
    """
    lines = md.table(
        HEADER,
        [
            (f"`{row['profile']}`", *row["seconds"], f"{row['test_accuracy']:.4f}", f"`{row['commit']}`")
            for row in found
        ],
    )
    lines += ["", "Setting up takes packages from the installer's cache where it has them, and downloads the others."]
    for row in found:
        lines += ["", f"`{row['command']}`, n = 1: {md.origin(row)}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
