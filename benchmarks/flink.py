"""Measures what each component takes on Flink, beside the direct runner: `python -m benchmarks.flink`.

    python -m benchmarks.flink --sizes 60000 --rounds 3
    python -m benchmarks.flink --sizes 600000 --rounds 1
    python -m benchmarks.flink --table                          only the table, from the last figures

The data and the pipeline are those of `benchmarks.stages`: the bundled sample, repeated with shifted pixels, and a
Trainer that exports its initial weights. Each run on Flink has a cluster of its own, so that the start of the Python
workers is part of the first job's time. Seconds are from ML Metadata. Each run is added to
benchmarks/results/flink.json when it is done, in the place of an earlier one of the same engine, size and round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import experiments, machine, rows, stages
from benchmarks import markdown as md
from benchmarks.rows import Row
from components.model_report import lineage
from pipeline.flink import jars
from pipeline.flink.cluster import running_cluster
from pipeline.settings import PROJECT_ROOT, make_settings

RESULTS_FILE = "flink.json"
TASK_MANAGERS = (0, 1, 2)
"""What is compared; 0 is the direct runner. Each task manager has one task at a time, and one Python worker."""

WITH_BEAM = ("Cifar10ExampleGen", "StatisticsGen", "Transform", "Evaluator")
PACKAGES = ("tfx", "apache-beam", "tensorflow")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where a run failed, Flink is not there, or there is no result to make a table of.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flink", description="Measure what each component takes on Flink."
    )
    parser.add_argument("--sizes", default="6000", help="numbers of images, multiples of 6,000: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each size and engine, in turn: %(default)s")
    parser.add_argument("--work-dir", type=Path, default=experiments.WORK_DIR / "stages", help="for data and runs")
    parser.add_argument("--output-dir", type=Path, default=experiments.RESULTS_DIR, help="where to write: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write the table, from the last figures")
    options = parser.parse_args(arguments)
    file: Path = options.output_dir / RESULTS_FILE
    if not options.table:
        try:
            measure([int(size) for size in options.sizes.split(",")], options.rounds, options.work_dir.absolute(), file)
        except (jars.FlinkError, stages.StageError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    return rows.write_table(file, markdown)


def measure(sizes: Sequence[int], rounds: int, work_dir: Path, file: Path) -> None:
    """Runs the pipeline on each size and engine, round by round, and adds the rows.

    Args:
        sizes: numbers of images.
        rounds: runs of each.
        work_dir: keeps the archives; the runs' outputs are removed.
        file: of the rows.

    Raises:
        FlinkError: Flink cannot be had or does not start.
        StageError: a run failed.
        ValueError: a size is not possible; says which are.
    """
    release = jars.chosen_release()
    jar_dir = jars.fetch(release)
    work_dir.mkdir(parents=True, exist_ok=True)
    circumstances = experiments.circumstances() | {
        "versions": machine.versions(PACKAGES) | {"flink": release.flink_line, "beam_flink_runner": release.beam},
        "command": f"python -m benchmarks.flink --sizes {','.join(map(str, sizes))} --rounds {rounds}",
    }
    circumstances["series"] = circumstances["date"]
    archives = {size: stages.make_archive(size, work_dir) for size in sizes}
    for round_number in range(1, rounds + 1):
        for size, archive in archives.items():
            for task_managers in TASK_MANAGERS:
                print(f"{size:,} images, {engine(task_managers)}, round {round_number}", file=sys.stderr, flush=True)
                folder = work_dir / "flink"
                try:
                    figures = measure_run(archive, folder, jar_dir, task_managers)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                key = {"task_managers": task_managers, "images": size, "round": round_number}
                rows.put(file, key, {**circumstances, **figures})


def measure_run(archive: Path, folder: Path, jar_dir: Path, task_managers: int) -> dict[str, Any]:
    """Runs the pipeline once.

    Args:
        archive: the data.
        folder: for the run's outputs and the cluster's files.
        jar_dir: of Flink.
        task_managers: how many; 0 for the direct runner.

    Returns:
        `seconds` of the process, and `components`, in their order, each with `name` and `seconds`.

    Raises:
        FlinkError: the cluster does not start.
        StageError: the run failed.
    """
    changes: dict[str, Any] = {
        "data": str(archive.absolute()),
        "output_dir": str(folder / "outputs"),
        **stages.OPEN_GATE,
    }
    with contextlib.ExitStack() as stack:
        if task_managers:
            cluster = stack.enter_context(running_cluster(folder / "cluster", jar_dir, task_managers, slots=1))
            changes |= {
                "beam_runner": "flink",
                "beam_job_endpoint": cluster.job_endpoint,
                "beam_parallelism": task_managers,
            }
        seconds = _run(changes)
    settings = make_settings(stages.PROFILE, changes)
    executions = lineage.last_run(lineage.open_store(lineage.sqlite_connection(settings.metadata_path))).executions
    components = [{"name": name, "seconds": execution.seconds} for name, execution in executions.items()]
    return {"seconds": seconds, "components": components}


def _run(changes: Mapping[str, Any]) -> float:
    """Runs the pipeline in a process of its own; returns its seconds."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in changes.items()]
    command = [sys.executable, "-m", "benchmarks.untrained", f"--profile={stages.PROFILE}", *flags]
    own = {name: value for name, value in os.environ.items() if not name.startswith("ALEXNET_")}
    started_s = time.perf_counter()
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=own, capture_output=True, text=True, check=False, errors="replace"
    )
    if done.returncode:
        raise stages.StageError(f"{' '.join(command[1:])} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return time.perf_counter() - started_s


def engine(task_managers: int) -> str:
    """What a number of task managers is called in the table."""
    return {0: "direct runner", 1: "Flink, 1 task manager"}.get(task_managers, f"Flink, {task_managers} task managers")


def markdown(found: Sequence[Row]) -> str:
    """The page: seconds by component, size and engine.

    Args:
        found: content of flink.json; not empty.
    """
    newest = found[-1]
    found = rows.newest_series(found, ("images", "task_managers"))
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in sorted(found, key=lambda row: (row["images"], row["task_managers"])):
        groups.setdefault((row["images"], row["task_managers"]), []).append(row)
    lines = [
        f"`{newest['command']}` and the like. Seconds by component with Beam jobs, median of the rounds; `all` is the "
        f"whole process, imports included, with a Trainer that does not train. {md.origin(newest)}",
        "",
        *md.table(
            ("images", "engine", "rounds", *WITH_BEAM, "all"),
            [
                (f"{images:,}", engine(task_managers), len(group), *_medians(group))
                for (images, task_managers), group in groups.items()
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _medians(group: Sequence[Row]) -> list[str]:
    seconds = {
        name: [part["seconds"] for row in group for part in row["components"] if part["name"] == name]
        for name in WITH_BEAM
    }
    seconds["all"] = [row["seconds"] for row in group]
    return [f"{statistics.median(values):.1f}" for values in seconds.values()]


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
