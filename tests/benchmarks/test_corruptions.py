"""Each corruption against a reference that computes it in another way."""

import io

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import corruptions
from benchmarks.corruptions import CORRUPTIONS, SEVERITIES


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth pictures with a few hard edges, as photographs have."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def psnr_db(images: np.ndarray, others: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((images.astype(float) - others) ** 2))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_stay_images_and_change_the_more_the_higher_the_severity(name: str, images: np.ndarray):
    before = images.copy()
    corrupted = [CORRUPTIONS[name](images, severity) for severity in SEVERITIES]
    assert all(each.dtype == np.uint8 and each.shape == images.shape for each in corrupted)
    likeness = [psnr_db(images, each) for each in corrupted]
    assert likeness == sorted(likeness, reverse=True)
    assert len(set(likeness)) == len(SEVERITIES)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_same_images_are_corrupted_alike(name: str, severity: int, images: np.ndarray):
    np.testing.assert_array_equal(CORRUPTIONS[name](images, severity), CORRUPTIONS[name](images, severity))


@pytest.mark.parametrize(("severity", "std"), [(1, 0.04), (3, 0.08), (5, 0.1)])
def test_noise_has_the_published_deviation(severity: int, std: float):
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    noise = corruptions.gaussian_noise(grey, severity).astype(float) - 128
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert noise.std() == pytest.approx(255 * std, rel=0.01)
    assert len(np.unique(noise[:, 0, 0, 0])) > 20  # each image has its own


def test_noise_is_cut_off_at_black_and_white():
    for value in (0, 255):
        noisy = corruptions.gaussian_noise(np.full((2, 32, 32, 3), value, np.uint8), 5)
        assert 0.4 < (noisy == value).mean() < 0.6


@pytest.mark.parametrize(("severity", "std"), [(1, 0.4), (3, 0.7), (5, 1.0)])
def test_blur_is_scipys(severity: int, std: float, images: np.ndarray):
    expected = [
        scipy.ndimage.gaussian_filter(image.astype(float), (std, std, 0), mode="nearest", truncate=4.0)
        for image in images
    ]
    assert np.abs(corruptions.gaussian_blur(images, severity) - np.array(expected)).max() <= 0.501


@pytest.mark.parametrize(("severity", "kept"), [(1, 0.75), (3, 0.4), (5, 0.15)])
def test_contrast_is_the_formula(severity: int, kept: float, images: np.ndarray):
    found = corruptions.contrast(images, severity)
    for image, result in zip(images.astype(float), found, strict=True):
        for channel in range(3):
            mean = image[..., channel].mean()
            expected = mean + kept * (image[..., channel] - mean)
            assert np.abs(result[..., channel] - expected).max() <= 0.501


@pytest.mark.parametrize(("severity", "quality"), [(1, 80), (3, 58), (5, 40)])
def test_jpeg_has_the_published_quality(severity: int, quality: int, images: np.ndarray):
    for image, result in zip(images[:3], corruptions.jpeg(images[:3], severity), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        np.testing.assert_array_equal(result, np.asarray(Image.open(file)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 255), st.sampled_from(["gaussian_blur", "contrast", "jpeg"]), st.sampled_from(SEVERITIES))
def test_an_image_of_one_colour_has_nothing_to_blur_flatten_or_compress(value: int, name: str, severity: int):
    grey = np.full((1, 32, 32, 3), value, np.uint8)
    assert np.abs(CORRUPTIONS[name](grey, severity).astype(int) - value).max() <= 1
