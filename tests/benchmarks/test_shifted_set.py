"""Re-encoded images are found again; what is not there is not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import shifted_set

SAMPLE = Path(__file__).parents[2] / "data" / "cifar-10-sample-binary.tar.gz"


@pytest.fixture(scope="module")
def lossless() -> tuple[np.ndarray, np.ndarray]:
    return shifted_set.sample_test_images(SAMPLE)


def recompressed(images: np.ndarray, quality: int) -> np.ndarray:
    decoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return np.stack(decoded)


def test_the_sample_has_1000_labelled_test_images(lossless):
    pixels, labels = lossless
    assert (pixels.shape, pixels.dtype, labels.shape) == ((1000, 32, 32, 3), np.uint8, (1000,))
    assert labels[:4].tolist() == [3, 8, 8, 0]  # cat, ship, ship, airplane: the published beginning of test_batch
    assert np.bincount(labels).min() > 80


def test_every_re_encoded_image_is_found_in_any_order(lossless):
    pixels, labels = lossless
    order = np.random.default_rng(0).permutation(1000)
    found = shifted_set.find_shifted(pixels, labels, recompressed(pixels[order], 90), labels[order])
    assert found is not None
    assert len(found) == 1000
    np.testing.assert_array_equal(order[found.counterparts], np.arange(1000))
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert 25 < found.psnr_db < 45


def test_psnr_is_that_of_the_definition(lossless):
    pixels, labels = lossless[0][:5], lossless[1][:5]
    other = np.clip(pixels.astype(int) + np.where(pixels > 127, -4, 4), 0, 255).astype(np.uint8)
    found = shifted_set.find_shifted(pixels, labels, other, labels)
    assert found is not None
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 / 16))


def test_only_those_that_are_there_are_found(lossless):
    pixels, labels = lossless
    there = np.arange(0, 1000, 7)
    found = shifted_set.find_shifted(pixels, labels, recompressed(pixels[there], 90), labels[there])
    assert found is not None
    np.testing.assert_array_equal(found.pixels, pixels[there])


def test_other_images_and_the_same_files_are_no_shift(lossless):
    pixels, labels = lossless
    half = (pixels[:500], labels[:500])
    assert shifted_set.find_shifted(*half, *half) is None
    noise = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)
    assert shifted_set.find_shifted(*half, noise, np.arange(50) % 10) is None
    assert shifted_set.find_shifted(pixels[labels == 3], labels[labels == 3], pixels, np.zeros_like(labels)) is None


def test_two_images_with_one_counterpart_are_refused(lossless):
    pixels, labels = lossless[0][[0, 0, 1]], lossless[1][[0, 0, 1]]
    with pytest.raises(ValueError, match="Test image 0 of the data is the nearest to 2 of the sample's"):
        shifted_set.find_shifted(pixels, labels, recompressed(pixels[1:], 90), labels[1:])
