"""Closed-loop load on a model server: each of some workers sends its next request when it has its answer.

Requests are bytes that were made before, and answers are not parsed, so that the client takes as little as it can of
the cores that it shares with the server. Imports nothing heavy, for the process of its own that it runs in.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

GRPC = "gRPC"
REST = "REST"

REQUEST_TIMEOUT_S = 60.0
PREDICT_METHOD = "/tensorflow.serving.PredictionService/Predict"


@dataclass(frozen=True)
class Target:
    """Where requests go.

    Attributes:
        protocol: GRPC or REST.
        address: `host:port`.
        model: its name at the server.
    """

    protocol: str
    address: str
    model: str


@dataclass(frozen=True)
class LoadResult:
    """What one stretch of load found.

    Attributes:
        latencies_s: of each request, from sending it to having its answer.
        elapsed_s: from the first request to the last answer.
        client_cpu_s: processor time of this process meanwhile.
    """

    latencies_s: list[float]
    elapsed_s: float
    client_cpu_s: float


def run(target: Target, bodies: Sequence[bytes], concurrency: int, duration_s: float) -> LoadResult:
    """Loads the server.

    Args:
        target: where to.
        bodies: serialized requests, sent in turn.
        concurrency: number of workers, each on a thread, over one gRPC channel or an HTTP connection each.
        duration_s: no request starts later; each worker sends one or more.

    Raises:
        grpc.RpcError: a gRPC request failed.
        RuntimeError: a REST request failed.
        OSError: the server cannot be reached.
    """
    latencies_s: list[list[float]] = [[] for _ in range(concurrency)]
    errors: list[Exception] = []
    connected = threading.Barrier(concurrency + 1)

    def work(index: int, send: Callable[[bytes], object]) -> None:
        own = latencies_s[index]
        number = index
        connected.wait()
        try:
            while not own or time.perf_counter() < started + duration_s:
                sent = time.perf_counter()
                send(bodies[number % len(bodies)])
                own.append(time.perf_counter() - sent)
                number += concurrency
        except Exception as error:  # raised again below, in the caller's thread
            errors.append(error)

    with _senders(target, concurrency) as senders:
        workers = [threading.Thread(target=work, args=item) for item in enumerate(senders)]
        for worker in workers:
            worker.start()
        cpu_s = time.process_time()
        started = time.perf_counter()
        connected.wait()
        for worker in workers:
            worker.join()
        elapsed_s = time.perf_counter() - started
        cpu_s = time.process_time() - cpu_s
    if errors:
        raise errors[0]
    return LoadResult([latency_s for own in latencies_s for latency_s in own], elapsed_s, cpu_s)


@contextmanager
def _senders(target: Target, concurrency: int) -> Iterator[list[Callable[[bytes], object]]]:
    """What sends a request and returns when its answer is there, for each worker; connected."""
    if target.protocol == GRPC:
        # The environment's proxy is not meant for this machine.
        with grpc.insecure_channel(target.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            grpc.channel_ready_future(channel).result(REQUEST_TIMEOUT_S)
            method = channel.unary_unary(PREDICT_METHOD)
            yield [lambda body: method(body, timeout=REQUEST_TIMEOUT_S)] * concurrency
        return
    connections = [http.client.HTTPConnection(target.address, timeout=REQUEST_TIMEOUT_S) for _ in range(concurrency)]
    try:
        for connection in connections:
            connection.connect()
        yield [_rest_sender(connection, f"/v1/models/{target.model}:predict") for connection in connections]
    finally:
        for connection in connections:
            connection.close()


def _rest_sender(connection: http.client.HTTPConnection, path: str) -> Callable[[bytes], object]:
    def send(body: bytes) -> None:
        connection.request("POST", path, body)
        response = connection.getresponse()
        answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{path} answered {response.status}: {answer[:200]!r}")

    return send
