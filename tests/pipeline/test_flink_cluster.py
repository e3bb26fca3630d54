"""What needs no Flink; tests/e2e/test_flink.py runs a real cluster."""

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent import futures
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker import sdk_worker_main
from waiting import wait_until

from pipeline.flink import cluster as cluster_module
from pipeline.flink import worker
from pipeline.flink.cluster import HOST, Cluster, Ports, configuration
from pipeline.flink.jars import FlinkError
from pipeline.settings import PROJECT_ROOT


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Puts a program of a test's own in the place of java; returns how."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(text: str) -> None:
        (folder / "java").write_text(f"#!/bin/sh\n{text}\n")
        (folder / "java").chmod(0o755)

    return put


def alive(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


def test_free_ports_differ():
    ports = asdict(Ports.free()).values()
    assert len(set(ports)) == 4
    assert all(port > 1024 for port in ports)


def test_everything_listens_on_this_machine_only(tmp_path):
    settings = configuration(Ports(), slots=2, scratch=tmp_path)
    addresses = {value for key, value in settings.items() if key.endswith(("address", "host", "bind-host"))}
    assert addresses == {HOST}


def test_a_lost_task_manager_is_a_reason_to_try_again(tmp_path):
    settings = configuration(Ports(), slots=2, scratch=tmp_path)
    assert settings["restart-strategy.type"] == "fixed-delay"
    assert settings["restart-strategy.fixed-delay.attempts"] > 0


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        ports = Ports(**(asdict(Ports.free()) | {"job": port}))
        with pytest.raises(FlinkError, match=rf"port {port} \(job\).*make flink-stop"):
            Cluster(tmp_path, tmp_path, ports).start()


def test_a_process_that_ends_is_reported_with_its_last_lines_and_the_others_are_stopped(tmp_path, java):
    java('case "$*" in *TaskManagerRunner*) echo "no memory left"; exit 1;; esac; while :; do sleep 0.1; done')
    cluster = Cluster(tmp_path / "flink", tmp_path, Ports.free())
    with pytest.raises(FlinkError, match=r"(?s)task-manager-1 ended .*task-manager-1\.log:\nno memory left"):
        cluster.start(task_managers=1)
    assert cluster.pids == {}
    assert Cluster.find(tmp_path / "flink") is None


def test_a_cluster_that_is_not_ready_in_time_is_stopped(tmp_path, java, monkeypatch):
    java("while :; do sleep 0.1; done")
    monkeypatch.setattr(cluster_module, "START_TIMEOUT_S", 0.5)
    cluster = Cluster(tmp_path / "flink", tmp_path, Ports.free())
    started: list[int] = []
    monkeypatch.setattr(Cluster, "stop", _remembering(Cluster.stop, started))
    with pytest.raises(FlinkError, match="task managers were not ready after"):
        cluster.start(task_managers=2)
    assert len(started) == 4
    assert not any(alive(pid) for pid in started)


def _remembering(stop, pids):
    def remember_and_stop(cluster):
        pids.extend(cluster.pids.values())
        stop(cluster)

    return remember_and_stop


def test_another_command_finds_the_cluster_and_stops_only_what_is_of_it(tmp_path):
    folder = tmp_path / "flink"
    folder.mkdir()
    program = [sys.executable, "-c", "import time; time.sleep(600)"]
    ours = subprocess.Popen([*program, str(folder)])
    stranger = subprocess.Popen(program)  # as if the system had given a dead process's number to another
    try:
        state = {"jars": "/jars", "ports": asdict(Ports()), "slots": 2}
        state["pids"] = {"job-manager": ours.pid, "task-manager-1": stranger.pid}
        (folder / "cluster.json").write_text(json.dumps(state))
        found = Cluster.find(folder)
        assert found is not None
        assert found.task_managers == []
        found.stop()
        assert not alive(ours.pid)
        assert stranger.poll() is None
        assert Cluster.find(folder) is None
    finally:
        for process in (ours, stranger):
            process.kill()
            process.wait()


def test_a_process_that_has_ended_does_not_run_though_nobody_has_asked_how(tmp_path):
    program = f"import subprocess, time; child = subprocess.Popen(['true', {str(tmp_path)!r}])"
    program += "; print(child.pid); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            cluster = Cluster(tmp_path, tmp_path, pids={"task-manager-1": pid})
            wait_until(lambda: "(zombie)" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
            assert cluster.task_managers == []
            cluster.stop()
        finally:
            parent.kill()


class Runner(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """The part of a runner that a worker asks first."""

    def __init__(self) -> None:
        self.workers: list[str] = []

    def GetProvisionInfo(self, request, context):  # noqa: N802 (Beam's name)
        self.workers.append(dict(context.invocation_metadata())["worker_id"])
        response = beam_provision_api_pb2.GetProvisionInfoResponse()
        response.info.control_endpoint.url = "127.0.0.1:1111"
        response.info.logging_endpoint.url = "127.0.0.1:2222"
        response.info.pipeline_options.update({"beam:option:job_name:v1": "evaluation"})
        response.info.runner_capabilities.append("beam:protocol:state_caching:v1")
        return response


def test_a_worker_asks_the_runner_what_to_do_and_becomes_beams_own(monkeypatch):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    runner = Runner()
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(runner, server)
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    seen: dict[str, str] = {}
    monkeypatch.setattr(sdk_worker_main, "main", lambda _: seen.update(os.environ))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    try:
        worker.main(["--id=3-1", f"--provision_endpoint={HOST}:{port}", "--semi_persist_dir=/tmp"])
    finally:
        server.stop(None)
    assert runner.workers == ["3-1"]
    assert seen["WORKER_ID"] == "3-1"
    assert seen["CONTROL_API_SERVICE_DESCRIPTOR"].strip() == 'url: "127.0.0.1:1111"'
    assert seen["LOGGING_API_SERVICE_DESCRIPTOR"].strip() == 'url: "127.0.0.1:2222"'
    assert json.loads(seen["PIPELINE_OPTIONS"]) == {"beam:option:job_name:v1": "evaluation"}
    assert seen["RUNNER_CAPABILITIES"] == "beam:protocol:state_caching:v1"


def test_the_worker_command_runs_the_python_that_it_is_told(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\npwd; echo "$@"\n')
    python.chmod(0o755)
    script = worker.__file__.replace("worker.py", "worker.sh")
    environment = os.environ | {"BEAM_PYTHON": str(python)}
    done = subprocess.run([script, "--id=1"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(PROJECT_ROOT), "-m pipeline.flink.worker --id=1"]


class JobManager(BaseHTTPRequestHandler):
    """Says at every path that there is one task manager."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"taskmanagers": 1}')


def test_the_job_manager_is_asked_without_the_environments_proxy(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{HOST}:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer((HOST, 0), JobManager) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        ports = Ports(**(asdict(Ports.free()) | {"rest": server.server_port}))
        assert Cluster(tmp_path, tmp_path, ports).overview() == {"taskmanagers": 1}


@pytest.mark.timeout(20)
def test_a_kernel_thread_that_got_a_dead_processs_number_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").touch()
    flags = 0x0420_8040  # as Linux shows a kworker's
    (tmp_path / "7" / "stat").write_text(f"7 (kworker/0:0H) I 2 0 0 0 -1 {flags} 0 0\n")
    monkeypatch.setattr(cluster_module, "PROC", tmp_path)
    cluster = Cluster(tmp_path, tmp_path, pids={"task-manager-1": 7})
    assert cluster.task_managers == []


def test_without_java_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FlinkError, match="java is not on the PATH: install Java 17"):
        Cluster(tmp_path, tmp_path, Ports.free()).start()
