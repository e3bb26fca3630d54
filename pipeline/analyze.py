"""Prints what the Evaluator found: `make analyze`, or `python -m pipeline.analyze --help`.

python -m pipeline.analyze                            # the last run of the profile
python -m pipeline.analyze 68                         # a run by its number in `make runs`, or a pushed version
python -m pipeline.analyze --compare 62 68            # two runs or versions, the second against the first
python -m pipeline.analyze --compare sample/last cifar10/last
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import console, terminal
from pipeline.metadata_store import NotFoundError
from pipeline.settings import DEFAULT_PROFILE, ENVIRONMENT_PREFIX

if TYPE_CHECKING:
    from components.model_report.results import Results, Threshold
    from pipeline.runs import Summary

OVERALL = ("accuracy", "top_3_accuracy", "loss")
BY_CLASS = ("precision", "recall", "f1", "top_3_accuracy", "loss")
LOWER_IS_BETTER = ("loss",)


def main() -> int:
    """Print the analysis; return the exit status."""
    parser = terminal.argument_parser(
        "pipeline.analyze", "Show a run's metrics on the test split, overall and by class."
    )
    parser.add_argument(
        "run", nargs="?", default="last", help="Number of a run, a pushed version, or last: %(default)s."
    )
    parser.add_argument("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="Show two runs, and what has changed.")
    parser.add_argument(
        "--profile",
        default=os.environ.get(f"{ENVIRONMENT_PREFIX}PROFILE") or DEFAULT_PROFILE,
        help="Whose runs: %(default)s. <profile>/<run> names a run of another one.",
    )
    arguments = parser.parse_args()
    return terminal.run_command(lambda: _analyze(arguments))


def _analyze(arguments: argparse.Namespace) -> None:
    references = arguments.compare or [arguments.run]
    with console.frameworks_to(Path(os.devnull)):  # TensorFlow's start-up messages
        found = [_load(arguments, reference) for reference in references]
    if arguments.json:
        runs = [as_json(summary, results) for summary, results in found]
        terminal.print_json(runs if arguments.compare else runs[0])
    elif arguments.compare:
        _print_comparison(*found)
    else:
        _print_run(*found[0])


def _load(arguments: argparse.Namespace, reference: str) -> tuple[Summary, Results]:
    """A run and its results.

    Raises:
        NotFoundError: there is no such run, or nothing was evaluated in it; says which there are.
    """
    from pipeline import runs  # here, and the next line: they take seconds, and --help should not

    profile, run = runs.find(arguments.output_dir, arguments.profile, reference)
    evaluator = run.executions.get("Evaluator")
    if evaluator is None or "evaluation" not in evaluator.outputs:
        evaluated = [str(r.id) for r in runs.runs_of(arguments.output_dir, profile) if _is_evaluated(r)]
        raise NotFoundError(
            f"Run {run.id} of profile {profile} ({runs.verdict(run)}) has no evaluation; these have one: "
            f"{', '.join(evaluated) or 'none'}."
        )
    from components.model_report import results

    return runs.summarize(profile, run), results.load(evaluator.outputs["evaluation"].uri)


def _is_evaluated(run: Any) -> bool:
    return "Evaluator" in run.executions and "evaluation" in run.executions["Evaluator"].outputs


def as_json(summary: Summary, results: Results) -> dict[str, Any]:
    """Everything that the tables show, and the confusion matrix, as values that JSON can hold."""
    return {
        "run": {"started": summary.started.isoformat(), **dataclasses.asdict(summary)},
        "num_examples": results.num_examples,
        "metrics": results.metrics,
        "by_class": results.by_class,
        "confusion": results.confusion.tolist(),
        "thresholds": [dataclasses.asdict(threshold) for threshold in results.thresholds],
        "blessed": results.blessed,
    }


def _print_run(summary: Summary, results: Results) -> None:
    out = terminal.console()
    out.print(
        f"[bold]{_name(summary)}[/bold] on {summary.data}, {results.num_examples:,} test images: {summary.verdict}"
    )
    if summary.test_overlap:
        out.print(
            f"[yellow]{summary.test_overlap:,} of the test images are training or validation images as well.[/yellow]"
        )
    out.print("   ".join(f"{name} {terminal.number(results.metrics.get(name))}" for name in OVERALL))
    columns = {"class": "left", "images": "right", **dict.fromkeys(BY_CLASS, "right"), "taken for": "wrap"}
    table = terminal.table(columns)
    images = results.confusion.sum(axis=1)
    for name, metrics in results.by_class.items():
        index = results.class_names.index(name)
        values = [terminal.number(metrics.get(metric)) for metric in BY_CLASS]
        table.add_row(name, f"{images[index]:,}", *values, _mistakes(results, index))
    out.print(table)
    for line in threshold_lines(results):
        out.print(line)


def _print_comparison(before: tuple[Summary, Results], after: tuple[Summary, Results]) -> None:
    out = terminal.console()
    for label, (summary, results) in (("before", before), ("after ", after)):
        out.print(f"{label} [bold]{_name(summary)}[/bold] on {summary.data}: {summary.verdict}")
        out.print(f"       {summary.started:%Y-%m-%d %H:%M}, {results.num_examples:,} test images")
    if before[1].class_names != after[1].class_names:
        out.print("[yellow]The classes or their order are not the same: overall figures do not compare.[/yellow]")
    if before[0].data != after[0].data or before[1].num_examples != after[1].num_examples:
        out.print("[yellow]The test images are not the same: differences are those of the data as well.[/yellow]")
    table = terminal.table({"": "left", "before": "right", "after": "right", "change": "right"})
    for name in OVERALL:
        pair = before[1].metrics.get(name, math.nan), after[1].metrics.get(name, math.nan)
        table.add_row(name, *map(terminal.number, pair), terminal.change(*pair, name not in LOWER_IS_BETTER))
    table.add_section()
    for metric in ("recall", "precision", "f1"):
        for name in after[1].by_class:
            pair = (
                before[1].by_class.get(name, {}).get(metric, math.nan),
                after[1].by_class[name].get(metric, math.nan),
            )
            table.add_row(f"{metric} of {name}", *map(terminal.number, pair), terminal.change(*pair))
        table.add_section()
    out.print(table)


def threshold_lines(results: Results) -> list[str]:
    """A line a threshold, as the gate decided; those by class as one line, of the class that came nearest to it."""
    lines = [_threshold_line(threshold) for threshold in results.thresholds if not threshold.class_name]
    by_class = [threshold for threshold in results.thresholds if threshold.class_name]
    if by_class:
        worst = min(by_class, key=lambda threshold: threshold.value - threshold.bound)
        lines.append(_threshold_line(worst))
    return lines


def _threshold_line(threshold: Threshold) -> str:
    what = (
        f"recall of {threshold.class_name}, the class nearest to its floor"
        if threshold.class_name
        else threshold.metric
    )
    mark, sign = ("[green]ok[/green]", "≥") if threshold.reached else ("[red]NO[/red]", "<")
    why = "" if threshold.baseline is None else f" (last blessed: {threshold.baseline:.4f})"
    return f"{mark}  {what} {threshold.value:.4f} {sign} {threshold.bound:.4f}{why}"


def _mistakes(results: Results, index: int) -> str:
    """The two classes that a class is taken for most often, with the share of its images."""
    row = results.confusion[index]
    wrong = [(int(row[other]), name) for other, name in enumerate(results.class_names) if other != index]
    most = sorted(wrong, reverse=True)[:2]
    return ", ".join(f"{name} {100 * count / row.sum():.0f} %" for count, name in most if count)


def _name(summary: Summary) -> str:
    version = f", version {summary.version}" if summary.version else ""
    return f"{summary.profile}/{summary.run}{version}"


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare(only_prints=True)
    sys.exit(main())
