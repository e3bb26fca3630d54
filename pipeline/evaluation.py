"""What the Evaluator measures and what a model must reach: TFMA's configuration, and its results read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models import features
from pipeline.settings import Settings

if TYPE_CHECKING:
    from ml_metadata.proto.metadata_store_pb2 import Artifact
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

SIGNATURE = "classify"
"""What is gated: serialized tf.Examples in, as they come from ExampleGen; `scores` float32 [batch, 10] out."""


def eval_config(settings: Settings) -> EvalConfig:
    """Build TFMA's configuration.

    Metrics, overall and by class slice: accuracy, top-3 accuracy, loss (sparse categorical cross-entropy, nats), and
    for each class precision, recall and F1 of the most probable class; plots: confusion matrix and, by class,
    calibration. Thresholds: `accuracy_floor`, and `accuracy_tolerance` against the last blessed model, for the test
    split as a whole; `class_recall_floor` for each class.
    """
    from tensorflow_model_analysis.proto import config_pb2  # TFX 1.21's TFMA does not offer all of it at its top level

    whole_split, by_class = config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[features.LABEL_KEY])

    def metric(class_name: str, **config: object) -> config_pb2.MetricConfig:
        return config_pb2.MetricConfig(class_name=class_name, config=json.dumps(config, sort_keys=True))

    accuracy = metric("SparseCategoricalAccuracy", name="accuracy")
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
    # top_k=1: of the most probable class. TFMA gives the others a score of minus infinity; without a threshold above
    # that, TFX 1.21's counts them as predicted.
    class_metrics = [
        metric(class_name, name=f"{prefix}_{name}", class_id=index, top_k=1, thresholds=[0.0])
        for index, name in enumerate(features.CLASS_NAMES)
        for prefix, class_name in (("precision", "Precision"), ("recall", "Recall"), ("f1", "F1Score"))
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
                    metric("SparseTopKCategoricalAccuracy", name="top_3_accuracy", k=3),
                    metric("SparseCategoricalCrossentropy", name="loss"),
                    metric("MultiClassConfusionMatrixPlot", thresholds=[0.0]),
                    *class_metrics,
                ]
            ),
            config_pb2.MetricsSpec(
                metrics=[metric("CalibrationPlot", num_buckets=20)],
                binarize=config_pb2.BinarizationOptions(class_ids={"values": range(features.NUM_CLASSES)}),
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


def read_verdict(settings: Settings, outputs: Mapping[str, Artifact]) -> Verdict:
    """Read a run's verdict from the Evaluator's outputs.

    Args:
      settings: Settings of the run; they hold the thresholds.
      outputs: The Evaluator's output artifacts: `evaluation` and `blessing`.
    """
    blessing = outputs["blessing"].custom_properties
    has_baseline = "baseline_model_id" in blessing
    metrics = overall_metrics(outputs["evaluation"].uri, "candidate" if has_baseline else "")
    accuracy = metrics["accuracy"]
    worst = min(features.CLASS_NAMES, key=lambda name: metrics[f"recall_{name}"])
    worst_recall = metrics[f"recall_{worst}"]
    checks = [_check("accuracy", accuracy, settings.accuracy_floor, "accuracy_floor")]
    if has_baseline:
        last = overall_metrics(outputs["evaluation"].uri, "baseline")["accuracy"]
        bound = last - settings.accuracy_tolerance
        checks.append(_check("accuracy", accuracy, bound, f"last blessed {last:.4f} − accuracy_tolerance"))
    else:
        checks.append("–   no blessed model before this one: accuracy_tolerance does not apply")
    checks.append(
        _check(
            f"recall of the worst class, {worst},",
            worst_recall,
            settings.class_recall_floor,
            "class_recall_floor",
        )
    )
    return Verdict(bool(blessing["blessed"].int_value), accuracy, tuple(checks))


def overall_metrics(evaluation_uri: str, model_name: str = "") -> dict[str, float]:
    """Return the metrics of the whole test split by name.

    Args:
      evaluation_uri: Folder that the Evaluator wrote.
      model_name: `candidate` or `baseline` where there were two models, else empty.
    """
    import tensorflow_model_analysis as tfma

    result = tfma.load_eval_result(evaluation_uri, model_name=model_name or None)
    (whole_split,) = (metrics for slice_key, metrics in result.slicing_metrics if slice_key == ())
    return {
        name: value["doubleValue"]
        for by_sub_key in whole_split.values()
        for metrics in by_sub_key.values()
        for name, value in metrics.items()
        if "doubleValue" in value
    }


def _check(what: str, value: float, bound: float, setting: str) -> str:
    reached = value >= bound
    return f"{'ok ' if reached else 'NO '} {what} {value:.4f} {'≥' if reached else '<'} {bound:.4f} ({setting})"
