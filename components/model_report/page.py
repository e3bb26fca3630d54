"""The model report as a page: contents in, files out."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from components.cifar10_example_gen import duplicates
from components.model_report import calibration, figures, results
from components.model_report.contents import Contents
from components.model_report.predictions import Predictions, accuracy_interval, flips
from models import features

TEMPLATES = Path(__file__).parent / "templates"

_PIXELS_PER_INCH = 100
_SHARPNESS = 1.5  # pixels of the PNG for one on the page

_SETTINGS_OF_THRESHOLDS = {
    (False, results.VALUE): "accuracy_floor",
    (False, results.CHANGE): "accuracy_tolerance",
    (True, results.VALUE): "class_recall_floor",
}
_LOWER_IS_BETTER = ("loss", "ece")


@dataclass(frozen=True)
class Chart:
    """A chart for both colour schemes.

    Attributes:
        name: File name without its ending.
        alt: What it shows, for those who cannot see it.
        light: PNG file for a light page.
        dark: PNG file for a dark page.
        width: On the page, in CSS pixels, where there is room.
        height: Likewise.
    """

    name: str
    alt: str
    light: bytes
    dark: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Tile:
    """A test image and what was said of it.

    Attributes:
        source: Data URI.
        title: Actual and predicted class.
        probability: Of the predicted class.
        note: What else there is to say; may be empty.
        alt: All of it, in words.
        correct: Whether the two classes are one.
    """

    source: str
    title: str
    probability: str
    note: str
    alt: str
    correct: bool


@dataclass(frozen=True)
class Bound:
    """A threshold of the gate: what it holds for, its value, the bound, the setting's name, the outcome."""

    name: str
    key: str
    value: float
    bound: float
    setting: str
    reached: bool


@dataclass(frozen=True)
class ClassRow:
    """A class on the test split. `precision` and `f1` are None where it was never predicted."""

    name: str
    images: int
    predicted: int
    precision: float | None
    recall: float
    f1: float | None
    floor_reached: bool
    confused_with: str | None
    confused: int


@dataclass(frozen=True)
class Change:
    """A metric of the last blessed model and of the candidate; `better` is None where nothing has changed."""

    name: str
    key: str
    before: float
    now: float

    @property
    def better(self) -> bool | None:
        """Whether the candidate's is the better one."""
        if self.now == self.before:
            return None
        return (self.now < self.before) == (self.key in _LOWER_IS_BETTER)


def render(contents: Contents, page_file: str) -> dict[str, bytes]:
    """Write the page and its charts.

    Args:
        contents: What to show.
        page_file: Name of the page's file.

    Returns:
        Content by file name: the page, in which everything is contained, and each chart as PNG, for a light page.
    """
    charts = {chart.name: chart for chart in draw_charts(contents)}
    return {
        page_file: render_html(contents, charts).encode(),
        **{f"{name}.png": chart.light for name, chart in charts.items()},
        **{f"{name}.png": _png(figure) for name, figure in _image_figures(contents)},
    }


def render_html(contents: Contents, charts: Mapping[str, Chart]) -> str:
    """The page, from its template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "png_uri": _png_uri,
        "seconds": _seconds,
        "signed": lambda value: f"{value:+.4f}".replace("-", "−"),
        "bytes": lambda size: f"{size:,.0f} bytes",
    }
    found = contents.predictions
    bins = calibration.reliability_bins(found.confidence, found.correct)
    examples = next((source.properties for source in contents.sources if source.key == "examples"), {})
    return environment.get_template("page.html").render(
        contents=contents,
        charts=charts,
        class_names=features.CLASS_NAMES,
        num_weights=found.num_weights,
        num_mistakes=int((~found.correct).sum()),
        guessing_loss=math.log(features.NUM_CLASSES),
        data_sha256=examples.get("data_sha256"),
        test_overlap=examples.get(duplicates.TEST_OVERLAP),
        duplicates=duplicates.notes(examples),
        bounds=_bounds(contents.results),
        weak_bounds=results.weak_bounds(contents.results),
        interval=accuracy_interval(int(found.correct.sum()), len(found.correct)),
        classes=_class_rows(contents),
        bins=bins,
        ece=bins.expected_calibration_error,
        mean_confidence=float(found.confidence.mean()),
        tiles=_tiles(contents, contents.gallery.first),
        mistakes=_tiles(contents, contents.gallery.mistakes),
        comparison=_comparison(contents),
        settings=_flat(contents.settings),
    )


def draw_charts(contents: Contents) -> list[Chart]:
    """Each chart, for light and dark pages."""
    found, metrics = contents.predictions, contents.results.metrics
    rows = _class_rows(contents)
    last = contents.history[-1]
    worst = min(rows, key=lambda row: row.recall)
    exported = contents.exported_epoch
    ece = calibration.reliability_bins(found.confidence, found.correct).expected_calibration_error
    drawings: list[tuple[str, str, Callable[[], Figure]]] = [
        (
            "learning_curves",
            f"Lines over {len(contents.history)} epochs: accuracy, loss and learning rate. After the last epoch the"
            f" training accuracy is {float(last['accuracy']):.3f}, on {contents.validation_split}"
            f" {float(last['val_accuracy']):.3f}; epoch {exported} was exported.",
            lambda: figures.learning_curves(contents.history, contents.validation_split, exported),
        ),
        (
            "confusion_matrix",
            f"Ten by ten squares, actual against predicted class; {metrics['accuracy']:.1%} of the"
            f" {contents.results.num_examples:,} images are on the diagonal. The table below it has every number.",
            lambda: figures.confusion_matrix(contents.results.confusion),
        ),
        (
            "class_metrics",
            f"Precision, recall and F1 of each class; the lowest recall is that of {worst.name}, {worst.recall:.3f}."
            " The table below has every number.",
            lambda: figures.class_metrics(
                [math.nan if row.precision is None else row.precision for row in rows],
                [row.recall for row in rows],
                [math.nan if row.f1 is None else row.f1 for row in rows],
                floor=contents.settings["class_recall_floor"],
            ),
        ),
        (
            "reliability_diagram",
            f"Bars: accuracy by confidence, beside the diagonal of perfect calibration; the expected calibration error"
            f" is {ece:.3f}. Below: number of images by confidence. The table below has every number.",
            lambda: figures.reliability_diagram(found.confidence, found.correct),
        ),
        (
            "label_distribution",
            f"Share of each class in the splits {', '.join(contents.statistics)}. The table below has every count.",
            lambda: figures.label_distribution({s: stats.labels for s, stats in contents.statistics.items()}),
        ),
    ]
    charts = []
    for name, alt, draw in drawings:
        with figures.theme(dark=True):
            dark = _png(draw())
        with figures.theme(dark=False):
            figure = draw()
            width, height = (round(inches * _PIXELS_PER_INCH) for inches in figure.get_size_inches())
            charts.append(Chart(name, alt, _png(figure), dark, width, height))
    return charts


def _image_figures(contents: Contents) -> Iterable[tuple[str, Figure]]:
    """The grids of images as figures, for those who want a file; the page has them as images of its own."""
    found = contents.predictions
    chosen = {"test_images": contents.gallery.first, "confident_mistakes": contents.gallery.mistakes}
    for name, indices in chosen.items():
        if len(indices):
            with figures.theme(dark=False):
                yield (
                    name,
                    figures.image_grid(
                        np.stack([_pixels(contents.image_files[i]) for i in indices]),
                        [f"{_actual_and_predicted(found, i)}\n{found.confidence[i]:.0%}" for i in indices],
                        marked=list(~found.correct[indices]),
                    ),
                )


def _bounds(found: results.Results) -> list[Bound]:
    """The gate's thresholds, those of the whole split first."""
    bounds = []
    for threshold in sorted(found.thresholds, key=lambda threshold: bool(threshold.class_name)):
        name = f"recall of {threshold.class_name}" if threshold.class_name else threshold.metric
        if threshold.kind == results.CHANGE:
            name += f", last blessed {threshold.baseline:.4f} less the tolerance"
        setting = _SETTINGS_OF_THRESHOLDS.get((bool(threshold.class_name), threshold.kind), threshold.metric)
        key = "/".join(("threshold", threshold.metric, threshold.class_name or "all", threshold.kind))
        bounds.append(Bound(name, key, threshold.value, threshold.bound, setting, threshold.reached))
    return bounds


def _class_rows(contents: Contents) -> list[ClassRow]:
    confusion, by_class = contents.results.confusion, contents.results.by_class
    missed = {t.class_name for t in contents.results.thresholds if t.class_name and not t.reached}
    rows = []
    for index, name in enumerate(features.CLASS_NAMES):
        predicted = int(confusion[:, index].sum())
        others = np.where(np.arange(features.NUM_CLASSES) == index, 0, confusion[index])
        most = int(others.argmax())
        f1 = by_class[name]["f1"]
        rows.append(
            ClassRow(
                name=name,
                images=int(confusion[index].sum()),
                predicted=predicted,
                precision=by_class[name]["precision"] if predicted else None,
                recall=by_class[name]["recall"],
                f1=f1 if predicted and math.isfinite(f1) else None,
                floor_reached=name not in missed,
                confused_with=features.CLASS_NAMES[most] if others[most] else None,
                confused=int(others[most]),
            )
        )
    return rows


def _comparison(contents: Contents) -> dict[str, Any] | None:
    """What has changed since the last blessed model: metrics, and images that are right now or wrong now."""
    before, now = contents.baseline_predictions, contents.predictions
    if before is None or contents.baseline_results is None:
        return None
    gained, lost = flips(before, now)
    old, new = contents.baseline_results.metrics, contents.results.metrics
    names = {"accuracy": "accuracy", "top_3_accuracy": "top-3 accuracy", "loss": "loss (nats)"}
    names |= {f"recall_{name}": f"recall of {name}" for name in features.CLASS_NAMES}
    changes = [Change(shown, key, old[key], new[key]) for key, shown in names.items()]
    errors = [
        calibration.reliability_bins(model.confidence, model.correct).expected_calibration_error
        for model in (before, now)
    ]
    changes.insert(len(changes) - features.NUM_CLASSES, Change("calibration error (ECE)", "ece", *errors))
    return {
        "changes": changes,
        "same": int((before.classes == now.classes).sum()),
        "gained": len(gained),
        "lost": len(lost),
        "gained_tiles": _tiles(contents, contents.gallery.gained, before),
        "lost_tiles": _tiles(contents, contents.gallery.lost, before),
    }


def _tiles(contents: Contents, indices: Iterable[int], before: Predictions | None = None) -> list[Tile]:
    """Images as "actual | predicted", with the probability and, where there is one, an earlier model's answer."""
    found = contents.predictions
    tiles = []
    for index in indices:
        actual, said = features.CLASS_NAMES[found.labels[index]], features.CLASS_NAMES[found.classes[index]]
        correct, note = bool(found.correct[index]), ""
        if before is not None:
            note = f"before: {features.CLASS_NAMES[before.classes[index]]} {before.confidence[index]:.0%}"
        elif not correct:
            note = f"{actual}: {found.probabilities[index, found.labels[index]]:.0%}"
        probability = f"{found.confidence[index]:.0%}"
        alt = f"Test image {index}: actual {actual}, predicted {said} with {probability}"
        tiles.append(
            Tile(
                source=_image_uri(contents.image_files[index]),
                title=_actual_and_predicted(found, index),
                probability=probability,
                note=note,
                alt=f"{alt}; {note}" if note else alt,
                correct=correct,
            )
        )
    return tiles


def _actual_and_predicted(found: Predictions, index: int) -> str:
    return f"{features.CLASS_NAMES[found.labels[index]]} | {features.CLASS_NAMES[found.classes[index]]}"


def _flat(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings in groups: the pipeline's own, and each group within."""
    groups = {name: dict(value) for name, value in settings.items() if isinstance(value, Mapping)}
    return {"pipeline": {name: value for name, value in settings.items() if name not in groups}, **groups}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PIXELS_PER_INCH * _SHARPNESS)
    return buffer.getvalue()


def _pixels(file: bytes) -> np.ndarray:
    """What the model saw of an image file, uint8 [32, 32, 3]."""
    import tensorflow as tf

    from models.preprocessing import decode_images

    pixels: np.ndarray = decode_images(tf.constant([file])).numpy()[0]
    return pixels


def _image_uri(file: bytes) -> str:
    """A PNG of what the model saw of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(_pixels(file)).save(buffer, "PNG")
    return _png_uri(buffer.getvalue())


def _png_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _seconds(value: float) -> str:
    """Seconds as a person reads them: 0.4 s, 12.3 s, 3 min 05 s, 1 h 02 min."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
