"""The notebooks' charts: what is drawn equals what was given, and whatever cannot be drawn is refused."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from PIL import Image

from components.model_report import lesson_figures
from models import features

CLASSES = features.NUM_CLASSES


def drawn(figure: Figure) -> np.ndarray:
    """The figure's pixels, which have to differ: something was drawn. uint8 [height, width, 3]."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    pixels = np.asarray(Image.open(file).convert("RGB"))
    assert pixels.std() > 1
    return pixels


def images_of(figure: Figure) -> list[np.ndarray]:
    """What each panel that is not empty shows."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def texts_of(figure: Figure) -> str:
    titles = [axes.get_title(loc=loc) for axes in figure.axes for loc in ("left", "center")]
    return "\n".join([*titles, *(text.get_text() for axes in figure.axes for text in axes.texts)])


def test_picture_strip_says_the_size_and_the_values_of_each_picture(rng):
    original = rng.integers(3, 250, (32, 32, 3), np.uint8)
    original[0, 0] = 3, 250, 100
    scaled = rng.normal(size=(64, 64, 3)).astype(np.float32)
    scaled.flat[:2] = -7.25, 8.5
    figure = lesson_figures.picture_strip({"original": original, "scaled": scaled}, columns=2)
    drawn(figure)
    assert "original\n32×32, 3 to 250" in texts_of(figure)
    assert "scaled\n64×64, −7.2 to 8.5" in texts_of(figure)
    shown_original, shown_scaled = images_of(figure)
    np.testing.assert_array_equal(shown_original, original)
    np.testing.assert_allclose(shown_scaled, (scaled + 7.25) / 15.75, atol=1e-6)


def test_value_histograms_add_up_to_all_values(rng):
    before = {name: rng.integers(0, 256, (32, 32, 3), np.uint8) for name in ("ship", "frog")}
    after = {name: (picture - picture.mean()) / picture.std() for name, picture in before.items()}
    figure = lesson_figures.value_histograms(before, after)
    drawn(figure)
    for axes in figure.axes:
        assert [patch.get_label() for patch in axes.patches] == ["ship", "frog"]
        for patch in axes.patches:
            assert isinstance(patch, StepPatch)
            shares, *_ = patch.get_data()
            assert np.sum(shares) == pytest.approx(1)
    with pytest.raises(ValueError, match="frog"):
        lesson_figures.value_histograms(before, {"ship": after["ship"]})


def test_filters_are_shown_each_in_its_own_range(rng):
    kernels = rng.normal(size=(11, 11, 3, 20))
    figure = lesson_figures.filters(kernels, columns=8)
    drawn(figure)
    shown = images_of(figure)
    assert len(shown) == 20
    lowest = kernels[..., 13].min()
    np.testing.assert_allclose(shown[13], (kernels[..., 13] - lowest) / (kernels[..., 13].max() - lowest))
    with pytest.raises(ValueError, match=r"\(3, 3, 128, 4\)"):
        lesson_figures.filters(np.zeros((3, 3, 128, 4)))


def test_feature_maps_are_the_strongest_of_each_layer(rng):
    answers = rng.random((14, 14, 12))
    answers[..., 5] += 2
    answers[..., 9] += 1
    picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
    figure = lesson_figures.feature_maps({"conv1": answers, "conv2": answers[:7, :7, :2]}, picture, columns=4)
    drawn(figure)
    shown = images_of(figure)
    assert len(shown) == 1 + 4 + 2
    np.testing.assert_array_equal(shown[0], picture)
    np.testing.assert_array_equal(shown[1], answers[..., 5])
    np.testing.assert_array_equal(shown[2], answers[..., 9])
    assert "conv1: 4 of 12 maps of 14×14" in texts_of(figure)
    assert "conv2: 2 of 2 maps of 7×7" in texts_of(figure)


def test_embedding_scatter_tells_ten_classes_apart(rng):
    labels = rng.permutation(np.arange(200) % CLASSES)
    points = rng.normal(size=(200, 2)) + labels[:, None]
    figure = lesson_figures.embedding_scatter(points, labels)
    drawn(figure)
    (axes,) = figure.axes
    for index, group in enumerate(axes.collections):
        np.testing.assert_array_equal(np.asarray(group.get_offsets()), points[labels == index])
    shapes = [np.shape(group.get_paths()[0].vertices) for group in axes.collections]
    marks = {(str(group.get_facecolor()), shape) for group, shape in zip(axes.collections, shapes, strict=True)}
    assert len(marks) == CLASSES
    assert [text.get_text() for text in axes.texts] == list(features.CLASS_NAMES)


def test_embedding_scatter_leaves_out_the_name_of_a_class_without_images(rng):
    figure = lesson_figures.embedding_scatter(rng.normal(size=(5, 2)), np.array([0, 0, 1, 1, 1]))
    drawn(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["airplane", "automobile"]
    with pytest.raises(ValueError, match="4 labels"):
        lesson_figures.embedding_scatter(rng.normal(size=(5, 2)), np.zeros(4, int))


def test_class_changes_hold_both_runs(rng):
    before, after = rng.random(CLASSES), rng.random(CLASSES)
    figure = lesson_figures.class_changes(before, after, ("one epoch", "all epochs"), "Recall")
    drawn(figure)
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), before)
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), after)
    assert [line.get_label() for line in axes.lines] == ["one epoch", "all epochs"]
    assert axes.get_xlabel() == "Recall"


def test_a_picture_of_one_value_is_black():
    np.testing.assert_array_equal(lesson_figures.to_unit_range(np.full((2, 2, 3), 0.7)), 0)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="pictures is empty"):
        lesson_figures.picture_strip({})
    with pytest.raises(ValueError, match="maps is empty"):
        lesson_figures.feature_maps({}, np.zeros((32, 32, 3)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
