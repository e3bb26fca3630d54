"""The speed benchmarks' figures as pictures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import stages_table, time_to_accuracy_table, training_rate_table
from benchmarks.rows import Row

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#999999")
"""Okabe and Ito's palette, which colour-blind people can tell apart."""

_SHOWN_SECONDS = 1.0
"""Components that take less are left out of the stages' chart."""


def draw_rates(figures: Mapping[str, Any], path: Path) -> None:
    """Draws the rates of training: the notebook's, ours, and the step's alone.

    Args:
        figures: content of training_rate.json.
        path: of the picture; its ending says the format.
    """
    from components.model_report.figures import Figure

    shown = [row for row in figures["rates"] if "input" not in row["kind"]]
    colours = dict(zip(("notebook", "fit", "step alone"), ("#999999", "#0072B2", "#56B4E9"), strict=True))
    figure = Figure(figsize=(8, 0.5 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    medians = [row["images_per_s"]["median"] for row in shown]
    errors = [
        [middle - row["images_per_s"]["min"] for row, middle in zip(shown, medians, strict=True)],
        [row["images_per_s"]["max"] - middle for row, middle in zip(shown, medians, strict=True)],
    ]
    axes.barh(range(len(shown)), medians, xerr=errors, color=[colours[row["kind"]] for row in shown], capsize=3)
    names = [f"{training_rate_table.name(row)}, batch {row['batch_size']}" for row in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.set(xlabel="images a second: median of the rounds, least to most")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def draw_time_to_accuracy(found: Sequence[Row], path: Path) -> None:
    """Draws test accuracy over time, a line a recipe, and the notebook's best.

    Args:
        found: content of time_to_accuracy.json; not empty.
        path: of the picture.
    """
    from components.model_report.figures import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(found):
        minutes = [second / 60 for second in time_to_accuracy_table.seconds(row)]
        values = [100 * value for value in time_to_accuracy_table.accuracies(row)]
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(minutes, values, "o-", markersize=3, color=colour, label=time_to_accuracy_table.label(row))
    notebook = time_to_accuracy_table.notebook_of(found[-1], found)
    if notebook is not None:
        best = 100 * max(time_to_accuracy_table.accuracies(notebook))
        axes.axhline(best, color="black", linewidth=1, linestyle="--", label="the notebook's best")
    axes.set(xlabel="minutes of training and evaluation", ylabel="test accuracy, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


def draw_stages(found: Sequence[Row], path: Path) -> None:
    """Draws the seconds of each component but the Trainer, a bar a variant and size.

    Args:
        found: content of stages.json; not empty.
        path: of the picture.
    """
    from components.model_report.figures import Figure

    groups = stages_table.runs(found)
    bars = [_parts(rounds) for rounds in groups.values()]
    names = list(dict.fromkeys(name for bar in bars for name in bar))
    figure = Figure(figsize=(9, 0.6 * len(bars) + 1.6), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(bars)
    for index, name in enumerate(names):
        widths = [bar.get(name, 0.0) for bar in bars]
        axes.barh(range(len(bars)), widths, left=left, color=COLOURS[index % len(COLOURS)], label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.axvline(stages_table.MAX_SECONDS, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(bars)), [f"{variant}, {images:,} images" for variant, images in groups])
    axes.invert_yaxis()
    axes.set(xlabel=f"seconds; the dashed line is the aim for {stages_table.AIM_IMAGES:,} images")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=120)


def _parts(rounds: Sequence[Row]) -> dict[str, float]:
    """Median seconds by component, the small ones and what is between them as one; without the Trainer."""
    medians = {
        part["name"]: statistics.median(
            other["seconds"] for row in rounds for other in row["components"] if other["name"] == part["name"]
        )
        for part in rounds[0]["components"]
        if part["name"] != stages_table.TRAINER
    }
    parts = {name: seconds for name, seconds in medians.items() if seconds >= _SHOWN_SECONDS}
    total = statistics.median(stages_table.without_trainer_s(row) for row in rounds)
    return {**parts, "imports and the rest": max(total - sum(parts.values()), 0.0)}
