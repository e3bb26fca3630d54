"""Measures the local server beside the model in process: `python -m benchmarks.serving`.

    python -m benchmarks.serving --seconds 180                 the model that was pushed last
    python -m benchmarks.serving --model path/to/SavedModel    any exported AlexNet
    python -m benchmarks.serving --table                       only writes table and chart again, from the last figures

Writes benchmarks/results/serving.json and, from it, serving.md and serving.png. In each round each combination of
server, protocol, batch size and concurrency has its turn, and before each server and protocol the model in process has
its own, which they are compared with, so that whatever else the machine does meets both. Client, server and the rest
share the machine's cores.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import load, machine, serving_chart, serving_table
from benchmarks.load import GRPC, REST, LoadResult, Target
from benchmarks.spreads import spread
from pipeline.settings import make_settings, settings_from_environment
from serving.server_process import PROJECT_ROOT, ServerProcess, server_process

RESULTS_DIR = Path(__file__).parent / "results"
SAMPLE_ARCHIVE = PROJECT_ROOT / "data" / "cifar-10-sample-binary.tar.gz"

MODEL_NAME = "alexnet"
PROTOCOLS = (GRPC, REST)
BATCH_SIZES = (1, 8, 32)
CONCURRENCIES = (1, 8, 32)
SERVERS: Mapping[str, Sequence[str]] = {
    "without batching": (),
    # The server's process runs in the project's folder.
    "with batching": ("--enable_batching", "--batching_parameters_file=serving/batching_parameters.txt"),
}
"""Flags by server."""

ROUNDS = 5
NUM_IMAGES = 512
WARM_UP_S = 0.2
REQUESTS_A_WORKER = 4
"""At least about so many in a stretch, whatever that takes: a closed loop, and not one burst."""

SERVER_STARTS = 3
LATER_REQUESTS = 100
TOLERANCE = 1e-5
PACKAGES = ("tensorflow", "numpy", "grpcio", "protobuf", "starlette", "uvicorn")

InProcess = Callable[[Sequence[bytes]], Any]
"""Calls the SavedModel on encoded images; returns probabilities, float32 [N, 10]."""

Cell = tuple[str, str, int, int]
"""Server, protocol, batch size, concurrency."""


@dataclass
class Samples:
    """What was measured of one cell, or of the model in process, over all rounds."""

    batch_size: int
    latencies_s: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    """Images a second, one a round, as the next two."""
    added_latencies_s: list[float] = field(default_factory=list)
    """Median latency, less that in process at the same batch size in the same round."""
    rate_ratios: list[float] = field(default_factory=list)
    """Rate, by that in process at the largest batch size in the same round."""
    client_cpu_s: float = 0.0
    server_cpu_s: float = 0.0

    def add(self, result: LoadResult, server_cpu_s: float = 0.0) -> float:
        """Adds a round.

        Returns:
            Its rate, in images a second.
        """
        self.latencies_s += result.latencies_s
        self.client_cpu_s += result.client_cpu_s
        self.server_cpu_s += server_cpu_s
        self.rates.append(len(result.latencies_s) * self.batch_size / result.elapsed_s)
        return self.rates[-1]

    def summary(self) -> dict[str, Any]:
        """Figures for the results file."""
        quantiles = percentiles(self.latencies_s)
        num_images = len(self.latencies_s) * self.batch_size
        summary: dict[str, Any] = {
            "requests": len(self.latencies_s),
            "rounds": len(self.rates),
            "latency_s": {name: quantiles[name] for name in ("p50", "p90", "p99")},
            "images_per_s": spread(self.rates),
            "client_cpu_s_per_image": self.client_cpu_s / num_images,
            "server_cpu_s_per_image": self.server_cpu_s / num_images,
        }
        if self.rate_ratios:
            summary["added_latency_s"] = spread(self.added_latencies_s)
            summary["rate_ratio"] = spread(self.rate_ratios)
        return summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where there is no model or no result to make a table of.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description="Measure the local server beside the model in process."
    )
    parser.add_argument("--seconds", type=float, default=150.0, help="of measuring, about: %(default)s")
    parser.add_argument("--model", type=Path, help="folder of a SavedModel; the newest that was pushed where absent")
    parser.add_argument("--output-dir", type=Path, default=RESULTS_DIR, help="where to write: benchmarks/results")
    parser.add_argument("--table", action="store_true", help="only write table and chart, from the last figures")
    options = parser.parse_args(arguments)
    if options.seconds <= 0:
        parser.error(f"--seconds is {options.seconds:g}; it has to be above 0")
    figures_file: Path = options.output_dir / "serving.json"
    if options.table:
        if not figures_file.exists():
            print(f"There is no {figures_file}: measure first, without --table.", file=sys.stderr)
            return 1
    else:
        model_dir = options.model or newest_pushed_model()
        if model_dir is None or not (model_dir / "saved_model.pb").exists():
            what = f"{model_dir} holds no saved_model.pb" if model_dir else "No model has been pushed"
            print(f"{what}: `make run` trains and pushes one; --model takes the folder of a version.", file=sys.stderr)
            return 1
        of_profile = make_settings(*settings_from_environment(os.environ)).profile
        model = options.model.name if options.model else f"the newest of the profile {of_profile}"
        figures = measure(model_dir.resolve(), model, options.seconds)
        options.output_dir.mkdir(parents=True, exist_ok=True)
        figures_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    figures = json.loads(figures_file.read_text(encoding="utf-8"))
    serving_chart.draw(figures, options.output_dir / "serving.png")
    table = serving_table.markdown(figures)
    (options.output_dir / "serving.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


def newest_pushed_model() -> Path | None:
    """The newest version that the profile in the environment has pushed, as `serving.launch` would serve it."""
    from serving.launch import pushed_versions

    serving_dir = make_settings(*settings_from_environment(os.environ)).serving_dir
    versions = pushed_versions(serving_dir)
    return serving_dir / str(versions[-1]) if versions else None


def measure(model_dir: Path, model: str, seconds: float) -> dict[str, Any]:
    """Measures all cells.

    Args:
        model_dir: folder of a SavedModel.
        model: what it is called in the table.
        seconds: for all stretches of measuring. Slow cells take longer, see REQUESTS_A_WORKER.

    Returns:
        The content of the results file.

    Raises:
        RuntimeError: a server answers otherwise than the model in process.
    """
    images = sample_images(NUM_IMAGES)
    stretch_s = seconds / (ROUNDS * len(SERVERS) * len(PROTOCOLS) * len(BATCH_SIZES) * (1 + len(CONCURRENCIES)))
    started_on = machine.describe()
    # Before TensorFlow is imported here: its threads would be part of what the client takes.
    first_requests = {
        name: first_request(model_dir, images, flags)
        for name, flags in (("with warm-up", ()), ("without warm-up", ("--enable_model_warmup=false",)))
    }
    with running_servers(model_dir) as servers, ProcessPoolExecutor(1, get_context("spawn")) as client:
        predict = load_in_process(model_dir)
        in_process = {batch_size: Samples(batch_size) for batch_size in BATCH_SIZES}
        cells: dict[Cell, Samples] = {}
        for server in servers.values():
            check_answers(server, predict, images[: max(BATCH_SIZES)])

        def run_load(name: str, protocol: str, batch_size: int, concurrency: int, duration_s: float) -> LoadResult:
            target = Target(protocol, addresses(servers[name])[protocol], MODEL_NAME)
            bodies = [BODY_MAKERS[protocol](batch) for batch in batches(images, batch_size)]
            return client.submit(load.run, target, bodies, concurrency, duration_s).result()

        for batch_size in BATCH_SIZES:
            time_in_process(predict, images, batch_size, WARM_UP_S)
            for name in SERVERS:
                for protocol in PROTOCOLS:
                    run_load(name, protocol, batch_size, 1, WARM_UP_S)
        for round_number in range(1, ROUNDS + 1):
            print(f"round {round_number} of {ROUNDS}", file=sys.stderr, flush=True)
            for name, server in servers.items():
                for protocol in PROTOCOLS:
                    reference = {size: time_in_process(predict, images, size, stretch_s) for size in BATCH_SIZES}
                    rate = {size: in_process[size].add(result) for size, result in reference.items()}
                    for batch_size in BATCH_SIZES:
                        for concurrency in CONCURRENCIES:
                            images_in_flight = batch_size * concurrency
                            duration_s = max(stretch_s, REQUESTS_A_WORKER * images_in_flight / rate[batch_size])
                            cpu_s = machine.process_cpu_s(server.pid)
                            result = run_load(name, protocol, batch_size, concurrency, duration_s)
                            cpu_s = machine.process_cpu_s(server.pid) - cpu_s
                            cell = cells.setdefault((name, protocol, batch_size, concurrency), Samples(batch_size))
                            cell.rate_ratios.append(cell.add(result, cpu_s) / rate[max(BATCH_SIZES)])
                            cell.added_latencies_s.append(
                                statistics.median(result.latencies_s)
                                - statistics.median(reference[batch_size].latencies_s)
                            )
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": started_on,
        "load_average_1min_after": machine.describe()["load_average_1min"],
        "versions": machine.versions(PACKAGES),
        "settings": {
            "model": model,
            "seconds": seconds,
            "rounds": ROUNDS,
            "stretch_s": stretch_s,
            "saved_model_sha256": hashlib.sha256((model_dir / "saved_model.pb").read_bytes()).hexdigest(),
            "images": NUM_IMAGES,
            "server_flags": SERVERS,
        },
        "first_request": first_requests,
        "in_process": [{"batch_size": size, **samples.summary()} for size, samples in in_process.items()],
        "served": [
            {"server": server, "protocol": protocol, "batch_size": size, "concurrency": concurrency, **cell.summary()}
            for (server, protocol, size, concurrency), cell in cells.items()
        ],
    }


def first_request(model_dir: Path, images: Sequence[bytes], flags: Sequence[str]) -> dict[str, Any]:
    """Times the first request to a server that has just loaded the model, beside the median of those after it.

    Each is for one image, over gRPC, on a connection that is open already.

    Returns:
        `starts`, how many servers were started; `first_s` and `later_s`, spreads over them, in seconds.
    """
    from serving.answers import ServedModel
    from serving.grpc_client import GrpcClient

    firsts, laters = [], []
    for _ in range(SERVER_STARTS):
        with (
            running_server(model_dir, flags) as server,
            GrpcClient(server.grpc_address, ServedModel(MODEL_NAME)) as client,
        ):
            client.status()
            seconds = []
            for image in images[:LATER_REQUESTS]:
                called = time.perf_counter()
                client.predict([image])
                seconds.append(time.perf_counter() - called)
            firsts.append(seconds[0])
            laters.append(statistics.median(seconds[1:]))
    return {"starts": SERVER_STARTS, "first_s": spread(firsts), "later_s": spread(laters)}


@contextmanager
def running_server(model_dir: Path, flags: Sequence[str]) -> Iterator[ServerProcess]:
    """A server on a SavedModel."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        base_path = Path(folder) / MODEL_NAME
        base_path.mkdir()
        (base_path / "1").symlink_to(model_dir, target_is_directory=True)
        named = (f"--model_name={MODEL_NAME}", f"--model_base_path={base_path}")
        with server_process([*named, *flags], Path(folder) / "server.log") as server:
            yield server


@contextmanager
def running_servers(model_dir: Path) -> Iterator[dict[str, ServerProcess]]:
    """A server for each of SERVERS, by its name. An idle one takes next to nothing of the cores."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(running_server(model_dir, flags)) for name, flags in SERVERS.items()}


def load_in_process(model_dir: Path) -> InProcess:
    """The SavedModel, as one calls it from Python."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from serving.answers import INPUT, PROBABILITIES, SIGNATURE

    model = tf.saved_model.load(str(model_dir))
    # A signature does not keep the variables that it reads alive; its model does.
    return lambda images: model.signatures[SIGNATURE](**{INPUT: tf.constant(images)})[PROBABILITIES].numpy()


def time_in_process(predict: InProcess, images: Sequence[bytes], batch_size: int, duration_s: float) -> LoadResult:
    """Calls the model again and again, one call after the other."""
    latencies_s: list[float] = []
    image_batches = batches(images, batch_size)
    cpu_s, started = time.process_time(), time.perf_counter()
    while not latencies_s or time.perf_counter() < started + duration_s:
        called = time.perf_counter()
        predict(image_batches[len(latencies_s) % len(image_batches)])
        latencies_s.append(time.perf_counter() - called)
    return LoadResult(latencies_s, time.perf_counter() - started, time.process_time() - cpu_s)


def check_answers(server: ServerProcess, predict: InProcess, images: Sequence[bytes]) -> None:
    """Makes sure that what is timed is right.

    Raises:
        RuntimeError: the server answers otherwise than the model in process.
    """
    import numpy as np

    from serving import client
    from serving.answers import ServedModel

    expected = predict(images)
    for protocol, address in addresses(server).items():
        with client.connect(address, ServedModel(MODEL_NAME), rest=protocol == REST, timeout_s=60) as connection:
            served = [prediction.probabilities for prediction in connection.predict(images)]
        difference = float(np.abs(np.array(served) - expected).max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"Over {protocol}, probabilities differ by {difference:.2g} from those in process.")


def sample_images(count: int) -> list[bytes]:
    """The first test images of the bundled sample, as PNG files."""
    from components.cifar10_example_gen.images import png_from_pixels
    from components.cifar10_example_gen.readers import binary

    with tarfile.open(SAMPLE_ARCHIVE) as archive:
        name = next(name for name in archive.getnames() if name.endswith("test_batch.bin"))
        file = archive.extractfile(name)
        assert file is not None
        records = list(binary.read_batch(name, file.read()))
    return [png_from_pixels(record.image) for record in records[:count] if not isinstance(record.image, bytes)]


def batches(images: Sequence[bytes], batch_size: int) -> list[Sequence[bytes]]:
    """Whole batches of images, in order."""
    return [images[start : start + batch_size] for start in range(0, len(images) - batch_size + 1, batch_size)]


def addresses(server: ServerProcess) -> dict[str, str]:
    """Where a server answers, by protocol."""
    return {GRPC: server.grpc_address, REST: server.rest_address}


def grpc_body(images: Sequence[bytes]) -> bytes:
    """A serialized PredictRequest, as `serving.grpc_client` sends it."""
    from serving import stubs
    from serving.answers import INPUT, SIGNATURE

    spec = stubs.ModelSpec(name=MODEL_NAME, signature_name=SIGNATURE)
    request = stubs.PredictRequest(model_spec=spec)
    request.inputs[INPUT].dtype = stubs.DT_STRING
    request.inputs[INPUT].tensor_shape.dim.add(size=len(images))
    request.inputs[INPUT].string_val.extend(images)
    return request.SerializeToString()


def rest_body(images: Sequence[bytes]) -> bytes:
    """A predict request's JSON, as `serving.rest_client` sends it."""
    from serving.answers import SIGNATURE

    instances = [{"b64": base64.b64encode(image).decode("ascii")} for image in images]
    return json.dumps({"signature_name": SIGNATURE, "instances": instances}).encode()


BODY_MAKERS: Mapping[str, Callable[[Sequence[bytes]], bytes]] = {GRPC: grpc_body, REST: rest_body}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p1 to p99, interpolated between the values."""
    if len(values) == 1:
        return {f"p{percent}": values[0] for percent in range(1, 100)}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"p{percent}": cut for percent, cut in enumerate(cuts, start=1)}


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
