"""The benchmark's arithmetic and table; the load generator against servers whose answers and delays are known."""

import http.server
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import load, machine, serving, serving_table
from benchmarks.load import GRPC, REST, LoadResult, Target
from serving import client, stubs

DELAY_S = 0.02
BODIES = [b"first", b"second", b"third"]


class Received:
    """What a server was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def answer(self, body: bytes) -> bytes:
        self.bodies.append(body)
        time.sleep(DELAY_S)
        return b"{}"


@pytest.fixture
def grpc_target() -> Iterator[tuple[Target, Received]]:
    received = Received()

    class Handler(grpc.GenericRpcHandler):
        def service(self, call_details):
            assert call_details.method == load.PREDICT_METHOD
            return grpc.unary_unary_rpc_method_handler(lambda body, context: received.answer(body))

    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Target(GRPC, f"127.0.0.1:{port}", "alexnet"), received
    server.stop(0).wait()


@pytest.fixture
def rest_target() -> Iterator[tuple[Target, Received]]:
    received = Received()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            answer = received.answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.path == "/v1/models/alexnet:predict" else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Target(REST, f"127.0.0.1:{server.server_port}", "alexnet"), received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("fixture", ["grpc_target", "rest_target"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_load_is_a_closed_loop(fixture: str, concurrency: int, request: pytest.FixtureRequest):
    target, received = request.getfixturevalue(fixture)
    result = load.run(target, BODIES, concurrency, duration_s=0.2)
    assert len(result.latencies_s) == len(received.bodies)
    assert set(received.bodies) <= set(BODIES)
    assert min(result.latencies_s) >= DELAY_S
    # No worker has two requests under way.
    assert sum(result.latencies_s) <= concurrency * result.elapsed_s
    assert concurrency <= len(received.bodies) <= concurrency * (result.elapsed_s / DELAY_S)
    assert result.client_cpu_s > 0


@pytest.mark.parametrize("fixture", ["grpc_target", "rest_target"])
def test_each_worker_sends_one_request_at_least(fixture: str, request: pytest.FixtureRequest):
    target, received = request.getfixturevalue(fixture)
    assert len(load.run(target, BODIES, 3, duration_s=0.0).latencies_s) == 3
    assert sorted(received.bodies) == sorted(BODIES)


def test_an_error_is_no_measurement(rest_target: tuple[Target, Received]):
    target = Target(REST, rest_target[0].address, "unknown")
    with pytest.raises(RuntimeError, match="unknown:predict answered 404"):
        load.run(target, BODIES, 2, duration_s=0.1)


def test_samples_of_known_rounds():
    samples = serving.Samples(batch_size=8)
    assert samples.add(LoadResult([0.1, 0.3], elapsed_s=0.5, client_cpu_s=0.08), server_cpu_s=0.32) == 32
    assert samples.add(LoadResult([0.2], elapsed_s=0.2, client_cpu_s=0.04), server_cpu_s=0.16) == 40
    summary = samples.summary()
    assert summary["requests"] == 3
    assert summary["rounds"] == 2
    assert summary["latency_s"]["p50"] == 0.2
    assert summary["images_per_s"] == {"median": 36, "min": 32, "max": 40}
    assert summary["client_cpu_s_per_image"] == pytest.approx(0.12 / 24)
    assert summary["server_cpu_s_per_image"] == pytest.approx(0.48 / 24)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_percentiles_are_numpys(values: list[float]):
    found = serving.percentiles(values)
    for percent in (50, 90, 99):
        assert found[f"p{percent}"] == pytest.approx(np.percentile(values, percent), abs=1e-9)


def test_bodies_hold_the_images():
    images = serving.sample_images(2)
    assert all(image.startswith(b"\x89PNG") for image in images)
    request = stubs.PredictRequest.FromString(serving.grpc_body(images))
    assert list(request.inputs["image_bytes"].string_val) == images
    assert [dim.size for dim in request.inputs["image_bytes"].tensor_shape.dim] == [2]
    assert len(json.loads(serving.rest_body(images))["instances"]) == 2


def test_batches_are_whole():
    images = [bytes([number]) for number in range(7)]
    assert [list(batch) for batch in serving.batches(images, 3)] == [images[:3], images[3:6]]


def figures(added_s: float, ratio: float) -> dict:
    """A results file with one line for each aim."""

    def spread(value: float) -> dict[str, float]:
        return {"median": value, "min": value / 2, "max": value * 2}

    measured = {
        "requests": 100,
        "latency_s": {"p50": 0.004, "p90": 0.005, "p99": 0.006},
        "images_per_s": spread(250.0),
        "client_cpu_s_per_image": 0.0002,
        "server_cpu_s_per_image": 0.003,
    }
    served = {
        **measured,
        "server": "without batching",
        "protocol": GRPC,
        "batch_size": 1,
        "added_latency_s": spread(added_s),
        "rate_ratio": spread(ratio),
    }
    return {
        "date": "2026-01-01T00:00:00+00:00",
        "machine": machine.describe(),
        "load_average_1min_after": 0.5,
        "versions": machine.versions(["grpcio"]),
        "settings": {
            "model": "a model",
            "saved_model_sha256": "ab" * 32,
            "seconds": 10,
            "rounds": 5,
            "stretch_s": 0.1,
            "server_flags": {"without batching": []},
        },
        "in_process": [{"batch_size": 1, **measured}],
        "first_request": {"with warm-up": {"starts": 3, "first_s": spread(0.004), "later_s": spread(0.003)}},
        "served": [
            {**served, "protocol": protocol, "concurrency": concurrency}
            for protocol in (GRPC, REST)
            for concurrency in (1, 32)
        ],
    }


@pytest.mark.parametrize(
    ("added_s", "ratio", "verdicts"),
    [(0.001, 0.8, ["reached", "reached"]), (0.00101, 0.79, ["**missed**", "**missed**"])],
)
def test_table_says_which_aims_are_reached(added_s: float, ratio: float, verdicts: list[str]):
    lines = serving_table.markdown(figures(added_s, ratio)).splitlines()
    aims = [line.split("|")[-2].strip() for line in lines if line.startswith("| concurrency")]
    assert aims == verdicts
    assert "| gRPC | 1 | 1 | 100 | 4.00 | 5.00 | 6.00 |" in "\n".join(lines)


class InlineExecutor:
    """In the place of a process pool."""

    def __init__(self, *_: object) -> None:
        """Starts nothing."""

    def __enter__(self) -> "InlineExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        """Has nothing to stop."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> SimpleNamespace:
        result = function(*arguments)
        return SimpleNamespace(result=lambda: result)


def test_every_cell_is_compared_with_the_model_in_process_of_its_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "saved_model.pb").write_bytes(b"a model")
    rounds = itertools.count(1)
    now = {"round": 0}
    durations: dict[tuple[str, int], float] = {}

    def in_process(predict: object, images: object, batch_size: int, duration_s: float) -> LoadResult:
        """An image takes 1 ms in the first round and 2 ms in the second."""
        seconds = max(now["round"], 1) * batch_size / 1e3
        return LoadResult([seconds] * 4, 4 * seconds, 0.0)

    def served(target: Target, bodies: list[bytes], concurrency: int, duration_s: float) -> LoadResult:
        """Four times as long, with nothing done at the same time."""
        batch_size = int(bodies[0])
        durations[target.protocol, batch_size * concurrency] = duration_s
        seconds = max(now["round"], 1) * 4 * batch_size / 1e3
        return LoadResult([seconds] * 2, 2 * seconds, 0.001)

    def begins(*_: object, **__: object) -> None:
        now["round"] = next(rounds)

    @contextmanager
    def servers(model_dir: Path) -> Iterator[dict[str, SimpleNamespace]]:
        yield {"without batching": SimpleNamespace(grpc_address="g", rest_address="r", pid=os.getpid())}

    monkeypatch.setattr(serving, "ROUNDS", 2)
    monkeypatch.setattr(serving, "SERVERS", {"without batching": ()})
    monkeypatch.setattr(serving, "BATCH_SIZES", (1, 8))
    monkeypatch.setattr(serving, "CONCURRENCIES", (1, 32))
    monkeypatch.setattr(serving, "BODY_MAKERS", dict.fromkeys((GRPC, REST), lambda images: b"%d" % len(images)))
    monkeypatch.setattr(serving, "ProcessPoolExecutor", InlineExecutor)
    monkeypatch.setattr(serving, "print", begins, raising=False)
    monkeypatch.setattr(serving, "running_servers", servers)
    monkeypatch.setattr(serving, "load_in_process", lambda model_dir: None)
    monkeypatch.setattr(serving, "check_answers", lambda server, predict, images: None)
    monkeypatch.setattr(serving, "time_in_process", in_process)
    monkeypatch.setattr(serving, "first_request", lambda model_dir, images, flags: {})
    monkeypatch.setattr(load, "run", served)

    found = serving.measure(tmp_path, "a model", seconds=2.4)

    assert found["settings"]["stretch_s"] == pytest.approx(0.1)
    assert len(found["served"]) == 8
    for cell in found["served"]:
        assert cell["requests"] == 4
        assert cell["images_per_s"]["max"] == pytest.approx(250)
        assert cell["rate_ratio"] == pytest.approx({"median": 0.25, "min": 0.25, "max": 0.25})
        size = cell["batch_size"]
        assert cell["added_latency_s"] == pytest.approx(
            {"median": 4.5e-3 * size, "min": 3e-3 * size, "max": 6e-3 * size}
        )
    assert found["in_process"][1]["images_per_s"]["max"] == pytest.approx(1000)
    # 8 * 32 images are under way at once and take half a second in the second round: a stretch has four times that.
    assert durations[GRPC, 1] == pytest.approx(0.1)
    assert durations[GRPC, 256] == pytest.approx(4 * 256 / 500)


@pytest.mark.parametrize(("difference", "raises"), [(1e-6, False), (1e-4, True), (float("nan"), True)])
def test_a_server_that_answers_otherwise_is_not_timed(difference: float, raises: bool, monkeypatch: pytest.MonkeyPatch):
    expected = np.full([2, 10], 0.1)

    @contextmanager
    def connect(address: str, *_: object, **__: object) -> Iterator[SimpleNamespace]:
        off = difference if address == "r" else 0.0
        yield SimpleNamespace(predict=lambda images: [SimpleNamespace(probabilities=row + off) for row in expected])

    monkeypatch.setattr(client, "connect", connect)
    server: Any = SimpleNamespace(grpc_address="g", rest_address="r")
    with pytest.raises(RuntimeError, match="Over REST, probabilities differ") if raises else nullcontext():
        serving.check_answers(server, lambda images: expected, [b"", b""])


def test_table_only_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert serving.main(["--table", "--output-dir", str(tmp_path)]) == 1
    assert "measure first" in capsys.readouterr().err
    (tmp_path / "serving.json").write_text(json.dumps(figures(0.0005, 0.9)))
    assert serving.main(["--table", "--output-dir", str(tmp_path)]) == 0
    assert (tmp_path / "serving.md").read_text() == serving_table.markdown(figures_file(tmp_path))
    with Image.open(tmp_path / "serving.png") as chart:
        assert chart.size == (1200, 480)


def figures_file(folder: Path) -> dict:
    return json.loads((folder / "serving.json").read_text())


def test_no_model_is_an_error_that_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert serving.main(["--model", str(tmp_path), "--output-dir", str(tmp_path)]) == 1
    assert "make run" in capsys.readouterr().err


def test_help_needs_no_tensorflow():
    code = (
        "import sys; sys.argv = ['serving', '--help']\n"
        "import runpy\n"
        "try:\n    runpy.run_module('benchmarks.serving', run_name='__main__')\n"
        "except SystemExit as error:\n    assert error.code == 0\n"
        "assert not {'tensorflow', 'tfx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=serving.PROJECT_ROOT, stdout=subprocess.DEVNULL)


def test_processor_time_of_this_process():
    before = machine.process_cpu_s(os.getpid())
    started = time.process_time()
    while time.process_time() - started < 0.3:
        statistics.fmean(range(1000))
    assert machine.process_cpu_s(os.getpid()) - before == pytest.approx(0.3, abs=0.15)
