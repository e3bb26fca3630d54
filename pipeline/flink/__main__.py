"""The command line: `python -m pipeline.flink start|stop|fetch|status`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.flink import jars
from pipeline.flink.cluster import Cluster
from pipeline.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "outputs" / "flink"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.flink", description="A Flink cluster on this machine, for the pipeline's Beam jobs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start it, fetching it first where it is not in the cache")
    start.add_argument("--task-managers", type=int, default=2, help="how many: %(default)s")
    start.add_argument("--slots", type=int, default=2, help="parallel tasks of each: %(default)s")
    commands.add_parser("stop", help="stop it")
    commands.add_parser("status", help="say whether it runs")
    commands.add_parser("fetch", help="only fetch it: 160 MB from Maven Central, once")
    options = parser.parse_args(arguments)
    try:
        if options.command == "start":
            print(_start(options.task_managers, options.slots))
        elif options.command == "fetch":
            release = jars.chosen_release()
            print(f"{release}: {jars.fetch(release)}")
        else:
            print(_stop() if options.command == "stop" else _status())
    except jars.FlinkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _start(task_managers: int, slots: int) -> str:
    running = Cluster.find(FOLDER)
    if running and running.task_managers:
        return f"It runs already.\n{_usage(running)}"
    release = jars.chosen_release()
    cluster = Cluster(FOLDER, jars.fetch(release), slots=slots)
    cluster.start(task_managers)
    return f"{release}: {task_managers} task managers with {slots} slots each.\n{_usage(cluster)}"


def _stop() -> str:
    cluster = Cluster.find(FOLDER)
    if cluster is None:
        return "No cluster of `make flink` is running."
    cluster.stop()
    return "Stopped."


def _status() -> str:
    cluster = Cluster.find(FOLDER)
    if cluster is None or not cluster.task_managers:
        return "No cluster of `make flink` is running."
    return f"Running: {', '.join(f'{name} (pid {pid})' for name, pid in cluster.pids.items())}\n{_usage(cluster)}"


def _usage(cluster: Cluster) -> str:
    return "\n".join(
        [
            f"Page:    http://127.0.0.1:{cluster.ports.rest}",
            f"Logs:    {cluster.folder / 'logs'}",
            f"Run:     make run ALEXNET_BEAM_RUNNER=flink ALEXNET_BEAM_JOB_ENDPOINT={cluster.job_endpoint}",
            "Stop:    make flink-stop",
        ]
    )


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
