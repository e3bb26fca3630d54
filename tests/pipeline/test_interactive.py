"""What the notebooks build on: settings, the run to look at, charts with a text."""

import base64
import io
import logging
import os
import warnings
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from components.model_report import lineage
from components.model_report.lineage import Artifact, Execution, Run
from pipeline import interactive
from pipeline.settings import make_settings


@pytest.fixture
def settings(tmp_path):
    return make_settings("sample", {"output_dir": str(tmp_path)})


def execution(name: str, state: str = lineage.COMPLETE, **outputs: Artifact) -> Execution:
    return Execution(1, name, 1, state, 0.0, 1.0, {}, {}, outputs)


def run_of(run_id: int, *executions: Execution) -> Run:
    return Run(run_id, f"run {run_id}", "alexnet_sample", 0.0, {execution.name: execution for execution in executions})


def pusher(version: str = "", state: str = lineage.COMPLETE) -> Execution:
    properties = {"pushed": int(bool(version)), **({"pushed_version": version} if version else {})}
    return execution("Pusher", state, pushed_model=Artifact(9, "PushedModel", "/pushed", properties))


@pytest.fixture
def runs_in_database(monkeypatch, settings):
    """Has ML Metadata hold the given runs."""

    def hold(*runs: Run) -> None:
        settings.profile_dir.mkdir(parents=True)
        settings.metadata_path.touch()
        monkeypatch.setattr(lineage, "open_store", lambda connection: None)
        monkeypatch.setattr(lineage, "list_runs", lambda store, pipeline: list(runs))

    return hold


def test_starts_quietly_with_the_settings_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ALEXNET_PROFILE", "smoke")
    monkeypatch.setenv("ALEXNET_OUTPUT_DIR", str(tmp_path))
    for changed in ("TF_CPP_MIN_LOG_LEVEL", "LOKY_MAX_CPU_COUNT"):
        monkeypatch.setenv(changed, "2")  # and so taken back after the test
    standard_error = os.dup(2)
    try:
        with warnings.catch_warnings(record=True) as shown:
            settings = interactive.start()
            warnings.warn("of a framework", FutureWarning, stacklevel=1)
            os.write(2, b"of a C++ library")
        assert shown == []
        assert not logging.getLogger("absl").isEnabledFor(logging.WARNING)
        assert logging.getLogger("absl").isEnabledFor(logging.ERROR)
    finally:
        logging.disable(logging.NOTSET)
        os.dup2(standard_error, 2)
        os.close(standard_error)
    assert (tmp_path / "notebooks" / "logs" / "frameworks.log").read_bytes() == b"of a C++ library"
    assert settings == make_settings("smoke", {"output_dir": str(tmp_path)})
    assert interactive.folder(settings, "a_lesson").is_dir()
    assert interactive.folder(settings, "a_lesson") == tmp_path / "notebooks" / "a_lesson"


def test_finds_the_last_run_that_went_through(settings, runs_in_database):
    runs_in_database(
        run_of(1, pusher("17")),
        run_of(2, pusher("")),
        run_of(3, execution("Trainer", lineage.FAILED)),
        run_of(4, execution("LastBlessedModel", lineage.FAILED), pusher("")),
        run_of(5, execution("Trainer")),
        run_of(6, pusher("", lineage.UNFINISHED)),
    )
    assert interactive.last_run(settings) == (settings, run_of(2, pusher("")))
    assert interactive.last_run(settings, pushed=True) == (settings, run_of(1, pusher("17")))


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Command lines that would have been run; each of them runs nothing, and leaves no run."""
    started: list[list[str]] = []

    class Nothing:
        stdout = io.StringIO("the run failed\n")
        returncode = 1

        def __init__(self, command: list[str], cwd: Path, **_: object) -> None:
            started.append(command[1:])

        def __enter__(self) -> "Nothing":
            return self

        def __exit__(self, *exc: object) -> None:
            pass

    monkeypatch.setattr(interactive.subprocess, "Popen", Nothing)
    return started


def test_runs_the_smoke_profile_where_there_is_no_run(settings, commands, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ALEXNET_OUTPUT_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match=f"no run to look at in {tmp_path}/smoke"):
        interactive.last_run(settings)
    assert commands == [["-m", "pipeline.local_runner", "--profile=smoke"]]
    assert capsys.readouterr().out == (
        "The profile sample has no run yet: running the profile smoke. `make run` makes a better model.\n"
        "the run failed\n"
    )


def test_a_short_run_has_a_folder_of_its_own_and_no_floors(settings, commands, tmp_path):
    with pytest.raises(RuntimeError, match=f"{tmp_path}/notebooks/epochs_3/sample"):
        interactive.short_run(settings, epochs=3)
    (command,) = commands
    assert command[:3] == ["-m", "pipeline.local_runner", "--profile=sample"]
    assert set(command[3:]) == {
        "--epochs=3",
        f"--output-dir={tmp_path}/notebooks/epochs_3",
        "--accuracy-floor=0.0",
        "--class-recall-floor=0.0",
    }


def test_shows_a_chart_with_its_text_at_twice_the_pixels(monkeypatch):
    shown: list[tuple[dict[str, str], dict[str, dict[str, object]]]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: shown.append((data, metadata)))
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([1, 2])
    interactive.show(figure, "A line that rises.")
    ((data, metadata),) = shown
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A line that rises."
    assert metadata["image/png"]["width"] == picture.width // 2
    assert 300 < picture.width // 2 <= 400


def test_texts_begin_at_the_left():
    frame = pd.DataFrame({"code": ["NOT_FOUND"]}, index=["no such version"])
    with_index, without = (interactive.text_table(frame, index=index).to_html() for index in (True, False))
    assert all("text-align: left" in html and "NOT_FOUND" in html for html in (with_index, without))
    assert "no such version" in with_index
    assert "no such version" not in without


def test_finds_the_last_run_on_the_server_that_it_was_noted_on(settings, runs_in_database, commands):
    runs_in_database(run_of(1, pusher("17")))
    settings.metadata_path.unlink()
    settings.metadata_connection_path.write_text("mysql://tfx@metadata.example/runs\n")
    assert interactive.last_run(settings) == (settings, run_of(1, pusher("17")))
