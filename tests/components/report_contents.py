"""Contents of a model report, made up: predictions drawn at random, and everything that follows from them by NumPy."""

import dataclasses
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from components.model_report import gallery
from components.model_report.contents import ComponentTime, Contents, Push, ServingCheck, Source
from components.model_report.data import SplitStatistics
from components.model_report.predictions import Predictions
from components.model_report.results import CHANGE, VALUE, Results, Threshold
from models import features
from pipeline.settings import make_settings
from pipeline.source_digest import PROJECT_ROOT

NUM_CLASSES = features.NUM_CLASSES


def png(index: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make_predictions(labels: np.ndarray, skill: float, seed: int, never: int | None = None) -> Predictions:
    """Probabilities that know the actual class more or less well; the class `never` is never the most probable."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(len(labels), NUM_CLASSES))
    scores[np.arange(len(labels)), labels] += skill
    if never is not None:
        scores[:, never] = -9
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predictions(labels, probabilities.astype(np.float32), num_weights=1234)


def make_results(
    predictions: Predictions, floor: float, recall_floor: float, last_accuracy: float | None = None
) -> Results:
    """What an Evaluator would find."""
    labels, classes = predictions.labels, predictions.classes
    confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    np.add.at(confusion, (labels, classes), 1)
    own = predictions.probabilities[np.arange(len(labels)), labels]
    metrics = {
        "accuracy": float((labels == classes).mean()),
        "top_3_accuracy": float((np.argsort(-predictions.probabilities)[:, :3] == labels[:, None]).any(1).mean()),
        "loss": float(-np.log(own).mean()),
    }
    by_class = {}
    for index, name in enumerate(features.CLASS_NAMES):
        hits, predicted, images = confusion[index, index], confusion[:, index].sum(), confusion[index].sum()
        recall = float(hits / images)
        by_class[name] = {
            "accuracy": recall,
            "recall": recall,
            "precision": float(hits / predicted) if predicted else float("nan"),
            "f1": float(2 * hits / (predicted + images)),
        }
        metrics |= {f"{key}_{name}": by_class[name][key] for key in ("precision", "recall", "f1")}
    accuracy = metrics["accuracy"]
    thresholds = [Threshold("accuracy", "", VALUE, accuracy, floor, None, accuracy >= floor)]
    if last_accuracy is not None:
        bound = last_accuracy - 0.02
        thresholds.append(Threshold("accuracy", "", CHANGE, accuracy, bound, last_accuracy, accuracy >= bound))
    for name, values in by_class.items():
        reached = values["recall"] >= recall_floor
        thresholds.append(Threshold("accuracy", name, VALUE, values["recall"], recall_floor, None, reached))
    blessed = all(threshold.reached for threshold in thresholds)
    return Results("", features.CLASS_NAMES, len(labels), metrics, by_class, confusion, {}, tuple(thresholds), blessed)


def make_contents(
    *,
    images: int = 300,
    skill: float = 2.0,
    floor: float = 0.1,
    never: int | None = None,
    baseline: bool = True,
    validation: bool = True,
    metadata: bool = True,
    served: bool = True,
) -> Contents:
    labels = np.arange(images) % NUM_CLASSES
    predictions = make_predictions(labels, skill, seed=1, never=never)
    before = make_predictions(labels, 1.5, seed=2) if baseline else None
    shown = gallery.choose(predictions, before)
    before_results = make_results(before, 0.0, 0.0) if before else None
    results = make_results(predictions, floor, 0.2, before_results.accuracy if before_results else None)
    settings = make_settings(
        "sample" if validation else "seed", {"class_recall_floor": 0.2, "output_dir": str(PROJECT_ROOT)}
    )
    splits = {"train": 1000, "validation": 100, "test": images} if validation else {"train": 1000, "test": images}
    blessed = results.blessed and served
    history = [
        {
            "epoch": str(epoch),
            "accuracy": str(0.2 + epoch / 10),
            "loss": str(2 - epoch / 3),
            "val_accuracy": str([0.3, 0.5, 0.4][epoch - 1]),
            "val_loss": str(1.9 - epoch / 4),
            "learning_rate": str(0.02 / epoch),
            "seconds": "1.5",
        }
        for epoch in (1, 2, 3)
    ]
    return Contents(
        pipeline="alexnet_sample",
        run="2026-01-01T00:00:00.000000",
        written_at="2026-01-01T00:10:00+00:00",
        results=results,
        not_compared="" if baseline else "no comparable earlier model: classes differ (new: frog)",
        baseline_results=before_results,
        serving_blessed=served,
        serving_checks=[ServingCheck("latency", served, "median 0.003 s ≤ 0.2 s <latency_budget_s>")],
        push=Push("1700000000", "/models/1700000000", True) if blessed else Push(),
        history=history,
        gallery=shown,
        image_files={index: png(index % 20) for index in shown.indices},
        predictions=predictions,
        baseline_predictions=before,
        statistics={
            split: SplitStatistics(count, tuple([count // 10] * 10), 0, 0, count, 2265.4)
            for split, count in splits.items()
        },
        anomalies={split: [] for split in splits},
        settings=dataclasses.asdict(settings),
        source_digests={"Trainer": "0123456789abcdef"},
        sources=[Source("examples", "Examples", "/artifacts/1", {"data_sha256": "ab" * 32, "test_examples": images})],
        versions={"python": "3.10.0", "tensorflow": "2.16.2"},
        trained_with={"tensorflow": "2.16.1"},
        trained_on="Linux x86_64, 2 CPU cores, no GPU",
        components=[ComponentTime("StatisticsGen", "cached", 3.25), ComponentTime("Trainer", "complete", 187.5)]
        if metadata
        else None,
    )


class Page(HTMLParser):
    """A page taken apart: elements in their order, as (tag, attributes), and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._in_style = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_data(self, data):
        if not self._in_style:
            self.text += data

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)

    @property
    def values(self) -> dict[str, str]:
        """Text of the attribute `value`, by name, of the elements that show a figure."""
        return {str(a["data-name"]): str(a["value"]) for a in self.all("data")}

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)
