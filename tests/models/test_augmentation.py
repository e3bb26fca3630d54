from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from models import augmentation
from models.hyperparameters import Hyperparameters

NO_AUGMENTATION = {"translation": 0, "horizontal_flip": False, "color_jitter": 0.0, "cutout": 0}


def numpy_shift_and_flip(image: np.ndarray, rows: int, columns: int, flip: bool) -> np.ndarray:
    """With a padded copy, as one would write it down."""
    height, width, _ = image.shape
    image = image[:, ::-1] if flip else image
    pad = height - 1
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    return padded[pad - rows : pad - rows + height, pad - columns : pad - columns + width]


def augment(images: np.ndarray, training: bool = True, **recipe: object) -> np.ndarray:
    layer = augmentation.build_augmentation(Hyperparameters.from_dict(NO_AUGMENTATION | recipe), np.eye(3))
    return ops.convert_to_numpy(layer(images, training=training))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 64, 64, 3)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(moves=st.lists(st.tuples(st.integers(-7, 7), st.integers(-7, 7), st.booleans()), min_size=1, max_size=5))
def test_shift_and_flip_is_numpys(moves: list[tuple[int, int, bool]]):
    images = np.random.default_rng(0).normal(size=(len(moves), 8, 8, 3)).astype(np.float32)
    rows, columns, flips = (np.array(values, np.int32) for values in zip(*moves, strict=True))
    result = augmentation.shift_and_flip(*map(ops.convert_to_tensor, (images, rows, columns, flips)))
    expected = [numpy_shift_and_flip(image, *move) for image, move in zip(images, moves, strict=True)]
    np.testing.assert_array_equal(ops.convert_to_numpy(result), expected)


def test_reflect_is_numpys():
    padded = np.pad(np.arange(5), (4, 4), mode="reflect")
    np.testing.assert_array_equal(augmentation.reflect(ops.arange(-4, 9), 5), padded)


def test_each_image_is_one_of_the_allowed_moves(images: np.ndarray):
    moves = [(rows, columns, flip) for rows in (-1, 0, 1) for columns in (-1, 0, 1) for flip in (False, True)]
    seen = set()
    for image, result in zip(images, augment(images, translation=1, horizontal_flip=True), strict=True):
        found = [move for move in moves if np.array_equal(result, numpy_shift_and_flip(image, *move))]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 9


def test_flips_about_half(images: np.ndarray):
    results = augment(images, horizontal_flip=True)
    flipped = [np.array_equal(result, image[:, ::-1]) for image, result in zip(images, results, strict=True)]
    unchanged = [np.array_equal(result, image) for image, result in zip(images, results, strict=True)]
    assert sum(flipped) + sum(unchanged) == len(images)
    assert 16 <= sum(flipped) <= 48


def test_does_nothing_outside_training(images: np.ndarray):
    result = augment(images, training=False, translation=8, horizontal_flip=True, color_jitter=0.1, cutout=8)
    np.testing.assert_array_equal(result, images)


def test_does_nothing_when_all_is_off(images: np.ndarray):
    np.testing.assert_array_equal(augment(images), images)


def test_the_seed_decides(images: np.ndarray):
    recipe: dict[str, Any] = {"translation": 8, "horizontal_flip": True, "color_jitter": 0.1, "cutout": 8}
    np.testing.assert_array_equal(augment(images, seed=3, **recipe), augment(images, seed=3, **recipe))
    assert not np.array_equal(augment(images, seed=3, **recipe), augment(images, seed=4, **recipe))


def test_the_next_batch_is_augmented_differently(images: np.ndarray):
    layer = augmentation.build_augmentation(Hyperparameters())
    assert not np.array_equal(layer(images, training=True), layer(images, training=True))


def test_principal_components_of_known_colours():
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    variances = np.array([0.5, 1.0, 4.0])
    normal = np.random.default_rng(1).normal(size=(50, 64, 64, 3))
    components = augmentation.rgb_principal_components(normal * np.sqrt(variances) @ axes.T + 5)
    np.testing.assert_allclose(np.linalg.norm(components, axis=0), variances, rtol=0.02)
    np.testing.assert_allclose(np.abs((components * axes).sum(axis=0)), variances, rtol=0.02)


def test_color_noise_is_the_papers_formula(images: np.ndarray):
    rng = np.random.default_rng(0)
    vectors, values = np.linalg.qr(rng.normal(size=(3, 3)))[0], np.array([0.1, 0.2, 0.7])
    alphas = rng.normal(size=(len(images), 3)).astype(np.float32)
    result = augmentation.add_color_noise(images, alphas, (vectors * values).astype(np.float32))
    for image, alpha, changed in zip(images, alphas, ops.convert_to_numpy(result), strict=True):
        noise = sum(vectors[:, i] * alpha[i] * values[i] for i in range(3))
        np.testing.assert_allclose(changed, image + noise, atol=1e-5)


def test_color_jitter_adds_one_colour_an_image_of_the_asked_deviation():
    zeros = np.zeros((2000, 64, 64, 3), np.float32)[:, :1, :1]
    layer = augmentation.ColorJitter(0.1, np.diag([1.0, 2.0, 3.0]), seed=0)
    noise = ops.convert_to_numpy(layer(zeros, training=True)).reshape(-1, 3)
    np.testing.assert_allclose(noise.std(axis=0), [0.1, 0.2, 0.3], rtol=0.1)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.03)


def test_color_jitter_needs_components():
    with pytest.raises(ValueError, match="principal_components"):
        augmentation.build_augmentation(Hyperparameters(color_jitter=0.1))


@pytest.mark.parametrize("size", [4, 5])
@settings(deadline=None, max_examples=20)
@given(centres=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 8)), min_size=1, max_size=4))
def test_blank_square_blanks_the_square_and_nothing_else(size: int, centres: list[tuple[int, int]]):
    images = np.random.default_rng(0).normal(size=(len(centres), 8, 9, 3)).astype(np.float32)
    rows, columns = (ops.convert_to_tensor(np.array(values, np.int32)) for values in zip(*centres, strict=True))
    expected = images.copy()
    for image, (row, column) in zip(expected, centres, strict=True):
        top, left = row - size // 2, column - size // 2
        image[max(top, 0) : top + size, max(left, 0) : left + size] = 0
    result = augmentation.blank_square(ops.convert_to_tensor(images), rows, columns, size)
    np.testing.assert_array_equal(ops.convert_to_numpy(result), expected)


def test_cutout_blanks_squares_at_many_places(images: np.ndarray):
    blank = (augment(images, cutout=16) == 0).all(axis=-1)
    assert blank.sum(axis=(1, 2)).max() == 16 * 16
    assert blank.sum(axis=(1, 2)).min() >= 8 * 8  # a corner's
    assert len({tuple(np.argwhere(square)[0]) for square in blank}) > 32


def test_works_compiled_by_xla(images: np.ndarray):
    import tensorflow as tf

    layer = augmentation.build_augmentation(Hyperparameters(color_jitter=0.1), np.eye(3, dtype=np.float32))
    compiled = tf.function(lambda batch: layer(batch, training=True), jit_compile=True)
    assert isinstance(layer, keras.Sequential)
    result = compiled(images).numpy()
    assert result.shape == images.shape
    assert np.isfinite(result).all()
