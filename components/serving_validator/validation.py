"""What a candidate has to show behind a model server, without TFX around it."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from serving.answers import Prediction, ServedModel, ServingError
from serving.grpc_client import GrpcClient
from serving.rest_client import RestClient
from serving.server_process import ServerProcess, ServerProcessError, server_process

MODEL_NAME = "candidate"
MAX_DIFFERENCE = 1e-5
"""Largest difference between a served probability and the evaluated one: other batch sizes sum in another order."""

LATENCY_REQUESTS = 50
BATCH_SIZE = 16
REQUEST_TIMEOUT_S = 30.0


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
        with model_server(model_dir, log_file) as server:
            grpc = GrpcClient(server.grpc_address, served, timeout_s=REQUEST_TIMEOUT_S)
            rest = RestClient(server.rest_address, served, timeout_s=REQUEST_TIMEOUT_S)
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
    predictions = [prediction for batch in batches for prediction in batch]
    served = np.array([prediction.probabilities for prediction in predictions])
    difference = np.abs(served - expected)
    # Not a number compares as neither larger nor smaller; it has to fail.
    if not np.all(difference <= MAX_DIFFERENCE):
        image, label = np.unravel_index(np.argmax(np.nan_to_num(difference, nan=np.inf)), difference.shape)
        return Check(
            name,
            False,
            f"image {image}: {predictions[image].classes[label]} {served[image, label]:.6f}, where the evaluated"
            f" signature answers {expected[image, label]:.6f}",
        )
    finding = f"differ by at most {difference.max():.1g} from the evaluated ones ≤ {MAX_DIFFERENCE:.0e}"
    return Check(name, True, finding)


def _latency(client: Client, images: Sequence[bytes], budget_s: float) -> Check:
    """Time requests for one image, one after the other."""
    seconds = []
    for index in range(LATENCY_REQUESTS):
        started = time.perf_counter()
        try:
            client.predict([images[index % len(images)]])
        except ServingError as error:
            return Check("latency", False, f"request {index + 1} of {LATENCY_REQUESTS}: {error}")
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    reached = median <= budget_s
    relation = "≤" if reached else ">"
    return Check("latency", reached, f"median {median:.4f} s {relation} {budget_s:.4f} s (latency_budget_s)")


@contextlib.contextmanager
def model_server(model_dir: Path, log_file: Path) -> Iterator[ServerProcess]:
    """Run the local model server on a SavedModel; yield it when the model is available.

    Raises:
        CannotServeError: the server does not start, or the model does not load.
    """
    with tempfile.TemporaryDirectory(prefix="serving-validator-") as folder:
        base_path = Path(folder) / MODEL_NAME
        base_path.mkdir()
        (base_path / "1").symlink_to(model_dir.absolute(), target_is_directory=True)
        flags = [f"--model_name={MODEL_NAME}", f"--model_base_path={base_path}", "--max_num_load_retries=0"]
        try:
            # It listens when it has loaded what is there, or has failed to.
            with server_process(flags, log_file) as server:
                _check_available(server)
                yield server
        except ServerProcessError as error:
            raise CannotServeError(str(error)) from error


def _check_available(server: ServerProcess) -> None:
    """Raise CannotServeError unless the model is available."""
    with GrpcClient(server.grpc_address, ServedModel(MODEL_NAME), timeout_s=REQUEST_TIMEOUT_S) as client:
        try:
            (status,) = client.status()
        except ServingError as error:
            raise CannotServeError(f"the model server does not know the model: {error}") from error
    if status.state != "AVAILABLE":
        raise CannotServeError(f"the model does not load: {status.error or status.state}")
