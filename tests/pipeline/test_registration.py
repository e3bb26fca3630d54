"""What `tfx pipeline create` keeps, and how `tfx run create` uses it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tfx.tools.cli import cli_context, labels
from tfx.tools.cli.handler import local_handler

from pipeline import local_runner, registration
from pipeline.settings import PROJECT_ROOT, make_settings

RUNNER = "pipeline/local_runner.py"


@pytest.fixture
def tfx(tmp_path, monkeypatch):
    """Does what a `tfx pipeline` command does, from a folder with a space in its name; returns the program it keeps."""
    folder = tmp_path / "my folder é"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOCAL_HOME", "tfx home")

    def command(verb, **stated):
        flags = {labels.ENGINE_FLAG: "local", labels.PIPELINE_DSL_PATH: RUNNER}
        with click.Context(click.Command(verb)) as context:
            context.obj = cli_context.Context()
            context.obj.flags_dict = flags
            handler = local_handler.LocalHandler(flags)
            registration.keep(make_settings("smoke"), {"ALEXNET_PROFILE": "smoke", "HOME": "/root", **stated})
            if verb in ("create", "update"):
                handler._check_pipeline_existence("alexnet_smoke", required=verb == "update")
                handler._save_pipeline({labels.PIPELINE_NAME: "alexnet_smoke"})
        return folder / "tfx home" / "alexnet_smoke" / "local_runner.py"

    return command


@pytest.fixture
def started(monkeypatch):
    """The settings that runs are started with."""
    settings = []

    def main(arguments, environment):
        settings.append((arguments, environment))
        return 0

    monkeypatch.setattr(local_runner, "main", main)
    monkeypatch.setattr("surroundings.streams.prepare", lambda: None)
    for variable in [name for name in os.environ if name.startswith("ALEXNET_")]:
        monkeypatch.delenv(variable)
    return settings


def run(program: Path) -> object:
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program), run_name="__main__")
    return ended.value.code


def test_a_run_uses_what_was_kept_from_any_folder(tfx, started, tmp_path, monkeypatch, capsys):
    program = tfx("create", ALEXNET_DATA="data/é", ALEXNET_OUTPUT_DIR="out", ALEXNET_EPOCHS="3", ALEXNET_SEED="")
    assert program.is_file()
    monkeypatch.chdir(tmp_path)
    assert run(program) == 0
    folder = tmp_path / "my folder é"
    kept = {"ALEXNET_PROFILE": "smoke", "ALEXNET_DATA": str(folder / "data/é"), "ALEXNET_EPOCHS": "3"}
    assert started == [([], {**kept, "ALEXNET_OUTPUT_DIR": str(folder / "out")})]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("data", ["sample", "official", "gs://bucket/cifar-10"])
def test_data_that_are_no_path_stay_as_they_are(tfx, started, data):
    assert run(tfx("create", ALEXNET_DATA=data)) == 0
    assert started[0][1]["ALEXNET_DATA"] == data


def test_update_keeps_others_and_a_refused_or_compiling_command_none(tfx, started):
    program = tfx("create", ALEXNET_EPOCHS="3")
    with pytest.raises(SystemExit):
        tfx("create", ALEXNET_EPOCHS="4")
    tfx("compile", ALEXNET_EPOCHS="5")
    run(program)
    tfx("update", ALEXNET_EPOCHS="6")
    run(program)
    assert [environment["ALEXNET_EPOCHS"] for _, environment in started] == ["3", "6"]


def test_delete_leaves_nothing(tfx):
    program = tfx("create")
    flags = {labels.ENGINE_FLAG: "local", labels.PIPELINE_NAME: "alexnet_smoke"}
    local_handler.LocalHandler(flags).delete_pipeline()
    assert not program.parent.exists()


def test_outside_of_the_tfx_command_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_HOME", str(tmp_path))
    registration.keep(make_settings("smoke"), {})
    assert os.listdir(tmp_path) == []


def test_what_the_runs_shell_states_besides_is_said(tfx, started, monkeypatch, capsys):
    program = tfx("create", ALEXNET_DATA="data", ALEXNET_EPOCHS="3")
    for name, value in {"PROFILE": "smoke", "DATA": "data", "EPOCHS": "4", "SEED": "7", "XLA": ""}.items():
        monkeypatch.setenv(f"ALEXNET_{name}", value)
    assert run(program) == 0
    assert started[0][1]["ALEXNET_EPOCHS"] == "3"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Not used: ALEXNET_EPOCHS=4 ALEXNET_SEED=7 of this shell. alexnet_smoke runs with")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALEXNET_PROFILE", "sample", "and alexnet_smoke is of profile smoke: unset it, or ask for alexnet_sample."),
        ("ALEXNET_EPOCS", "3", "There is no setting ALEXNET_EPOCS"),
    ],
)
def test_a_shell_that_contradicts_is_refused(tfx, started, monkeypatch, capsys, variable, value, said):
    program = tfx("create")
    monkeypatch.setenv(variable, value)
    assert run(program) == 2
    assert said in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize("option", ["--pipeline_name alexnet_cifar10", "--pipeline-name=alexnet_cifar10"])
def test_a_name_that_does_not_fit_is_refused(tmp_path, option):
    """As by a command that an earlier version of the project has registered, which kept the runner's own path."""
    parent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, 'pipeline/local_runner.py']))"
    command = [sys.executable, "-c", parent, "run", "create", "--engine", "local", *option.split()]
    environment = {**os.environ, "ALEXNET_PROFILE": "smoke", "ALEXNET_OUTPUT_DIR": str(tmp_path)}
    ended = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "asks for alexnet_cifar10, and what it starts makes alexnet_smoke: nothing was run." in ended.stderr
    assert os.listdir(tmp_path) == []
