"""What the Evaluator measures and what a model must reach: TFMA's configuration, and its results read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.model_report import results
from components.model_report.lineage import Execution
from models import features
from pipeline.settings import Settings

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

SIGNATURE = "classify"
"""What is gated: serialized tf.Examples in, as they come from ExampleGen; `scores` float32 [batch, 10] out."""

METRICS_MODULE = "components.classification_metrics.metrics"


def eval_config(settings: Settings) -> EvalConfig:
    """Build TFMA's configuration.

    Metrics, overall and by class slice: accuracy, top-3 accuracy, loss (sparse categorical cross-entropy, nats), and
    for each class precision, recall and F1 of the most probable class; plots: confusion matrix and, by class,
    calibration. They equal TFMA's own and cost a fraction (`components.classification_metrics`). Thresholds:
    `accuracy_floor`, and `accuracy_tolerance` against the last blessed model, for the test split as a whole;
    `class_recall_floor` for each class.
    """
    from tensorflow_model_analysis.proto import config_pb2  # TFX 1.21's TFMA does not offer all of it at its top level

    whole_split, by_class = config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[features.LABEL_KEY])

    def metric(class_name: str, **config: object) -> config_pb2.MetricConfig:
        return config_pb2.MetricConfig(
            class_name=class_name, module=METRICS_MODULE, config=json.dumps(config, sort_keys=True)
        )

    accuracy = metric("TallyStatistic", name="accuracy", statistic="accuracy")
    # Not the MetricConfig's own threshold: that would hold for every slice.
    accuracy.per_slice_thresholds.extend(
        [
            config_pb2.PerSliceMetricThreshold(
                slicing_specs=[whole_split],
                threshold=config_pb2.MetricThreshold(
                    value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": settings.accuracy_floor}),
                    change_threshold=config_pb2.GenericChangeThreshold(
                        direction=config_pb2.MetricDirection.HIGHER_IS_BETTER,
                        absolute={"value": -settings.accuracy_tolerance},
                    ),
                ),
            ),
            config_pb2.PerSliceMetricThreshold(
                slicing_specs=[by_class],  # accuracy on the images of a class is the recall of that class
                threshold=config_pb2.MetricThreshold(
                    value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": settings.class_recall_floor})
                ),
            ),
        ]
    )
    class_metrics = [
        metric("TallyStatistic", name=f"{statistic}_{name}", statistic=statistic, arguments={"class_id": index})
        for index, name in enumerate(features.CLASS_NAMES)
        for statistic in ("precision", "recall", "f1")
    ]
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(signature_name=SIGNATURE, label_key=features.LABEL_KEY, prediction_key="scores")
        ],
        slicing_specs=[whole_split, by_class],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    accuracy,
                    metric("TallyStatistic", name="top_3_accuracy", statistic="top_k_accuracy", arguments={"k": 3}),
                    metric("TallyStatistic", name="loss", statistic="loss"),
                    metric("ConfusionCounts"),
                    metric("ClassCalibration", num_classes=features.NUM_CLASSES),
                    *class_metrics,
                ]
            ),
        ],
    )


@dataclass(frozen=True)
class Verdict:
    """What the Evaluator found about a model, on the test split.

    Attributes:
      blessed: Whether every threshold was reached.
      accuracy: Share of images whose most probable class is right, in [0, 1].
      checks: A line a threshold: reached or not, value, bound, the setting's name.
    """

    blessed: bool
    accuracy: float
    checks: tuple[str, ...]


def read_verdict(evaluator: Execution) -> Verdict:
    """Read the verdict from the artifacts of an Evaluator's execution.

    Raises:
      FileNotFoundError: They have been removed.
    """
    evaluation = evaluator.outputs["evaluation"]
    found = results.load(evaluation.uri)
    by_class = [threshold for threshold in found.thresholds if threshold.class_name]
    worst = min(by_class, key=lambda threshold: threshold.value)
    checks = []
    for threshold in found.thresholds:
        if threshold.kind == results.CHANGE:
            setting = f"last blessed {threshold.baseline:.4f} − accuracy_tolerance"
            checks.append(_check(threshold.metric, threshold, setting))
        elif not threshold.class_name:
            checks.append(_check(threshold.metric, threshold, "accuracy_floor"))
    if not any(threshold.kind == results.CHANGE for threshold in found.thresholds):
        reason = evaluation.properties.get(results.NOT_COMPARED_PROPERTY, results.NO_BASELINE)
        checks.append(f"–   {reason}; accuracy_tolerance does not apply")
    checks.append(_check(f"recall of the worst class, {worst.class_name},", worst, "class_recall_floor"))
    checks += [f"–   {weak}" for weak in results.weak_bounds(found)]
    return Verdict(found.blessed, found.accuracy, tuple(checks))


def _check(what: str, threshold: results.Threshold, setting: str) -> str:
    mark, sign = ("ok ", "≥") if threshold.reached else ("NO ", "<")
    return f"{mark} {what} {threshold.value:.4f} {sign} {threshold.bound:.4f} ({setting})"
