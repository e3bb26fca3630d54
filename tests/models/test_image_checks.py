import io
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from models.image_checks import ensure_decodable
from models.preprocessing import decode_images


def encode(file_format: str, *, size: tuple[int, int] = (32, 32), mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, file_format, **options)
    return file.getvalue()


PNG, JPEG, GIF, BMP = (encode(file_format) for file_format in ("PNG", "JPEG", "GIF", "BMP"))
GOOD = {
    "png": PNG,
    "jpeg": JPEG,
    "gif": GIF,
    "bmp": BMP,
    "grey png": encode("PNG", mode="L"),
    "rgba png": encode("PNG", mode="RGBA"),
    "large jpeg": encode("JPEG", size=(300, 200)),
    "progressive jpeg": encode("JPEG", progressive=True),
    "png and more": PNG + b"more",
    "jpeg and more": JPEG + b"more",
    "gif without trailer": GIF[:-1],
}
DAMAGED = "is a damaged or incomplete image"
BAD = {
    "empty": (b"", "is empty"),
    "a byte": (b"\x89", "is not a PNG, JPEG, BMP or GIF image"),
    "text": (b"hello world", "is not a PNG, JPEG, BMP or GIF image"),
    "tiff": (encode("TIFF"), "is not a PNG, JPEG, BMP or GIF image"),
    "signature alone": (PNG[:8], DAMAGED),
    "half a png": (PNG[: len(PNG) // 2], DAMAGED),
    "png without IEND": (PNG[:-12], DAMAGED),
    "half a jpeg": (JPEG[: len(JPEG) // 2], DAMAGED),
    "jpeg without EOI": (JPEG[:-2], DAMAGED),
    "half a gif": (GIF[: len(GIF) // 2], DAMAGED),
    "half a bmp": (BMP[: len(BMP) // 2], DAMAGED),
}


@pytest.fixture(scope="module")
def check() -> Callable[[list[bytes]], list[bytes]]:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def graph(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        checked = ensure_decodable(encoded, "image_bytes")
        return checked, decode_images(checked)

    return lambda files: graph(tf.constant(files, tf.string, [len(files)]))[0].numpy().tolist()


@pytest.mark.parametrize("name", GOOD)
def test_good_files_pass_unchanged(check, name: str):
    assert check([PNG, GOOD[name]]) == [PNG, GOOD[name]]


def test_all_good_files_at_once_and_none(check):
    assert check(list(GOOD.values())) == list(GOOD.values())
    assert check([]) == []


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("index", [0, 3])
def test_the_bad_one_is_named(check, name: str, index: int):
    bad, reason = BAD[name]
    # Another kind on each side, of which one needs the decoder's word.
    files = [PNG, GOOD["png and more"], JPEG, BMP]
    files.insert(index, bad)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        check(files)
    assert f"[image_bytes[{index}] {reason} ({len(bad)} bytes)]" in raised.value.message


def test_the_first_of_several_is_named(check):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[1\] is empty"):
        check([PNG, b"", JPEG, b"text", BMP, PNG[:99]])


def test_damage_in_the_middle_is_found_by_the_decoder(check):
    with pytest.raises(tf.errors.InvalidArgumentError, match="PNG"):
        check([PNG[:500] + b"zzzz" + PNG[504:]])
