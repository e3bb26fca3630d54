"""Which requests run together, and that none suffers from another."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from waiting import WAIT_S, wait_until

from serving.local_server.batching import BatchingRunner, DirectRunner
from serving.local_server.model_config import BatchingParameters
from serving.local_server.model_manager import Servable
from serving.local_server.status import Code, StatusError, invalid_argument

SIGNATURE: Any = SimpleNamespace(name="serving_default")
OTHER_SIGNATURE: Any = SimpleNamespace(name="other")


class DoublingModel:
    """y = 2 x, if no x is negative. Records the batches; runs only when it is let."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def run(self, signature: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.batches.append(inputs["x"])
        self.may_run.wait(WAIT_S)
        with self._lock:
            self.running -= 1
        if np.any(inputs["x"] < 0):
            raise invalid_argument(f"negative: {inputs['x'].min()}")
        if np.any(np.isinf(inputs["x"])):
            raise TypeError("a defect")
        return {"y": 2 * inputs["x"]}

    def close(self) -> None:
        """Nothing to free."""


class ParsingModel(DoublingModel):
    """Takes strings that are numbers, and does not say which is not."""

    def run(self, signature: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.batches.append(inputs["x"])
        for text in inputs["x"]:
            if not text.isdigit():
                raise invalid_argument(f"no number, {len(text)} bytes")
        return {"y": inputs["x"].astype(int)}


class Asker:
    """Sends requests from threads."""

    def __init__(self, runner: Any, model: DoublingModel) -> None:
        self.runner = runner
        self.model = model
        self.servable: Any = Servable("m", 1, model)
        self.threads = ThreadPoolExecutor(64)

    def ask(
        self,
        *values: float | bytes,
        dtype: Any = np.float32,
        signature: Any = SIGNATURE,
        timeout_s: float | None = WAIT_S,
    ) -> Future[list[float]]:
        inputs = {"x": np.array(values, dtype)}
        return self.threads.submit(lambda: self.runner.run(self.servable, signature, inputs, timeout_s)["y"].tolist())

    def occupy(self, threads: int = 1) -> list[Future[list[float]]]:
        """Keeps batch threads busy until `model.may_run` is set."""
        self.model.may_run.clear()
        busy = []
        for index in range(threads):
            busy.append(self.ask(0, signature=SimpleNamespace(name=f"busy {index}")))
            wait_until(lambda index=index: self.model.running == index + 1)
        self.model.batches.clear()
        return busy


def batching(**parameters: Any) -> Asker:
    return Asker(BatchingRunner(BatchingParameters(**{"num_batch_threads": 1, **parameters})), DoublingModel())


def send_in_order(asker: Asker, requests: list[tuple[float, ...]], **options: Any) -> list[Future[list[float]]]:
    """Sends requests so that each is queued before the next."""
    futures = []
    for count, values in enumerate(requests, start=1):
        futures.append(asker.ask(*values, **options))
        wait_until(lambda count=count: sum(len(b.tasks) for b in asker.runner._waiting) == count)
    return futures


def test_requests_that_wait_run_together_and_get_their_own_rows():
    asker = batching()
    asker.occupy()
    futures = send_in_order(asker, [(1,), (2, 3), (), (4,)])
    asker.model.may_run.set()
    assert [future.result() for future in futures] == [[2], [4, 6], [], [8]]
    assert [batch.tolist() for batch in asker.model.batches] == [[1, 2, 3, 4]]


def test_a_batch_has_no_more_rows_than_allowed():
    asker = batching(max_batch_size=3)
    asker.occupy()
    futures = send_in_order(asker, [(1,), (2,), (3, 4), (5,)])
    asker.model.may_run.set()
    assert [future.result() for future in futures] == [[2], [4], [6, 8], [10]]
    assert [batch.tolist() for batch in asker.model.batches] == [[1, 2], [3, 4, 5]]


def test_only_requests_of_one_signature_dtype_and_shape_run_together():
    asker = batching()
    asker.occupy()
    futures = [
        asker.ask(1),
        asker.ask(2, dtype=np.float64),
        asker.ask(3, signature=OTHER_SIGNATURE),
        asker.threads.submit(
            lambda: asker.runner.run(asker.servable, SIGNATURE, {"x": np.ones((2, 2), np.float32)}, None)["y"].tolist()
        ),
        asker.ask(4),
    ]
    wait_until(lambda: sum(len(b.tasks) for b in asker.runner._waiting) == 5)
    asker.model.may_run.set()
    assert [future.result() for future in futures] == [[2], [4], [6], [[2, 2], [2, 2]], [8]]
    assert sorted(batch.shape for batch in asker.model.batches) == [(1,), (1,), (2,), (2, 2)]


def test_one_bad_request_does_not_spoil_the_others():
    asker = batching()
    asker.occupy()
    futures = send_in_order(asker, [(1,), (-2,), (3,), (-4,)])
    asker.model.may_run.set()
    assert futures[0].result() == [2]
    assert futures[2].result() == [6]
    for future, value in ((futures[1], -2), (futures[3], -4)):
        with pytest.raises(StatusError, match=f"negative: {value}") as error:
            future.result()
        assert error.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("runner", [DirectRunner(1), BatchingRunner(BatchingParameters(num_batch_threads=1))])
def test_the_first_bad_row_is_named(runner: Any):
    asker = Asker(runner, ParsingModel())
    for size in (1, 2, 5, 32):
        for bad in range(size):
            rows = [b"1"] * bad + [b"two"] + [b"3", b""] * size
            with pytest.raises(StatusError) as error:
                asker.ask(*rows[:size], dtype=object).result()
            assert error.value.code == Code.INVALID_ARGUMENT
            assert error.value.message == f"x[{bad}] is refused: no number, 3 bytes"
    asker.model.batches.clear()
    assert asker.ask(*[b"1"] * 32, dtype=object).result() == [1] * 32
    assert len(asker.model.batches) == 1


def test_an_error_that_is_not_about_one_row_stays_as_it_is():
    class Moody(ParsingModel):
        def run(self, signature: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            if len(inputs["x"]) > 3:
                raise invalid_argument("more than 3")
            if b"named" in inputs["x"]:
                raise invalid_argument("x[1] is bad")
            raise StatusError(Code.INTERNAL, "broken")

    asker = Asker(DirectRunner(1), Moody())
    for rows, message in (([b""] * 4, "more than 3"), ([b"", b"named"], "x[1] is bad"), ([b""], "broken")):
        with pytest.raises(StatusError) as error:
            asker.ask(*rows, dtype=object).result()
        assert error.value.message == message


def test_a_defect_is_an_internal_error_and_the_thread_goes_on(caplog):
    asker = batching()
    with pytest.raises(StatusError, match="the server's log says why") as error:
        asker.ask(np.inf).result()
    assert error.value.code == Code.INTERNAL
    assert "TypeError: a defect" in caplog.text
    assert asker.ask(1).result() == [2]


def test_a_batch_waits_for_more_requests_as_long_as_it_is_told():
    asker = batching(batch_timeout_micros=300_000)
    started = time.monotonic()
    first, second = asker.ask(1), asker.ask(2)
    assert first.result() + second.result() == [2, 4]
    assert 0.25 < time.monotonic() - started < 30
    assert len(asker.model.batches) == 1


def test_a_full_batch_does_not_wait():
    asker = batching(batch_timeout_micros=60_000_000, max_batch_size=2)
    first, second = asker.ask(1), asker.ask(2)
    assert first.result() + second.result() == [2, 4]


def test_a_batch_that_the_next_request_does_not_fit_into_does_not_wait():
    asker = batching(batch_timeout_micros=60_000_000, max_batch_size=4)
    first = asker.ask(1, 2, 3)
    wait_until(lambda: len(asker.runner._waiting) == 1)
    second = asker.ask(4, 5)
    assert first.result() == [2, 4, 6]
    third = asker.ask(6, 7)
    assert second.result() + third.result() == [8, 10, 12, 14]


def test_batches_are_padded_to_an_allowed_size_with_rows_that_are_valid():
    asker = batching(max_batch_size=4, allowed_batch_sizes=(2, 4))
    assert asker.ask(1).result() == [2]
    assert asker.ask(5, 6, 7).result() == [10, 12, 14]
    assert asker.ask().result() == []
    assert [batch.tolist() for batch in asker.model.batches] == [[1, 1], [5, 6, 7, 5], []]


def test_too_many_waiting_batches_are_refused():
    asker = batching(max_batch_size=1, max_enqueued_batches=2)
    asker.occupy()
    futures = send_in_order(asker, [(1,), (2,)])
    with pytest.raises(StatusError, match="queue to which this task was submitted is full") as error:
        asker.ask(3).result()
    assert error.value.code == Code.UNAVAILABLE
    other = asker.ask(4, signature=OTHER_SIGNATURE)  # another signature has a queue of its own
    asker.model.may_run.set()
    assert [future.result() for future in [*futures, other]] == [[2], [4], [8]]


def test_so_many_batches_run_at_once():
    asker = batching(num_batch_threads=3, max_batch_size=1)
    asker.model.may_run.clear()
    futures = [asker.ask(value) for value in range(10)]
    wait_until(lambda: asker.model.running == 3)
    asker.model.may_run.set()
    assert [future.result() for future in futures] == [[2 * value] for value in range(10)]
    assert asker.model.most_running == 3


def test_a_request_that_has_waited_too_long_ends_and_is_not_run():
    asker = batching()
    asker.occupy()
    with pytest.raises(StatusError, match="timeout exceeded") as error:
        asker.ask(1, timeout_s=0.05).result()
    assert error.value.code == Code.DEADLINE_EXCEEDED
    asker.model.may_run.set()
    assert asker.ask(2).result() == [4]
    assert [batch.tolist() for batch in asker.model.batches] == [[2]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "must have at least one input tensor"),
        ({"x": np.float32(1)}, "must have at least one dimension"),
        ({"x": np.ones(2, np.float32), "z": np.ones(3, np.float32)}, "must have equal 0th-dimension size"),
        ({"x": np.ones(1001, np.float32)}, "Task size 1001 is larger than maximum input batch size 1000"),
    ],
)
def test_what_cannot_be_batched_is_refused(inputs, message):
    asker = batching()
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    with pytest.raises(StatusError, match=message) as error:
        asker.runner.run(asker.servable, SIGNATURE, inputs, WAIT_S)
    assert error.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.float32(1), "Batched output tensor has 0 dimensions"),
        (np.ones(7), "0th dimension does not equal the sum of the 0th dimension sizes"),
    ],
)
def test_a_model_that_cannot_be_batched_is_refused(output, message):
    asker = batching()
    asker.model.run = lambda signature, inputs: {"y": np.asarray(output)}  # type: ignore[method-assign]  # a stub
    with pytest.raises(StatusError, match=message) as error:
        asker.ask(1).result()
    assert error.value.code == Code.FAILED_PRECONDITION


def test_strings_keep_their_bytes_when_they_are_merged():
    asker = batching()
    asker.model.run = lambda signature, inputs: {"y": inputs["x"]}  # type: ignore[method-assign]  # a stub
    texts = [b"", b"ends with zeros\0\0", b"\xff\xfe", "grüße".encode()]
    arrays = []
    for text in texts:
        array = np.empty(1, object)
        array[0] = text
        arrays.append(array)

    def ask(array: np.ndarray) -> bytes:
        return asker.runner.run(asker.servable, SIGNATURE, {"x": array}, WAIT_S)["y"][0]

    futures = [asker.threads.submit(ask, array) for array in arrays]
    assert [future.result() for future in futures] == texts


def test_many_threads_get_their_own_answers():
    # 64 threads wait with four rows at most: that is fewer batches than 64, whatever the machine is busy with.
    asker = batching(num_batch_threads=2, max_batch_size=16, max_enqueued_batches=64)
    rng = np.random.default_rng(0)
    requests = [rng.integers(-2, 1000, rng.integers(1, 5)).tolist() for _ in range(2000)]
    futures = [asker.ask(*values) for values in requests]
    for values, future in zip(requests, futures, strict=True):
        if min(values) < 0:
            with pytest.raises(StatusError, match=f"negative: {min(values)}"):
                future.result()
        else:
            assert future.result() == [2 * value for value in values]
    assert len(asker.model.batches) < 2000 * 1.5
    assert asker.servable._users == 0


def test_a_model_is_in_use_as_long_as_its_batch():
    asker = batching()
    asker.model.may_run.clear()
    with pytest.raises(StatusError, match="timeout exceeded"):
        asker.ask(1, timeout_s=0.05).result()
    assert asker.servable._users == 1
    asker.model.may_run.set()
    wait_until(lambda: asker.servable._users == 0)


def test_without_batching_so_many_requests_run_at_once():
    asker = Asker(DirectRunner(2), DoublingModel())
    asker.model.may_run.clear()
    futures = [asker.ask(value) for value in range(4)]
    wait_until(lambda: asker.model.running == 2)
    with pytest.raises(StatusError, match="timeout exceeded while waiting for a thread") as error:
        asker.ask(9, timeout_s=0.05).result()
    assert error.value.code == Code.DEADLINE_EXCEEDED
    asker.model.may_run.set()
    assert [future.result() for future in futures] == [[0], [2], [4], [6]]
    assert asker.model.most_running == 2
