"""Runs that begin at the same moment, in processes of their own, on one metadata store."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import metadata_servers

from components.model_report import lineage
from pipeline import folder_lock, metadata_store, runs
from pipeline.settings import PROJECT_ROOT, Settings, make_settings

RUN_S = 600

HOLD = """
import sys
from pathlib import Path
from pipeline import folder_lock

with folder_lock.exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def run_at_once(commands: Sequence[Mapping[str, str]]) -> list[tuple[int, str]]:
    """Starts a run for each set of settings; returns exit status and output of each."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ALEXNET_")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline.local_runner"],
            cwd=PROJECT_ROOT,
            env=inherited | {f"ALEXNET_{name.upper()}": value for name, value in settings.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for settings in commands
    ]
    return [(process.wait(), output) for process in processes for output in [process.communicate(timeout=RUN_S)[0]]]


def small(data: Path, output_dir: Path, **changes: str) -> dict[str, str]:
    """Settings of a run of seconds that nothing keeps from pushing."""
    return {
        "profile": "smoke",
        "data": str(data),
        "output_dir": str(output_dir),
        "epochs": "1",
        "batch_size": "32",
        "accuracy_floor": "0",
        "class_recall_floor": "0",
        "latency_budget_s": "60",
        **changes,
    }


def settings_of(command: Mapping[str, str]) -> Settings:
    changes = {name: value for name, value in command.items() if name != "profile"}
    return make_settings(command["profile"], changes)


def assert_whole(run: lineage.Run) -> None:
    assert not run.failed
    assert not run.unfinished
    assert {"Cifar10ExampleGen", "Trainer", "Evaluator", "Pusher", "ModelReport"} < set(run.executions)


def test_a_folder_that_another_process_uses_is_refused_and_left_alone(small_data, tmp_path):
    command = small(small_data, tmp_path)
    folder = settings_of(command).profile_dir
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        before = sorted(folder.rglob("*"))
        ((status, output),) = run_at_once([command])
        assert status == 1
        assert f"another run is using {folder}: wait for it" in output
        assert sorted(folder.rglob("*")) == before
        other.kill()  # what a killed run leaves holds nothing
    with folder_lock.exclusive(folder):
        pass


def test_two_runs_on_one_server_are_both_whole(small_data, tmp_path, monkeypatch):
    monkeypatch.setenv("METADATA_PASSWORD", metadata_servers.PASSWORD)
    with metadata_servers.mariadb() as url:
        # One profile, so that they also make and look for the same types; a folder each.
        commands = [small(small_data, tmp_path / name, metadata_connection=url) for name in ("one", "other")]
        ended = run_at_once(commands)
        assert [status for status, _ in ended] == [0, 0], ended

        for command, (_, output) in zip(commands, ended, strict=True):
            settings = settings_of(command)
            (version,) = os.listdir(settings.serving_dir)
            assert f"version {version} in" in output
            place = runs.profiles(Path(command["output_dir"]))["smoke"]
            assert place.metadata_connection == url
            (run,) = metadata_store.list_runs(place)
            assert_whole(run)
            assert "baseline_model" not in run.executions["Evaluator"].inputs  # it would be the other's
            pushed = lineage.pushed_versions(metadata_store.open_store(place), metadata_store.own_pipeline(place))
            assert list(pushed) == [version]
            assert not settings.metadata_path.exists()
            (report,) = settings.pipeline_root.glob("ModelReport/report/*/report.html")
            assert "its seconds are those of the run that did the work" in report.read_text()  # read from the server

        for path in tmp_path.rglob("*"):
            assert not path.is_file() or b"cret 7" not in path.read_bytes(), path
        assert "cret 7" not in str(ended)
