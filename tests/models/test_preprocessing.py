"""Every stage against NumPy and Pillow, and the whole through the graph that Transform writes."""

import io

import numpy as np
import pytest
import tensorflow as tf
from conftest import Sample, encode
from PIL import Image

from models import input_pipeline, preprocessing


def numpy_standardize(images: np.ndarray) -> np.ndarray:
    values = images.astype(np.float64)
    axes = (1, 2, 3)
    deviation = np.maximum(values.std(axis=axes, keepdims=True), 1 / np.sqrt(values[0].size))
    return (values - values.mean(axis=axes, keepdims=True)) / deviation


def numpy_resize(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear with half-pixel centres: output pixel i is at (i + 0.5) * scale - 0.5 of the input."""

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        length = values.shape[axis]
        position = (np.arange(size) + 0.5) * length / size - 0.5
        low = np.floor(position).astype(int)
        weight = (position - low).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        before = values.take(np.clip(low, 0, length - 1), axis)
        after = values.take(np.clip(low + 1, 0, length - 1), axis)
        return before * (1 - weight) + after * weight

    return along(along(images, 1), 2)


def decode(*files: bytes) -> np.ndarray:
    return preprocessing.decode_images(tf.constant(list(files))).numpy()


def save(image: Image.Image, file_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def test_standardize_is_numpys(sample: Sample):
    result = preprocessing.standardize(tf.constant(sample.pixels[:50])).numpy()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, numpy_standardize(sample.pixels[:50]), atol=1e-5)


def test_standardize_of_one_colour_is_zero():
    np.testing.assert_allclose(preprocessing.standardize(tf.fill([2, 32, 32, 3], 200)), 0, atol=1e-4)


def test_resize_is_numpys():
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    result = preprocessing.resize(tf.constant(images)).numpy()
    assert result.shape == (3, 64, 64, 3)
    np.testing.assert_allclose(result, numpy_resize(images, 64), atol=1e-5)


def test_the_transform_graph_is_the_three_stages(sample: Sample, transform_graph):
    images, labels = input_pipeline.transform(
        transform_graph, tf.constant(sample.pngs[:40]), tf.constant(sample.labels[:40])
    )
    assert images.shape == (40, 64, 64, 3)
    assert images.dtype == tf.float32
    np.testing.assert_allclose(images, numpy_resize(numpy_standardize(sample.pixels[:40]), 64), atol=1e-5)
    assert labels.dtype == tf.int64
    np.testing.assert_array_equal(labels, sample.labels[:40])


def test_the_transform_graph_takes_no_images(transform_graph):
    images, labels = input_pipeline.transform(transform_graph, tf.zeros([0], tf.string), tf.zeros([0], tf.int64))
    assert images.shape == (0, 64, 64, 3)
    assert labels.shape == (0,)


@pytest.mark.parametrize("file_format", ["PNG", "BMP"])
def test_lossless_formats_keep_every_pixel(sample: Sample, file_format: str):
    files = [encode(image, file_format) for image in sample.pixels[:10]]
    np.testing.assert_array_equal(decode(*files), sample.pixels[:10])


def test_jpeg_is_close_to_pillows(sample: Sample):
    file = encode(sample.pixels[0], "JPEG")
    reference = np.asarray(Image.open(io.BytesIO(file))).astype(int)
    # Decoders differ in the rounding of chroma upsampling; a wrong colour order would differ by far more.
    assert np.abs(decode(file)[0].astype(int) - reference).mean() < 3


def test_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(file.getvalue())[0], np.asarray(frames[0]))


def test_greyscale_is_repeated_in_three_channels(sample: Sample):
    grey = sample.pixels[0, :, :, 1]
    np.testing.assert_array_equal(decode(encode(grey))[0], np.stack([grey] * 3, axis=-1))


def test_alpha_is_dropped(sample: Sample):
    alpha = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8)
    rgba = encode(np.concatenate([sample.pixels[0], alpha], axis=-1))
    np.testing.assert_array_equal(decode(rgba)[0], sample.pixels[0])


def test_grey_with_alpha_is_grey(sample: Sample):
    grey = Image.fromarray(sample.pixels[0, :, :, 1])
    with_alpha = Image.merge("LA", [grey, Image.new("L", (32, 32), 128)])
    np.testing.assert_array_equal(decode(save(with_alpha, "PNG"))[0], np.stack([np.asarray(grey)] * 3, axis=-1))


def test_palette_is_resolved(sample: Sample):
    palette = Image.fromarray(sample.pixels[0]).quantize(16)
    np.testing.assert_array_equal(decode(save(palette, "PNG"))[0], np.asarray(palette.convert("RGB")))


def test_16_bit_keeps_the_upper_8_bits():
    values = np.random.default_rng(0).integers(0, 2**16, (32, 32), np.uint16)
    upper = (values >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode(encode(values))[0], np.stack([upper] * 3, axis=-1))


@pytest.mark.parametrize("shape", [(256, 256), (200, 77), (33, 500), (8, 8), (1, 1)])
def test_other_sizes_and_aspects_are_resized(sample: Sample, shape: tuple[int, int]):
    height, width = shape
    large = Image.fromarray(sample.pixels[0]).resize((width, height), Image.Resampling.BICUBIC)
    result = decode(save(large, "PNG"))[0]
    # Pillow's bilinear has the same antialiasing; it rounds after each of its two passes.
    reference = np.asarray(large.resize((32, 32), Image.Resampling.BILINEAR))
    assert result.shape == (32, 32, 3)
    assert np.abs(result.astype(int) - reference.astype(int)).max() <= 2


def test_kinds_and_sizes_mix_in_a_batch(sample: Sample):
    large = save(Image.fromarray(sample.pixels[1]).resize((90, 60)), "PNG")
    files = [sample.pngs[0], large, encode(sample.pixels[2], "JPEG"), encode(sample.pixels[3, :, :, 0])]
    np.testing.assert_array_equal(decode(*files), np.concatenate([decode(file) for file in files]))


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_file_that_cannot_be_decoded_is_an_error(sample: Sample, transform_graph, damage: str):
    file = {"empty": b"", "text": b"no image", "truncated": sample.pngs[0][:300]}[damage]
    files = tf.constant([sample.pngs[1], file])
    with pytest.raises(tf.errors.InvalidArgumentError):
        input_pipeline.transform(transform_graph, files, tf.zeros([2], tf.int64))
