"""Starts TensorBoard on the logs of all runs: `make tensorboard`, or `python -m pipeline.tensorboard --help`.

TFX keeps a training's log among its artifacts, in a folder with a number for a name. TensorBoard is given a folder of
links instead, named as `make runs` names the runs: `cifar10/run-68_2026-11-23T05-08`.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline import terminal
from pipeline.metadata_store import NotFoundError, ServerError

REFRESH_S = 10.0
"""How often new runs are looked for. A training that has ended moves from the checkpoints to its artifact."""

TRAINERS = ("PreTrainer", "Trainer")


def main() -> int:
    """Run TensorBoard until it is interrupted; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tensorboard", description="Show the learning curves of all runs in TensorBoard."
    )
    terminal.add_output_dir(parser)
    parser.add_argument("--port", default="6006", help="Where it listens, 0 for any free port: %(default)s.")
    parser.add_argument("--host", default="127.0.0.1", help="On which address: %(default)s, this machine alone.")
    arguments = parser.parse_args()
    return terminal.run_command(lambda: _serve(arguments))


def _serve(arguments: argparse.Namespace) -> None:
    logs = find_logs(arguments.output_dir)
    if not logs:
        raise NotFoundError(f"{arguments.output_dir} holds no training log yet: `make run` makes one.")
    with tempfile.TemporaryDirectory(prefix="alexnet-tensorboard-") as folder:
        link(logs, Path(folder))
        print(f"{len(logs)} runs below {arguments.output_dir}:", *sorted(logs), sep="\n  ", flush=True)
        # In a process of its own: TensorBoard's main loads TensorFlow and handles signals as it likes.
        command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", f"--reload_interval={REFRESH_S:.0f}"]
        command += [f"--port={arguments.port}", f"--host={arguments.host}"]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"} | os.environ
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with subprocess.Popen(command, env=quiet) as server:
            try:
                while server.poll() is None:
                    try:
                        server.wait(REFRESH_S)
                    except subprocess.TimeoutExpired:
                        link(find_logs(arguments.output_dir), Path(folder))
            except KeyboardInterrupt:
                return  # that is how one ends it
            finally:
                server.terminate()
        if server.returncode:  # it has said why: a port in use, say
            sys.exit(server.returncode)


def find_logs(output_dir: Path) -> dict[str, Path]:
    """Every training's TensorBoard log, by the name that it is shown under.

    Returns:
        `<profile>/run-<number>_<start>` for those that have ended, with `/pretraining` below it for a PreTrainer's;
        `<profile>/under-way_<key>` for those that have not: running now, or to be gone on with by the next run.
        Of a profile whose metadata server cannot be used, the latter alone.

    Raises:
        NotFoundError: there is no run at all.
    """
    from components.model_report import lineage  # here, and the next line: half a second, and --help should not wait
    from pipeline import metadata_store, runs

    logs: dict[str, Path] = {}
    for profile, place in runs.profiles(output_dir).items():
        try:
            found = metadata_store.list_runs(place)
        except ServerError as error:
            _warn(f"Profile {profile}: {error}")
            found = []
        for run in found:
            for name in TRAINERS:
                execution = run.executions.get(name)
                if execution is None or execution.state != lineage.COMPLETE:
                    continue  # a cached one's log is that of an earlier run
                log = Path(execution.outputs["model_run"].uri) / "tensorboard"
                started = runs.summarize(profile, run).started.strftime("%Y-%m-%dT%H-%M")
                if log.is_dir():
                    logs[f"{profile}/run-{run.id}_{started}{'' if name == 'Trainer' else '/pretraining'}"] = log
        for log in sorted(place.checkpoint_dir.glob("*/tensorboard")):
            logs[f"{profile}/under-way_{log.parent.name[:6]}"] = log
    return logs


@functools.cache
def _warn(message: str) -> None:
    """Say something once, however often the logs are looked for."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def link(logs: dict[str, Path], folder: Path) -> None:
    """Make a folder hold exactly a link to each file of each log.

    Files and not folders are linked: one log's folder can then lie in another's.

    Args:
        logs: from `find_logs`.
        folder: what TensorBoard shows.
    """
    wanted = {
        folder / name / file.relative_to(log): file for name, log in logs.items() for file in log.rglob("events.*")
    }
    for present in folder.rglob("events.*"):
        if present not in wanted:
            present.unlink()
    for path, file in wanted.items():
        if not path.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(file.absolute())


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
