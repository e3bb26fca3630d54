"""The pipeline through the `tfx` command, from a copy of the project whose source the test edits."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from hostile_home import VARIABLES, write_home

from pipeline import runs
from pipeline.settings import PROJECT_ROOT, make_settings

COMPONENTS = [
    "Cifar10ExampleGen",
    "ImportSchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Evaluator",
    "ServingValidator",
    "Pusher",
    "ModelReport",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_data):
    """A copy of the project, and a function that runs a command in it and returns which components were not cached."""
    root = tmp_path_factory.mktemp("project")
    for room in ("components", "models", "pipeline", "serving", "surroundings", "data"):
        shutil.copytree(PROJECT_ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    settings = make_settings("smoke", {"output_dir": str(root / "outputs")})
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ALEXNET_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LOCAL_HOME": str(root / "tfx"),
        "ALEXNET_PROFILE": "smoke",
        "ALEXNET_DATA": str(small_data),
        "ALEXNET_OUTPUT_DIR": settings.output_dir,
        "ALEXNET_ACCURACY_FLOOR": "0",
        "ALEXNET_LATENCY_BUDGET_S": "30",
    }

    def run(*command, expected_status=0, folder=root, without="nothing", **changed):
        own = {name: value for name, value in environment.items() if not name.startswith(without)}
        ended = subprocess.run(
            command, cwd=folder, env=own | changed, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == expected_status, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def executed():
        components = runs.last_run(settings)
        return [name for name in COMPONENTS if not components[name].cached]

    return root, settings, run, executed


def tfx(*arguments):
    return ("tfx", *arguments, "--engine", "local")


def append(path, line):
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")


# In this order: each test goes on from the last one's state.


def test_what_create_was_told_is_what_a_run_uses_from_anywhere_whatever_the_user_has_configured(project, tmp_path):
    root, settings, run, executed = project
    user = VARIABLES | {"HOME": str(write_home(root / "home"))}
    run(*tfx("pipeline", "create", "--pipeline_path", "pipeline/local_runner.py"), **user)
    assert (root / "tfx" / settings.pipeline_name / "local_runner.py").exists()
    command = tfx("run", "create", "--pipeline_name", settings.pipeline_name)
    shown = run(*command, folder=tmp_path, without="ALEXNET_", **user)
    assert executed() == COMPONENTS
    (version,) = os.listdir(settings.serving_dir)
    assert f"version {version}" in shown
    signatures = tf.saved_model.load(str(settings.serving_dir / version)).signatures
    assert {"serving_default", "classify"} <= set(signatures)


def test_second_run_is_all_cached_whatever_its_shell_states(project):
    _, settings, run, executed = project
    shown = run(*tfx("run", "create", "--pipeline_name", settings.pipeline_name), ALEXNET_EPOCHS="9")
    assert "Not used: ALEXNET_EPOCHS=9 of this shell." in shown
    assert executed() == []
    assert len(os.listdir(settings.serving_dir)) == 1
    assert "Already pushed" in shown


def test_edited_comment_changes_nothing(project):
    root, _, run, executed = project
    append(root / "models" / "alexnet.py", "# A comment.")
    run(sys.executable, "-m", "pipeline.local_runner")
    assert executed() == []


def test_edited_model_trains_again_on_cached_data(project):
    root, _, run, executed = project
    append(root / "models" / "alexnet.py", "EDITED = True")
    run(sys.executable, "-m", "pipeline.local_runner")
    assert executed() == ["Trainer", "Evaluator", "ServingValidator", "Pusher", "ModelReport"]


def test_edited_component_runs_alone(project):
    root, settings, run, executed = project
    before = os.listdir(settings.serving_dir)
    append(root / "components" / "pusher" / "executor.py", "EDITED = True")
    run(sys.executable, "-m", "pipeline.local_runner")
    assert executed() == ["Pusher", "ModelReport"]
    assert os.listdir(settings.serving_dir) == before  # the model is the one that was pushed last


def test_flag_wins_over_the_environment(project):
    _, _, run, executed = project
    run(sys.executable, "-m", "pipeline.local_runner", "--accuracy-tolerance", "0.9", ALEXNET_ACCURACY_TOLERANCE="0.8")
    assert executed() == ["Evaluator", "Pusher", "ModelReport"]
    run(sys.executable, "-m", "pipeline.local_runner", ALEXNET_ACCURACY_TOLERANCE="0.9")
    assert executed() == []


def test_a_run_by_another_name_is_refused(project):
    _, settings, run, _ = project
    asked = tfx("run", "create", "--pipeline_name", settings.pipeline_name)
    shown = run(*asked, expected_status=1, ALEXNET_PROFILE="sample")
    assert "ALEXNET_PROFILE is sample in this shell, and alexnet_smoke is of profile smoke" in shown
    assert not (settings.profile_dir.parent / "sample").exists()


def test_failed_run_ends_with_an_error_status(project, small_data, tmp_path):
    _, settings, run, _ = project
    data = shutil.copy(small_data, tmp_path)
    run(*tfx("pipeline", "update", "--pipeline_path", "pipeline/local_runner.py"), ALEXNET_DATA=data)
    os.remove(data)
    shown = run(*tfx("run", "create", "--pipeline_name", settings.pipeline_name), expected_status=1)
    assert f"there is nothing at {data}" in shown
