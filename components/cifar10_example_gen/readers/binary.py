"""The official binary layout: records of one label byte and 3,072 pixel bytes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import batches
from components.cifar10_example_gen.records import Record

RECORD_BYTES = 1 + batches.IMAGE_BYTES


def read_batch(name: str, data: bytes) -> Iterator[Record]:
    """Yields the records of one `data_batch_<n>.bin` or `test_batch.bin`.

    Args:
        name: The batch file, for the split and for messages.
        data: Its whole content, 3,073 bytes a record.

    Raises:
        DataError: The file is empty, cut off, too long, or holds a label outside 0-9.
    """
    count, rest = divmod(len(data), RECORD_BYTES)
    if rest:
        raise DataError(
            f"{name}, record {count}: has {rest} of {RECORD_BYTES} bytes. The file is cut off or is not a CIFAR-10 "
            f"batch; expected a whole number of records. Fetch or copy it again."
        )
    table = np.frombuffer(data, np.uint8).reshape(count, RECORD_BYTES)
    yield from batches.records_of(name, table[:, 0].astype(np.int64), table[:, 1:])
