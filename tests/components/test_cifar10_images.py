import contextlib
import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from cifar10_builders import SAMPLE, encoded, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.cifar10_example_gen import images, published
from components.cifar10_example_gen.errors import DataError

PIXELS = random_images(1, 5)[0]
PNG = encoded(PIXELS, "PNG")
JPEG = encoded(PIXELS, "JPEG")


def png_with_size(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40))
def test_png_round_trip(seed, height, width):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    data = images.png_from_pixels(pixels)
    images.check_image("x.png", data)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_view_on_planes_is_encoded_as_its_pixels():
    planes = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
    assert images.png_from_pixels(planes.transpose(1, 2, 0)) == images.png_from_pixels(PIXELS)


def test_a_png_is_left_for_the_file_around_it_to_compress():
    flat = np.zeros((32, 32, 3), np.uint8)
    assert len(images.png_from_pixels(flat)) > flat.nbytes


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_every_kind_is_accepted(mode):
    buffer = io.BytesIO()
    Image.new(mode, (7, 5)).save(buffer, "PNG")
    images.check_image("x.png", buffer.getvalue())


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_every_kind_is_accepted(mode):
    buffer = io.BytesIO()
    Image.new(mode, (7, 5)).save(buffer, "JPEG")
    images.check_image("x.jpg", buffer.getvalue())


def test_an_empty_image():
    with pytest.raises(DataError, match=r"train/cat/1\.png: the image file is empty"):
        images.check_image("train/cat/1.png", b"")


@pytest.mark.parametrize("data", [PNG[:-30], JPEG[: len(JPEG) // 2], PNG[:20], JPEG[:20]])
def test_a_truncated_image(data):
    with pytest.raises(DataError, match=r"train/cat/1\.png: not a PNG or JPEG that decodes"):
        images.check_image("train/cat/1.png", data)


def test_a_png_with_a_wrong_checksum():
    damaged = bytearray(PNG)
    damaged[PNG.index(b"IEND") - 6] ^= 1  # in the CRC of IDAT, which only verify() looks at
    with pytest.raises(DataError, match=r"x\.png: not a PNG or JPEG that decodes"):
        images.check_image("x.png", bytes(damaged))


@pytest.mark.parametrize("image_format", ["GIF", "BMP", "WEBP", "TIFF"])
def test_another_format(image_format):
    with pytest.raises(DataError, match="not a PNG or JPEG"):
        images.check_image("x.png", encoded(PIXELS, image_format))


@pytest.mark.parametrize("side", [4097, 20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_the_size_it_claims(side):
    with pytest.raises(DataError, match=r"x\.png: (has \d+x\d+ pixels|not a PNG)"):
        images.check_image("x.png", png_with_size(side, side))


def test_an_image_file_that_is_too_large():
    with pytest.raises(DataError, match=f"expected at most {images.MAX_IMAGE_BYTES}"):
        images.check_image("x.png", bytes(images.MAX_IMAGE_BYTES + 1))


@settings(max_examples=300)
@given(
    original=st.sampled_from([PNG, JPEG, b""]),
    position=st.integers(0, 5000),
    replacement=st.binary(min_size=1, max_size=9),
)
def test_damaged_images_are_accepted_or_refused(original, position, replacement):
    position %= len(original) + 1
    data = original[:position] + replacement + original[position + len(replacement) :]
    with contextlib.suppress(DataError):
        images.check_image("x.png", data)
        assert data.startswith((b"\x89PNG", b"\xff\xd8"))


@pytest.mark.parametrize("path", ["cifar-10-binary.tar.gz", "/some/folder/cifar-10-python.tar.gz"])
def test_a_file_that_is_not_the_published_one_of_its_name(path):
    with pytest.raises(DataError, match=rf"{path}: .*has 3 bytes, expected 170\d+; has MD5 \w+, expected c\w+"):
        published.verify(path, io.BytesIO(b"abc"))


def test_the_bundled_sample_is_the_published_one():
    with SAMPLE.open("rb") as file:
        assert published.verify(str(SAMPLE), file) == published.ARCHIVES[SAMPLE.name].sha256


def test_a_changed_sample_is_refused():
    data = bytearray(SAMPLE.read_bytes())
    data[1000] ^= 1
    with pytest.raises(DataError, match="has SHA-256"):
        published.verify(SAMPLE.name, io.BytesIO(data))


def test_a_file_of_another_name_may_hold_anything():
    assert published.verify("mine.zip", io.BytesIO(b"abc")) == hashlib.sha256(b"abc").hexdigest()
