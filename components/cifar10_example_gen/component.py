"""The TFX component Cifar10ExampleGen."""

from __future__ import annotations

import os

from google.protobuf import struct_pb2
from tfx.components.example_gen import component as example_gen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2

from components.cifar10_example_gen import driver, executor
from components.cifar10_example_gen.download import ARCHIVE_NAME
from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import archives, sources
from serving.file_names import printable

_GLOB_CHARACTERS = "*?[]{}\\"


class Cifar10ExampleGen(example_gen.FileBasedExampleGen):
    """Reads CIFAR-10, or one's own images of its classes, into checked examples.

    The output `examples` holds tf.Example{image: bytes [1], a PNG or JPEG file; label: int64 [1], 0 to 9} in gzipped
    TFRecords, in the splits train, validation (not when `validation_fraction` is 0) and test. The artifact has the
    custom properties `train_examples`, `validation_examples`, `test_examples` (int), the counts of images that
    `duplicates` names (int) and, where the data is a single file, `data_sha256`. The same images give the same files,
    byte for byte, in whatever order and on whatever runner they are read.
    """

    DRIVER_CLASS = driver.Driver
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self, data: str, validation_fraction: float = 0.1, download: bool = False, max_test_overlap: float = 0.01
    ) -> None:
        """Constructs the component. The data need not be in reach here; it is looked at when the component runs.

        Args:
            data: An archive (.tar.gz, .tgz, .tar, .zip) or a folder, local or on a filesystem that TFX knows (gs://,
                s3://): the CIFAR-10 binary batches, the Python batches, or images as
                `train|test/<class>/*.png|jpg|jpeg`.
            validation_fraction: Share of the training images that is held out as the split validation, in [0, 1).
            download: Whether CIFAR-10's official archive is fetched to `data` where there is nothing yet. For machines
                that are out of reach here; `data` is then a local path there with the archive's own name.
            max_test_overlap: Largest share of the test images that may be in train or validation as well, in [0, 1].

        Raises:
            DataError: The path has a character that TFX would take for a file pattern, or is not UTF-8.
            ValueError: `validation_fraction` is not in [0, 1), `max_test_overlap` not in [0, 1], or `data` has another
                name than what is downloaded.
        """
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"validation_fraction is {validation_fraction}, expected 0 <= validation_fraction < 1.")
        if not 0 <= max_test_overlap <= 1:
            raise ValueError(f"max_test_overlap is {max_test_overlap}, expected 0 <= max_test_overlap <= 1.")
        if download and os.path.basename(data) != ARCHIVE_NAME:
            raise ValueError(f"data is {data!r}; what is downloaded there has to be named {ARCHIVE_NAME}.")
        if any(character in data for character in _GLOB_CHARACTERS):
            raise DataError(
                f"{data}: has one of {_GLOB_CHARACTERS} in its path, which TFX takes for a pattern. Rename it."
            )
        path = data if "://" in data else os.path.abspath(data)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{printable(path)}: its path is not UTF-8, which TFX cannot hold. Rename it, or give another path "
                "that links to it."
            ) from None
        base, patterns = _input_files(path)
        settings = struct_pb2.Struct()
        settings.update(
            {
                executor.DATA_KEY: path,
                executor.VALIDATION_FRACTION_KEY: validation_fraction,
                executor.MAX_TEST_OVERLAP_KEY: max_test_overlap,  # a run under a lower bound is checked again
            }
        )
        if download:  # absent otherwise: a run on data at hand keeps its cache key
            settings.update({executor.DOWNLOAD_KEY: True})
        custom_config = example_gen_pb2.CustomConfig()
        custom_config.custom_config.Pack(settings)
        super().__init__(
            input_base=base,
            input_config=example_gen_pb2.Input(
                splits=[
                    example_gen_pb2.Input.Split(name=f"depth-{depth}", pattern=pattern)
                    for depth, pattern in enumerate(patterns, 1)
                ]
            ),
            output_config=example_gen_pb2.Output(),  # the executor decides on the splits
            custom_config=custom_config,
        )


def _input_files(path: str) -> tuple[str, list[str]]:
    """Returns the folder and the file patterns in it whose sizes and times are TFX's fingerprint of the data.

    Folders match the patterns too: their times change when a file is moved between classes, its own does not.
    """
    if archives.is_archive(path):
        base, name = os.path.split(path)
        return base, [name]
    return path, ["/".join("*" * depth) for depth in range(1, sources.FOLDER_DEPTH + 1)]
