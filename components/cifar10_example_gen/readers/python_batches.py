"""The official Python layout: pickled dictionaries, read without ever building the objects that a pickle asks for.

A pickle is a program. The official files need three names from numpy, to rebuild one array of bytes: here these
stand for inert placeholders that only remember what they were given, and any other name is refused. The pixels are
then taken from the remembered bytes, so the same code reads files written by Python 2 and by any version of numpy.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import batches
from components.cifar10_example_gen.records import Record

_ALLOWED_NAMES = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),  # numpy 1
        ("numpy._core.multiarray", "_reconstruct"),  # numpy 2
    }
)
_BYTE_DTYPES = frozenset({"u1", "|u1"})
_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class _Placeholder:
    """Stands for a numpy object: remembers name, arguments and state, and does nothing."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def __call__(self, *arguments: Any) -> _Placeholder:
        return _Placeholder(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Builds plain containers, numbers, strings and placeholders."""

    def find_class(self, module: str, name: str) -> _Placeholder:
        if (module, name) not in _ALLOWED_NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 batch needs")
        return _Placeholder(name)


def read_batch(name: str, data: bytes) -> Iterator[Record]:
    """Yields the records of one pickled `data_batch_<n>` or `test_batch`.

    Args:
        name: The batch file, for the split and for messages.
        data: Its whole content: a pickled dictionary with `data`, uint8 [records, 3072], and `labels`, a list of
            as many integers; keys are text or bytes, other keys are ignored.

    Raises:
        DataError: The pickle is damaged, asks for anything but a numpy array, or does not hold such a dictionary.
    """
    batch = _unpickle(name, data)
    if not isinstance(batch, dict):
        raise DataError(f"{name}: holds a {type(batch).__name__}, expected a dictionary with 'data' and 'labels'.")
    entries = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
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
        # The C unpickler allocates its memo to the largest index: a pickle of ten bytes could ask for gigabytes.
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _MEMO_OPCODES and int(argument or 0) > len(data):
                raise pickle.UnpicklingError(f"memo index {argument} in a file of {len(data)} bytes")
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can fail in any way its opcodes can
        raise DataError(
            f"{name}: not a readable CIFAR-10 Python batch ({type(error).__name__}: {error}). Fetch or copy it again."
        ) from error


def _labels(name: str, labels: Any) -> npt.NDArray[np.int64]:
    if not isinstance(labels, list):
        raise DataError(f"{name}: 'labels' is a {type(labels).__name__}, expected a list of integers.")
    for index, label in enumerate(labels):
        if type(label) is not int or not -(2**63) <= label < 2**63:
            raise DataError(f"{name}, record {index}: its label is not an integer from 0 to 9.")
    return np.array(labels, np.int64)


def _planes(name: str, array: Any) -> npt.NDArray[np.uint8]:
    """Takes uint8 [records, 3072] out of the remembered state of a pickled array."""
    expected = f"expected a numpy array, uint8 [records, {batches.IMAGE_BYTES}], in row-major order"
    if not (isinstance(array, _Placeholder) and isinstance(array.state, tuple) and len(array.state) == 5):
        raise DataError(f"{name}: 'data' is a {type(array).__name__}, {expected}.")
    _, shape, dtype, is_fortran, content = array.state
    type_name = dtype.arguments[0] if isinstance(dtype, _Placeholder) and dtype.arguments else None
    if type_name not in _BYTE_DTYPES or is_fortran:
        raise DataError(f"{name}: 'data' has other elements or another order, {expected}.")
    if isinstance(content, str):  # Python 2 wrote bytes as text, which latin1 gives back one to one
        try:
            content = content.encode("latin1")
        except UnicodeEncodeError as error:
            raise DataError(f"{name}: 'data' holds text, {expected}.") from error
    if not isinstance(content, bytes) or len(content) % batches.IMAGE_BYTES:
        raise DataError(f"{name}: 'data' does not hold whole images, {expected}.")
    count = len(content) // batches.IMAGE_BYTES
    if shape != (count, batches.IMAGE_BYTES):
        raise DataError(f"{name}: 'data' holds {count} images but says another shape, {expected}.")
    return np.frombuffer(content, np.uint8).reshape(count, batches.IMAGE_BYTES)
