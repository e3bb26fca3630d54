"""Uploading, starting and following, spoken to a stub of the API; and the `tfx` command that does the same."""

import os
import socket
import subprocess
import sys

import pytest

pytest.importorskip("kfp", reason="kfp, the client of Kubeflow Pipelines, is not installed")

from kubeflow_api import State, serving

from pipeline import kubeflow, kubeflow_client, kubeflow_run
from pipeline.kubeflow import KubeflowError
from pipeline.settings import PROJECT_ROOT, make_settings

STEPS = ("Trainer", "Evaluator", "Pusher")
IN_CLUSTER = {
    "image": "registry.example/alexnet:1",
    "volume_claim": "models",
    "artifact_root": "minio://mlpipeline/alexnet",
    "service_account": "trainer",
}


@pytest.fixture
def api():
    state = State()
    with serving(state) as host:
        yield state, host


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "alexnet.yaml"
    kubeflow.compile_pipeline(make_settings("smoke", IN_CLUSTER), path)
    return path


@pytest.fixture
def connected(api, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp.Client reads a context file there
    state, host = api
    return state, kubeflow_client.connect(host), make_settings("smoke", IN_CLUSTER | {"kubeflow_host": host})


def test_a_run_is_what_the_settings_say(connected, package):
    state, client, settings = connected
    submitted = kubeflow_client.submit(client, settings, package)
    assert list(state.pipelines.values()) == list(state.experiments.values()) == ["alexnet-smoke"]
    (run_id, run), *others = state.runs.items()
    assert not others
    assert submitted.run_id == run_id
    assert submitted.page.endswith(f"/#/runs/details/{run_id}")
    assert run.service_account == "trainer"
    assert run.runtime_config.pipeline_root == "minio://mlpipeline/alexnet"
    assert state.packages[run.pipeline_version_reference.pipeline_version_id][0]["schemaVersion"] == "2.1.0"


def test_a_second_submission_is_a_new_version_of_the_same_pipeline(connected, package):
    state, client, settings = connected
    kubeflow_client.submit(client, settings, package)
    kubeflow_client.submit(client, settings, package)
    (versions,) = state.versions.values()
    assert len(versions) == 2
    used = [run.pipeline_version_reference.pipeline_version_id for run in state.runs.values()]
    assert used == versions
    assert len(state.experiments) == 1


def test_artifacts_on_the_volume_leave_the_clusters_own_root(connected, package):
    state, client, _ = connected
    settings = make_settings("smoke", IN_CLUSTER | {"artifact_root": "/mnt/alexnet/artifacts"})
    kubeflow_client.submit(client, settings, package)
    (run,) = state.runs.values()
    assert run.runtime_config.pipeline_root is None


def test_following_shows_each_change_of_state_once(connected, package):
    state, client, settings = connected
    state.course = [
        {"run": "PENDING"},
        {"run": "RUNNING", "root-driver": "SUCCEEDED", "Trainer-driver": "SUCCEEDED", "Trainer": "RUNNING"},
        {"run": "RUNNING", "Trainer": "RUNNING"},
        {"run": "RUNNING", "Trainer": "SUCCEEDED", "Pusher": "RUNNING"},
        {"run": "SUCCEEDED", "Trainer": "SUCCEEDED", "Pusher": "SUCCEEDED"},
    ]
    run_id = kubeflow_client.submit(client, settings, package).run_id
    lines: list[str] = []
    assert kubeflow_client.follow(client, run_id, STEPS, poll_s=0.0, show=lines.append) == "SUCCEEDED"
    assert [line.split() for line in lines] == [
        ["run", "pending"],
        ["Trainer", "running"],
        ["run", "running"],
        ["Trainer", "succeeded"],
        ["Pusher", "running"],
        ["Pusher", "succeeded"],
        ["run", "succeeded"],
    ]


@pytest.mark.parametrize("end", ["FAILED", "CANCELED", "SKIPPED"])
def test_following_ends_with_the_run_however_that_ends(connected, package, end):
    state, client, settings = connected
    state.course = [{"run": "RUNNING"}, {"run": end, "Evaluator": "FAILED"}]
    run_id = kubeflow_client.submit(client, settings, package).run_id
    lines: list[str] = []
    assert kubeflow_client.follow(client, run_id, STEPS, poll_s=0.0, show=lines.append) == end
    assert "Evaluator broke" in "".join(lines)


def test_an_outage_does_not_end_the_following(connected, package):
    state, client, settings = connected
    run_id = kubeflow_client.submit(client, settings, package).run_id
    state.outage = kubeflow_client.MAX_FAILED_LOOKS - 1
    assert kubeflow_client.follow(client, run_id, STEPS, poll_s=0.0) == "SUCCEEDED"
    state.outage = kubeflow_client.MAX_FAILED_LOOKS
    with pytest.raises(KubeflowError, match=f"No longer following run {run_id}, which goes on: 503"):
        kubeflow_client.follow(client, run_id, STEPS, poll_s=0.0)


def test_a_token_is_sent_and_never_compiled(api, package, monkeypatch, tmp_path):
    state, host = api
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(kubeflow_client.TOKEN_VARIABLE, "s3cr3t-token")
    settings = make_settings("smoke", IN_CLUSTER)
    kubeflow_client.submit(kubeflow_client.connect(host), settings, package)
    assert state.tokens == {"Bearer s3cr3t-token"}
    path = tmp_path / "again.yaml"
    kubeflow.compile_pipeline(settings, path)
    assert "s3cr3t-token" not in path.read_text()


def test_what_the_api_refuses_is_said(connected, package, tmp_path):
    _, client, settings = connected
    path = tmp_path / "old.yaml"
    path.write_text(package.read_text().replace("schemaVersion: 2.1.0", "schemaVersion: 2.0.0"))
    with pytest.raises(KubeflowError, match=r"does not take .*old\.yaml: 400 .*only supports schema version 2\.1\.0"):
        kubeflow_client.submit(client, settings, path)


def test_a_host_without_the_api_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(KubeflowError, match=f"{host}: no Kubeflow Pipelines API answers there"):
        kubeflow_client.connect(host)
    with pytest.raises(KubeflowError, match="ALEXNET_KUBEFLOW_HOST"):
        kubeflow_client.connect("")


@pytest.mark.parametrize(("state_of_run", "status"), [("SUCCEEDED", 0), ("FAILED", 1)])
def test_one_command_compiles_submits_and_follows(connected, tmp_path, capsys, state_of_run, status):
    state, _, settings = connected
    state.course = [{"run": state_of_run}]
    assert kubeflow_run.run(settings, tmp_path / "kubeflow.yaml", submit=True) == status
    shown = capsys.readouterr().out
    assert "Compiled alexnet-smoke" in shown
    assert f"Run {next(iter(state.runs))}:" in shown
    assert shown.splitlines()[-1] == f"The run ended: {state_of_run.lower()}"


def test_a_setting_that_is_missing_ends_the_command_with_its_name(tmp_path, capsys):
    assert kubeflow_run.run(make_settings("smoke"), tmp_path / "kubeflow.yaml", submit=False) == 1
    assert "ALEXNET_IMAGE" in capsys.readouterr().out


@pytest.fixture
def handle(api, monkeypatch, tmp_path):
    """Makes our handler for a command of `tfx`, in this process."""
    from tfx.tools.cli import labels

    from pipeline.kubeflow_handler import KubeflowHandler

    _, host = api
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {**IN_CLUSTER, "profile": "smoke", "output_dir": str(tmp_path)}.items():
        monkeypatch.setenv(f"ALEXNET_{name.upper()}", value)
    runner = str(PROJECT_ROOT / "pipeline" / "kubeflow_runner.py")
    flags = {labels.ENGINE_FLAG: "kubeflow", labels.ENDPOINT: host, labels.PIPELINE_DSL_PATH: runner}
    return lambda **more: KubeflowHandler({**flags, labels.PIPELINE_NAME: "alexnet-smoke", **more})


def test_the_tfx_commands_manage_pipelines_and_runs(api, handle, capsys):
    state, _ = api
    handle().create_pipeline()
    handle().update_pipeline()
    (pipeline_id,) = state.pipelines
    assert len(state.versions[pipeline_id]) == 2
    with pytest.raises(SystemExit, match="`pipeline update` uploads a new version"):
        handle().create_pipeline()
    capsys.readouterr()

    handle().list_pipelines()
    assert capsys.readouterr().out == f"alexnet-smoke  {pipeline_id}\n"
    handle().create_run()
    (run_id, run), *_ = state.runs.items()
    assert run.pipeline_version_reference.pipeline_version_id == state.versions[pipeline_id][-1]
    capsys.readouterr()
    handle().list_runs()
    assert capsys.readouterr().out.startswith(f"{run_id}  succeeded  alexnet-smoke")
    handle(run_id=run_id).get_run()
    handle(run_id=run_id).terminate_run()
    handle(run_id=run_id).delete_run()
    assert not state.runs
    handle().delete_pipeline()
    assert not state.pipelines
    with pytest.raises(SystemExit, match="no pipeline alexnet-smoke"):
        handle().create_run()


def test_a_run_uses_what_was_compiled_whatever_its_shell_states(api, handle, monkeypatch):
    state, _ = api
    handle().create_pipeline()
    for name, value in {"artifact_root": "minio://elsewhere", "profile": "sample", "image": ""}.items():
        monkeypatch.setenv(f"ALEXNET_{name.upper()}", value)
    handle().create_run()
    monkeypatch.delenv("ALEXNET_ARTIFACT_ROOT")
    handle().create_run()
    roots = [run.runtime_config.pipeline_root for run in state.runs.values()]
    assert roots == ["minio://mlpipeline/alexnet"] * 2
    with pytest.raises(SystemExit, match="Kubeflow has no pipeline alexnet-sample"):
        handle(pipeline_name="alexnet-sample").create_run()


def test_the_tfx_command_line_finds_our_handler(api, tmp_path):
    state, host = api
    settings = {f"ALEXNET_{name.upper()}": value for name, value in IN_CLUSTER.items()}
    environment = os.environ | settings | {"HOME": str(tmp_path), "ALEXNET_PROFILE": "smoke"}
    environment["ALEXNET_OUTPUT_DIR"] = str(tmp_path)
    environment["PATH"] = "/usr/bin:/bin"  # not that of the environment: the command has to find its own pip
    runner = ["--pipeline_path", str(PROJECT_ROOT / "pipeline" / "kubeflow_runner.py")]
    command = [sys.executable, "-m", "pipeline.tfx_cli", "pipeline", "create", "--engine", "kubeflow", *runner]
    ended = subprocess.run(
        [*command, "--endpoint", host],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Pipeline alexnet-smoke created: {next(iter(state.pipelines))}" in ended.stdout
