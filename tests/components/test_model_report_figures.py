"""The project's charts, calibration and what is told of predictions, against plain references."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from PIL import Image

from components.model_report import figures, gallery
from components.model_report.calibration import reliability_bins
from components.model_report.predictions import Predictions, accuracy_interval, flips, most_confident_mistakes
from models import features


def xs(line: Any) -> list[float]:
    return np.asarray(line.get_xdata()).tolist()


def ys(line: Any) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()


def heights(axes: Any) -> list[float]:
    return [bar.get_height() for bar in axes.patches]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def history(epochs):
    names = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate")
    return [{"epoch": str(e), **{name: str(e / 10 + i) for i, name in enumerate(names)}} for e in range(1, epochs + 1)]


def test_learning_curves_draw_each_column():
    rows = history(5)
    accuracy, loss, rate = figures.learning_curves(rows, best_epoch=4).axes
    for axes, names in ((accuracy, ("accuracy", "val_accuracy")), (loss, ("loss", "val_loss"))):
        for line, name in zip(axes.lines, names, strict=False):
            assert ys(line) == [float(row[name]) for row in rows]
    assert ys(rate.lines[0]) == [float(row["learning_rate"]) for row in rows]
    assert [xs(axes.lines[-1]) for axes in (accuracy, loss, rate)] == [[4, 4]] * 3
    with pytest.raises(ValueError, match="empty"):
        figures.learning_curves([])


def test_confusion_matrix_has_every_count_and_shares_by_row():
    counts = np.arange(100).reshape(10, 10)
    counts[4] = 0  # a class without images
    axes = figures.confusion_matrix(counts).axes[0]
    assert texts(axes) == [str(count) for count in counts.flat]
    shares = np.asarray(axes.images[0].get_array())
    assert shares.sum(axis=1) == pytest.approx([1, 1, 1, 1, 0, 1, 1, 1, 1, 1])
    with pytest.raises(ValueError, match=r"\(10, 10\)"):
        figures.confusion_matrix(counts[:9])


def test_class_metrics_draw_the_floor_and_name_what_was_never_predicted():
    precision, recall, f1 = [0.5] * 10, [0.4] * 10, [0.45] * 10
    precision[2] = f1[2] = float("nan")
    axes = figures.class_metrics(precision, recall, f1, floor=0.3).axes[0]
    by_label = {line.get_label(): line for line in axes.lines}
    assert xs(by_label["recall floor 0.3"]) == [0.3, 0.3]
    assert xs(by_label["recall"]) == recall
    assert texts(axes) == ["never predicted"]
    assert axes.texts[0].get_position()[1] == pytest.approx(2, abs=0.5)
    assert "recall floor" not in str(
        [line.get_label() for line in figures.class_metrics(recall, recall, f1).axes[0].lines]
    )


def test_reliability_diagram_draws_accuracy_by_bin():
    confidence, correct = np.array([0.95, 0.95, 0.35]), np.array([True, False, True])
    above, below = figures.reliability_diagram(confidence, correct, bins=10).axes
    assert heights(above) == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0.5]
    assert heights(below) == [0, 0, 0, 1, 0, 0, 0, 0, 0, 2]


def test_label_distribution_draws_shares():
    axes = figures.label_distribution({"train": [10] * 9 + [0], "test": [1] * 10}).axes[0]
    by_label = {line.get_label(): line for line in axes.lines}
    assert xs(by_label["train (90)"]) == pytest.approx([1 / 9] * 9 + [0])
    assert xs(by_label["test (10)"]) == pytest.approx([0.1] * 10)


def test_image_grid_has_an_image_a_title():
    images = np.zeros((5, 32, 32, 3), np.uint8)
    figure = figures.image_grid(images, list("abcde"), columns=3, marked=[True, False, False, False, False])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "d", "e", ""]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert figure.axes[0].title.get_color() == figures.VERMILLION
    with pytest.raises(ValueError, match="5 images, 1 titles"):
        figures.image_grid(images, ["a"])


@pytest.mark.parametrize("dark", [False, True])
def test_a_theme_colours_page_and_text_and_then_is_gone(dark):
    with figures.theme(dark=dark):
        figure = figures.learning_curves(history(2))
        buffer = io.BytesIO()
        figure.savefig(buffer)
    corner = np.asarray(Image.open(buffer).convert("RGB"))[0, 0]
    assert (corner.mean() < 60) == dark
    assert to_hex(figure.axes[0].yaxis.label.get_color()) != to_hex(figure.get_facecolor())
    assert to_hex(figures.learning_curves(history(2)).get_facecolor()) == "#ffffff"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_calibration_error_is_the_formula(answers, bins):
    confidence, correct = np.array([a[0] for a in answers]), np.array([a[1] for a in answers])
    found = reliability_bins(confidence, correct, bins)
    expected, edges = 0.0, np.linspace(0, 1, bins + 1)
    for index in range(bins):
        low = -1.0 if index == 0 else edges[index]  # 0 itself is in the first bin
        inside = (confidence > low) & (confidence <= edges[index + 1])
        assert found.counts[index] == inside.sum()
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert found.expected_calibration_error == pytest.approx(expected, abs=1e-12)


def test_calibration_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        reliability_bins(np.array([1.5]), np.array([True]))
    with pytest.raises(ValueError, match="of one shape"):
        reliability_bins(np.array([0.5, 0.5]), np.array([True]))
    with pytest.raises(ValueError, match="at least 1"):
        reliability_bins(np.array([0.5]), np.array([True]), bins=0)


def predictions(labels, classes, confidence):
    probabilities = np.zeros((len(labels), features.NUM_CLASSES), np.float32)
    probabilities[np.arange(len(labels)), classes] = confidence
    return Predictions(np.array(labels), probabilities, 0)


def test_mistakes_come_most_confident_first():
    found = predictions([0, 0, 0, 0], [1, 0, 2, 3], [0.4, 0.9, 0.8, 0.6])
    assert most_confident_mistakes(found, 2).tolist() == [2, 3]
    assert most_confident_mistakes(found, 9).tolist() == [2, 3, 0]


def test_flips_go_both_ways():
    before = predictions([0, 1, 2, 3], [0, 0, 2, 0], [0.5] * 4)
    now = predictions([0, 1, 2, 3], [1, 1, 2, 3], [0.5, 0.6, 0.7, 0.9])
    gained, lost = flips(before, now)
    assert gained.tolist() == [3, 1]
    assert lost.tolist() == [0]
    with pytest.raises(ValueError, match="same images"):
        flips(before, predictions([1], [1], [0.5]))


def test_accuracy_interval_is_wilsons():
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I: 81 of 263.
    assert accuracy_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    low, high = accuracy_interval(0, 20)
    assert low == 0
    assert high == pytest.approx(0.1611, abs=5e-5)
    assert accuracy_interval(20, 20) == pytest.approx((1 - high, 1))


def test_the_gallery_is_of_the_first_the_most_confident_mistakes_and_what_has_changed():
    labels = [0] * 40
    now = predictions(labels, [0] * 20 + [1] * 20, [0.5 + index / 100 for index in range(40)])
    alone = gallery.choose(now)
    assert alone.first.tolist() == list(range(32))
    assert alone.mistakes.tolist() == list(range(39, 19, -1))
    assert len(alone.gained) == len(alone.lost) == 0
    before = predictions(labels, [1] * 20 + [0] * 2 + [1] * 18, [0.5] * 40)
    compared = gallery.choose(now, before)
    assert compared.gained.tolist() == list(range(19, 3, -1))
    assert compared.lost.tolist() == [21, 20]
    assert compared.indices == list(range(40))
