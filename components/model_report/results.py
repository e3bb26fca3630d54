"""What the Evaluator found, read back from its artifact: metrics, confusion matrix, calibration, thresholds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import features

CANDIDATE, BASELINE = "candidate", "baseline"
"""What TFX's Evaluator calls the two models, where there are two."""

NOT_COMPARED_PROPERTY = "not_compared"
"""Custom property (str) of the evaluation: why the candidate was compared with no earlier model; else absent."""

NO_BASELINE = "no earlier blessed model to compare with"
"""Its value where there was none."""

VALUE, CHANGE = "value", "change"
"""Kinds of threshold: on a metric's value; on its change against the baseline."""

_CLASS_METRICS = ("precision", "recall", "f1")
_COMPARISON_SUFFIX = "_diff"


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far the probabilities of one class can be believed: the images of the split in buckets by probability.

    Attributes:
        lower: float64 [buckets], smallest probability of each bucket.
        upper: float64 [buckets]; probabilities in the bucket are smaller, in the last one at most this.
        count: int64 [buckets], images whose probability of the class is in the bucket.
        mean_probability: float64 [buckets], of those images; NaN where there are none.
        share: float64 [buckets], part of those images that are of the class; NaN where there are none.
    """

    lower: np.ndarray
    upper: np.ndarray
    count: np.ndarray
    mean_probability: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Threshold:
    """One bound of the gate, and what the candidate came to.

    Attributes:
        metric: name of the metric.
        class_name: the class whose images it holds for; empty for the whole test split.
        kind: `value`, or `change` where the bound comes from the last blessed model.
        value: the candidate's.
        bound: the smallest value that passes.
        baseline: the last blessed model's value, where `kind` is `change`.
        reached: as the Evaluator decided.
    """

    metric: str
    class_name: str
    kind: str
    value: float
    bound: float
    baseline: float | None
    reached: bool


@dataclass(frozen=True, eq=False)
class Results:
    """What the Evaluator measured of one model on the test split.

    Attributes:
        model_name: `candidate` or `baseline`; empty where there was one model only.
        class_names: in label order, as the Evaluator was told them.
        num_examples: images in the split.
        metrics: of the whole split, by name: `accuracy`, `top_3_accuracy`, `loss` (nats an image),
            `precision_<class>`, `recall_<class>`, `f1_<class>`. A class that was never predicted has a precision of
            0 or NaN, as the TFMA release has it.
        by_class: by class name, over the class's images: `accuracy` (which is its recall), `top_3_accuracy`, `loss`;
            and `precision`, `recall`, `f1` of the class on the whole split.
        confusion: int64 [classes, classes], images by actual class (row) and most probable class (column), both in
            label order.
        calibration: by class name.
        thresholds: what the candidate had to reach, each with its outcome; the same for both models.
        blessed: whether all of them were reached.
    """

    model_name: str
    class_names: tuple[str, ...]
    num_examples: int
    metrics: dict[str, float]
    by_class: dict[str, dict[str, float]]
    confusion: np.ndarray
    calibration: dict[str, Calibration]
    thresholds: tuple[Threshold, ...]
    blessed: bool

    @property
    def accuracy(self) -> float:
        """Part of the images whose most probable class is right, in [0, 1]."""
        return self.metrics["accuracy"]


def load(evaluation_uri: str, model_name: str = "") -> Results:
    """Read what the Evaluator wrote.

    Args:
        evaluation_uri: URI of the Evaluator's `evaluation` artifact.
        model_name: `candidate` or `baseline`; empty for the candidate.

    Raises:
        FileNotFoundError: there is no evaluation at the URI.
        ValueError: it has no such model: the baseline of a run that had none.
    """
    import tensorflow_model_analysis as tfma

    models = _model_names(evaluation_uri)
    own_name = CANDIDATE if BASELINE in models else models[0]
    if model_name not in ("", CANDIDATE, *models):
        raise ValueError(f"{evaluation_uri} has no {model_name}: the run had no model to compare its own with.")
    # By name: given none, TFMA takes the first model that it finds, which may be the baseline.
    candidate = tfma.load_eval_result(evaluation_uri, model_name=own_name or None)
    baseline = tfma.load_eval_result(evaluation_uri, model_name=BASELINE) if BASELINE in models else None
    chosen = candidate if baseline is None or model_name != BASELINE else baseline
    validation = tfma.load_validation_result(evaluation_uri)

    names = _class_names(chosen.config)
    metrics = {class_name: _metrics(slicing) for class_name, slicing in _by_slice(chosen.slicing_metrics, names)}
    plots = dict(_by_slice(chosen.plots, names))[""]
    confusion = _confusion(plots, len(names))
    overall = metrics.pop("")
    return Results(
        model_name=BASELINE if chosen is baseline else own_name,
        class_names=names,
        num_examples=int(confusion.sum()),
        metrics=overall,
        by_class={name: _of_class(name, metrics[name], overall, names) for name in names if name in metrics},
        confusion=confusion,
        calibration=_calibration(plots, names),
        thresholds=tuple(_thresholds(candidate, baseline, validation, names)),
        blessed=bool(validation.validation_ok),
    )


def has_baseline(evaluation_uri: str) -> bool:
    """Whether the candidate was compared with an earlier model.

    Raises:
        FileNotFoundError: there is no evaluation at the URI.
    """
    return BASELINE in _model_names(evaluation_uri)


def _model_names(evaluation_uri: str) -> list[str]:
    import tensorflow as tf

    config_file = f"{evaluation_uri}/eval_config.json"
    if not tf.io.gfile.exists(config_file):
        raise FileNotFoundError(f"{evaluation_uri} holds no evaluation. Was it removed? Run the pipeline again.")
    with tf.io.gfile.GFile(config_file) as file:
        return [spec.get("name", "") for spec in json.load(file)["evalConfig"]["modelSpecs"]]


def weak_bounds(found: Results) -> list[str]:
    """Says, a line each, which bounds of the gate ask for next to nothing: near chance, or none of a class's images.

    Chance is what one and the same answer to all images reaches: the share of the most frequent class.
    """
    images = found.confusion.sum(axis=1)
    most = int(images.argmax())
    chance = float(images[most] / images.sum())
    lines = []
    for bound in found.thresholds:
        near_chance = bound.bound < chance + (1 - chance) / 10
        if bound.metric == "accuracy" and bound.kind == VALUE and not bound.class_name and near_chance:
            near = "near" if bound.bound >= chance else "below"
            lines.append(
                f"accuracy_floor is {bound.bound:g}, {near} chance: "
                f"answering {found.class_names[most]} every time reaches {chance:.4f}"
            )
    never = [t.class_name for t in found.thresholds if t.class_name and t.bound == t.value == 0]
    if never:
        verb = "is" if len(never) == 1 else "are"
        lines.append(f"class_recall_floor is 0: {', '.join(never)} {verb} never recognized, and the gate does not mind")
    return lines


def _class_names(config: Any) -> tuple[str, ...]:
    """The classes that an evaluation was configured for: it measures the recall of each under its name."""
    metrics = itertools.chain.from_iterable(spec.metrics for spec in config.metrics_specs)
    settings = [json.loads(metric.config or "{}") for metric in metrics]
    recalls = [metric for metric in settings if metric.get("statistic") == "recall"]
    in_order = sorted(recalls, key=lambda metric: metric["arguments"]["class_id"])
    return tuple(metric["name"].removeprefix("recall_") for metric in in_order)


def _by_slice(results: Sequence[tuple[Any, Any]], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Class name, empty for the whole split, and what TFMA holds of the slice: by output, then by sub key."""
    for slice_key, by_output in results:
        label = dict(slice_key).get(features.LABEL_KEY)
        yield "" if label is None else names[int(label)], by_output


def _metrics(by_output: Mapping[str, Any]) -> dict[str, float]:
    """Values by metric name. JSON writes NaN as a text."""
    return {
        name: float(value["doubleValue"])
        for by_sub_key in by_output.values()
        for metrics in by_sub_key.values()
        for name, value in metrics.items()
        if "doubleValue" in value and not name.endswith(_COMPARISON_SUFFIX)
    }


def _of_class(
    name: str, on_its_images: Mapping[str, float], overall: Mapping[str, float], names: Sequence[str]
) -> dict[str, float]:
    """A class's row: TFMA counts its precision over all images, its accuracy over its own."""
    of_all_classes = {f"{metric}_{other}" for metric in _CLASS_METRICS for other in names}
    own = {metric: value for metric, value in on_its_images.items() if metric not in of_all_classes}
    return own | {metric: overall[f"{metric}_{name}"] for metric in _CLASS_METRICS if f"{metric}_{name}" in overall}


def _confusion(plots: Mapping[str, Any], num_classes: int) -> np.ndarray:
    """int64 [classes, classes] from TFMA's list of the cells that are not empty. JSON leaves out what is 0."""
    confusion = np.zeros([num_classes, num_classes], np.int64)
    for by_sub_key in plots.values():
        for plot in by_sub_key.values():
            matrices = plot.get("multiClassConfusionMatrixAtThresholds", {}).get("matrices", ())
            for entry in itertools.chain.from_iterable(matrix.get("entries", ()) for matrix in matrices):
                cell = entry.get("actualClassId", 0), entry.get("predictedClassId", 0)
                confusion[cell] += round(entry["numWeightedExamples"])
    return confusion


def _calibration(plots: Mapping[str, Any], names: Sequence[str]) -> dict[str, Calibration]:
    """Calibration by class name."""
    found = {}
    for by_sub_key in plots.values():
        for sub_key, plot in by_sub_key.items():
            if "calibrationHistogramBuckets" in plot:
                label = int(dict(part.split(":") for part in str(sub_key).split())["classId"])
                found[names[label]] = _buckets(plot["calibrationHistogramBuckets"]["buckets"])
    return found


def _buckets(buckets: Sequence[Mapping[str, Any]]) -> Calibration:
    """TFMA adds a bucket below 0, which stays empty, and one from 1 up: that holds probabilities of exactly 1."""
    bounds = np.array(
        [[float(b.get("lowerThresholdInclusive", 0)), float(b.get("upperThresholdExclusive", 0))] for b in buckets]
    )
    sums = np.array(
        [[b["numWeightedExamples"], b["totalWeightedRefinedPrediction"], b["totalWeightedLabel"]] for b in buckets]
    )
    inside = np.isfinite(bounds).all(axis=1)
    last = np.flatnonzero(inside)[-1]
    sums[last] += sums[last + 1 :].sum(axis=0)
    bounds, sums = bounds[inside], sums[inside]
    count = sums[:, 0]
    with np.errstate(invalid="ignore"):
        mean_probability, share = sums[:, 1] / count, sums[:, 2] / count
    return Calibration(bounds[:, 0], bounds[:, 1], count.round().astype(np.int64), mean_probability, share)


def _thresholds(candidate: Any, baseline: Any | None, validation: Any, names: Sequence[str]) -> Iterator[Threshold]:
    """Every bound of the configuration that the Evaluator used. Its result names only those that were missed."""
    values = {name: _metrics(slicing) for name, slicing in _by_slice(candidate.slicing_metrics, names)}
    before = baseline.slicing_metrics if baseline else ()
    last = {name: _metrics(slicing) for name, slicing in _by_slice(before, names)}
    missed = set(_missed(validation, names))
    metrics = itertools.chain.from_iterable(spec.metrics for spec in candidate.config.metrics_specs)
    limits = [(json.loads(metric.config)["name"], limit) for metric in metrics for limit in metric.per_slice_thresholds]
    for name, limit in limits:
        by_class = any(features.LABEL_KEY in spec.feature_keys for spec in limit.slicing_specs)
        for class_name in names if by_class else ("",):
            if class_name not in values:
                continue
            value = values[class_name][name]
            if limit.threshold.HasField("value_threshold"):
                bound = limit.threshold.value_threshold.lower_bound.value
                reached = (name, class_name, VALUE) not in missed
                yield Threshold(name, class_name, VALUE, value, bound, None, reached)
            if limit.threshold.HasField("change_threshold") and last:
                bound = last[class_name][name] + limit.threshold.change_threshold.absolute.value
                reached = (name, class_name, CHANGE) not in missed
                yield Threshold(name, class_name, CHANGE, value, bound, last[class_name][name], reached)


def _missed(validation: Any, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Metric, class name (empty for the whole split) and kind of each threshold that was missed."""
    for of_slice in validation.metric_validations_per_slice:
        labels = [key.int64_value for key in of_slice.slice_key.single_slice_keys if key.column == features.LABEL_KEY]
        class_name = names[labels[0]] if labels else ""
        for failure in of_slice.failures:
            for kind in (VALUE, CHANGE):
                if failure.metric_threshold.HasField(f"{kind}_threshold"):
                    yield failure.metric_key.name, class_name, kind
