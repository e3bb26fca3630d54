"""The project's charts: plain values in, a matplotlib Figure out. The model report and the notebooks draw with them.

No function touches pyplot or global state: a figure can be shown in a notebook as a cell's last value, or written with
`figure.savefig`. Colours are Okabe and Ito's (2008), which colour-blind people can tell apart, and cividis (Nuñez et
al. 2018); marks differ in shape or line style as well. `with theme(dark=True)` draws for a dark page.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from components.model_report import calibration
from models import features

mpl.rcdefaults()  # a matplotlibrc in the working folder would be the user's
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
LIGHT_BLUE = "#56B4E9"
"""Of Okabe and Ito's palette, https://jfly.uni-koeln.de/color/."""

_LIGHT = {"page": "#ffffff", "text": "#1f2328", "line": "#8b949e", "grid": "#e2e5e9"}
_DARK = {"page": "#171b21", "text": "#e6e8eb", "line": "#7d8590", "grid": "#2d333b"}

_WIDTH = 5.6
"""Inches. Narrow, so that the text stays readable when a telephone scales the picture to its width."""


@contextlib.contextmanager
def theme(*, dark: bool) -> Iterator[None]:
    """Within, figures are drawn, and have to be saved, for a light or a dark page."""
    colours = _DARK if dark else _LIGHT
    style: dict[Any, Any] = {  # Matplotlib 3.11 has a type of its own for the names
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), colours["page"]),
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), colours["text"]),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), colours["line"]),
        "grid.color": colours["grid"],
        "font.size": 12,
    }
    with mpl.rc_context(style):
        yield


def learning_curves(
    history: Sequence[Mapping[str, Any]],
    validation_name: str = features.VALIDATION_SPLIT,
    best_epoch: int | None = None,
) -> Figure:
    """Accuracy, loss and learning rate by epoch, one below the other.

    Args:
        history: A mapping an epoch with `epoch`, `accuracy`, `loss`, `val_accuracy`, `val_loss` and `learning_rate`,
            numbers or their texts: rows of history.csv (`models.checkpoint.Epoch`).
        validation_name: What the `val_` figures were measured on.
        best_epoch: The epoch whose weights were exported, marked with a line; None marks none.

    Raises:
        ValueError: There is no epoch.
    """
    if not history:
        raise ValueError("history is empty; it has to hold an epoch at least.")

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name]) for row in history])

    epochs = column("epoch")
    figure = _figure(7.2)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.6))
    for axes, name, label in zip(panels, ("accuracy", "loss"), ("Accuracy", "Loss (nats)"), strict=False):
        train = {"color": BLUE, "linestyle": "--", "marker": "o"}
        validation = {"color": VERMILLION, "linestyle": "-", "marker": "s"}
        axes.plot(epochs, column(name), markersize=4, label="train (augmented, with dropout)", **train)
        axes.plot(
            epochs, column(f"val_{name}"), markersize=4, label=f"{validation_name} (after the epoch)", **validation
        )
        axes.set_ylabel(label)
    panels[2].plot(epochs, column("learning_rate"), color=GREEN, marker="D", markersize=4)
    panels[2].set_ylabel("Learning rate\nat its end")
    panels[2].set_ylim(bottom=0)
    panels[2].set_xlabel("Epoch")
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels:
        _plain(axes)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=mpl.rcParams["axes.edgecolor"], linestyle=":", zorder=0, label="exported")
    figure.align_ylabels(panels)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=1, frameon=False)
    return figure


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str] = features.CLASS_NAMES) -> Figure:
    """Counts by actual (row) and predicted (column) class, coloured by their share of the row.

    Args:
        counts: int [n, n].
        class_names: n names.

    Raises:
        ValueError: `counts` is not [n, n].
    """
    counts = np.asarray(counts)
    size = len(class_names)
    if counts.shape != (size, size):
        raise ValueError(f"counts has the shape {counts.shape}; it has to be {(size, size)}.")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(6.6)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    small = max(6.0, 10.0 - 0.8 * max(0, len(str(counts.max(initial=0))) - 3))
    for (row, column), count in np.ndenumerate(counts):
        colour = "black" if shares[row, column] > 0.5 else "white"
        axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=small)
    axes.set_xticks(range(size), class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), class_names)
    axes.set(xlabel="Predicted", ylabel="Actual")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.6, aspect=30, format=PercentFormatter(1.0))
    bar.set_label("Share of the images of the class")
    bar.ax.spines["outline"].set_visible(False)
    return figure


def class_metrics(
    precision: Sequence[float],
    recall: Sequence[float],
    f1: Sequence[float],
    class_names: Sequence[str] = features.CLASS_NAMES,
    floor: float | None = None,
) -> Figure:
    """Precision, recall and F1 of each class, and the recall that the gate asks for.

    Args:
        precision: One a class, in [0, 1]; NaN where the class was never predicted, which the chart then says.
        recall: One a class, in [0, 1].
        f1: One a class, in [0, 1]; NaN is not drawn.
        class_names: The classes, from top to bottom.
        floor: Smallest recall that the gate lets through; None draws no line.
    """
    figure = _figure(5.2)
    axes = figure.subplots()
    places = np.arange(len(class_names))
    for place, values in enumerate(zip(precision, recall, f1, strict=True)):
        drawn = [value for value in values if np.isfinite(value)]
        axes.hlines(place, min(drawn, default=0), max(drawn, default=0), color=mpl.rcParams["grid.color"], linewidth=3)
    if floor is not None:
        axes.axvline(floor, color=mpl.rcParams["text.color"], linestyle=":", label=f"recall floor {floor:g}", zorder=1)
    marks = (("precision", precision, BLUE, "o"), ("recall", recall, VERMILLION, "s"), ("F1", f1, GREEN, "D"))
    for label, points, colour, marker in marks:
        axes.plot(points, places, marker, color=colour, label=label, markersize=7)
    for place, value in enumerate(precision):
        if not np.isfinite(value):
            axes.text(0.02, place - 0.3, "never predicted", va="center", fontsize=9, fontstyle="italic")
    axes.set_yticks(places, class_names)
    axes.set_ylim(len(class_names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Precision, recall, F1")
    _plain(axes, grid="x")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, columnspacing=1
    )
    return figure


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray, bins: int = calibration.BINS) -> Figure:
    """Accuracy by confidence, above the number of images by confidence.

    Args:
        confidence: float [n], probability of the most probable class, in [0, 1].
        correct: bool [n], whether that class is the actual one.
        bins: Number of bins, of equal width; empty ones are left blank.
    """
    found = calibration.reliability_bins(confidence, correct, bins)
    centres, width = (found.edges[:-1] + found.edges[1:]) / 2, 1 / bins * 0.92
    figure = _figure(5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], linestyle=":", color=mpl.rcParams["text.color"], label="confidence = accuracy")
    above.bar(centres, np.nan_to_num(found.accuracy), width, color=LIGHT_BLUE, label="accuracy in the bin")
    filled = found.counts > 0
    above.plot(
        found.confidence[filled],
        found.accuracy[filled],
        "o",
        color=VERMILLION,
        markersize=5,
        label="at mean confidence",
    )
    above.set(ylabel="Accuracy", ylim=(0, 1.02), xlim=(0, 1))
    below.bar(centres, found.counts, width, color=mpl.rcParams["axes.edgecolor"])
    below.set(ylabel="Images", xlabel="Confidence: probability of the predicted class")
    for axes in (above, below):
        _plain(axes)
    figure.align_ylabels([above, below])
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def label_distribution(
    counts: Mapping[str, Sequence[int]], class_names: Sequence[str] = features.CLASS_NAMES
) -> Figure:
    """Share of each class in each split.

    Args:
        counts: Images by class, by split.
        class_names: The classes, from top to bottom.
    """
    figure = _figure(5.2)
    axes = figure.subplots()
    styles = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (VERMILLION, "^"))
    places = np.arange(len(class_names))
    offsets = np.linspace(-0.2, 0.2, len(counts)) if len(counts) > 1 else [0.0]
    largest = 0.0
    for (split, numbers), (colour, marker), offset in zip(counts.items(), styles, offsets, strict=False):
        shares = np.asarray(numbers, float) / max(sum(numbers), 1)
        largest = max(largest, *shares)
        axes.hlines(places + offset, 0, shares, color=colour, linewidth=1.5, alpha=0.6)
        axes.plot(shares, places + offset, marker, color=colour, markersize=6, label=f"{split} ({sum(numbers):,})")
    axes.set_yticks(places, class_names)
    axes.set_ylim(len(class_names) - 0.5, -0.5)
    axes.set_xlim(0, largest * 1.08 or 1)
    axes.set_xlabel("Share of the split's images")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _plain(axes, grid="x")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, columnspacing=1
    )
    return figure


def image_grid(
    images: np.ndarray, titles: Sequence[str], columns: int = 8, marked: Sequence[bool] | None = None
) -> Figure:
    """Small images in rows, each below its title.

    Args:
        images: uint8 [n, height, width, 3], or float in [0, 1].
        titles: n of them; a line break makes a second line.
        columns: Images a row.
        marked: n of them; a title whose mark is set is bold and vermillion (a wrong prediction, say).

    Raises:
        ValueError: There are no images, or not as many titles or marks as images.
    """
    marked = [False] * len(images) if marked is None else marked
    if len(images) == 0 or len(titles) != len(images) or len(marked) != len(images):
        raise ValueError(
            f"{len(images)} images, {len(titles)} titles and {len(marked)} marks: one each, for 1 or more."
        )
    rows = -(-len(images) // columns)
    title_height = 0.19 * max(title.count("\n") + 1 for title in titles)
    height = (1.5 + title_height) * rows
    figure = Figure(figsize=(1.55 * columns, height))
    # By hand: a constrained layout of many axes takes seconds.
    figure.subplots_adjust(0.01, 0.05 / height, 0.99, 1 - title_height / height, 0.06, (title_height + 0.08) / 1.45)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, title, mark in zip(figure.axes, images, titles, marked, strict=False):
        axes.imshow(image, interpolation="nearest")
        style: dict[str, Any] = {"color": VERMILLION, "fontweight": "bold"} if mark else {}
        axes.set_title(title, fontsize=8.5, **style)
    return figure


def _figure(height: float) -> Figure:
    """An empty figure of the usual width; the height is in inches."""
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _plain(axes: Axes, grid: str = "y") -> None:
    """Takes the frame away and puts a grid behind the marks, across the given axis."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, zorder=0)  # type: ignore[arg-type]  # a literal in matplotlib's stub
    axes.set_axisbelow(True)
