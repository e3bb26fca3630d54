"""The metrics and plots in TFMA's form, by the names that a MetricConfig gives (`module`, `class_name`).

The names are none of TFMA's: it looks among its own first.

TFMA's own metrics go through the examples once each, in Python, in each slice: 44 times for what is measured here.
These derive from one tally.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2

from components.classification_metrics import tally
from components.classification_metrics.tally import BUCKET_EDGES, STATISTICS, Tally

_BLOCK_EXAMPLES = 1024
"""Counted at once: NumPy's calls cost more than what they do with one example."""

_TALLY_NAME = "_classification_tally"  # TFMA publishes no metric whose name begins with an underscore

_Results = Mapping[metric_types.MetricKey, Any]


class TallyStatistic(metric_types.Metric):
    """A number out of `tally.STATISTICS`."""

    def __init__(self, name: str, statistic: str, arguments: Mapping[str, int] | None = None) -> None:
        """Holds the settings.

        Args:
            name: of the metric.
            statistic: a key of `tally.STATISTICS`.
            arguments: of the statistic, beside the tally: `k` or `class_id`.
        """
        super().__init__(
            metric_util.merge_per_key_computations(_statistic),
            name=name,
            statistic=statistic,
            arguments=dict(arguments or {}),
        )


class ConfusionCounts(metric_types.Metric):
    """Images by label and most probable class, as TFMA's MultiClassConfusionMatrixPlot writes them."""

    def __init__(self, name: str = "confusion_matrix") -> None:
        """Holds the plot's name."""
        super().__init__(metric_util.merge_per_key_computations(_confusion_matrix), name=name)


class ClassCalibration(metric_types.Metric):
    """For each class a histogram of its probability, as TFMA's CalibrationPlot writes it for binarized classes."""

    def __init__(self, name: str = "calibration", num_classes: int = 10) -> None:
        """Holds the plot's name and the number of classes."""
        super().__init__(metric_util.merge_per_key_computations(_calibration), name=name, num_classes=num_classes)


# TFMA passes what a function's parameters ask for by name.
def _statistic(
    name: str,
    statistic: str,
    arguments: dict[str, int],
    eval_config: config_pb2.EvalConfig | None = None,
    model_name: str = "",
    output_name: str = "",
) -> metric_types.MetricComputations:
    key = metric_types.MetricKey(name=name, model_name=model_name, output_name=output_name)

    def derive(counted: Tally) -> dict[metric_types.MetricKey, Any]:
        return {key: STATISTICS[statistic](counted, **arguments)}

    return _derived([key], derive, eval_config, model_name, output_name)


def _confusion_matrix(
    name: str,
    eval_config: config_pb2.EvalConfig | None = None,
    model_name: str = "",
    output_name: str = "",
) -> metric_types.MetricComputations:
    key = metric_types.PlotKey(name=name, model_name=model_name, output_name=output_name)

    def derive(counted: Tally) -> dict[metric_types.MetricKey, Any]:
        matrices = metrics_for_slice_pb2.MultiClassConfusionMatrixAtThresholds()
        matrix = matrices.matrices.add(threshold=0.0)
        for label, predicted in np.argwhere(counted.confusion):
            matrix.entries.add(
                actual_class_id=int(label),
                predicted_class_id=int(predicted),
                num_weighted_examples=float(counted.confusion[label, predicted]),
            )
        return {key: matrices}

    return _derived([key], derive, eval_config, model_name, output_name)


def _calibration(
    name: str,
    num_classes: int,
    eval_config: config_pb2.EvalConfig | None = None,
    model_name: str = "",
    output_name: str = "",
) -> metric_types.MetricComputations:
    keys = [
        metric_types.PlotKey(
            name=name,
            model_name=model_name,
            output_name=output_name,
            sub_key=metric_types.SubKey(class_id=class_id),
        )
        for class_id in range(num_classes)
    ]

    def derive(counted: Tally) -> dict[metric_types.MetricKey, Any]:
        return {key: _histogram(counted, class_id) for class_id, key in enumerate(keys)}

    return _derived(keys, derive, eval_config, model_name, output_name)


def _histogram(counted: Tally, class_id: int) -> metrics_for_slice_pb2.CalibrationHistogramBuckets:
    """TFMA has a bucket below 0 as well, which stays empty."""
    edges = [-np.inf, *BUCKET_EDGES.tolist(), np.inf]
    images = [0, *counted.bucket_images[class_id].tolist()]
    labels = [0, *counted.bucket_labels[class_id].tolist()]
    probabilities = [0.0, *counted.bucket_probabilities[class_id].tolist()]
    histogram = metrics_for_slice_pb2.CalibrationHistogramBuckets()
    for bucket in range(len(images)):
        histogram.buckets.add(
            lower_threshold_inclusive=edges[bucket],
            upper_threshold_exclusive=edges[bucket + 1],
            num_weighted_examples={"value": images[bucket]},
            total_weighted_label={"value": labels[bucket]},
            total_weighted_refined_prediction={"value": probabilities[bucket]},
        )
    return histogram


def _derived(
    keys: list[metric_types.MetricKey],
    derive: Callable[[Tally], dict[metric_types.MetricKey, Any]],
    eval_config: config_pb2.EvalConfig | None,
    model_name: str,
    output_name: str,
) -> metric_types.MetricComputations:
    """The tally, which TFMA computes once however many metrics ask for it, and what derives from it."""
    tally_key = metric_types.MetricKey(name=_TALLY_NAME, model_name=model_name, output_name=output_name)

    def result(metrics: _Results) -> dict[metric_types.MetricKey, Any]:
        return derive(metrics[tally_key])

    return [
        metric_types.MetricComputation(
            keys=[tally_key], preprocessors=None, combiner=_TallyCombiner(tally_key, eval_config)
        ),
        metric_types.DerivedMetricComputation(keys=keys, result=result),
    ]


class _Accumulator:
    """A tally, and examples that are not yet in it."""

    def __init__(self) -> None:
        self.counted: Tally | None = None
        self.labels: list[int] = []
        self.probabilities: list[np.ndarray] = []

    def count(self) -> None:
        """Brings all examples into the tally."""
        if self.labels:
            block = tally.count(np.array(self.labels), np.array(self.probabilities))
            self.counted = block if self.counted is None else self.counted + block
            self.labels, self.probabilities = [], []


class _TallyCombiner(beam.CombineFn):
    """From one model's labels and probabilities to a tally."""

    def __init__(self, key: metric_types.MetricKey, eval_config: config_pb2.EvalConfig | None) -> None:
        self._key = key
        self._eval_config = eval_config

    def create_accumulator(self) -> _Accumulator:
        return _Accumulator()

    def add_input(self, accumulator: _Accumulator, element: metric_types.StandardMetricInputs) -> _Accumulator:
        label, probabilities, _ = next(
            metric_util.to_label_prediction_example_weight(
                element,
                eval_config=self._eval_config,
                model_name=self._key.model_name,
                output_name=self._key.output_name,
                flatten=False,
            )
        )
        accumulator.labels.append(int(label.item()))
        accumulator.probabilities.append(probabilities)
        if len(accumulator.labels) >= _BLOCK_EXAMPLES:
            accumulator.count()
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Accumulator]) -> _Accumulator:
        merged = _Accumulator()
        for accumulator in accumulators:
            accumulator.count()
            if accumulator.counted is not None:
                merged.counted = accumulator.counted if merged.counted is None else merged.counted + accumulator.counted
        return merged

    def extract_output(self, accumulator: _Accumulator) -> dict[metric_types.MetricKey, Tally]:
        accumulator.count()
        assert accumulator.counted is not None  # TFMA combines what there is: a slice has an example or more
        return {self._key: accumulator.counted}
