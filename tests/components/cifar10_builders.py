"""CIFAR-10 files by hand, byte by byte from the published description of the formats."""

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from models import features

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "data" / "cifar-10-sample-binary.tar.gz"
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def random_images(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """uint8 [count, 32, 32, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def planes_of(image: npt.NDArray[np.uint8]) -> bytes:
    """All red, then all green, then all blue bytes, row by row."""
    return b"".join(bytes(image[:, :, channel].flatten().tolist()) for channel in range(3))


def binary_batch(labels: list[int], images: npt.NDArray[np.uint8]) -> bytes:
    return b"".join(bytes([label]) + planes_of(image) for label, image in zip(labels, images, strict=True))


def python2_batch(labels: list[int], planes: bytes) -> bytes:
    """A pickle as Python 2 and numpy 1 wrote the official files: protocol 2, 8-bit strings, the array by its state."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R"
    dtype += b"(" + integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + integer(0) + b"\x85" + text(b"b") + b"\x87R"
    )
    array += b"(" + integer(1) + integer(len(planes) // 3072) + integer(3072) + b"\x86" + dtype + b"\x89"
    array += b"T" + struct.pack("<i", len(planes)) + planes + b"tb"
    label_list = b"](" + b"".join(map(integer, labels)) + b"e"
    items = text(b"batch_label") + text(b"a batch") + text(b"labels") + label_list + text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def batch_files(
    layout: str, images_a_class: int = 3, *, test_images_a_class: int = 1, seed: int = 0
) -> dict[str, bytes]:
    """The six files of an official archive, `binary` or `python`, with as many images of each class in every batch."""
    files = {}
    for number, stem in enumerate(BATCHES):
        per_class = test_images_a_class if stem == "test_batch" else images_a_class
        labels = list(range(10)) * per_class
        images = random_images(len(labels), seed + number)
        if layout == "binary":
            files[f"{stem}.bin"] = binary_batch(labels, images)
        else:
            files[stem] = python2_batch(labels, b"".join(map(planes_of, images)))
    return files


def encoded(image: npt.NDArray[np.uint8], image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: bytes,
    *,
    width: int = 32,
    height: int = 32,
    depth: int = 8,
    colour: int = 2,
    interlaced: int = 0,
    before: bytes = b"",
) -> bytes:
    """A PNG of filtered rows, with valid chunks and checksums whatever the rows are."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + png_chunk(b"IEND", b"")


def image_files(images_a_class: int = 5, *, seed: int = 0) -> dict[str, bytes]:
    """A tree of image files, every third a PNG, the others JPEG; one image of each class in test."""
    files = {}
    for split, count in (("train", images_a_class), ("test", 1)):
        for label, class_name in enumerate(features.CLASS_NAMES):
            for number, image in enumerate(random_images(count, seed + 100 * label + (split == "test"))):
                suffix, image_format = (".png", "PNG") if number % 3 == 0 else (".jpg", "JPEG")
                files[f"{split}/{class_name}/{number:04d}{suffix}"] = encoded(image, image_format)
    return files


def write_tar(path: Path, files: Mapping[str, bytes], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


def write_zip(path: Path, files: Mapping[str, bytes], *, link: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            zipped.writestr(info, "/etc/passwd")
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path
