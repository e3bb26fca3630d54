"""PNG out of pixels, and the check that image files are what their names say."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from models import decoding

MAX_IMAGE_BYTES = 16 * 2**20
"""Size of an image file."""

MAX_IMAGE_PIXELS = 2**24
"""Height times width, 16.8 million: decoded, at most 64 MiB."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"

_OTHER_FORMATS = {
    "a GIF": rb"GIF8",
    "a BMP": rb"BM",
    "a TIFF": rb"II[*+]\0|MM\0[*+]",
    "a WebP": rb"RIFF....WEBP",
    "an AVIF": rb"....ftypavi",
    "a HEIC": rb"....ftyp(he[ivx]|mif1|msf1)",
    "a JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
    "a PNG that was copied as if it were text": rb".{1,3}PNG\r?\n",
    "a PDF": rb"%PDF",
    "a Git LFS pointer": rb"version https://git-lfs",
    "a web page": rb"(?i:(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body))",
    "an XML file": rb"(\xef\xbb\xbf)?\s*<(svg|\?xml)",
}
"""How files begin that are often found under the name of a PNG or JPEG, as regular expressions."""


def png_from_pixels(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encodes an image without loss, and without compression: the files that PNGs are written to are compressed.

    As small as those with compression there (CIFAR-10: 2.3 kB), such PNGs take half the time to decode, which training
    does in every epoch, and less than half to encode.

    Args:
        pixels: uint8 [height, width, 3], RGB.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def check_images(files: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[bytes]]:
    """Decodes image files with the decoder of training and serving, to be sure that every later component can.

    Args:
        files: Names, for messages, and contents. Hundreds at once take half the time of each alone.

    Returns:
        A message for each file that is empty, too large, not a PNG or JPEG, or does not decode; and, where there is no
        such file, a digest of the size and the RGB pixels of each. Its first byte is spread evenly.
    """
    problems, readable = [], []
    for name, data in files:
        if not data:
            problems.append(f"{name}: the image file is empty. Replace or remove it.")
        elif len(data) > MAX_IMAGE_BYTES:
            problems.append(f"{name}: has {len(data)} bytes, expected at most {MAX_IMAGE_BYTES}. Make it smaller.")
        elif not data.startswith((_PNG, _JPEG)):
            problems.append(f"{name}: not a PNG or JPEG, but {_format_of(data)}. Convert, replace or remove it.")
        else:
            readable.append((name, data))
    undecodable, digests = _find_undecodable(readable)
    return problems + undecodable, digests


def _find_undecodable(files: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[bytes]]:
    """As `check_images`, of files that begin like a PNG or JPEG."""
    if not files:
        return [], []
    try:
        found = _decode_all(tf.constant([data for _, data in files])).numpy()
    except tf.errors.OpError:
        if len(files) > 1:  # the error does not say which
            middle = len(files) // 2
            return _find_undecodable(files[:middle])[0] + _find_undecodable(files[middle:])[0], []
        ((name, data),) = files
        kind = "PNG" if data.startswith(_PNG) else "JPEG"
        return [
            f"{name}: TensorFlow, which decodes for training and serving, cannot decode this {kind} of {len(data)} "
            "bytes: it is damaged, incomplete or of a rare kind. Save it anew in an image editor or remove it."
        ], []
    too_large = [
        f"{name}: has {width}x{height} pixels, expected at most {MAX_IMAGE_PIXELS}. Make it smaller."
        for (name, _), (_, height, width) in zip(files, found.tolist(), strict=True)
        if height * width > MAX_IMAGE_PIXELS
    ]
    return too_large, [row.tobytes() for row in found]


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def _decode_all(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes PNG and JPEG files, string [N], that have not too many pixels.

    Returns:
        int64 [N, 3]: a fingerprint of the pixels, height, width.
    """

    def decode(file: tf.Tensor) -> tf.Tensor:
        # Before decoding, since a few bytes can claim gigabytes. Bytes 16 to 23 of a PNG are its width and height.
        size = tf.cond(
            tf.strings.substr(file, 0, len(_PNG)) == _PNG,
            lambda: tf.io.decode_raw(file, tf.int32, little_endian=False, fixed_length=24)[:3:-1],
            lambda: tf.io.extract_jpeg_shape(file)[:2],
        )
        size = tf.cast(size, tf.int64)
        is_allowed = tf.reduce_prod(size) <= MAX_IMAGE_PIXELS
        decoded = tf.cond(is_allowed, lambda: decoding.decode(file), lambda: tf.zeros([0, 0, 0], tf.uint8))
        fingerprint = tf.fingerprint(tf.reshape(decoded, [1, tf.size(decoded)]))
        return tf.concat([tf.bitcast(fingerprint, tf.int64), size], axis=0)

    return tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec([3], tf.int64), parallel_iterations=2)


def _format_of(data: bytes) -> str:
    """What a file is that begins neither as a PNG nor as a JPEG, in words."""
    for words, beginning in _OTHER_FORMATS.items():
        if re.match(beginning, data, re.DOTALL):
            return words
    return f"a file that begins with {data[:8]!r}"
