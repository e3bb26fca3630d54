"""Takes part in the trainings that the pipeline's Trainer leads: `python -m models.worker --help`.

Each machine has the same TF_CONFIG but for its own task. The first one runs the pipeline; its Trainer leaves a job in
the folder of the checkpoints and starts a process for its own part. The others run this module, which waits for jobs
there and starts a process for each. All paths are those of the first machine: the output folder is on storage that all
of them have at the same place.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.multi_worker import Cluster

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs

JOB_FILE = "training_job.json"

FN_ARGS = (
    "train_files",
    "eval_files",
    "transform_graph_path",
    "serving_model_dir",
    "model_run_dir",
    "custom_config",
    "base_model",
    "hyperparameters",
)
"""What our training functions read of the Trainer's arguments; all of it is JSON."""

WORKER_LOST = os.EX_TEMPFAIL
"""Exit status of a process whose training ended because another one is gone."""

_POLL_S = 1.0
_PROJECT_ROOT = Path(__file__).resolve().parent.parent


class WorkerLostError(RuntimeError):
    """Another worker's process has ended, or cannot be reached."""


def shared(run_fn: Callable[[FnArgs], None]) -> Callable[[FnArgs], None]:
    """Lets the workers of TF_CONFIG run a training function together, where there are several.

    Args:
        run_fn: a module's function; its `custom_config` has the `checkpoint_dir`.

    Returns:
        A function that runs it in this process without a cluster, or in a process of the cluster; else starts such a
        process and waits for its end. Raises WorkerLostError, or RuntimeError with the error of that process.
    """

    @functools.wraps(run_fn)
    def run_or_lead(fn_args: FnArgs) -> None:
        from models import multi_worker

        if multi_worker.strategy() is not None or len(Cluster.from_environment().workers) == 1:
            run_fn(fn_args)
        else:
            _lead(f"{run_fn.__module__}.{run_fn.__qualname__}", fn_args)

    return run_or_lead


def _lead(function: str, fn_args: FnArgs) -> None:
    """Runs a job as the first worker; see `shared` for what it raises."""
    cluster = Cluster.from_environment()
    if not cluster.is_chief:
        raise ValueError(
            f"TF_CONFIG makes this machine worker {cluster.index}: run the pipeline on the first one only, "
            f"{cluster.workers[0]}, and `python -m models.worker` on the others."
        )
    folder = Path(fn_args.custom_config["checkpoint_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    job_file = folder / JOB_FILE
    job = {
        "id": uuid.uuid4().hex,
        "function": function,
        "fn_args": {name: getattr(fn_args, name, None) for name in FN_ARGS},
    }
    unfinished = job_file.with_name(f"{JOB_FILE}.unfinished")
    unfinished.write_text(json.dumps(job), encoding="utf-8")
    os.replace(unfinished, job_file)
    others = ", ".join(cluster.workers[1:])
    print(f"Waiting for {others}: there, run `python -m models.worker {folder}`.", flush=True)
    try:
        status, last_line = _run_process(job_file)
    finally:
        job_file.unlink()
    if status == WORKER_LOST:
        raise WorkerLostError(last_line)
    if status:
        raise RuntimeError(f"The training's process ended with status {status}. {last_line}")


def follow(folder: Path, max_jobs: int | None = None) -> None:
    """Takes part in one job after another.

    Args:
        folder: where they appear.
        max_jobs: how many to take part in; None goes on until the process is stopped.
    """
    cluster = Cluster.from_environment()
    if cluster.is_chief:
        raise ValueError("TF_CONFIG makes this machine the first worker, or is not set: run the pipeline here.")
    job_file = folder / JOB_FILE
    print(f"Worker {cluster.index} of {len(cluster.workers)} waits for {job_file}.", flush=True)
    seen: set[str] = set()
    while max_jobs is None or len(seen) < max_jobs:
        job = _read_job(job_file)
        if job is None or job["id"] in seen:
            time.sleep(_POLL_S)
            continue
        seen.add(job["id"])
        status, _ = _run_process(job_file)
        print(f"Took part in {job['function']}{f': status {status}' if status else ''}. Waiting.", flush=True)


def _read_job(job_file: Path) -> dict[str, Any] | None:
    """The job that is waiting; None where there is none."""
    try:
        return dict(json.loads(job_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _run_process(job_file: Path) -> tuple[int, str]:
    """Runs this machine's part in a process of its own; returns its exit status and the last line that it printed."""
    command = [sys.executable, "-m", "models.worker", "--job", str(job_file.absolute())]  # it runs in another folder
    last_line = ""
    with subprocess.Popen(command, cwd=_PROJECT_ROOT, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None  # it is a pipe
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                last_line = line.strip() or last_line
        except BaseException:
            process.terminate()
            raise
    return process.returncode, last_line


def run_job(job_file: Path) -> int:
    """Takes part in a job, in this process, which TensorFlow must not have been used in.

    Prints what went wrong as its last line, and the traceback on standard error.

    Returns:
        The exit status: 0, 1 for an error, WORKER_LOST.
    """
    job = _read_job(job_file)
    if job is None:
        print(f"There is no job {job_file}: it has been called off.", flush=True)
        return 1
    import tensorflow as tf

    from models import devices, multi_worker

    connection_lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
    try:
        devices.grow_gpu_memory()
        multi_worker.join()
        # The first worker, which has joined as well, wrote its job before that. Until then the file may have been that
        # of a run that was killed.
        job = _read_job(job_file) or job
        from tfx.components.trainer.fn_args_utils import FnArgs

        module, _, name = job["function"].rpartition(".")
        getattr(importlib.import_module(module), name)(FnArgs(**job["fn_args"]))
    except connection_lost as error:
        traceback.print_exc()
        print(
            "A worker has ended or cannot be reached. Once all are there again, the same run goes on from the last "
            f"finished epoch. ({_in_a_line(error)})",
            flush=True,
        )
        return WORKER_LOST
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {_in_a_line(error)}", flush=True)
        return 1
    return 0


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m models.worker",
        description="Take part in the trainings of a pipeline that runs on another machine; TF_CONFIG says on which.",
    )
    parser.add_argument("folder", nargs="?", type=Path, help="<output folder>/<profile>/checkpoints, shared by all.")
    parser.add_argument("--job", type=Path, help="Take part in one job, by its file, in this very process.")
    parsed = parser.parse_args(arguments)
    if (parsed.folder is None) == (parsed.job is None):
        parser.error("give the folder of the checkpoints, or --job")
    if parsed.job:
        return run_job(parsed.job)
    try:
        follow(parsed.folder)
    except ValueError as error:
        print(error)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
