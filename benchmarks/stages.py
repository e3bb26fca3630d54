"""Measures what each component costs, by number of images, and how long starting takes: `python -m benchmarks.stages`.

    python -m benchmarks.stages --sizes 6000,60000 --rounds 3
    python -m benchmarks.stages --sizes 600000 --rounds 1
    python -m benchmarks.stages --sizes 60000 --variant before --project ../checkout-of-then
    python -m benchmarks.stages --table                         only table and chart, from the last figures

The whole pipeline runs on the bundled sample, repeated with shifted pixels so that all images differ. Only the
Trainer does not train (`untrained`): it exports the initial weights, which cost the others as much as trained ones.
Seconds are from ML Metadata; memory, processor time and bytes written are read from /proc meanwhile. Then the same run
again, everything cached. Each run is added to benchmarks/results/stages.json when it is done, in the place of an
earlier one of the same variant, size and round. stages.md and stages.png are written from the rounds of the last
measurement of each variant and size.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import experiments, process_tree, repeated_images, rows, speed_charts, stages_table
from benchmarks.spreads import spread
from components.model_report import lineage
from pipeline.settings import PROJECT_ROOT, Settings, make_settings

RESULTS_FILE = "stages.json"
PROFILE = "cifar10"

RUN, HELP = "run", "help"
"""Kinds of rows."""

OPEN_GATE = {"accuracy_floor": 0.0, "accuracy_tolerance": 1.0, "class_recall_floor": 0.0, "latency_budget_s": 60.0}
"""Settings that let a model pass that was not trained."""

BASELINE = "LastBlessedModel"
"""The only component that runs again when all is cached: what was blessed last is not a matter of its inputs."""

HELP_COMMAND = "python -m pipeline.local_runner --help"
HELP_ROUNDS = 5


class StageError(RuntimeError):
    """A measured command failed; the message has the end of what it said."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where a run failed or there is no result to make a table of.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stages",
        description="Measure what each component costs, and how long starting takes.",
    )
    parser.add_argument("--sizes", default="6000", help="numbers of images, multiples of 6,000: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each size, all in turn: %(default)s")
    parser.add_argument("--variant", default="now", help="what the rows are called in the table: %(default)s")
    parser.add_argument("--project", type=Path, default=PROJECT_ROOT, help="a checkout to measure: this one")
    parser.add_argument("--work-dir", type=Path, default=experiments.WORK_DIR / "stages", help="for data and runs")
    parser.add_argument("--output-dir", type=Path, default=experiments.RESULTS_DIR, help="where to write: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write table and chart, from the last figures")
    options = parser.parse_args(arguments)
    file: Path = options.output_dir / RESULTS_FILE
    if not options.table:
        try:
            sizes = [int(size) for size in options.sizes.split(",")]
        except ValueError:
            parser.error(f"--sizes is {options.sizes!r}; it has to be numbers with commas between them")
        if options.rounds < 1:
            parser.error(f"--rounds is {options.rounds}; it has to be at least 1")
        try:
            measure(sizes, options.rounds, options.variant, options.project.absolute(), options.work_dir, file)
        except (StageError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    return rows.write_table(file, stages_table.markdown, speed_charts.draw_stages)


def measure(sizes: Sequence[int], rounds: int, variant: str, project: Path, work_dir: Path, file: Path) -> None:
    """Runs the pipeline on each size, round by round, and adds the rows.

    Args:
        sizes: numbers of images.
        rounds: runs of each size.
        variant: what the rows are called.
        project: the checkout to run; it has `benchmarks/untrained.py`.
        work_dir: keeps the archives; the runs' outputs are removed.
        file: of the rows.

    Raises:
        StageError: a command failed.
        ValueError: a size is not possible; says which are.
    """
    command = f"python -m benchmarks.stages --sizes {','.join(map(str, sizes))} --rounds {rounds}"
    circumstances = {**experiments.circumstances(), "command": command}
    circumstances["series"] = circumstances["date"]
    work_dir.mkdir(parents=True, exist_ok=True)
    archives = {size: make_archive(size, work_dir) for size in sizes}
    seconds = [_timed(HELP_COMMAND.split()[1:], project)[0] for _ in range(HELP_ROUNDS)]
    figures = {"measured_command": HELP_COMMAND, "rounds": HELP_ROUNDS, "seconds": spread(seconds)}
    rows.put(file, {"kind": HELP, "variant": variant}, {**circumstances, **figures})
    for round_number in range(1, rounds + 1):
        for size, archive in archives.items():
            print(f"{variant}: {size:,} images, round {round_number} of {rounds}", file=sys.stderr, flush=True)
            output_dir = work_dir / "outputs"
            try:
                figures = measure_run(archive, project, output_dir)
            finally:
                shutil.rmtree(output_dir, ignore_errors=True)
            key = {"kind": RUN, "variant": variant, "images": size, "round": round_number}
            rows.put(file, key, {**circumstances, **figures})


def make_archive(count: int, work_dir: Path) -> Path:
    """An archive of this many images; made once."""
    archive = work_dir / f"{count}.zip"
    if not archive.exists():
        unfinished = work_dir / f"unfinished-{count}.zip"
        repeated_images.write_archive(unfinished, count)
        unfinished.rename(archive)
    return archive


def measure_run(archive: Path, project: Path, output_dir: Path) -> dict[str, Any]:
    """Runs the pipeline twice, the second time with everything cached.

    Args:
        archive: the data.
        project: the checkout to run.
        output_dir: of the runs.

    Returns:
        `seconds` of the first process; `start_up_s` until its first component started; `components`, in their order,
        each with `name`, `seconds`, `cpu_s`, `peak_memory_bytes`, `written_bytes` (to disks, temporary files
        included) and `artifact_bytes` (what it leaves); `cached_s`, of the second process.

    Raises:
        StageError: a run failed.
    """
    changes = {"data": str(archive.absolute()), "output_dir": str(output_dir.absolute()), **OPEN_GATE}
    settings = make_settings(PROFILE, changes)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in changes.items()]
    command = ["-m", "benchmarks.untrained", f"--profile={PROFILE}", *flags]
    began_s = time.time()
    seconds, watch = _timed(command, project)
    executions = _executions(settings)
    components = []
    for name, execution in executions.items():
        usage = watch.usage(execution.started_s, execution.started_s + execution.seconds)
        components.append(
            {
                "name": name,
                "seconds": execution.seconds,
                "cpu_s": usage.cpu_s,
                "peak_memory_bytes": usage.peak_memory_bytes,
                "written_bytes": usage.written_bytes,
                "artifact_bytes": sum(size_bytes(Path(artifact.uri)) for artifact in execution.outputs.values()),
            }
        )
    cached_s, _ = _timed(command, project)
    ran = [name for name, execution in _executions(settings).items() if not execution.cached and name != BASELINE]
    if ran:
        raise StageError(f"The second run was to be cached, but {', '.join(ran)} ran again.")
    return {
        "seconds": seconds,
        "start_up_s": min(execution.started_s for execution in executions.values()) - began_s,
        "components": components,
        "cached_s": cached_s,
    }


def size_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def _executions(settings: Settings) -> Mapping[str, lineage.Execution]:
    """By component, of the last run."""
    return lineage.last_run(lineage.open_store(lineage.sqlite_connection(settings.metadata_path))).executions


def _timed(arguments: Sequence[str], project: Path) -> tuple[float, process_tree.Watch]:
    """Runs Python in a checkout; returns the seconds from starting it to its end, and what it took.

    Raises:
        StageError: it failed.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("ALEXNET_")}
    started_s = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=project,
        env={**own, "PYTHONPATH": str(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        with process_tree.watching(process.pid) as watch:
            said, _ = process.communicate()
        seconds = time.perf_counter() - started_s
    if process.returncode:
        raise StageError(f"python {' '.join(arguments)} failed:\n{said[-2000:]}")
    return seconds, watch


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
