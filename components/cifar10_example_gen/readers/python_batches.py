"""The official Python layout: pickled dictionaries, read without ever building the objects that a pickle asks for.

A pickle is a program. The files need a few names from numpy, to rebuild arrays and numbers: here these stand for inert
placeholders that only remember what they were given, and any other name is refused. Pixels and labels are then taken
from the remembered bytes, so the same code reads what any version of Python and numpy wrote, in any protocol.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import batches
from components.cifar10_example_gen.records import Record
from models import features
from serving.file_names import printable

_ALLOWED_NAMES = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # Python 3 writes bytes so in the protocols of Python 2,
        ("__builtin__", "bytes"),  # and no bytes so
    }
    | {
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")  # numpy 1, numpy 2
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    }
)
_MAX_ARGUMENTS = 5
_INTEGER_DTYPE = re.compile("[<>|]?[iu][1248]")


class _Placeholder:
    """Stands for a numpy object: remembers name, arguments and state, and does nothing."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def __call__(self, *arguments: Any) -> _Placeholder:
        if len(arguments) > _MAX_ARGUMENTS:  # each call keeps a copy of them
            raise pickle.UnpicklingError(f"it gives {self.name} {len(arguments)} arguments")
        return _Placeholder(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle._Unpickler):
    """Builds plain containers, numbers, strings and placeholders.

    The one in Python: the one in C allocates what a pickle of a few bytes claims, as a memo up to its largest index.
    """

    def find_class(self, module: str, name: str) -> _Placeholder:
        if (module, name) not in _ALLOWED_NAMES:
            raise pickle.UnpicklingError(
                f"it asks for {printable(module)}.{printable(name)}, which no CIFAR-10 batch needs"
            )
        return _Placeholder(name)

    # Bytes are as good as a bytearray, which is allocated before they are read.
    dispatch: ClassVar = pickle._Unpickler.dispatch | {
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]]
    }


def read_batch(name: str, data: bytes) -> Iterator[Record]:
    """Yields the records of one pickled `data_batch_<n>` or `test_batch`.

    Args:
        name: The batch file, for the split and for messages.
        data: Its whole content: a pickled dictionary with `data`, uint8 [records, 3072], [records, 3, 32, 32] or
            [records, 32, 32, 3], and `labels`, as many integers; each may be an array, or a list or tuple of arrays or
            numbers. Keys are text or bytes, other keys are ignored.

    Raises:
        DataError: The pickle is damaged, asks for anything but numpy arrays, or does not hold such a dictionary.
    """
    batch = _unpickle(name, data)
    if not isinstance(batch, dict):
        raise DataError(f"{name}: holds a {type(batch).__name__}, expected a dictionary with 'data' and 'labels'.")
    entries = {_text(key): value for key, value in batch.items()}
    missing = [key for key in ("data", "labels") if key not in entries]
    if missing:
        raise DataError(f"{name}: has no {' and no '.join(map(repr, missing))}, as every CIFAR-10 batch has.")
    labels = _labels(name, entries["labels"])
    planes = _planes(name, entries["data"])
    if len(labels) != len(planes):
        raise DataError(f"{name}: has {len(labels)} labels for {len(planes)} images, expected as many of each.")
    yield from batches.records_of(name, labels, planes)


def _unpickle(name: str, data: bytes) -> Any:
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can fail in any way its opcodes can
        raise DataError(
            f"{name}: not a readable CIFAR-10 Python batch ({type(error).__name__}: {printable(str(error))}). "
            "Fetch or copy it again, or save it as a dictionary of numpy arrays and lists."
        ) from error


def _labels(name: str, labels: Any) -> npt.NDArray[np.int64]:
    if isinstance(labels, _Placeholder):
        array = _array(labels)
        if array is None or array.shape not in ((array.size,), (array.size, 1)):
            raise DataError(f"{name}: 'labels' is {_kind_of(labels)}, expected integers [records].")
        return array.reshape(-1).astype(np.int64)
    if not isinstance(labels, list | tuple):
        raise DataError(f"{name}: 'labels' is {_kind_of(labels)}, expected a list or an array of integers.")
    numbers = []
    for index, label in enumerate(labels):
        number = label if type(label) is int else _array(label)
        if number is None or np.ndim(number) or not -(2**63) <= number < 2**63:
            raise DataError(f"{name}, record {index}: its label is not an integer from 0 to 9.")
        numbers.append(int(number))
    return np.array(numbers, np.int64)


def _planes(name: str, data: Any) -> npt.NDArray[np.uint8]:
    """Returns uint8 [records, 3072], plane after plane, of an array or of a list of arrays."""
    if not isinstance(data, list | tuple):
        return _planes_of(name, data, _array(data))
    planes = [np.empty((0, batches.IMAGE_BYTES), np.uint8)]
    for image in data[: batches.MAX_BATCH_RECORDS + 1]:
        array = _array(image)
        planes.append(_planes_of(name, image, None if array is None else array[np.newaxis]))
    return np.concatenate(planes)


def _planes_of(name: str, value: Any, images: npt.NDArray[Any] | None) -> npt.NDArray[np.uint8]:
    size = features.SOURCE_IMAGE_SIZE
    if images is not None and images.shape[1:] == (size, size, features.NUM_CHANNELS):
        images = images.transpose(0, 3, 1, 2)
    shapes = ((batches.IMAGE_BYTES,), (features.NUM_CHANNELS, size, size))
    if images is None or images.dtype != np.uint8 or images.shape[1:] not in shapes:
        raise DataError(
            f"{name}: 'data' holds {_kind_of(value)}, expected an array of uint8 [records, {batches.IMAGE_BYTES}] with "
            "the red, then the green, then the blue values of an image, [records, 3, 32, 32] or [records, 32, 32, 3]."
        )
    return np.ascontiguousarray(images).reshape(len(images), batches.IMAGE_BYTES)


def _array(value: Any) -> npt.NDArray[Any] | None:
    """Returns the array, or the number as one, that placeholders remember; None where it is not one of integers."""
    if not isinstance(value, _Placeholder):
        return None
    order: Any
    axes: Sequence[Any] = ()
    try:
        if value.name == "_reconstruct":
            *_, shape, dtype, is_fortran, content = value.state
            order = "F" if is_fortran else "C"
        elif value.name == "_frombuffer":
            content, dtype, shape, order, *axes = value.arguments
        elif value.name == "scalar":
            (dtype, content), shape, order = value.arguments, (), "C"
        else:
            return None
        code = (dtype.state[1] if dtype.state else "") + dtype.arguments[0].lstrip("|")
        if not _INTEGER_DTYPE.fullmatch(code):
            return None
        array = np.frombuffer(_content(content), np.dtype(code))
        if order == "K":  # as it was in memory, with its axes in another order
            return array.reshape(shape).transpose(axes[0])
        return array.reshape(shape, order=order)
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError):  # remembered from a damaged pickle
        return None


def _content(value: Any) -> bytes:
    """Returns bytes that are given as such, as text by Python 2, or as an encoding of text by Python 3."""
    if isinstance(value, _Placeholder) and value.name == "encode":
        value = value.arguments[0]
    return value.encode("latin1") if isinstance(value, str) else value


def _text(key: Any) -> Any:
    if isinstance(key, _Placeholder) and key.name == "encode" and key.arguments:
        key = key.arguments[0]
    return key.decode("latin1") if isinstance(key, bytes) else key


def _kind_of(value: Any) -> str:
    array = _array(value)
    if array is not None:
        return f"{array.dtype} {list(array.shape)}"
    return "no array of integers" if isinstance(value, _Placeholder) else f"a {type(value).__name__}"
