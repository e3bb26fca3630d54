"""`make report`: which run's page it finds, and what it does with it."""

import json
import sys
import webbrowser

import pytest
from run_records import Component, RunRecords, add_whole_run

from pipeline import open_report, runs


@pytest.fixture
def output_dir(tmp_path):
    """Two runs with a report, and a later one that has failed before it."""
    records = RunRecords(tmp_path / "smoke" / "metadata.db")
    for version in ("1700000001", "1700000002"):
        run, _ = add_whole_run(records, version)
        folder = tmp_path / version
        folder.mkdir()
        (folder / "report.html").write_text("<html>")
        run.add(Component("ModelReport", outputs={"report": ("ModelReport", str(folder), {})}))
    records.start_run().add(Component("Cifar10ExampleGen", "failed"))
    return tmp_path


def test_the_last_report_is_found_past_a_failed_run(output_dir):
    assert open_report.find_report(output_dir, "smoke", "last") == output_dir / "1700000002" / "report.html"
    assert open_report.find_report(output_dir, "sample", "smoke/last") == output_dir / "1700000002" / "report.html"
    assert open_report.find_report(output_dir, "smoke", "1700000001") == output_dir / "1700000001" / "report.html"


def test_what_is_missing_is_said(output_dir):
    with pytest.raises(LookupError, match="has a report"):
        open_report.find_report(output_dir, "smoke", str(runs.runs_of(output_dir, "smoke")[-1].id))
    with pytest.raises(LookupError, match="neither run nor version"):
        open_report.find_report(output_dir, "smoke", "99")
    (output_dir / "1700000002" / "report.html").unlink()
    with pytest.raises(FileNotFoundError, match="is gone"):
        open_report.find_report(output_dir, "smoke", "last")


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "darwin", True),
    ],
)
def test_a_display_is_recognized(environment, platform, expected):
    assert open_report.has_display(environment, platform) is expected


def run_command(monkeypatch, output_dir, *flags):
    arguments = ["open_report", "--output-dir", str(output_dir), "--profile", "smoke", *flags]
    monkeypatch.setattr(sys, "argv", arguments)
    return open_report.main()


def test_it_opens_a_browser_only_where_there_is_a_display(output_dir, monkeypatch, capsys):
    opened = []

    def browse(address):
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", browse)
    page = output_dir / "1700000002" / "report.html"
    monkeypatch.setattr(open_report, "has_display", lambda: False)
    assert run_command(monkeypatch, output_dir) == 0
    assert capsys.readouterr().out == f"The report: {page}\n"
    assert opened == []
    monkeypatch.setattr(open_report, "has_display", lambda: True)
    assert run_command(monkeypatch, output_dir) == 0
    assert capsys.readouterr().out == f"Opened {page}\n"
    assert opened == [page.as_uri()]
    assert run_command(monkeypatch, output_dir, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(page)}
    assert opened == [page.as_uri()]


def test_an_unknown_run_is_an_error_status(output_dir, monkeypatch, capsys):
    assert run_command(monkeypatch, output_dir, "99") == 1
    assert "error: " in capsys.readouterr().err
