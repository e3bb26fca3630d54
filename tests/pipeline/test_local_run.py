"""What a run says before the pipeline has begun."""

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
