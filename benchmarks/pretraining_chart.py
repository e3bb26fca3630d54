"""The pre-training benchmark's rows as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pretraining_table import ARM_NAMES, groups
from benchmarks.rows import Row

COLOURS = {"scratch": "#E69F00", "pretrained": "#0072B2", "longer": "#009E73"}
"""Okabe and Ito's palette, which colour-blind people can tell apart."""


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws test accuracy by number of labels, and validation accuracy by epoch for each of these numbers.

    Args:
        rows: content of pretraining.json, the oldest first; not empty.
        path: of the picture; its ending says the format.
    """
    from components.model_report.figures import Figure

    found = groups(rows)
    fractions = sorted({fraction for fraction, _ in found})
    figure = Figure(figsize=(3.2 * (1 + len(fractions)), 3.8), layout="constrained")
    by_labels, *by_epoch = figure.subplots(1, 1 + len(fractions), sharey=True)
    for arm in dict.fromkeys(arm for _, arm in found):
        measured = [fraction for fraction in fractions if (fraction, arm) in found]
        accuracies = [[row["test_accuracy"] for row in found[fraction, arm]] for fraction in measured]
        by_labels.errorbar(
            [found[fraction, arm][0]["labels"] for fraction in measured],
            [statistics.mean(values) for values in accuracies],
            [statistics.stdev(values) if len(values) > 1 else 0 for values in accuracies],
            color=COLOURS[arm],
            marker="o",
            capsize=3,
            label=ARM_NAMES[arm],
        )
    for axes, fraction in zip(by_epoch, fractions, strict=True):
        chosen = {arm: members for (its_fraction, arm), members in found.items() if its_fraction == fraction}
        for arm, members in chosen.items():
            for row in members:
                epochs = [epoch["epoch"] for epoch in row["history"]]
                curve = [epoch["val_accuracy"] for epoch in row["history"]]
                axes.plot(epochs, curve, color=COLOURS[arm], marker=".")
        labels = next(iter(chosen.values()))[0]["labels"]
        axes.set(title=f"Validation split, {labels:,} labels", xlabel="epoch of training")
        axes.xaxis.get_major_locator().set_params(integer=True)
    by_labels.set(title="Test split", xlabel="labels", xscale="log", ylabel="accuracy")
    counts = sorted({members[0]["labels"] for members in found.values()})
    by_labels.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
    by_labels.minorticks_off()
    for axes in (by_labels, *by_epoch):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    figure.legend(*by_labels.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)
