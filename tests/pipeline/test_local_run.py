"""What a run says before the pipeline has begun."""

import io
import os
import sys

import pytest

from components.cifar10_example_gen import download
from pipeline import local_run
from pipeline.settings import make_settings


@pytest.fixture
def settings(tmp_path):
    return make_settings("cifar10", {"output_dir": str(tmp_path)})


def test_a_download_shows_its_progress_and_its_failure(settings, monkeypatch, capfd):
    def fetch():
        print("  10 % of 170.1 MB", file=sys.stderr)
        raise download.DownloadError("the server answers 404. Check the URL.")

    monkeypatch.setattr(download, "fetch_official_archive", fetch)
    assert local_run.run(settings) == 1
    shown = capfd.readouterr()
    assert "10 % of 170.1 MB" in shown.err  # not in a log file that nobody watches
    assert "The run failed: the server answers 404. Check the URL." in shown.out
    assert "Log:" not in shown.out  # there is none yet


@pytest.mark.parametrize("exists", [True, False])
def test_data_at_a_path_that_is_not_utf8(tmp_path, monkeypatch, exists):
    data = tmp_path / os.fsdecode(b"caf\xe9")
    if exists:
        data.mkdir()
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    settings = make_settings("smoke", {"output_dir": str(tmp_path / "out"), "data": str(data)})
    assert local_run.run(settings) == 1
    reason = r"caf\xe9: its path is not UTF-8" if exists else rf"there is nothing at {tmp_path}/caf\xe9."
    assert reason in stream.buffer.getvalue().decode()
