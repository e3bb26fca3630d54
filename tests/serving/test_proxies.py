"""Servers on this machine are asked directly, others through the proxy that the environment names."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from serving.answers import ServedModel, ServingError
from serving.grpc_client import GrpcClient
from serving.loopback import is_loopback
from serving.rest_client import RestClient
from serving.retries import RetryPolicy

MODEL = ServedModel("m")
TIMEOUT_S = 20.0
ONCE = RetryPolicy(max_attempts=1)


class HttpServer(ThreadingHTTPServer):
    """Answers as a model server does, and as a proxy that lets nothing through; keeps what it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: HttpServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        direct = self.path.startswith("/")
        status = {"version": "7", "state": "AVAILABLE", "status": {}}
        content = json.dumps({"model_version_status": [status]} if direct else {"error": "refused"}).encode()
        self.send_response(200 if direct else 403)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(403)

    def log_message(self, *arguments: object) -> None:
        """Keeps the test's output clean."""


@contextmanager
def started() -> Iterator[HttpServer]:
    with HttpServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    with started() as server:
        yield server


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    """A proxy that refuses everything, for all protocols and all hosts."""
    with started() as server:
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{server.server_port}")
        for name in ("no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        yield server


@pytest.fixture
def grpc_port() -> Iterator[int]:
    class ModelService(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):  # noqa: N802 (gRPC's name)
            response = get_model_status_pb2.GetModelStatusResponse()
            response.model_version_status.add(version=7, state="AVAILABLE")
            return response

    server = grpc.server(futures.ThreadPoolExecutor(1))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_rest_asks_this_machine_without_the_proxy(proxy: HttpServer, http_server: HttpServer, host: str):
    with RestClient(f"{host}:{http_server.server_port}", MODEL, timeout_s=TIMEOUT_S, retry_policy=ONCE) as client:
        assert [status.version for status in client.status()] == [7]
    assert proxy.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_grpc_asks_this_machine_without_the_proxy(proxy: HttpServer, grpc_port: int, host: str):
    with GrpcClient(f"{host}:{grpc_port}", MODEL, timeout_s=TIMEOUT_S, retry_policy=ONCE) as client:
        assert [status.version for status in client.status()] == [7]
    assert proxy.asked == []


def test_rest_asks_others_through_the_proxy(proxy: HttpServer):
    client = RestClient("models.example:8501", MODEL, timeout_s=TIMEOUT_S, retry_policy=ONCE)
    with client, pytest.raises(ServingError, match="refused"):
        client.status()
    assert proxy.asked == ["http://models.example:8501/v1/models/m"]


def test_grpc_asks_others_through_the_proxy(proxy: HttpServer):
    client = GrpcClient("models.example:8500", MODEL, timeout_s=TIMEOUT_S, retry_policy=ONCE)
    with client, pytest.raises(ServingError):
        client.status()
    assert set(proxy.asked) == {"models.example:8500"}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8500", True),
        ("127.1.2.3:8500", True),
        ("[::1]:8500", True),
        ("localhost:8500", True),
        ("http://localhost:8501", True),
        ("https://[::1]:8501/models", True),
        ("10.0.0.1:8500", False),
        ("localhost.example:8500", False),
        ("https://models.example/127.0.0.1", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_loopback_addresses(address: str, expected: bool):
    assert is_loopback(address) == expected
