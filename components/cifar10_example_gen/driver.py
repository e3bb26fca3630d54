"""The driver of Cifar10ExampleGen: whether the data is still what a cached execution has read."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable
from typing import Any

from tfx.components.example_gen import driver, input_processor
from tfx.proto import example_gen_pb2


class _LocalFiles(input_processor.FileBasedInputProcessor):
    """TFX's but for the fingerprint, which it takes with TensorFlow, and that fails at names that are not UTF-8."""

    def resolve_span_and_version(self) -> tuple[int, None]:
        """Returns span 0 and no version, after it took the fingerprint: names, sizes and times of all files."""
        digest = hashlib.blake2b(digest_size=16)
        for split in self._splits:
            for path in sorted(glob.glob(os.path.join(self._input_base_uri, split.pattern))):
                status = os.stat(path) if os.path.exists(path) else os.lstat(path)  # a link may lead nowhere
                name = os.path.relpath(path, self._input_base_uri)
                digest.update(repr((os.fsencode(name), status.st_size, status.st_mtime_ns)).encode())
        self._fingerprint = digest.hexdigest()
        return 0, None


class Driver(driver.FileBasedDriver):
    """TFX's driver for files, which reads the names of local ones as Python does."""

    def get_input_processor(
        self, splits: Iterable[example_gen_pb2.Input.Split], range_config: Any = None, input_base_uri: str | None = None
    ) -> input_processor.FileBasedInputProcessor:
        """Returns what takes the fingerprint of the files that `splits` name below `input_base_uri`."""
        assert input_base_uri
        is_remote = "://" in input_base_uri
        processor = input_processor.FileBasedInputProcessor if is_remote else _LocalFiles
        return processor(input_base_uri, splits, range_config)
