"""Pictures are turned as Pillow turns them, wherever their EXIF block is and however it is written."""

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from conftest import Sample, encode
from PIL import Image, ImageOps

from models import input_pipeline
from models.orientation import turn_upright
from models.preprocessing import decode_images

ORIENTATIONS = range(1, 9)
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
PNG, JPEG = encode(PIXELS), encode(PIXELS, "JPEG")


def exif(orientation: int, byte_order: str = "<", *, start: int = 8, number_before: int = 2) -> bytes:
    """A TIFF block whose first directory is at `start` and has other entries before and after the orientation."""
    entries = [struct.pack(byte_order + "HHII", 0x0100 + tag, 4, 1, tag) for tag in range(number_before)]
    entries.append(struct.pack(byte_order + "HHIHH", 0x0112, 3, 1, orientation, 0))
    entries.append(struct.pack(byte_order + "HHII", 0x0131, 2, 9, 0))
    header = (b"II" if byte_order == "<" else b"MM") + struct.pack(byte_order + "HI", 42, start)
    count = struct.pack(byte_order + "H", len(entries))
    return header.ljust(start, b"\x55") + count + b"".join(entries) + bytes(4) + b"text\0"


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def in_jpeg(block: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    return JPEG[:2] + before + segment(0xE1, b"Exif\0\0" + block) + after + JPEG[2:]


def in_png(block: bytes, *, at_end: bool = False) -> bytes:
    content = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + content + struct.pack(">I", zlib.crc32(content))
    position = len(PNG) - 12 if at_end else 33
    return PNG[:position] + chunk + PNG[position:]


PLACES: dict[str, Callable[[bytes], bytes]] = {
    "jpeg": in_jpeg,
    "jpeg, after comment and XMP": lambda block: in_jpeg(
        block, segment(0xFE, b"Exif") + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    ),
    "jpeg, after a colour profile": lambda block: in_jpeg(block, segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000))),
    "jpeg, before a thumbnail of its own": lambda block: in_jpeg(
        block, after=segment(0xE1, b"Exif\0\0" + exif(2)) + segment(0xE2, JPEG)
    ),
    "png": in_png,
    "png, at the end": lambda block: in_png(block, at_end=True),
}


@pytest.fixture(scope="module")
def decode() -> Callable[..., np.ndarray]:
    graph = tf.function(decode_images, input_signature=[tf.TensorSpec([None], tf.string)])
    return lambda *files: graph(tf.constant(files, tf.string, [len(files)])).numpy()


def turned(stored: np.ndarray, orientation: int) -> np.ndarray:
    """By Pillow."""
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize(("start", "number_before"), [(8, 0), (8, 3), (26, 11)])
def test_all_orientations(decode, place: str, byte_order: str, start: int, number_before: int):
    blocks = [exif(o, byte_order, start=start, number_before=number_before) for o in ORIENTATIONS]
    files = [PLACES[place](block) for block in blocks]
    for file, orientation in zip(files, ORIENTATIONS, strict=True):  # what is tested is what Pillow reads
        with Image.open(io.BytesIO(file)) as image:
            image.load()
            assert image.getexif()[0x0112] == orientation
    (stored,) = decode(PNG if "png" in place else JPEG)
    np.testing.assert_array_equal(decode(*files), [turned(stored, orientation) for orientation in ORIENTATIONS])


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_photograph_is_as_if_it_had_been_turned_before(sample: Sample, decode, file_format: str, orientation: int):
    photograph = Image.fromarray(sample.pixels[0]).resize((160, 120), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    photograph.getexif()[0x0112] = orientation
    photograph.save(file, file_format, quality=95, exif=photograph.getexif())
    with Image.open(file) as stored:
        reference = encode(np.asarray(ImageOps.exif_transpose(stored)))
    by_graph, by_pillow = decode(file.getvalue(), reference)
    difference = np.abs(by_graph.astype(int) - by_pillow.astype(int))
    # Decoders of JPEG differ in their rounding; a wrong turn would differ by far more.
    assert difference.max() <= 1 if file_format == "PNG" else difference.mean() < 3


def test_files_of_all_kinds_mix_in_a_batch(decode):
    files = [PNG, in_jpeg(exif(6)), JPEG, in_png(exif(3)), encode(PIXELS, "BMP"), encode(PIXELS, "GIF")]
    np.testing.assert_array_equal(decode(*files), np.concatenate([decode(file) for file in files]))
    np.testing.assert_array_equal(decode(*files)[1], turned(decode(JPEG)[0], 6))
    np.testing.assert_array_equal(decode(*files)[3], turned(PIXELS, 3))
    assert decode().shape == (0, 32, 32, 3)


@pytest.mark.parametrize("orientation", [0, 9, 0x0600, 0xFFFF])
def test_an_orientation_that_there_is_not_is_upright(decode, orientation: int):
    np.testing.assert_array_equal(decode(in_png(exif(orientation))), [PIXELS])


def test_what_is_no_exif_block_turns_nothing(decode):
    block = exif(6)
    others = {
        "no tag": block.replace(struct.pack("<H", 0x0112), struct.pack("<H", 0x0113)),
        "no TIFF": b"XX" + block[2:],
        "directory after the end": block[:4] + struct.pack("<I", 10_000) + block[8:],
        "directory before the beginning": block[:4] + b"\xff" * 4 + block[8:],
        "too many entries": block[:8] + b"\xff\xff" + bytes(30),
        **{f"{length} bytes": block[:length] for length in range(0, 44, 3)},
    }
    for block in others.values():
        np.testing.assert_array_equal(decode(in_jpeg(block)), decode(JPEG))
    # GIFs are not searched.
    gif = encode(PIXELS, "GIF")
    np.testing.assert_array_equal(decode(gif + b"Exif\0\0" + exif(6)), decode(gif))


def test_damaged_blocks_are_no_error(decode):
    generator = random.Random(0)
    files = []
    for _ in range(300):
        block = bytearray(exif(6, generator.choice("<>")))
        for _ in range(generator.choice((1, 3, 9))):
            block[generator.randrange(len(block))] = generator.randrange(256)
        files.append(in_jpeg(bytes(block[: generator.randrange(1, len(block) + 1)])))
    assert decode(*files).shape == (300, 32, 32, 3)


def test_files_without_exif_keep_every_bit(sample: Sample):
    images = tf.constant(sample.pixels[:100])
    np.testing.assert_array_equal(turn_upright(images, tf.constant(sample.pngs[:100])), images)


def test_the_transform_graph_turns(transform_graph):
    files = tf.constant([in_jpeg(exif(o)) for o in ORIENTATIONS] + [JPEG])
    images, _ = input_pipeline.transform(transform_graph, files, tf.zeros([9], tf.int64))
    upright = images[-1].numpy()
    np.testing.assert_allclose(images[0], upright, atol=1e-6)
    np.testing.assert_allclose(images[2], upright[::-1, ::-1], atol=1e-5)
    np.testing.assert_allclose(images[5], np.rot90(upright, -1), atol=1e-5)
