"""10,000 requests, one in twenty of them garbage, while a new version is pushed and a broken one after it."""

import base64
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import mean_colour_models
import numpy as np
import pytest
import requests
from waiting import wait_until

from serving import client, stubs
from serving.answers import PredictionClient, ServedModel
from serving.retries import RetryPolicy
from serving.server_process import PROJECT_ROOT, ServerProcess, server_process

REQUESTS = 10_000
GARBAGE = 500
CONCURRENCY = 64
PUSH_AFTER = 2_000
BREAK_AFTER = 5_000
TIMEOUT_S = 60.0
MODEL = "alexnet"
OLD_FAVOURITE, NEW_FAVOURITE = 3, 7
HUGE_BYTES = 50_000_000

MAX_GROWTH_MIB = 64
"""Memory that the server may hold in the end beyond what it held when PUSH_AFTER requests had been answered.

It loads a second version in between. Some 44 of the 50 requests of HUGE_BYTES come later: a server that kept a tenth of
them would hold 200 MiB more, three times this.
"""

BATCHING = ("--enable_batching", f"--batching_parameters_file={PROJECT_ROOT}/serving/batching_parameters.txt")
PREDICT = "/tensorflow.serving.PredictionService/Predict"

PIXELS, IMAGES = mean_colour_models.random_images(32)


@dataclass(frozen=True)
class Outcome:
    """What became of a request: a code for garbage, the answering model's favourite for a good one."""

    kind: str
    started: float
    ended: float
    result: Any


class Connections(threading.local):
    """Each thread's own connections."""

    def __init__(self, server: ServerProcess) -> None:
        no_retry = RetryPolicy(max_attempts=1)  # a retry would hide a failure

        def connect(address: str, rest: bool) -> PredictionClient:
            return client.connect(address, ServedModel(MODEL), rest=rest, timeout_s=TIMEOUT_S, retry_policy=no_retry)

        self.clients = {"gRPC": connect(server.grpc_address, False), "REST": connect(server.rest_address, True)}
        self.channel = grpc.insecure_channel(server.grpc_address)
        self.url = f"http://{server.rest_address}/v1/models"

    def grpc_code(self, body: bytes) -> str:
        """The code that raw bytes get."""
        try:
            self.channel.unary_unary(PREDICT)(body, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def rest_code(self, body: bytes, path: str) -> int:
        """The status that raw bytes get. The body of an error has to be TensorFlow Serving's."""
        response = self.post(path, data=body)
        if response.status_code != requests.codes.ok:
            assert list(response.json()) == ["error"]
        return response.status_code

    def post(self, path: str, **body: Any) -> requests.Response:
        """Posts over a connection of its own: an idle one might be closed by the server just then."""
        return requests.post(f"{self.url}/{path}", timeout=TIMEOUT_S, **body)


Send = Callable[[Connections], Any]


def predict_body(tensor: Any, model: str = MODEL, signature: str = "serving_default") -> bytes:
    request = stubs.PredictRequest(model_spec=stubs.ModelSpec(name=model, signature_name=signature))
    request.inputs["image_bytes"].CopyFrom(tensor)
    return request.SerializeToString()


def strings(*values: bytes) -> Any:
    tensor = stubs.TensorProto(dtype=stubs.DT_STRING, string_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def floats(*values: float) -> Any:
    tensor = stubs.TensorProto(dtype=stubs.DT_FLOAT, float_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def rest_body(*images: bytes, signature: str = "serving_default") -> bytes:
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    return json.dumps({"signature_name": signature, "instances": instances}).encode()


def garbage() -> dict[str, tuple[Send, str | int]]:
    """Kinds of bad requests, each with the code that it has to get."""
    image = IMAGES[0]
    truncated = image[: len(image) // 2]
    huge = bytes(HUGE_BYTES)
    grpc_bodies: dict[str, tuple[bytes, str]] = {
        "empty message": (b"", "INVALID_ARGUMENT"),
        "truncated message": (predict_body(strings(image))[:-10], "INTERNAL"),  # gRPC's own code for no protobuf
        "text message": (b"request, please", "INTERNAL"),  # as protobuf: field 14, of 101 bytes that are not there
        "empty image": (predict_body(strings(b"")), "INVALID_ARGUMENT"),
        "truncated image": (predict_body(strings(image, truncated)), "INVALID_ARGUMENT"),
        "text image": (predict_body(strings(b"hello, server")), "INVALID_ARGUMENT"),
        "50 MB": (predict_body(strings(huge)), "RESOURCE_EXHAUSTED"),
        "wrong dtype": (predict_body(floats(1.0)), "INVALID_ARGUMENT"),
        "wrong signature": (predict_body(strings(image), signature="regress"), "FAILED_PRECONDITION"),
        "unknown model": (predict_body(strings(image), model="resnet"), "NOT_FOUND"),
    }
    rest_bodies: dict[str, tuple[bytes, str, int]] = {
        "empty message": (b"", MODEL, 400),
        "truncated message": (rest_body(image)[:-10], MODEL, 400),
        "text message": (b"hello, server", MODEL, 400),
        "empty image": (rest_body(b""), MODEL, 400),
        "truncated image": (rest_body(image, truncated), MODEL, 400),
        "text image": (rest_body(b"hello, server"), MODEL, 400),
        "50 MB": (b'{"instances": ["' + huge.replace(b"\0", b"A") + b'"]}', MODEL, 413),
        "wrong dtype": (b'{"instances": [1.5]}', MODEL, 400),
        "wrong signature": (rest_body(image, signature="regress"), MODEL, 400),
        "unknown model": (rest_body(image), "resnet", 404),
    }

    def over_grpc(body: bytes) -> Send:
        return lambda connections: connections.grpc_code(body)

    def over_rest(body: bytes, model: str) -> Send:
        return lambda connections: connections.rest_code(body, f"{model}:predict")

    return {
        **{f"gRPC, {name}": (over_grpc(body), code) for name, (body, code) in grpc_bodies.items()},
        **{f"REST, {name}": (over_rest(body, model), code) for name, (body, model, code) in rest_bodies.items()},
    }


def good() -> dict[str, Send]:
    """Kinds of good requests. Each checks its answer and returns the favourite of the model that gave it."""
    examples = [_example(image) for image in IMAGES[:2]]
    starts = itertools.cycle(range(len(IMAGES) - 8))

    def predict(protocol: str, batch_size: int) -> Send:
        def send(connections: Connections) -> int:
            part = slice(start := next(starts), start + batch_size)
            answers = connections.clients[protocol].predict(IMAGES[part])
            return tell([answer.probabilities for answer in answers], PIXELS[part])

        return send

    def classify_over_rest(connections: Connections) -> int:
        body = {"signature_name": "classify", "examples": examples}
        response = connections.post(f"{MODEL}:classify", json=body)
        assert response.status_code == requests.codes.ok, response.text
        return tell([[score for _, score in row] for row in response.json()["results"]], PIXELS[:2])

    def status(protocol: str) -> Send:
        def send(connections: Connections) -> None:
            states = [version.state for version in connections.clients[protocol].status()]
            assert "AVAILABLE" in states

        return send

    return {
        **{f"{protocol}, batch {size}": predict(protocol, size) for protocol in ("gRPC", "REST") for size in (1, 2, 8)},
        **{f"{protocol}, status": status(protocol) for protocol in ("gRPC", "REST")},
        "REST, classify": classify_over_rest,
    }


def _example(image: bytes) -> dict[str, Any]:
    return {"image": {"b64": base64.b64encode(image).decode()}}


def tell(answers: Any, pixels: np.ndarray) -> int:
    return mean_colour_models.tell(answers, pixels, (OLD_FAVOURITE, NEW_FAVOURITE))


def resident_mib(pid: int) -> dict[str, float]:
    """Memory that a process holds (VmRSS) and has held at most (VmHWM), in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """SavedModels to push."""
    folder = tmp_path / "models"
    broken = mean_colour_models.save(folder / "broken", favourite=0)
    graph = (broken / "saved_model.pb").read_bytes()
    (broken / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
    return {
        "old": mean_colour_models.save(folder / "old", OLD_FAVOURITE),
        "new": mean_colour_models.save(folder / "new", NEW_FAVOURITE),
        "broken": broken,
    }


@pytest.fixture
def server(models: dict[str, Path], tmp_path: Path) -> Iterator[tuple[ServerProcess, Path]]:
    """A server of the old model, and the base path where others can be pushed."""
    from components.pusher.executor import push

    base_path = tmp_path / MODEL
    push(models["old"], base_path)
    served = (f"--model_name={MODEL}", f"--model_base_path={base_path}", "--file_system_poll_wait_seconds=0.1")
    with server_process([*served, *BATCHING], tmp_path / "server.log") as process:
        yield process, base_path


def test_ten_thousand_requests(server: tuple[ServerProcess, Path], models: dict[str, Path]):
    from components.pusher.executor import push

    process, base_path = server
    old_version = int(next(base_path.iterdir()).name)
    bad, fine = garbage(), good()
    kinds = list(itertools.islice(itertools.cycle(fine), REQUESTS - GARBAGE))
    kinds += itertools.islice(itertools.cycle(bad), GARBAGE)
    random.Random(0).shuffle(kinds)
    connections = Connections(process)
    counter = itertools.count(1)
    answered = 0

    def send(kind: str) -> Outcome:
        nonlocal answered
        started = time.monotonic()
        result = bad[kind][0](connections) if kind in bad else fine[kind](connections)
        answered = next(counter)
        return Outcome(kind, started, time.monotonic(), result)

    def status() -> dict[int, tuple[str, str]]:
        return {status.version: (status.state, status.error) for status in connections.clients["gRPC"].status()}

    def state(version: int) -> str:
        return status().get(version, ("not seen yet", ""))[0]

    began = time.monotonic()
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        futures: list[Future[Outcome]] = [threads.submit(send, kind) for kind in kinds]
        wait_until(lambda: answered >= PUSH_AFTER)
        before = resident_mib(process.pid)
        pushed_at = time.monotonic()
        new_version = int(push(models["new"], base_path).name)
        wait_until(lambda: (state(old_version), state(new_version)) == ("END", "AVAILABLE"))
        swapped_at = time.monotonic()
        wait_until(lambda: answered >= BREAK_AFTER)
        broken_version = int(push(models["broken"], base_path).name)
        wait_until(lambda: state(broken_version) == "END")
        refused_at = time.monotonic()
        refused_after = answered
    seconds = time.monotonic() - began
    after = resident_mib(process.pid)

    failed = Counter(f"{kinds[i]}: {error!r:.300}" for i, f in enumerate(futures) if (error := f.exception()))
    assert not failed
    outcomes = [future.result() for future in futures]
    assert len(outcomes) == REQUESTS

    codes = {kind: Counter(outcome.result for outcome in outcomes if outcome.kind == kind) for kind in bad}
    assert codes == {kind: Counter({code: GARBAGE // len(bad)}) for kind, (_, code) in bad.items()}

    answers = [outcome for outcome in outcomes if outcome.kind in fine and not outcome.kind.endswith("status")]
    assert {a.result for a in answers if a.ended < pushed_at} == {OLD_FAVOURITE}
    assert {a.result for a in answers} == {OLD_FAVOURITE, NEW_FAVOURITE}
    assert {a.result for a in answers if a.started > swapped_at} == {NEW_FAVOURITE}
    # The fire went on after the broken version had been refused, and was not answered by it.
    assert refused_after < REQUESTS
    assert sum(a.started > refused_at for a in answers) > 0

    assert state(broken_version) == "END"
    assert status()[broken_version][1]
    assert status()[new_version] == ("AVAILABLE", "")
    for protocol in ("gRPC", "REST"):
        assert fine[f"{protocol}, batch 8"](connections) == NEW_FAVOURITE

    growth_mib = after["VmRSS"] - before["VmRSS"]
    print(
        f"\n{REQUESTS:,} requests in {seconds:.1f} s. Server: {before['VmRSS']:.0f} MiB after {PUSH_AFTER:,} of them, "
        f"{after['VmRSS']:.0f} MiB in the end ({growth_mib:+.0f}), {after['VmHWM']:.0f} MiB at most."
    )
    assert growth_mib < MAX_GROWTH_MIB
