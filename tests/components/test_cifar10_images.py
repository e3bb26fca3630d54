import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from cifar10_builders import SAMPLE, encoded, png, png_chunk, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.cifar10_example_gen import images, published
from components.cifar10_example_gen.errors import DataError
from models.preprocessing import decode_images

PIXELS = random_images(1, 5)[0]
PNG = encoded(PIXELS, "PNG")
JPEG = encoded(PIXELS, "JPEG")
ROWS = (b"\0" + bytes(range(96))) * 32


def saved(image_format, mode="RGB", **options):
    buffer = io.BytesIO()
    image = Image.fromarray(PIXELS[:, :, 0] if mode.startswith("I") else PIXELS)
    image.convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def check_image(name, data):
    """Raises DataError with what is wrong with an image file."""
    for problem in images.check_images([(name, data)])[0]:
        raise DataError(problem)


def zoo():
    """Good, rare and damaged PNG and JPEG files."""
    scan, frame = JPEG.index(b"\xff\xda"), JPEG.index(b"\xff\xc0")
    data = PNG.index(b"IDAT") + 50
    other = [Image.fromarray(PIXELS[::-1])]
    files = {f"png {mode}": saved("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I")}
    files |= {f"jpeg {mode}": saved("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")}
    return files | {
        "png 16-bit rgb": png((b"\0" + bytes(192)) * 32, depth=16),
        "png 16-bit rgba": png((b"\0" + bytes(256)) * 32, depth=16, colour=6),
        "png interlaced": png(bytes(4000), interlaced=1),
        "png animated": saved("PNG", save_all=True, append_images=other),
        "png colours outside of its palette": png(
            (b"\0" + b"\xc8" * 32) * 32, colour=3, before=png_chunk(b"PLTE", bytes(30))
        ),
        "png without palette": png((b"\0" + bytes(32)) * 32, colour=3),
        "png a row short": png(ROWS[:-97]),
        "png a row long": png(ROWS + ROWS[:97]),
        "png unknown filter": png((b"\x09" + bytes(96)) * 32),
        "png unknown colour": png(ROWS, colour=5),
        "png unknown critical chunk": png(ROWS, before=png_chunk(b"ABCD", b"a")),
        "png damaged comment": png(ROWS, before=png_chunk(b"tEXt", b"a\0b")[:-1] + b"?"),
        "png large comment": png(ROWS, before=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
        "png no pixels": png(b"", width=0, height=0),
        "png a line of a million and one": png(bytes(3 * 1_000_001 + 1), width=1_000_001, height=1),
        "png two headers": PNG[:33] + PNG[8:],
        "png changed pixel data": PNG[:data] + bytes([PNG[data] ^ 1]) + PNG[data + 1 :],
        "png and more": PNG + b"more",
        "png without end": PNG[:-12],
        "half a png": PNG[: len(PNG) // 2],
        "png signature": PNG[:8],
        "png header": PNG[:20],
        "jpeg progressive": saved("JPEG", progressive=True),
        "jpeg multi-picture": saved("MPO", save_all=True, append_images=other),
        "jpeg and more": JPEG + b"more",
        "jpeg without end": JPEG[:-2],
        "half a jpeg": JPEG[: len(JPEG) // 2],
        "half a jpeg and end": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
        "jpeg signature": JPEG[:3],
        "jpeg header": JPEG[:20],
        "jpeg zeros": JPEG[: scan + 20] + bytes(100) + JPEG[scan + 120 :],
        "jpeg lossless": JPEG[: frame + 1] + b"\xc3" + JPEG[frame + 2 :],
        "jpeg 12-bit": JPEG[: frame + 4] + b"\x0c" + JPEG[frame + 5 :],
        "jpeg no rows": JPEG[: frame + 5] + b"\0\0" + JPEG[frame + 7 :],
        "jpeg without Huffman tables": JPEG[: JPEG.index(b"\xff\xc4")] + JPEG[scan:],
        "jpeg damaged Huffman table": JPEG.replace(b"\xff\xc4\x00", b"\xff\xc4\x01", 1),
    }


ZOO = zoo()


def is_accepted(data):
    return not images.check_images([("x.png", data)])[0]


def decodes(data):
    try:
        decode_images(tf.constant([data]))
    except tf.errors.InvalidArgumentError:
        return False
    return True


@settings(deadline=None)  # the first traces a graph
@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40))
def test_png_round_trip(seed, height, width):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    data = images.png_from_pixels(pixels)
    check_image("x.png", data)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_view_on_planes_is_encoded_as_its_pixels():
    planes = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
    assert images.png_from_pixels(planes.transpose(1, 2, 0)) == images.png_from_pixels(PIXELS)


def test_a_png_is_left_for_the_file_around_it_to_compress():
    flat = np.zeros((32, 32, 3), np.uint8)
    assert len(images.png_from_pixels(flat)) > flat.nbytes


@pytest.mark.parametrize("name", ZOO)
def test_what_is_accepted_is_what_decodes_later(name):
    assert is_accepted(ZOO[name]) == decodes(ZOO[name])


def test_the_zoo_has_accepted_and_refused_files():
    accepted = {name for name in ZOO if is_accepted(ZOO[name])}
    assert {"png I;16", "png damaged comment", "jpeg CMYK", "jpeg multi-picture"} < accepted
    assert {"png a row short", "png without palette", "half a jpeg", "jpeg lossless"} <= set(ZOO) - accepted


def test_every_bad_file_among_many_is_named():
    files = [(str(number), PNG if number % 2 else JPEG) for number in range(100)]
    bad = {
        0: ZOO["png a row short"],
        41: b"",
        42: b"text",
        43: ZOO["half a jpeg"],
        99: png(b"", width=5000, height=5000),
    }
    for number, data in bad.items():
        files[number] = (str(number), data)
    assert {int(problem.split(":")[0]) for problem in images.check_images(files)[0]} == set(bad)
    assert images.check_images([]) == ([], [])


def test_an_empty_image():
    with pytest.raises(DataError, match=r"train/cat/1\.png: the image file is empty"):
        check_image("train/cat/1.png", b"")


@pytest.mark.parametrize("data", [PNG[:-30], JPEG[: len(JPEG) // 2], PNG[:20], JPEG[:20]])
def test_a_truncated_image(data):
    kind = "PNG" if data.startswith(b"\x89PNG") else "JPEG"
    message = rf"train/cat/1\.png: TensorFlow, .*, cannot decode this {kind} of {len(data)} bytes: it is damaged"
    with pytest.raises(DataError, match=message):
        check_image("train/cat/1.png", data)


@pytest.mark.parametrize("image_format", ["GIF", "BMP", "WebP", "TIFF", "AVIF"])
def test_another_format(image_format):
    message = rf"x\.jpg: not a PNG or JPEG, but an? {image_format}\. Convert"
    with pytest.raises(DataError, match=message):
        check_image("x.jpg", encoded(PIXELS, image_format.upper()))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an XML file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (PNG.replace(b"\r\n", b"\n"), "a PNG that was copied as if it were text"),
        (b"no image", "a file that begins with b'no image'"),
    ],
)
def test_no_image(data, words):
    assert images.check_images([("x.jpg", data)])[0] == [
        f"x.jpg: not a PNG or JPEG, but {words}. Convert, replace or remove it."
    ]


@pytest.mark.parametrize("side", [4097, 20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_the_size_it_claims(side):
    with pytest.raises(DataError, match=rf"x\.png: has {side}x{side} pixels, expected at most 16777216"):
        check_image("x.png", png(b"", width=side, height=side))


def test_a_jpeg_is_refused_by_the_size_it_claims():
    size = JPEG.index(b"\xff\xc0") + 5  # height, then width
    with pytest.raises(DataError, match=r"x\.jpg: has 65000x3000 pixels"):
        check_image("x.jpg", JPEG[:size] + struct.pack(">HH", 3000, 65000) + JPEG[size + 4 :])


def test_an_image_file_that_is_too_large():
    with pytest.raises(DataError, match=f"expected at most {images.MAX_IMAGE_BYTES}"):
        check_image("x.png", bytes(images.MAX_IMAGE_BYTES + 1))


@settings(max_examples=300, deadline=None)
@given(
    original=st.sampled_from([PNG, JPEG, b""]),
    position=st.integers(0, 5000),
    replacement=st.binary(min_size=1, max_size=9),
)
def test_damaged_images_are_accepted_where_they_decode(original, position, replacement):
    position %= len(original) + 1
    data = original[:position] + replacement + original[position + len(replacement) :]
    (problem,) = images.check_images([("x.png", data)])[0] or [""]
    assert "pixels" in problem or (not problem) == (data.startswith((b"\x89PNG", b"\xff\xd8")) and decodes(data))


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
