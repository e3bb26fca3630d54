"""The accuracy benchmark's rows as pictures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import accuracy_table
from benchmarks.rows import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of Okabe and Ito's palette, which colour-blind people can tell apart."""

DASHES = ("-", "--", "-.", ":")


def draw_epochs(found: Sequence[Row], path: Path, others: Mapping[str, Sequence[float]] | None = None) -> None:
    """Draws validation accuracy epoch by epoch: a line a recipe, its mean over the seeds, in a band of all of them.

    Args:
        found: content of accuracy.json; the ablation's rows are left out.
        path: of the picture; its ending says the format.
        others: further lines by their name, a value in [0, 1] an epoch.
    """
    from matplotlib.ticker import MaxNLocator

    from components.model_report.figures import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    groups = accuracy_table.newest(found)
    runs = {
        _label(members): [[100 * epoch["val_accuracy"] for epoch in row["history"]] for row in members]
        for name, members in groups.items()
        if not name.startswith(accuracy_table.WITHOUT)
    }
    runs |= {name: [[100 * value for value in values]] for name, values in (others or {}).items()}
    for index, (label, lines) in enumerate(runs.items()):
        epochs = range(1, len(lines[0]) + 1)
        by_epoch = list(zip(*lines, strict=True))
        colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        axes.plot(epochs, [statistics.mean(values) for values in by_epoch], dashes, color=colour, label=label)
        axes.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colour, alpha=0.2)
    axes.set(xlabel="epoch", ylabel="accuracy after the epoch, %")
    axes.set_xlim(left=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


def draw_seed(found: Sequence[Row], timed: Sequence[Row], path: Path) -> None:
    """Draws the `seed` profile beside the script of the notebook that it stands for, epoch by epoch.

    Args:
        found: content of accuracy.json; has rows of `seed`.
        timed: content of time_to_accuracy.json; only a notebook's row on the same data is drawn.
        path: of the picture.
    """
    seeds = accuracy_table.newest(found)[accuracy_table.SEED]
    digest = seeds[0]["data"]["digest"]
    scripts = [row for row in timed if row["recipe"] == "notebook" and row["data"]["digest"] == digest]
    others = {}
    if scripts:
        epochs = scripts[-1]["history"]
        others["the notebook's own script (n = 1, on the test split)"] = [epoch["val_accuracy"] for epoch in epochs]
    draw_epochs(seeds, path, others)


def draw_ablation(found: Sequence[Row], path: Path) -> None:
    """Draws the points of test accuracy that leaving out each convolution costs, with the standard error.

    Where a convolution was left out with one seed only, other seeds are taken to differ as the whole network's do.

    Args:
        found: content of accuracy.json; has the whole network and one without a convolution or more.
        path: of the picture.
    """
    from components.model_report.figures import Figure

    by_layer = accuracy_table.ablation(found)
    whole = by_layer.pop(0)
    costs = {f"conv{index}": 100 * (whole.mean - without.mean) for index, without in by_layer.items()}
    # Of a difference of two means, each over seeds of its own.
    sds = {index: each.sd if each.sd is not None else whole.sd for index, each in by_layer.items()}
    errors = [
        100 * ((whole.sd or 0) ** 2 / whole.n + (sds[index] or 0) ** 2 / each.n) ** 0.5
        for index, each in by_layer.items()
    ]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    shown = errors if any(errors) else None
    bars = axes.bar(list(costs), list(costs.values()), color=COLOURS[0], width=0.6, yerr=shown, capsize=4)
    axes.bar_label(bars, fmt="%+.1f", padding=3)
    axes.margins(y=0.12)
    axes.axhline(0, color="black", linewidth=0.8)
    seeds = "1 seed" if whole.n == 1 else f"{whole.n} seeds"
    axes.set(
        title=f"What each convolution is worth ({whole.percent()} % with all five, {seeds})",
        xlabel="left out",
        ylabel="loss of test accuracy, points (± standard error)",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _label(members: Sequence[Row]) -> str:
    """A line's name, with the split that its accuracy is of: without a validation split, it is the test split."""
    where = ", on the validation split" if members[0]["validation_fraction"] else ", on the test split"
    return f"{members[0]['name']} (n = {len(members)}{where})"
