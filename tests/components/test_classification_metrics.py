"""The tally against scikit-learn and NumPy; the metrics against TFMA's own, on the same predictions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from components.classification_metrics import tally
from models import features

CLASSES = features.NUM_CLASSES


def predictions(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [n], and float32 [n, 10]: probabilities that favour the label, but never class 4."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, n)
    logits = random.normal(size=(n, CLASSES))
    logits[np.arange(n), labels] += 1.0
    logits[:, 4] = -9.0
    exponentials = np.exp(logits)
    return labels, (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def test_statistics_are_those_of_scikit_learn():
    labels, probabilities = predictions(500)
    counted = tally.count(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    assert counted.num_images == 500
    np.testing.assert_array_equal(counted.confusion, sklearn_metrics.confusion_matrix(labels, predicted))
    assert tally.accuracy(counted) == sklearn_metrics.accuracy_score(labels, predicted)
    assert tally.top_k_accuracy(counted, 3) == sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=3)
    assert tally.loss(counted) == pytest.approx(sklearn_metrics.log_loss(labels, probabilities), rel=1e-6)
    expected = sklearn_metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for statistic, by_class in zip((tally.precision, tally.recall, tally.f1), expected[:3], strict=True):
        np.testing.assert_allclose([statistic(counted, index) for index in range(CLASSES)], by_class, rtol=1e-12)


def test_histograms_hold_each_probability_once():
    labels, probabilities = predictions(500)
    counted = tally.count(labels, probabilities)
    for index in range(CLASSES):
        values = probabilities[:, index].astype(np.float64)
        images, _ = np.histogram(values, bins=tally.BUCKET_EDGES)
        of_class, _ = np.histogram(values[labels == index], bins=tally.BUCKET_EDGES)
        sums, _ = np.histogram(values, bins=tally.BUCKET_EDGES, weights=values)
        np.testing.assert_array_equal(counted.bucket_images[index, :-1], images)
        np.testing.assert_array_equal(counted.bucket_labels[index, :-1], of_class)
        np.testing.assert_allclose(counted.bucket_probabilities[index, :-1], sums)


def test_a_certain_answer_has_a_bucket_of_its_own_and_a_finite_loss():
    counted = tally.count(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert counted.bucket_images[0, tally.NUM_BUCKETS] == 2
    assert tally.loss(counted) == pytest.approx(-np.log(tally.MIN_PROBABILITY) / 2, rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_tallies_of_parts_add_up(cut: int, seed: int):
    labels, probabilities = predictions(60, seed)
    whole = tally.count(labels, probabilities)
    parts = tally.count(labels[:cut], probabilities[:cut]) + tally.count(labels[cut:], probabilities[cut:])
    for name in ("confusion", "ranks", "bucket_images", "bucket_labels"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_allclose(parts.bucket_probabilities, whole.bucket_probabilities)
    assert parts.loss == pytest.approx(whole.loss)


def test_of_no_image_none_is_right():
    nothing = tally.count(np.zeros(0, np.int64), np.zeros((0, CLASSES)))
    assert tally.accuracy(nothing) == tally.loss(nothing) == tally.f1(nothing, 0) == 0


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_there_is_not_is_refused(label: int):
    with pytest.raises(ValueError, match=r"have to be in 0\.\.9"):
        tally.count(np.array([label]), np.full((1, CLASSES), 0.1))


@pytest.fixture(scope="module")
def evaluated():
    """Ours and, their names prefixed, TFMA's own, of the same predictions, by TFMA itself."""
    import pandas as pd
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.proto import config_pb2

    from pipeline import evaluation
    from pipeline.settings import make_settings

    def theirs(class_name: str, **config: object) -> config_pb2.MetricConfig:
        return config_pb2.MetricConfig(class_name=class_name, config=json.dumps(config))

    config = evaluation.eval_config(make_settings("smoke"))
    config.model_specs[0].prediction_key = "scores"
    for spec in config.metrics_specs:
        for metric in spec.metrics:
            del metric.per_slice_thresholds[:]
    # A plot by the same name would take the other's place: these are in the results of their own.
    reference = config_pb2.EvalConfig()
    reference.CopyFrom(config)
    del reference.metrics_specs[:]
    own = [
        theirs("SparseCategoricalAccuracy", name="accuracy"),
        theirs("SparseTopKCategoricalAccuracy", name="top_3_accuracy", k=3),
        theirs("SparseCategoricalCrossentropy", name="loss"),
        theirs("MultiClassConfusionMatrixPlot", thresholds=[0.0]),
        *(
            theirs(class_name, name=f"{prefix}_{name}", class_id=index, top_k=1, thresholds=[0.0])
            for index, name in enumerate(features.CLASS_NAMES)
            for prefix, class_name in (("precision", "Precision"), ("recall", "Recall"), ("f1", "F1Score"))
        ),
    ]
    reference.metrics_specs.add(metrics=own)
    reference.metrics_specs.add(
        metrics=[theirs("CalibrationPlot", num_buckets=tally.NUM_BUCKETS)],
        binarize=config_pb2.BinarizationOptions(class_ids={"values": range(CLASSES)}),
    )
    labels, probabilities = predictions(300)
    frame = pd.DataFrame({features.LABEL_KEY: labels, "scores": list(probabilities)})
    return [tfma.analyze_raw_data(frame, chosen) for chosen in (config, reference)]


def by_name(slicing_metrics):
    """Value by slice and metric name; what TFMA has no number for, written as a text, is 0 in ours."""
    return {
        (slice_key, name): np.nan_to_num(float(value["doubleValue"]))
        for slice_key, by_output in slicing_metrics
        for by_sub_key in by_output.values()
        for metrics in by_sub_key.values()
        for name, value in metrics.items()
        if "doubleValue" in value and "example_count" not in name
    }


def test_metrics_equal_tfmas_own(evaluated):
    ours, theirs = (by_name(result.slicing_metrics) for result in evaluated)
    assert {name for _, name in ours} == {name for _, name in theirs}
    assert len(ours) == (1 + CLASSES) * (3 + 3 * CLASSES)
    for key, value in ours.items():
        assert value == pytest.approx(theirs[key], abs=1e-6), key


def test_plots_equal_tfmas_own(evaluated):
    def matrices(result):
        return {
            (slice_key, entry.get("actualClassId", 0), entry.get("predictedClassId", 0)): entry["numWeightedExamples"]
            for slice_key, by_output in result.plots
            for by_sub_key in by_output.values()
            for plots in by_sub_key.values()
            for matrix in plots.get("multiClassConfusionMatrixAtThresholds", {}).get("matrices", ())
            for entry in matrix["entries"]
        }

    def histograms(result):
        return {
            (slice_key, sub_key): [
                [
                    float(bucket.get("lowerThresholdInclusive", 0)),
                    float(bucket.get("upperThresholdExclusive", 0)),
                    bucket["numWeightedExamples"],
                    bucket["totalWeightedLabel"],
                    bucket["totalWeightedRefinedPrediction"],
                ]
                for bucket in plots["calibrationHistogramBuckets"]["buckets"]
            ]
            for slice_key, by_output in result.plots
            for by_sub_key in by_output.values()
            for sub_key, plots in by_sub_key.items()
            if "calibrationHistogramBuckets" in plots
        }

    ours, theirs = evaluated
    assert matrices(ours) == matrices(theirs)
    assert sum(count for key, count in matrices(ours).items() if key[0] == ()) == 300
    found, expected = histograms(ours), histograms(theirs)
    assert found.keys() == expected.keys()
    assert len(found) == (1 + CLASSES) * CLASSES
    for key, buckets in found.items():
        np.testing.assert_allclose(buckets, expected[key], atol=1e-6, err_msg=str(key))
