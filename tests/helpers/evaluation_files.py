"""An Evaluator's artifact, written record by record as TFMA writes it, from labels and probabilities."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models import features

NUM_BUCKETS = 20
CLASSES = features.CLASS_NAMES


def predictions(accuracy: float, seed: int = 0, num_examples: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [n] and probabilities float64 [n, 10] of about this accuracy; no truck is ever predicted."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(10), random.integers(0, 10, num_examples - 10)])
    scores = random.uniform(0, 1, (num_examples, 10))
    right = random.uniform(size=num_examples) < accuracy
    scores[right, labels[right]] += 1
    scores[:, 9] = 0
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    sure = labels[0]  # one answer of probability 1, which no bucket below 1 holds
    probabilities[0] = np.eye(10)[sure]
    return labels, probabilities


def measure(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All metrics of a set of examples, by TFMA's name, in NumPy."""
    predicted = probabilities.argmax(axis=1)
    of_label = probabilities[np.arange(len(labels)), labels]
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "top_3_accuracy": float((np.argsort(-probabilities, axis=1)[:, :3] == labels[:, None]).any(axis=1).mean()),
        "loss": float(-np.log(np.maximum(of_label, 1e-7)).mean()),
    }
    for index, name in enumerate(CLASSES):
        hits = ((predicted == index) & (labels == index)).sum()
        precision = hits / (predicted == index).sum() if (predicted == index).any() else np.nan
        recall = hits / (labels == index).sum() if (labels == index).any() else np.nan
        f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else np.nan
        metrics |= {f"precision_{name}": precision, f"recall_{name}": recall, f"f1_{name}": f1}
    return metrics


def write_evaluation(
    folder: Path,
    labels: np.ndarray,
    candidate: np.ndarray,
    baseline: np.ndarray | None = None,
    *,
    accuracy_floor: float = 0.3,
    accuracy_tolerance: float = 0.02,
    class_recall_floor: float = 0.05,
    class_names: Sequence[str] = CLASSES,
) -> Path:
    """Write what TFMA would, in the order that it likes: the baseline first, the whole split in the middle.

    Args:
        folder: made when absent.
        labels: int [n].
        candidate: probabilities float [n, 10] of the model.
        baseline: those of the model that it is compared with, if any.
        accuracy_floor: threshold.
        accuracy_tolerance: threshold.
        class_recall_floor: threshold.
        class_names: what the labels are called in the configuration.
    """
    import tensorflow as tf
    from google.protobuf import json_format
    from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2, validation_result_pb2

    folder.mkdir(parents=True)
    models = {"": candidate} if baseline is None else {"baseline": baseline, "candidate": candidate}
    limits = [(None, accuracy_floor), (features.LABEL_KEY, class_recall_floor)]
    accuracy = config_pb2.MetricConfig(class_name="SparseCategoricalAccuracy", config='{"name": "accuracy"}')
    for key, floor in limits:
        limit = accuracy.per_slice_thresholds.add(slicing_specs=[{"feature_keys": [key]} if key else {}])
        limit.threshold.value_threshold.lower_bound.value = floor
        if key is None and baseline is not None:
            limit.threshold.change_threshold.absolute.value = -accuracy_tolerance
    config = config_pb2.EvalConfig(
        model_specs=[{"name": name, "is_baseline": name == "baseline"} for name in models],
        slicing_specs=[{}, {"feature_keys": [features.LABEL_KEY]}],
        metrics_specs=[{"metrics": [accuracy, *_recalls(class_names)]}],
    )
    run = {"evalConfig": json_format.MessageToDict(config), "version": "0", "dataLocation": "", "fileFormat": ""}
    run["modelLocations"] = {name: f"/models/{name}" for name in models}
    (folder / "eval_config.json").write_text(json.dumps(run))

    slices = {index: labels == index for index in (5, 3)} | {None: labels >= 0}
    slices |= {index: labels == index for index in range(10) if index not in slices}
    result = validation_result_pb2.ValidationResult(validation_ok=True)
    with (
        tf.io.TFRecordWriter(str(folder / "metrics-00000-of-00001.tfrecord")) as metric_file,
        tf.io.TFRecordWriter(str(folder / "plots-00000-of-00001.tfrecord")) as plot_file,
    ):
        for index, chosen in slices.items():
            metrics = metrics_for_slice_pb2.MetricsForSlice()
            plots = metrics_for_slice_pb2.PlotsForSlice()
            for message in (metrics, plots):
                if index is not None:
                    message.slice_key.single_slice_keys.add(column=features.LABEL_KEY, int64_value=index)
            for name, probabilities in models.items():
                for metric, value in measure(labels[chosen], probabilities[chosen]).items():
                    pair = metrics.metric_keys_and_values.add(key={"name": metric, "model_name": name})
                    pair.value.double_value.value = value
                    if name == "candidate":
                        pair = metrics.metric_keys_and_values.add(
                            key={"name": metric, "model_name": name, "is_diff": True}
                        )
                        pair.value.double_value.value = 0.0
                _add_plots(plots, name, labels[chosen], probabilities[chosen])
            metric_file.write(metrics.SerializeToString())
            plot_file.write(plots.SerializeToString())
            _validate(result, index, labels[chosen], models, chosen, accuracy)
    with tf.io.TFRecordWriter(str(folder / "validations.tfrecord")) as file:
        file.write(result.SerializeToString())
    return folder


def _recalls(class_names):
    """The metrics by which a configuration says what its classes are called."""
    for index, name in enumerate(class_names):
        config = {"name": f"recall_{name}", "statistic": "recall", "arguments": {"class_id": index}}
        yield {"class_name": "TallyStatistic", "config": json.dumps(config)}


def _add_plots(plots, model_name, labels, probabilities):
    matrix = plots.plot_keys_and_values.add(key={"name": "confusion", "model_name": model_name})
    cells = matrix.value.multi_class_confusion_matrix_at_thresholds.matrices.add(threshold=0.0)
    predicted = probabilities.argmax(axis=1)
    for actual, taken_for in sorted(set(zip(labels.tolist(), predicted.tolist(), strict=True))):
        count = ((labels == actual) & (predicted == taken_for)).sum()
        cells.entries.add(actual_class_id=actual, predicted_class_id=taken_for, num_weighted_examples=count)
    edges = [-np.inf, *np.arange(NUM_BUCKETS + 1) / NUM_BUCKETS, np.inf]
    for index in range(10):
        sub_key = {"class_id": {"value": index}}
        plot = plots.plot_keys_and_values.add(key={"name": "calibration", "model_name": model_name, "sub_key": sub_key})
        for lower, upper in itertools.pairwise(edges):
            inside = (probabilities[:, index] >= lower) & (probabilities[:, index] < upper)
            plot.value.calibration_histogram_buckets.buckets.add(
                lower_threshold_inclusive=lower,
                upper_threshold_exclusive=upper,
                num_weighted_examples={"value": inside.sum()},
                total_weighted_label={"value": (labels[inside] == index).sum()},
                total_weighted_refined_prediction={"value": probabilities[inside, index].sum()},
            )


def _validate(result, index, labels, models, chosen, accuracy):
    """Add what one slice misses."""
    reached = {name: measure(labels, probabilities[chosen])["accuracy"] for name, probabilities in models.items()}
    value = reached["candidate" if "candidate" in reached else ""]
    limit = accuracy.per_slice_thresholds[0 if index is None else 1].threshold
    of_slice = result.metric_validations_per_slice.add()
    if index is not None:
        of_slice.slice_key.single_slice_keys.add(column=features.LABEL_KEY, int64_value=index)
    if value < limit.value_threshold.lower_bound.value:
        failure = of_slice.failures.add(metric_key={"name": "accuracy"})
        failure.metric_threshold.value_threshold.CopyFrom(limit.value_threshold)
    if limit.HasField("change_threshold") and value - reached["baseline"] < limit.change_threshold.absolute.value:
        failure = of_slice.failures.add(metric_key={"name": "accuracy", "is_diff": True})
        failure.metric_threshold.change_threshold.CopyFrom(limit.change_threshold)
    if of_slice.failures:
        result.validation_ok = False
    else:
        del result.metric_validations_per_slice[-1]
