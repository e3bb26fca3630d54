"""Which server is chosen, with programs on the PATH that stand in for the real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving import launch
from serving.launch import Endpoints

BASE_PATH = Path("/srv/models/alexnet")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(folder: Path, name: str, script: str = "exit 0") -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def docker_script(*, daemon: bool = True, compose: bool = True, runtimes: str = '{"runc":{}}') -> str:
    lines = ['case "$*" in']
    if daemon:
        lines += [
            "'info --format {{.ServerVersion}}') echo 27.0 ;;",
            f"'info --format '*Runtimes*) echo '{runtimes}' ;;",
        ]
    if compose:
        lines += ["'compose version') echo v2 ;;"]
    return "\n".join([*lines, "*) exit 1 ;;", "esac"])


def test_an_installed_tensorflow_serving_comes_first(programs: Path):
    install(programs, "tensorflow_model_server")
    install(programs, "docker", docker_script())
    chosen = launch.choose(BASE_PATH, Endpoints(1, 2))
    assert chosen.server == "tensorflow_model_server"
    assert chosen.command[0] == str(programs / "tensorflow_model_server")
    assert {"--port=1", "--rest_api_port=2", "--model_name=alexnet", f"--model_base_path={BASE_PATH}"} <= set(
        chosen.command
    )


@pytest.mark.parametrize(
    ("runtimes", "profile"), [('{"runc":{}}', "cpu"), ('{"nvidia":{"path":"x"},"runc":{}}', "gpu")]
)
def test_docker_is_next(programs: Path, runtimes: str, profile: str):
    install(programs, "docker", docker_script(runtimes=runtimes))
    chosen = launch.choose(BASE_PATH, Endpoints(1, 2))
    assert chosen.server == "docker"
    assert chosen.reason == f"tensorflow_model_server is not on the PATH, a Docker daemon answers ({profile} profile)"
    assert chosen.command[:3] == ("docker", "compose", "--file")
    assert chosen.command[4:] == ("--profile", profile, "up")
    assert chosen.environment == {"SERVED_MODEL_DIR": str(BASE_PATH), "GRPC_PORT": "1", "REST_PORT": "2"}


@pytest.mark.parametrize(
    ("docker", "reason"),
    [
        (None, "Docker is not installed"),
        (docker_script(daemon=False), "no Docker daemon answers"),
        ("exit 0", "no Docker daemon answers"),  # what some versions do without one
        (docker_script(compose=False), "Docker has no compose plugin"),
    ],
)
def test_else_the_local_server(programs: Path, docker: str | None, reason: str):
    if docker:
        install(programs, "docker", docker)
    chosen = launch.choose(BASE_PATH, Endpoints())
    assert (chosen.server, chosen.reason) == ("local", f"tensorflow_model_server is not on the PATH, {reason}")
    assert chosen.command[:3] == (sys.executable, "-m", "serving.server")
    with pytest.raises(ValueError, match=f"docker cannot serve: {reason}"):
        launch.choose(BASE_PATH, Endpoints(), "docker")


def test_a_daemon_that_hangs_is_none(programs: Path, monkeypatch: pytest.MonkeyPatch):
    install(programs, "docker", "exec /bin/sleep 60")
    monkeypatch.setattr(launch, "DOCKER_TIMEOUT_S", 0.2)
    assert launch.choose(BASE_PATH, Endpoints()).server == "local"


def test_a_server_can_be_asked_for(programs: Path):
    install(programs, "tensorflow_model_server")
    assert launch.choose(BASE_PATH, Endpoints(), "local").server == "local"
    with pytest.raises(ValueError, match="docker cannot serve: Docker is not installed"):
        launch.choose(BASE_PATH, Endpoints(), "docker")


def test_the_local_server_takes_the_flags(programs: Path, tmp_path: Path):
    from serving.local_server.options import parse_flags

    flags = launch.choose(tmp_path, Endpoints(8600, 8601)).command[3:]
    options = parse_flags(list(flags))
    assert (options.port, options.rest_api_port, options.model_name) == (8600, 8601, "alexnet")
    assert options.model_base_path == str(tmp_path)
    assert options.enable_batching


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        (
            Endpoints(),
            ["client picture.png", "--rest picture.png", "--status", ":8501/v1/models/alexnet:predict"],
        ),
        (
            Endpoints(1, 2),
            ["--server 127.0.0.1:1 picture.png", "http://127.0.0.1:2 picture.png", "--status", "127.0.0.1:2/v1"],
        ),
    ],
)
def test_the_next_commands_reach_the_server(endpoints: Endpoints, words: list[str]):
    commands = launch.next_commands(endpoints)
    assert len(commands) == len(words)
    for command, word in zip(commands, words, strict=True):
        assert word in command


def test_the_curl_command_sends_the_picture(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\x00 and more")
    install(programs, "curl", "/bin/cat")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    curl = launch.next_commands(Endpoints())[-1]
    sent = subprocess.run(curl, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(sent) == {"instances": [{"b64": "iVBORwAgYW5kIG1vcmU="}]}


@pytest.fixture
def pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which profile smoke has versions 9 and 10."""
    for name in list(os.environ):
        if name.startswith("ALEXNET_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ALEXNET_OUTPUT_DIR", str(tmp_path / "outputs"))
    base_path = tmp_path / "outputs" / "smoke" / "serving_model" / "alexnet"
    for name in ("9", "10", "10.temporary"):
        (base_path / name).mkdir(parents=True)
    return base_path


def test_the_command_replaces_itself_by_the_server(programs: Path, pushed: Path):
    install(programs, "tensorflow_model_server", 'echo "serving: $*"')
    done = subprocess.run(
        [sys.executable, "-m", "serving.launch", "--profile", "smoke", "--port", "1234"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "Serving alexnet, version 10 of profile smoke."
    assert lines[1] == "Server: tensorflow_model_server, since tensorflow_model_server is on the PATH."
    assert lines[-1].startswith("serving: --port=1234 ")
    assert f"--model_base_path={pushed}" in lines[-1]


def test_the_profile_may_come_from_the_environment(programs: Path, pushed: Path, monkeypatch, capsys):
    monkeypatch.setenv("ALEXNET_PROFILE", "smoke")
    assert launch.main(["--dry-run"]) == 0
    assert f"--model_base_path={pushed}" in capsys.readouterr().out


def test_without_a_pushed_version_it_says_what_to_do(programs: Path, pushed: Path, capsys: pytest.CaptureFixture):
    assert launch.main(["--profile", "sample"]) == 1
    assert "`make run PROFILE=sample` trains one" in capsys.readouterr().err


def test_a_server_that_is_not_there(programs: Path, pushed: Path, capsys: pytest.CaptureFixture):
    assert launch.main(["--profile", "smoke", "--server", "tensorflow_model_server"]) == 1
    assert "tensorflow_model_server is not on the PATH" in capsys.readouterr().err


@pytest.mark.parametrize("server", ["tensorflow_model_server", "docker", "local"])
def test_a_server_that_listens_on_every_interface_says_so(programs: Path, server: str):
    install(programs, "tensorflow_model_server")
    install(programs, "docker", docker_script())
    text = launch.describe(launch.choose(BASE_PATH, Endpoints(), server), Endpoints())
    assert ("all of this machine's network interfaces" in text) == (server == "tensorflow_model_server")
