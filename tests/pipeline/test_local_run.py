"""What a run says before the pipeline has begun, and once its model is pushed: nothing that fails then can hide it."""

import io
import os
import sys
from types import SimpleNamespace

import absl.logging
import pytest
from run_records import Component, RunRecords, pushed_model

from components.cifar10_example_gen import download
from pipeline import local_run, report, runs
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


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a pipeline of an Evaluator, a Pusher and a ModelReport; returns its status, what it said and its verdict."""
    settings = make_settings("smoke", {"output_dir": str(tmp_path)})
    version_dir = settings.serving_dir / "100"

    def make(pusher, model_report, verdict="Test accuracy 0.6000   gate: BLESSED"):
        """Each is what a component does; it ends well where that raises nothing."""
        components = {
            "Evaluator": (lambda: None, {"blessing": ("ModelBlessing", "/blessing", {"blessed": 1})}),
            "Pusher": (pusher, {"pushed_model": pushed_model("100")}),
            "ModelReport": (model_report, {"report": ("Report", "/report", {})}),
        }

        def run_all(runner, pipeline):
            recorded = RunRecords(settings.metadata_path).start_run("now")
            for name, (work, outputs) in components.items():
                absl.logging.info("Component %s is running.", name)
                try:
                    work()
                except BaseException as error:
                    state = "failed" if isinstance(error, Exception) else "running"
                    recorded.add(Component(name, state))
                    raise
                recorded.add(Component(name, outputs=outputs))
                absl.logging.info("Component %s is finished.", name)

        runner = type("Runner", (), {"run_name": "now", "__init__": lambda self, name: None, "run": run_all})
        monkeypatch.setitem(sys.modules, "pipeline.named_runner", SimpleNamespace(NamedRunner=runner))
        pipeline = SimpleNamespace(create_pipeline=lambda *_, **__: None)
        monkeypatch.setitem(sys.modules, "pipeline.pipeline", pipeline)
        if verdict:
            monkeypatch.setattr(report, "_verdict", lambda run: [verdict])
        status = local_run.run(settings)
        (summary,) = runs.summaries(tmp_path, "smoke")
        return status, capfd.readouterr().out, summary.verdict

    return make, version_dir


def push_into(version_dir):
    return lambda: version_dir.mkdir(parents=True)


def ends_well():
    pass


def raises(error):
    def work():
        raise error

    return work


def test_a_report_that_fails_costs_neither_verdict_nor_status(run, caplog):
    make, version_dir = run
    status, shown, verdict = make(push_into(version_dir), raises(OSError(28, "No space left on device")))
    assert status == 0
    said = shown.splitlines()
    assert "Test accuracy 0.6000   gate: BLESSED" in said
    assert "Pushed: version 100 in /serving/100" in said
    failure, last = said[-2:]
    assert failure.startswith("Failed in ModelReport, after the push: [Errno 28] No space left on device. Log: ")
    assert "The run ended after its push.\nTraceback" in caplog.text  # a run's log has it
    assert last == f"Version 100 was pushed and stays in {version_dir.parent}; the same command makes what is missing."
    assert "untouched" not in shown
    assert verdict == "blessed, report failed"


def test_an_interrupted_report_hides_nothing_either(run):
    make, version_dir = run
    status, shown, verdict = make(push_into(version_dir), raises(KeyboardInterrupt))
    assert status == 130
    assert "Pushed: version 100 in /serving/100" in shown
    assert "Interrupted in ModelReport, after the push. Log: " in shown
    assert "last finished epoch" not in shown
    assert verdict == "blessed, report interrupted"


def test_a_verdict_that_cannot_be_read_does_not_hide_the_push(run):
    make, version_dir = run
    status, shown, verdict = make(push_into(version_dir), ends_well, verdict="")  # an Evaluator without files
    assert status == 0
    assert "The verdict cannot be read: " in shown
    assert "Pushed: version 100 in /serving/100" in shown
    assert verdict == "blessed"


def test_last_lines_that_cannot_be_made_do_not_hide_the_push(run, monkeypatch):
    make, version_dir = run
    monkeypatch.setattr(report, "last_lines", lambda *_: raises(ConnectionError("the metadata server is gone"))())
    status, shown, _ = make(push_into(version_dir), ends_well)
    assert status == 0
    assert "Failed, after the push: the metadata server is gone." in shown
    assert f"Version 100 was pushed and stays in {version_dir.parent}" in shown


def test_a_failure_before_the_push_leaves_what_was_pushed(run):
    make, version_dir = run
    version_dir.mkdir(parents=True)
    status, shown, verdict = make(raises(OSError("no")), ends_well)
    assert status == 1
    assert "The run failed in Pusher: no\nWhat was pushed before is untouched; the same command runs again." in shown
    assert verdict == "failed in Pusher"


@pytest.mark.parametrize(("error", "expected_status"), [(OSError("no"), 1), (KeyboardInterrupt(), 130)])
def test_a_failure_just_after_the_version_is_there_says_so(run, error, expected_status):
    make, version_dir = run

    def push():
        version_dir.mkdir(parents=True)
        raise error

    status, shown, _ = make(push, ends_well)
    assert status == expected_status
    assert f"Version 100 was pushed and stays in {version_dir.parent}" in shown
    assert "untouched" not in shown


def test_a_component_whose_files_cannot_be_read_has_ended_all_the_same(run, monkeypatch):
    make, version_dir = run
    monkeypatch.setitem(report._PRODUCED, "Pusher", lambda run: raises(OSError("gone"))())
    status, shown, _ = make(push_into(version_dir), ends_well)
    assert status == 0
    assert "what it has made cannot be read: gone" in shown
    assert "Pushed: version 100" in shown
