"""Whole runs on a small part of the bundled sample: real images, seconds of training."""

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import BATCHES, RECORD_BYTES, read_sample, write_archive

from pipeline.settings import Settings, make_settings


@pytest.fixture(scope="session")
def small_batches() -> dict[str, bytes]:
    """The first 120 records of each training batch and 200 of the test batch, by file name."""
    return {name: content[: BATCHES[name] * RECORD_BYTES] for name, content in read_sample().items()}


@pytest.fixture(scope="session")
def small_data(tmp_path_factory, small_batches) -> Path:
    """An archive of 600 training and 200 test images."""
    return write_archive(tmp_path_factory.mktemp("data") / "small.tar.gz", small_batches)


@pytest.fixture(scope="module")
def settings_for(tmp_path_factory, small_data) -> Callable[..., Settings]:
    """Makes settings of the smoke profile on the small data, with an output folder for the test module."""
    output_dir = tmp_path_factory.mktemp("outputs")

    def make(**changes) -> Settings:
        own = {"data": str(small_data), "output_dir": str(output_dir), "accuracy_floor": 0.0, "latency_budget_s": 30.0}
        return make_settings("smoke", own | changes)

    return make
