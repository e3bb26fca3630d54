"""The Evaluator's results, read back from files that are written by hand, against NumPy."""

import dataclasses

import numpy as np
import pytest
from evaluation_files import CLASSES, NUM_BUCKETS, measure, predictions, write_evaluation

from components.model_report import results


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """A candidate that is worse than the baseline by more than it may be; never says truck."""
    labels, candidate = predictions(0.5, seed=1)
    _, baseline = predictions(0.8, seed=1)
    folder = tmp_path_factory.mktemp("evaluation") / "7"
    write_evaluation(folder, labels, candidate, baseline)
    return str(folder), labels, candidate, baseline


@pytest.fixture(scope="module")
def found(evaluation):
    return results.load(evaluation[0])


def test_overall_metrics_are_the_candidates(evaluation, found):
    _, labels, candidate, _ = evaluation
    assert found.metrics == pytest.approx(measure(labels, candidate), nan_ok=True)
    assert found.accuracy == pytest.approx((candidate.argmax(axis=1) == labels).mean())
    assert found.model_name == "candidate"
    assert found.num_examples == len(labels)


def test_the_baselines_results_are_to_be_had_by_name(evaluation):
    uri, labels, _, baseline = evaluation
    found = results.load(uri, results.BASELINE)
    assert found.model_name == "baseline"
    assert found.metrics == pytest.approx(measure(labels, baseline), nan_ok=True)
    assert not found.blessed  # it says what became of the candidate


def test_a_class_has_the_metrics_of_its_images_and_its_own_of_the_whole_split(evaluation, found):
    _, labels, candidate, _ = evaluation
    whole = measure(labels, candidate)
    assert list(found.by_class) == list(CLASSES)
    for index, name in enumerate(CLASSES):
        on_its_images = measure(labels[labels == index], candidate[labels == index])
        expected = {metric: on_its_images[metric] for metric in ("accuracy", "top_3_accuracy", "loss")}
        expected |= {metric: whole[f"{metric}_{name}"] for metric in ("precision", "recall", "f1")}
        assert found.by_class[name] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found.by_class["truck"]["precision"])
    assert found.by_class["truck"]["recall"] == 0


def test_the_confusion_matrix_is_actual_by_predicted(evaluation, found):
    _, labels, candidate, _ = evaluation
    expected = np.zeros((10, 10), np.int64)
    np.add.at(expected, (labels, candidate.argmax(axis=1)), 1)
    np.testing.assert_array_equal(found.confusion, expected)
    assert not found.confusion[:, 9].any()


def test_calibration_counts_every_image_once_in_each_class(evaluation, found):
    _, labels, candidate, _ = evaluation
    assert list(found.calibration) == list(CLASSES)
    for index, name in enumerate(CLASSES):
        buckets = found.calibration[name]
        np.testing.assert_allclose(buckets.lower, np.arange(NUM_BUCKETS) / NUM_BUCKETS)
        np.testing.assert_allclose(buckets.upper, np.arange(1, NUM_BUCKETS + 1) / NUM_BUCKETS)
        counts, _ = np.histogram(candidate[:, index], np.arange(NUM_BUCKETS + 1) / NUM_BUCKETS)  # the last one closed
        np.testing.assert_array_equal(buckets.count, counts)
        inside = (candidate[:, index] >= 0.05) & (candidate[:, index] < 0.1)
        assert buckets.count[1] == inside.sum()
        if inside.any():
            assert buckets.mean_probability[1] == pytest.approx(candidate[inside, index].mean())
            assert buckets.share[1] == pytest.approx((labels[inside] == index).mean())
    assert found.calibration["airplane"].count[-1] == 1
    assert found.calibration["airplane"].mean_probability[-1] == 1
    assert np.isnan(found.calibration["truck"].share[-1])


def test_thresholds_say_value_bound_and_outcome(evaluation, found):
    _, labels, candidate, baseline = evaluation
    floor, tolerance, *by_class = found.thresholds
    accuracy, before = measure(labels, candidate)["accuracy"], measure(labels, baseline)["accuracy"]
    assert (floor.metric, floor.class_name, floor.kind) == ("accuracy", "", results.VALUE)
    assert (floor.bound, floor.baseline, floor.reached) == (0.3, None, True)
    assert floor.value == pytest.approx(accuracy)
    assert tolerance.kind == results.CHANGE
    assert tolerance.value == pytest.approx(accuracy)
    assert tolerance.baseline == pytest.approx(before)
    assert tolerance.bound == pytest.approx(before - 0.02)
    assert not tolerance.reached
    assert [threshold.class_name for threshold in by_class] == list(CLASSES)
    assert [threshold.class_name for threshold in by_class if not threshold.reached] == ["truck"]
    assert not found.blessed


def test_one_model_alone_has_no_change_to_reach(tmp_path):
    labels, probabilities = predictions(0.9)
    uri = str(write_evaluation(tmp_path / "8", labels, probabilities, class_recall_floor=0.0))
    found = results.load(uri)
    assert found.model_name == ""
    assert found.blessed
    assert {threshold.kind for threshold in found.thresholds} == {results.VALUE}
    assert results.load(uri, results.CANDIDATE).metrics == pytest.approx(found.metrics, nan_ok=True)
    with pytest.raises(ValueError, match="has no baseline: the run had no model to compare"):
        results.load(uri, results.BASELINE)


def test_bounds_that_ask_for_next_to_nothing_are_named(tmp_path, found):
    labels, probabilities = predictions(0.5, seed=1)
    most = int(np.bincount(labels).argmax())
    chance = (labels == most).mean()
    uri = str(write_evaluation(tmp_path / "1", labels, probabilities, class_recall_floor=0.0))
    loose = results.load(uri)
    assert results.weak_bounds(loose) == [
        "class_recall_floor is 0: truck is never recognized, and the gate does not mind"
    ]
    floor, *by_class = loose.thresholds
    near, above = (dataclasses.replace(floor, bound=bound) for bound in (0.15, chance + (1 - chance) / 10 + 0.001))
    said = results.weak_bounds(dataclasses.replace(loose, thresholds=(near,)))
    assert said == [f"accuracy_floor is 0.15, near chance: answering {CLASSES[most]} every time reaches {chance:.4f}"]
    assert results.weak_bounds(dataclasses.replace(loose, thresholds=(above,))) == []
    below = dataclasses.replace(floor, bound=0.0)
    (line,) = results.weak_bounds(dataclasses.replace(loose, thresholds=(below,)))
    assert line.startswith("accuracy_floor is 0, below chance: ")
    two = [dataclasses.replace(threshold, value=0.0) for threshold in by_class[3:5]]
    (line,) = results.weak_bounds(dataclasses.replace(loose, thresholds=(above, *two)))
    assert "cat, deer are never recognized" in line
    assert results.weak_bounds(found) == []  # the floors are 0.3 and 0.05: that truck is missed is said as such


def test_a_folder_without_an_evaluation_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no evaluation"):
        results.load(str(tmp_path))


def test_the_evaluation_says_what_its_classes_are_called(tmp_path):
    labels, candidate = predictions(0.5, seed=1)
    names = tuple(f"old {name}" for name in reversed(CLASSES))
    found = results.load(str(write_evaluation(tmp_path / "7", labels, candidate, class_names=names)))
    assert found.class_names == names
    for index, name in enumerate(names):
        of_class = labels == index
        expected = measure(labels[of_class], candidate[of_class])["accuracy"]
        assert found.by_class[name]["accuracy"] == pytest.approx(expected)
    assert {threshold.class_name for threshold in found.thresholds} == {"", *names}


def test_whether_an_earlier_model_took_part(evaluation, tmp_path):
    labels, candidate = predictions(0.5, seed=1)
    assert results.has_baseline(evaluation[0])
    assert not results.has_baseline(str(write_evaluation(tmp_path / "7", labels, candidate)))
