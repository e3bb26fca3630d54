"""The server as a process, driven by flags as TensorFlow Serving's own test suite drives tensorflow_model_server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from local_server_models import save_half_plus, save_slow
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from waiting import wait_until

PROJECT_ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60
TIMEOUT_S = 60
LONG_COUNT = 600_000
"""Takes the slow model seconds."""


@dataclass
class Server:
    """A server process, what it has printed, and its addresses."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    grpc_address: str = ""
    rest_address: str = ""

    def predict(self, address: str = "", name: str = "default", **inputs: list[float]) -> predict_pb2.PredictResponse:
        """Sends what TensorFlow Serving's test suite sends."""
        with grpc.insecure_channel(address or self.grpc_address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return stub.Predict(float_request(name, **inputs), timeout=TIMEOUT_S, wait_for_ready=True)

    def rest(self, path: str, body: object = None) -> Any:
        """GETs, or POSTs a body."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://{self.rest_address}{path}", data, TIMEOUT_S) as response:
            content = response.read().decode()
        return json.loads(content) if content.startswith("{") else content


def float_request(name: str, **inputs: list[float]) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for key, values in inputs.items():
        request.inputs[key].dtype = 1
        request.inputs[key].float_val.extend(values)
        request.inputs[key].tensor_shape.dim.add(size=len(values))
    return request


def count_request(n: int) -> predict_pb2.PredictRequest:
    """To the slow model."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    request.inputs["n"].dtype = 9
    request.inputs["n"].int64_val.append(n)
    request.inputs["n"].tensor_shape.SetInParent()
    return request


def begin_counting(channel: grpc.Channel, n: int) -> Any:
    """Sends a request to a server that takes one at a time, and returns its future when it is under way."""
    grpc.channel_ready_future(channel).result(TIMEOUT_S)  # from then on requests arrive in their order
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    under_way = stub.Predict.future(count_request(n))
    wait_until(lambda: is_taken_over_grpc(channel))
    return under_way


def is_taken_over_grpc(channel: grpc.Channel) -> bool:
    """Whether the server has as many requests under way as it takes."""
    try:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(count_request(0), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return True
    return False


def is_taken_over_rest(server: Server) -> bool:
    """As is_taken_over_grpc: each protocol counts its own requests."""
    try:
        server.rest("/v1/models/default")
    except urllib.error.HTTPError as error:
        if error.code != 429:
            raise
        return True
    return False


def count_over_rest(server: Server, n: int) -> Any:
    """The slow model's answer, when nobody else has the server's only place."""
    while True:
        try:
            return server.rest("/v1/models/default:predict", {"inputs": n})
        except urllib.error.HTTPError as error:
            if error.code != 429:
                raise


@contextmanager
def running(*flags: str) -> Iterator[Server]:
    """Runs a server until the end of the context, once it says where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.server", *flags],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process)
    log: list[str] = []
    assert process.stdout
    assert process.stderr
    reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    reader.start()
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            server.lines.append(line)
            if match := re.search(r"gRPC at ([\d.:]+)", line):
                server.grpc_address = match[1]
                server.rest_address = (re.search(r"REST at http://([\d.:]+)/", line) or [""] * 2)[1]
                break
        assert server.grpc_address, "".join(log)
        watchdog.cancel()
        yield server
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_half_plus(folder / "half_plus_two", 2.0)
    save_half_plus(folder / "half_plus_three", 3.0)
    save_slow(folder / "slow")
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    """With every kind of flag that the test suite uses."""
    batching = models / "batching_config.txt"
    batching.write_text(
        "max_batch_size { value: 1024 } batch_timeout_micros { value: 0 } num_batch_threads { value: 4 }"
    )
    monitoring = models / "monitoring_config.txt"
    monitoring.write_text('prometheus_config: {\n  enable: true,\n  path: "/monitoring/prometheus/metrics"\n}\n')
    with running(
        "--port=0",
        "--rest_api_port=0",
        "--rest_api_timeout_in_ms=5000",
        f"--grpc_socket_path={models / 'tf-serving.sock'}",
        "--model_name=default",
        f"--model_base_path={models / 'half_plus_two'}",
        f"--monitoring_config_file={monitoring}",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
    ) as started:
        yield started


def test_it_says_what_it_serves_and_that_it_is_not_for_production(server: Server):
    assert len(server.lines) == 1
    assert "for laptops, notebooks, tests and validation, not for production" in server.lines[0]
    assert "Serves default [123]" in server.lines[0]


def test_grpc_and_the_unix_socket(server: Server, models: Path):
    for address in ("", f"unix:{models / 'tf-serving.sock'}"):
        response = server.predict(address, x=[2.0])
        assert list(response.outputs["y"].float_val) == [3.0]
        assert response.model_spec.version.value == 123


def test_the_missing_model_by_which_the_test_suite_waits(server: Server):
    with pytest.raises(grpc.RpcError, match="Servable"):
        server.predict(name="intentionally_missing_model")


def test_rest(server: Server):
    assert server.rest("/v1/models/default:predict", {"instances": [2.0, 3.0, 4.0]}) == {"predictions": [3.0, 3.5, 4.0]}
    (status,) = server.rest("/v1/models/default")["model_version_status"]
    assert (status["version"], status["state"]) == ("123", "AVAILABLE")
    assert "# TYPE" in server.rest("/monitoring/prometheus/metrics")


def test_sigterm_finishes_what_is_under_way_and_exits_with_0(models: Path):
    flags = ("--max_concurrent_requests=1", "--shutdown_grace_seconds=60", f"--model_base_path={models / 'slow'}")
    with (
        running("--port=0", "--rest_api_port=0", *flags) as started,
        grpc.insecure_channel(started.grpc_address) as channel,
    ):
        rest_answers: list[Any] = []
        asking = threading.Thread(target=lambda: rest_answers.append(count_over_rest(started, LONG_COUNT)))
        under_way = begin_counting(channel, LONG_COUNT)
        asking.start()
        wait_until(lambda: is_taken_over_rest(started))
        assert not under_way.done()
        started.process.send_signal(signal.SIGTERM)
        assert under_way.result(TIMEOUT_S).outputs["result"].int64_val[0] == LONG_COUNT
        asking.join()
        assert rest_answers == [{"outputs": LONG_COUNT}]
        assert started.process.wait(TIMEOUT_S) == 0


def test_a_run_that_outlasts_the_grace_period_does_not_keep_the_process(models: Path):
    flags = ("--max_concurrent_requests=1", "--shutdown_grace_seconds=0.5", f"--model_base_path={models / 'slow'}")
    with running("--port=0", *flags) as started, grpc.insecure_channel(started.grpc_address) as channel:
        endless = begin_counting(channel, np.iinfo(np.int64).max)
        started.process.send_signal(signal.SIGINT)
        assert started.process.wait(TIMEOUT_S) == 0
        assert endless.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def refused(*flags: str, program: Sequence[str] = ("-m", "serving.server")) -> subprocess.CompletedProcess[str]:
    """What a server that cannot start says."""
    command = [sys.executable, *program, *flags]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=START_TIMEOUT_S)
    assert finished.returncode == 1
    assert "Failed to start server. Error:" in finished.stderr
    assert "Traceback" not in finished.stderr
    return finished


def test_a_bad_configuration_is_refused_before_tensorflow_is_loaded(tmp_path: Path):
    bad = tmp_path / "bad_model_config.txt"
    bad.write_text("improperly formatted file")
    script = "import sys; from serving import server; code = server.main()\n"
    script += "print('tensorflow' in sys.modules); sys.exit(code)"
    finished = refused(f"--model_config_file={bad}", program=("-c", script))
    assert f"Invalid protobuf file: '{bad}'" in finished.stderr
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in finished.stderr
    assert finished.stdout == "False\n"


def test_a_port_that_is_taken_is_named(models: Path, server: Server):
    port = server.grpc_address.rpartition(":")[2]
    finished = refused(f"--port={port}", f"--model_base_path={models / 'half_plus_two'}")
    assert f"cannot listen on 127.0.0.1:{port}" in finished.stderr
