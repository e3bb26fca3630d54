"""Runs models: each request alone in its own thread, or requests for one signature together in a few threads.

The rules are those of TensorFlow's SharedBatchScheduler and TensorFlow Serving's BatchingSession.
"""

from __future__ import annotations

import bisect
import logging
import threading
import time
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from serving.local_server.model_config import BatchingParameters
from serving.local_server.model_manager import Servable
from serving.local_server.saved_model import SavedModel, Signature
from serving.local_server.status import Code, StatusError, invalid_argument

Arrays = Mapping[str, np.ndarray]

_LOG = logging.getLogger(__name__)


class Runner(Protocol):
    """Computes a signature's outputs for one request. `run` may be called from any number of threads at once."""

    def run(
        self, servable: Servable[SavedModel], signature: Signature, inputs: Arrays, timeout_s: float | None
    ) -> Arrays:
        """Computes.

        Args:
            servable: in use by the caller.
            signature: one of its signatures.
            inputs: array by input name.
            timeout_s: how long the caller waits; None for ever.

        Returns:
            Array by output name.

        Raises:
            StatusError: the model's; UNAVAILABLE where too many requests wait; DEADLINE_EXCEEDED.
        """

    def hurry(self) -> None:
        """From now on no request waits for others to come."""

    def close(self) -> None:
        """Takes no more requests. Those under way go on."""


class DirectRunner:
    """Runs each request alone, so many at once."""

    def __init__(self, num_threads: int) -> None:
        """Prepares.

        Args:
            num_threads: requests that run at once; the others wait.
        """
        self._places = threading.Semaphore(num_threads)

    def run(
        self, servable: Servable[SavedModel], signature: Signature, inputs: Arrays, timeout_s: float | None
    ) -> Arrays:
        """See Runner."""
        if not self._places.acquire(timeout=timeout_s):
            raise _deadline_exceeded()
        try:
            return servable.model.run(signature, inputs)
        except StatusError as error:
            raise _naming_the_row(error, servable, signature, inputs) from None
        finally:
            self._places.release()

    def hurry(self) -> None:
        """See Runner: none does."""

    def close(self) -> None:
        """See Runner: there is nothing to end."""


class _Task:
    """One request in a batch."""

    def __init__(self, inputs: Arrays, rows: int) -> None:
        self.inputs = inputs
        self.rows = rows
        self.is_abandoned = False
        self._result: Arrays | StatusError | None = None
        self._done = threading.Lock()  # lighter than an Event, and waited for once
        self._done.acquire()

    def finish(self, result: Arrays | StatusError) -> None:
        """Wakes the request up."""
        self._result = result
        self._done.release()

    def wait(self, timeout_s: float | None) -> Arrays:
        """The result, or why there is none."""
        if not self._done.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0)):
            self.is_abandoned = True
            raise _deadline_exceeded()
        if isinstance(self._result, StatusError):
            raise self._result
        assert self._result is not None
        return self._result


@dataclass
class _Batch:
    """Requests that run together: same version, same signature, same dtypes and shapes but for the rows."""

    kind: Hashable
    servable: Servable[SavedModel]
    signature: Signature
    due_at: float
    """`time.monotonic()` from which on it runs though it is not full."""
    tasks: list[_Task] = field(default_factory=list)
    rows: int = 0


class BatchingRunner:
    """Runs requests together that arrive together."""

    def __init__(self, parameters: BatchingParameters) -> None:
        """Starts the threads.

        Args:
            parameters: how to batch.
        """
        self._parameters = parameters
        self._waiting: deque[_Batch] = deque()
        self._open: dict[Hashable, _Batch] = {}
        self._changed = threading.Condition()
        self._is_in_a_hurry = False
        self._is_closed = False
        for index in range(parameters.num_batch_threads):
            threading.Thread(target=self._run_batches, name=f"batch-{index}", daemon=True).start()

    def run(
        self, servable: Servable[SavedModel], signature: Signature, inputs: Arrays, timeout_s: float | None
    ) -> Arrays:
        """See Runner. Every input and output has the batch as its first dimension, of the same size."""
        rows = _rows(inputs)
        if rows > self._parameters.max_batch_size:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size {self._parameters.max_batch_size}"
            )
        task = _Task(inputs, rows)
        with self._changed:
            self._enqueue(task, servable, signature)
            self._changed.notify()
        return task.wait(timeout_s)

    def hurry(self) -> None:
        """See Runner."""
        with self._changed:
            self._is_in_a_hurry = True
            self._changed.notify_all()

    def close(self) -> None:
        """See Runner."""
        with self._changed:
            self._is_in_a_hurry = self._is_closed = True
            self._changed.notify_all()

    def _enqueue(self, task: _Task, servable: Servable[SavedModel], signature: Signature) -> None:
        """Adds a request to the open batch of its kind, or opens one."""
        queue = (servable, signature.name)
        kind = (queue, tuple((name, array.dtype, array.shape[1:]) for name, array in task.inputs.items()))
        batch = self._open.get(kind)
        if batch is None or batch.rows + task.rows > self._parameters.max_batch_size:
            waiting = sum((other.servable, other.signature.name) == queue for other in self._waiting)
            if self._is_closed or waiting >= self._parameters.max_enqueued_batches:
                raise StatusError(
                    Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full"
                )
            if batch:
                batch.due_at = 0.0
            servable.acquire()  # a batch outlives a request that is abandoned
            due_at = time.monotonic() + self._parameters.batch_timeout_micros / 1e6
            batch = self._open[kind] = _Batch(kind, servable, signature, due_at)
            self._waiting.append(batch)
        batch.tasks.append(task)
        batch.rows += task.rows
        if batch.rows >= self._parameters.max_batch_size:
            batch.due_at = 0.0

    def _run_batches(self) -> None:
        """A batch thread's work."""
        while (batch := self._next_batch()) is not None:
            tasks = [task for task in batch.tasks if not task.is_abandoned]
            results = _run_batch(batch, tasks, self._parameters.allowed_batch_sizes) if tasks else []
            batch.servable.release()
            for task, result in zip(tasks, results, strict=True):
                task.finish(result)

    def _next_batch(self) -> _Batch | None:
        """Waits for a batch that is full or has waited long enough; None when the runner is closed and empty."""
        with self._changed:
            while True:
                batch = min(self._waiting, key=lambda waiting: waiting.due_at, default=None)
                if batch is None:
                    if self._is_closed:
                        return None
                    self._changed.wait()
                    continue
                wait_s = batch.due_at - time.monotonic()
                if wait_s <= 0 or self._is_in_a_hurry:
                    self._waiting.remove(batch)
                    if self._open.get(batch.kind) is batch:
                        del self._open[batch.kind]
                    return batch
                self._changed.wait(wait_s)


def _deadline_exceeded() -> StatusError:
    return StatusError(
        Code.DEADLINE_EXCEEDED, "Run() timeout exceeded while waiting for a thread or in the batching queue"
    )


def _rows(inputs: Arrays) -> int:
    """A request's batch size."""
    if not inputs:
        raise invalid_argument("Batching session Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid_argument("Batching session Run() input tensors must have at least one dimension")
    sizes = {array.shape[0] for array in inputs.values()}
    if len(sizes) > 1:
        raise invalid_argument("Batching session Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def _run_batch(batch: _Batch, tasks: Sequence[_Task], allowed_sizes: Sequence[int]) -> list[Arrays | StatusError]:
    """Runs requests together; where that fails, each alone, so that none suffers from another's input."""
    try:
        return list(_run_together(batch, tasks, allowed_sizes))
    except StatusError as error:
        if len(tasks) == 1:
            return [error]
    except Exception:
        _LOG.exception("A batch of signature %s failed.", batch.signature.name)
        return [StatusError(Code.INTERNAL, "The batch failed; the server's log says why.")] * len(tasks)
    return [result for task in tasks for result in _run_batch(batch, [task], allowed_sizes)]


def _naming_the_row(
    error: StatusError, servable: Servable[SavedModel], signature: Signature, inputs: Arrays
) -> StatusError:
    """A request's error with the first row that it is about: TensorFlow's decoders and parsers do not say which.

    Nor does TensorFlow Serving. A good request pays nothing: the row is looked for by halves, after a failure only.

    Args:
        error: what `inputs` led to. It stays as it is where the model itself names the row, or the rows are no strings.
        servable: in use by the caller.
        signature: that failed.
        inputs: of the request.
    """
    (name, rows), *others = inputs.items() or [("", np.empty(0))]
    is_about_rows = error.code is Code.INVALID_ARGUMENT and rows.dtype == object and rows.ndim == 1 and rows.size
    if others or not is_about_rows or f"{name}[" in error.message:
        return error

    def failure(part: np.ndarray) -> StatusError | None:
        try:
            servable.model.run(signature, {name: part})
        except StatusError as found:
            return found if found.code is error.code else None
        return None

    first, end = 0, rows.size
    found: StatusError | None = error
    while found and end - first > 1:
        middle = (first + end) // 2
        if before := failure(rows[first:middle]):
            found, end = before, middle
        else:
            found, first = failure(rows[middle:end]), middle
    return StatusError(found.code, f"{name}[{first}] is refused: {found.message}") if found else error


def _run_together(batch: _Batch, tasks: Sequence[_Task], allowed_sizes: Sequence[int]) -> list[Arrays]:
    """Runs the model once for some requests, and gives each its rows."""
    rows = sum(task.rows for task in tasks)
    padding = _padded_size(rows, allowed_sizes) - rows
    merged = {name: _merge([task.inputs[name] for task in tasks], padding) for name in tasks[0].inputs}
    try:
        outputs = batch.servable.model.run(batch.signature, merged)
    except StatusError as error:
        if len(tasks) > 1:
            raise
        raise _naming_the_row(error, batch.servable, batch.signature, tasks[0].inputs) from None
    for array in outputs.values():
        if array.ndim == 0:
            raise StatusError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if array.shape[0] != rows + padding:
            raise StatusError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )
    results: list[Arrays] = []
    start = 0
    for task in tasks:
        results.append({name: array[start : start + task.rows] for name, array in outputs.items()})
        start += task.rows
    return results


def _merge(arrays: list[np.ndarray], padding: int) -> np.ndarray:
    """The rows of all arrays, and one of them again as padding, so that it is valid input."""
    if padding:
        row = next(array[:1] for array in arrays if len(array))
        arrays = [*arrays, np.repeat(row, padding, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _padded_size(rows: int, allowed_sizes: Sequence[int]) -> int:
    """The smallest allowed size that fits; no rows need none."""
    index = bisect.bisect_left(allowed_sizes, rows)
    return allowed_sizes[index] if rows and index < len(allowed_sizes) else rows
