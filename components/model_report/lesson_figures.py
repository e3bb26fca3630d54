"""Charts that only the notebooks draw: what a network makes of a picture. As in `figures`, they only draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from components.model_report.figures import BLUE, GREEN, ORANGE, VERMILLION
from models import features

PURPLE = "#CC79A7"
"""Of Okabe and Ito's palette, as the colours of `figures`."""

_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE)
_LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "^")
"""Ten classes are five colours in two shapes: more colours than that are hard to tell apart."""


def picture_strip(pictures: Mapping[str, np.ndarray], columns: int = 4) -> Figure:
    """Pictures of any size and range of values, each below its name, its size, and its smallest and largest value.

    Args:
        pictures: By name, uint8 or float [height, width, 3]. How floats are shown: see `to_unit_range`.
        columns: Pictures a row.

    Raises:
        ValueError: There are no pictures.
    """
    if not pictures:
        raise ValueError("pictures is empty; it has to hold one at least.")
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.45 * rows), layout="constrained")
    panels = _panels(figure, rows, columns)
    for axes, (name, picture) in zip(panels, pictures.items(), strict=False):
        height, width = picture.shape[:2]
        number = "d" if np.issubdtype(picture.dtype, np.integer) else ".1f"
        values = f"{picture.min():{number}} to {picture.max():{number}}".replace("-", "−")
        axes.imshow(to_unit_range(picture), interpolation="nearest")
        axes.set_title(f"{name}\n{height}×{width}, {values}", fontsize=9)
    return figure


def value_histograms(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> Figure:
    """How the values of a few pictures are spread, before and after standardization.

    Args:
        before: uint8 [height, width, 3] by name, at most five pictures.
        after: The same pictures standardized, float [height, width, 3], by the same names.

    Raises:
        ValueError: The names differ, or there are none, or more than colours.
    """
    if list(before) != list(after) or not 1 <= len(before) <= len(_COLOURS):
        raise ValueError(f"before has {list(before)} and after {list(after)}: the same names, 1 to {len(_COLOURS)}.")
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = (("As they come", "Value, 0 to 255"), ("Standardized", "Value, in standard deviations"))
    for axes, pictures, (title, label) in zip(panels, (before, after), titles, strict=True):
        bins = np.linspace(min(p.min() for p in pictures.values()), max(p.max() for p in pictures.values()), 33)
        for picture, colour, line, name in zip(pictures.values(), _COLOURS, _LINES, pictures, strict=False):
            shares = np.histogram(picture, bins)[0] / picture.size
            axes.stairs(shares, bins, color=colour, linestyle=line, linewidth=1.8, label=name)
        axes.set(title=title, xlabel=label)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("Share of the values")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(before), frameon=False)
    return figure


def filters(kernels: np.ndarray, columns: int = 16) -> Figure:
    """The filters of a first layer as small pictures, each in its own range of values.

    Args:
        kernels: float [height, width, 3, n], as Keras' Conv2D keeps them.
        columns: Filters a row.

    Raises:
        ValueError: The filters do not look at three channels.
    """
    if kernels.ndim != 4 or kernels.shape[2] != features.NUM_CHANNELS:
        raise ValueError(f"kernels has the shape {kernels.shape}; it has to be [height, width, 3, n].")
    count = kernels.shape[-1]
    rows = -(-count // columns)
    figure = Figure(figsize=(0.5 * columns, 0.5 * rows), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    for axes, index in zip(_panels(figure, rows, columns), range(count), strict=False):
        axes.imshow(to_unit_range(kernels[..., index]), interpolation="nearest")
    return figure


def feature_maps(maps: Mapping[str, np.ndarray], picture: np.ndarray, columns: int = 8) -> Figure:
    """What the strongest filters of each layer answer to one picture: a row a layer, below the picture.

    Args:
        maps: float [height, width, n] by layer. The `columns` maps of highest mean are drawn, brightest where the
            answer is strongest, each in its own range of values.
        picture: uint8 or float [height, width, 3], what the network was shown.
        columns: Maps a layer.

    Raises:
        ValueError: There are no layers.
    """
    if not maps:
        raise ValueError("maps is empty; it has to hold a layer at least.")
    rows = 1 + len(maps)
    figure = Figure(figsize=(1.0 * columns, 1.22 * rows), layout="constrained")
    panels = np.array(_panels(figure, rows, columns)).reshape(rows, columns)
    panels[0, 0].imshow(to_unit_range(picture), interpolation="nearest")
    panels[0, 0].set_title("the picture", fontsize=9, loc="left")
    for row, (layer, answers) in zip(panels[1:], maps.items(), strict=True):
        strongest = np.argsort(-answers.mean(axis=(0, 1)), kind="stable")[:columns]
        height, width, count = answers.shape
        row[0].set_title(f"{layer}: {len(strongest)} of {count} maps of {height}×{width}", fontsize=9, loc="left")
        for axes, index in zip(row, strongest, strict=False):
            axes.imshow(answers[..., index], cmap="cividis", interpolation="nearest")
    return figure


def embedding_scatter(
    points: np.ndarray, labels: np.ndarray, class_names: Sequence[str] = features.CLASS_NAMES
) -> Figure:
    """Images as points in the plane, by class, with each class's name at the median of its points.

    Args:
        points: float [n, 2].
        labels: int [n], indices into `class_names`.
        class_names: At most ten.

    Raises:
        ValueError: A label for each point is missing, or there are more classes than marks.
    """
    if points.shape != (len(labels), 2) or len(class_names) > len(_COLOURS) * len(_MARKERS):
        raise ValueError(
            f"points has the shape {points.shape} for {len(labels)} labels of {len(class_names)} classes; it has to be "
            f"[n, 2], for at most {len(_COLOURS) * len(_MARKERS)} classes."
        )
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    axes = figure.subplots()
    page, text = mpl.rcParams["axes.facecolor"], mpl.rcParams["text.color"]
    for index, name in enumerate(class_names):
        own = points[labels == index]
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index // len(_COLOURS)]
        axes.scatter(own[:, 0], own[:, 1], s=16, color=colour, marker=marker, alpha=0.7, linewidths=0, label=name)
    for index, name in enumerate(class_names):
        if (labels == index).any():
            x, y = np.median(points[labels == index], axis=0)
            box = {"boxstyle": "round,pad=0.2", "facecolor": page, "edgecolor": "none", "alpha": 0.8}
            axes.text(x, y, name, ha="center", va="center", fontsize=10, fontweight="bold", color=text, bbox=box)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, markerscale=1.5)
    return figure


def class_changes(
    before: Sequence[float],
    after: Sequence[float],
    names: tuple[str, str],
    metric: str,
    class_names: Sequence[str] = features.CLASS_NAMES,
) -> Figure:
    """A metric of each class in two runs, and the way from one to the other.

    Args:
        before: One a class, in [0, 1].
        after: One a class, in [0, 1].
        names: Of the two runs.
        metric: Its name, for the axis.
        class_names: The classes, from top to bottom.
    """
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(class_names))
    axes.hlines(places, before, after, color=mpl.rcParams["grid.color"], linewidth=3)
    axes.plot(before, places, "o", color=ORANGE, markersize=7, label=names[0])
    axes.plot(after, places, "s", color=BLUE, markersize=7, label=names[1])
    axes.set_yticks(places, class_names)
    axes.set_ylim(len(class_names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(metric)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def to_unit_range(picture: np.ndarray) -> np.ndarray:
    """What matplotlib can show of a picture.

    Args:
        picture: uint8 or float, of any shape.

    Returns:
        uint8 as it is; floats as float [0, 1], the smallest value 0 and the largest 1 (all 0 where they are equal).
    """
    if np.issubdtype(picture.dtype, np.integer):
        return picture
    smallest, largest = float(picture.min()), float(picture.max())
    return (picture - smallest) / ((largest - smallest) or 1.0)


def _panels(figure: Figure, rows: int, columns: int) -> list[Axes]:
    """Empty places in rows, without frames or ticks."""
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    return panels
