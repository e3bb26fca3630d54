"""PNG out of pixels, and the check that an image file is what its name says."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.cifar10_example_gen.errors import DataError

MAX_IMAGE_BYTES = 16 * 2**20
"""Size of an image file."""

MAX_IMAGE_PIXELS = 2**24
"""Height times width, 16.8 million: decoded, at most 64 MiB."""

_FORMATS = ("PNG", "JPEG")


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


def check_image(name: str, data: bytes) -> bytes:
    """Decodes an image file, to be sure that every later component can.

    Args:
        name: The file, for messages.
        data: Its content.

    Returns:
        A digest of its size and RGB pixels.

    Raises:
        DataError: The file is empty, too large, not a PNG or JPEG, or does not decode to its end.
    """
    if not data:
        raise DataError(f"{name}: the image file is empty. Replace or remove it.")
    if len(data) > MAX_IMAGE_BYTES:
        raise DataError(f"{name}: has {len(data)} bytes, expected at most {MAX_IMAGE_BYTES}. Make it smaller.")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height, is_png = image.width, image.height, image.format == "PNG"
            if width * height <= MAX_IMAGE_PIXELS:
                digest = _pixel_digest(image)
        if is_png:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                image.verify()  # the checksums, which load() does not look at but TensorFlow does
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise DataError(
            f"{name}: not a PNG or JPEG that decodes ({type(error).__name__}: {error}). Replace or remove it."
        ) from error
    if width * height > MAX_IMAGE_PIXELS:
        raise DataError(f"{name}: has {width}x{height} pixels, expected at most {MAX_IMAGE_PIXELS}. Make it smaller.")
    return digest


def _pixel_digest(image: Image.Image) -> bytes:
    if image.mode.startswith("I"):  # 16 bits, which `convert` would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    pixels = image.tobytes() if image.mode == "RGB" else image.convert("RGB").tobytes()
    return hashlib.blake2b(pixels, digest_size=8, salt=b"%d,%d" % image.size).digest()
