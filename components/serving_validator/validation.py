"""What a candidate has to show behind a model server, without TFX around it."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from models import features
from serving.answers import Prediction, ServedModel, ServingError
from serving.grpc_client import GrpcClient
from serving.rest_client import RestClient

MODEL_NAME = "candidate"
MAX_DIFFERENCE = 1e-5
"""Largest difference between a served probability and the evaluated one: other batch sizes sum in another order."""

LATENCY_REQUESTS = 50
BATCH_SIZE = 16
LOAD_TIMEOUT_S = 120.0
REQUEST_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that a candidate has to show.

    Attributes:
        name: what was looked at.
        reached: whether it is as it has to be.
        finding: what was found, and the bound where there is one.
    """

    name: str
    reached: bool
    finding: str


class Client(Protocol):
    """What both clients offer here."""

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Classify encoded images."""


class CannotServeError(RuntimeError):
    """The server does not come to serve the candidate; the message says why."""


def validate(
    model_dir: Path, images: Sequence[bytes], expected: np.ndarray, latency_budget_s: float, log_file: Path
) -> list[Check]:
    """Serve a SavedModel in a process of its own and look at its answers.

    Args:
        model_dir: the SavedModel.
        images: encoded images, at least one.
        expected: float [len(images), 10], the probabilities that were evaluated.
        latency_budget_s: largest median time of a gRPC request for one image, in seconds.
        log_file: where to write what the server says.

    Returns:
        The checks, in the order in which they were made. After one that makes the next ones pointless they end.
    """
    served = ServedModel(MODEL_NAME)
    try:
        with model_server(model_dir, log_file) as (grpc_port, rest_port):
            grpc = GrpcClient(f"127.0.0.1:{grpc_port}", served, timeout_s=REQUEST_TIMEOUT_S)
            rest = RestClient(f"127.0.0.1:{rest_port}", served, timeout_s=REQUEST_TIMEOUT_S)
            with grpc, rest:
                loads = Check("serving", True, "the model loads in a model server")
                answers = [_answers(name, c, images, expected) for name, c in (("gRPC", grpc), ("REST", rest))]
                if not all(check.reached for check in answers):
                    return [loads, *answers]
                return [loads, *answers, _latency(grpc, images, latency_budget_s)]
    except CannotServeError as error:
        return [Check("serving", False, str(error))]


def _answers(protocol: str, client: Client, images: Sequence[bytes], expected: np.ndarray) -> Check:
    """Compare the served probabilities of all images with the evaluated ones."""
    name = f"answers over {protocol}"
    try:
        batches = [client.predict(images[start : start + BATCH_SIZE]) for start in range(0, len(images), BATCH_SIZE)]
    except ServingError as error:
        return Check(name, False, f"{error}")
    served = np.array([prediction.probabilities for batch in batches for prediction in batch])
    difference = np.abs(served - expected)
    # Not a number compares as neither larger nor smaller; it has to fail.
    if not np.all(difference <= MAX_DIFFERENCE):
        image, label = np.unravel_index(np.argmax(np.nan_to_num(difference, nan=np.inf)), difference.shape)
        return Check(
            name,
            False,
            f"image {image}: {features.CLASS_NAMES[label]} {served[image, label]:.6f}, where the evaluated signature"
            f" answers {expected[image, label]:.6f}",
        )
    finding = f"differ by at most {difference.max():.1g} from the evaluated ones ≤ {MAX_DIFFERENCE:.0e}"
    return Check(name, True, finding)


def _latency(client: Client, images: Sequence[bytes], budget_s: float) -> Check:
    """Time requests for one image, one after the other."""
    seconds = []
    for index in range(LATENCY_REQUESTS):
        started = time.perf_counter()
        client.predict([images[index % len(images)]])
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    reached = median <= budget_s
    relation = "≤" if reached else ">"
    return Check("latency", reached, f"median {median:.4f} s {relation} {budget_s:.4f} s (latency_budget_s)")


@contextlib.contextmanager
def model_server(model_dir: Path, log_file: Path) -> Iterator[tuple[int, int]]:
    """Run the local model server on a SavedModel; yield its gRPC and REST ports once the model is available.

    Raises:
        CannotServeError: the model does not load, the server ends, or it takes longer than LOAD_TIMEOUT_S.
    """
    with tempfile.TemporaryDirectory(prefix="serving-validator-") as folder, free_ports(2) as (grpc_port, rest_port):
        base_path = Path(folder) / MODEL_NAME
        base_path.mkdir()
        (base_path / "1").symlink_to(model_dir.absolute(), target_is_directory=True)
        command = [
            sys.executable,
            "-m",
            "serving.server",
            f"--port={grpc_port}",
            f"--rest_api_port={rest_port}",
            f"--model_name={MODEL_NAME}",
            f"--model_base_path={base_path}",
            "--max_num_load_retries=0",
        ]
        with open(log_file, "wb") as log:
            process = subprocess.Popen(command, cwd=_PROJECT_ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_available(process, grpc_port, lambda: log_file.read_text(errors="replace"))
            yield grpc_port, rest_port
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_available(process: subprocess.Popen[bytes], grpc_port: int, read_log: Callable[[], str]) -> None:
    """Return when the model is available; raise CannotServeError when it will not be."""
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    with GrpcClient(f"127.0.0.1:{grpc_port}", ServedModel(MODEL_NAME), timeout_s=2) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                last = "\n".join(read_log().strip().splitlines()[-5:])
                raise CannotServeError(f"the model server ended with status {process.returncode}: {last}")
            try:
                (status,) = client.status()
            except ServingError:
                time.sleep(0.1)  # it does not listen yet, or has not looked for versions yet
                continue
            if status.state == "AVAILABLE":
                return
            if status.error:
                raise CannotServeError(f"the model does not load: {status.error}")
            time.sleep(0.1)
    raise CannotServeError(f"the model was not available within {LOAD_TIMEOUT_S:.0f} s")


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Yield TCP ports of the loopback interface that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
    yield ports


_PROJECT_ROOT = Path(__file__).resolve().parents[2]
