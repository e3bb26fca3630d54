"""Common corruptions of images, at three strengths each.

Noise, blur, contrast and compression as CIFAR-10-C has them: Hendrycks and Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", 2019. The constants are those of severities 1, 3 and 5 in the
authors' `make_cifar_c.py` (https://github.com/hendrycks/robustness). Where they cut off to whole numbers, this rounds.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

SEVERITIES = (1, 3, 5)
"""Of CIFAR-10-C's 1 to 5."""

NOISE_STD = {1: 0.04, 3: 0.08, 5: 0.10}
"""Standard deviation, with black 0 and white 1."""

BLUR_STD = {1: 0.4, 3: 0.7, 5: 1.0}
"""Standard deviation of the kernel, in pixels of the 32x32 image."""

CONTRAST = {1: 0.75, 3: 0.4, 5: 0.15}
"""Part of each pixel's difference from its channel's mean that stays."""

JPEG_QUALITY = {1: 80, 3: 58, 5: 40}
"""As libjpeg counts it, to 100."""

BLUR_REACH = 4.0
"""The kernel's half width, in standard deviations."""


def gaussian_noise(images: np.ndarray, severity: int) -> np.ndarray:
    """Adds normal noise to every value. The same images in the same order get the same noise."""
    generator = np.random.default_rng([zlib.crc32(b"gaussian_noise"), severity])
    noise = generator.standard_normal(images.shape, np.float32) * np.float32(255 * NOISE_STD[severity])
    return _to_uint8(images + noise)


def gaussian_blur(images: np.ndarray, severity: int) -> np.ndarray:
    """Blurs each channel; beyond an edge its last pixel goes on."""
    std = BLUR_STD[severity]
    radius = int(BLUR_REACH * std + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / std) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    blurred = images.astype(np.float32)
    for axis in (1, 2):
        size = blurred.shape[axis]
        padding = [(radius, radius) if axis == padded else (0, 0) for padded in range(4)]
        extended = np.pad(blurred, padding, mode="edge")
        shifted = (np.take(extended, range(start, start + size), axis) for start in range(len(kernel)))
        blurred = sum((weight * part for weight, part in zip(kernel, shifted, strict=True)), np.zeros_like(blurred))
    return _to_uint8(blurred)


def contrast(images: np.ndarray, severity: int) -> np.ndarray:
    """Pulls each pixel towards the mean of its channel in its image."""
    means = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return _to_uint8((images - means) * np.float32(CONTRAST[severity]) + means)


def jpeg(images: np.ndarray, severity: int) -> np.ndarray:
    """Encodes and decodes, with halved colour resolution (Pillow's default)."""
    return np.stack([_recompressed(image, JPEG_QUALITY[severity]) for image in images])


CORRUPTIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "contrast": contrast,
    "jpeg": jpeg,
}
"""Each takes uint8 [n, height, width, 3], RGB, and one of SEVERITIES, and returns the same shape and dtype."""


def _recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return np.asarray(decoded)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
