"""Serves the pushed model with the best server that this machine has: `python -m serving.launch --profile sample`.

TensorFlow Serving where it is installed, else TensorFlow Serving in Docker, else the local server. The model server
replaces this process, so that signals reach it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.settings import PROFILES, PROJECT_ROOT, make_settings, settings_from_environment

CONFIG_DIR = Path(__file__).resolve().parent
MODEL_NAME = "alexnet"

MODEL_SERVER = "tensorflow_model_server"
DOCKER = "docker"
LOCAL = "local"

DOCKER_TIMEOUT_S = 10.0
"""How long a Docker daemon may take to answer."""

_EVERY_INTERFACE = (
    f"{MODEL_SERVER} has no flag for its address: it listens on all of this machine's network interfaces and asks "
    f"nobody who they are. Where others reach them, use a firewall, or --server {LOCAL}, which is on 127.0.0.1 only."
)


@dataclass(frozen=True)
class Endpoints:
    """Where the server answers, on this machine: ports of gRPC and REST."""

    grpc_port: int = 8500
    rest_port: int = 8501


@dataclass(frozen=True)
class Launch:
    """A server that can be started.

    Attributes:
        server: MODEL_SERVER, DOCKER or LOCAL.
        reason: why it was chosen.
        command: to run in the project's folder.
        environment: variables that it needs besides those that are set.
    """

    server: str
    reason: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def choose(base_path: Path, endpoints: Endpoints, server: str | None = None) -> Launch:
    """Chooses a server and the command that starts it.

    Args:
        base_path: folder of the model's versions.
        endpoints: where to answer.
        server: MODEL_SERVER, DOCKER or LOCAL; the first of them that is there where None.

    Raises:
        ValueError: `server` is not there; says what is missing.
    """
    reasons: list[str] = []
    if server in (None, MODEL_SERVER):
        if executable := shutil.which(MODEL_SERVER):
            command = (executable, *_flags(base_path, endpoints))
            return Launch(MODEL_SERVER, f"{MODEL_SERVER} is on the PATH", command)
        reasons.append(f"{MODEL_SERVER} is not on the PATH")
    if server in (None, DOCKER):
        missing = _missing_for_docker()
        if missing is None:
            profile = "gpu" if _docker_has_gpus() else "cpu"
            compose = ("docker", "compose", "--file", str(CONFIG_DIR / "docker-compose.yml"), "--profile", profile)
            environment = {
                "SERVED_MODEL_DIR": str(base_path),
                "GRPC_PORT": str(endpoints.grpc_port),
                "REST_PORT": str(endpoints.rest_port),
            }
            reason = ", ".join([*reasons, f"a Docker daemon answers ({profile} profile)"])
            return Launch(DOCKER, reason, (*compose, "up"), environment)
        reasons.append(missing)
    if server in (None, LOCAL):
        reason = ", ".join(reasons) or "it was asked for"
        command = (sys.executable, "-m", "serving.server", *_flags(base_path, endpoints))
        return Launch(LOCAL, reason, command)
    raise ValueError(f"{server} cannot serve: {', '.join(reasons)}.")


def next_commands(endpoints: Endpoints) -> list[str]:
    """What to type while the server runs, from the project's folder."""
    client = f"{_python()} -m serving.client"
    grpc = "" if endpoints.grpc_port == 8500 else f" --server 127.0.0.1:{endpoints.grpc_port}"
    rest = " --rest" if endpoints.rest_port == 8501 else f" --server http://127.0.0.1:{endpoints.rest_port}"
    url = f"http://127.0.0.1:{endpoints.rest_port}/v1/models/{MODEL_NAME}"
    return [
        f"{client}{grpc} picture.png",
        f"{client}{rest} picture.png",
        f"{client}{grpc} --status",
        f"""echo '{{"instances": [{{"b64": "'$(base64 -w0 picture.png)'"}}]}}' | curl -d @- {url}:predict""",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; does not return where the server was started.

    Returns:
        The exit status: 0 with --dry-run, 1 where nothing can be served, 2 for wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.launch",
        description="Serve the pushed model: with TensorFlow Serving, in Docker, or with the local server.",
    )
    parser.add_argument("--profile", choices=list(PROFILES), help="whose model: ALEXNET_PROFILE, else sample")
    parser.add_argument("--server", choices=[MODEL_SERVER, DOCKER, LOCAL], help="the first of them that is there")
    parser.add_argument("--port", type=int, default=8500, help="for gRPC: %(default)s")
    parser.add_argument("--rest-api-port", type=int, default=8501, help="for REST: %(default)s")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    options = parser.parse_args(arguments)
    try:
        profile, changes = settings_from_environment(os.environ)
        settings = make_settings(options.profile or profile, changes)
    except ValueError as error:
        parser.error(str(error))
    versions = pushed_versions(settings.serving_dir)
    if not versions:
        print(
            f"No model has been pushed to {settings.serving_dir}: `make run PROFILE={settings.profile}` trains one.",
            file=sys.stderr,
        )
        return 1
    endpoints = Endpoints(options.port, options.rest_api_port)
    try:
        launch = choose(settings.serving_dir, endpoints, options.server)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Serving {MODEL_NAME}, version {versions[-1]} of profile {settings.profile}.")
    print(describe(launch, endpoints), flush=True)
    if not options.dry_run:
        os.chdir(PROJECT_ROOT)
        os.execvpe(launch.command[0], launch.command, {**os.environ, **launch.environment})
    return 0


def describe(launch: Launch, endpoints: Endpoints) -> str:
    """Which server it is, why, its command, and what to type next."""
    assignments = [f"{name}={shlex.quote(value)}" for name, value in launch.environment.items()]
    return "\n".join(
        [
            f"Server: {launch.server}, since {launch.reason}.",
            f"  {' '.join([*assignments, shlex.join(launch.command)])}",
            *([_EVERY_INTERFACE] if launch.server == MODEL_SERVER else []),
            "When it is up, in another terminal (Ctrl-C here stops it):",
            *(f"  {command}" for command in next_commands(endpoints)),
        ]
    )


def pushed_versions(base_path: Path) -> list[int]:
    """The versions in a folder, in rising order; none where there is no such folder."""
    if not base_path.is_dir():
        return []
    return sorted(int(path.name) for path in base_path.iterdir() if path.name.isdecimal() and path.is_dir())


def _flags(base_path: Path, endpoints: Endpoints) -> tuple[str, ...]:
    """Flags that TensorFlow Serving and the local server both take."""
    return (
        f"--port={endpoints.grpc_port}",
        f"--rest_api_port={endpoints.rest_port}",
        f"--model_name={MODEL_NAME}",
        f"--model_base_path={base_path}",
        "--file_system_poll_wait_seconds=1",
        "--enable_batching=true",
        f"--batching_parameters_file={CONFIG_DIR / 'batching_parameters.txt'}",
        f"--monitoring_config_file={CONFIG_DIR / 'monitoring.config'}",
    )


def _missing_for_docker() -> str | None:
    """Why Docker cannot be used, None where it can."""
    if shutil.which("docker") is None:
        return "Docker is not installed"
    if not _docker("info", "--format", "{{.ServerVersion}}"):
        return "no Docker daemon answers"
    if _docker("compose", "version") is None:
        return "Docker has no compose plugin"
    return None


def _docker_has_gpus() -> bool:
    return "nvidia" in (_docker("info", "--format", "{{json .Runtimes}}") or "")


def _docker(*arguments: str) -> str | None:
    """What a docker command prints, stripped; None where it fails or hangs."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            timeout=DOCKER_TIMEOUT_S,
            check=True,
            errors="replace",
        )
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()


def _python() -> str:
    """How one types this Python in the project's folder."""
    executable = Path(sys.executable)
    return str(executable.relative_to(PROJECT_ROOT) if executable.is_relative_to(PROJECT_ROOT) else executable)


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
