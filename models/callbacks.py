"""What happens between the steps and epochs of a training run."""

import math
import time
from pathlib import Path
from typing import Any

import keras
from keras import ops

from models import checkpoint


class NonFiniteLossError(ArithmeticError):
    """The training loss became infinite or not a number."""


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the run once its loss is infinite or not a number, rather than train on garbage.

    Looked at after each call of the compiled function (`fitting.steps_per_execution`).
    """

    def __init__(self, epochs: int, learning_rate: float) -> None:
        """Holds what the message says.

        Args:
            epochs: of the whole run.
            learning_rate: the recipe's.
        """
        super().__init__()
        self._epochs = epochs
        self._learning_rate = learning_rate
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch, counted from 0."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises NonFiniteLossError."""
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The training loss is {loss} by epoch {self._epoch + 1} of {self._epochs}, step {batch + 1}. Lower "
                f"learning_rate (it is {self._learning_rate}) or raise warmup_fraction, and run again."
            )


class RunRecorder(keras.callbacks.Callback):
    """Keeps the history and the best weights, and writes the resume checkpoint after each epoch."""

    def __init__(self, network: keras.Model, path: Path, keep_best: bool, state: checkpoint.TrainingState) -> None:
        """Goes on where the state ends.

        Args:
            network: the part of the training model that is exported.
            path: of the checkpoint file.
            keep_best: whether the state holds the network's weights at the epoch of highest validation accuracy.
            state: of the run so far; changed in place.
        """
        super().__init__()
        self._network = network
        self._path = path
        self._keep_best = keep_best
        self._state = state
        self._begin_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._begin_s = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Extends the state and writes it."""
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        history = self._state.history
        best = max((done.val_accuracy for done in history), default=-math.inf)
        if self._keep_best and metrics["val_accuracy"] > best:
            self._state.best_weights = self._network.get_weights()
        history.append(
            checkpoint.Epoch(
                epoch=epoch + 1,
                loss=metrics["loss"],
                accuracy=metrics["accuracy"],
                val_loss=metrics["val_loss"],
                val_accuracy=metrics["val_accuracy"],
                learning_rate=float(ops.convert_to_numpy(self.model.optimizer.learning_rate)),
                seconds=round(time.monotonic() - self._begin_s, 3),
            )
        )
        self._state.variables = [ops.convert_to_numpy(variable) for variable in run_variables(self.model)]
        checkpoint.save(self._path, self._state)


class EpochLine(keras.callbacks.Callback):
    """Prints a plain line an epoch: no control characters, so that it can go to a file."""

    def __init__(self, epochs: int, history: list[checkpoint.Epoch]) -> None:
        """Holds what to print.

        Args:
            epochs: of the whole run.
            history: what RunRecorder extends, before this callback is called.
        """
        super().__init__()
        self._epochs = epochs
        self._history = history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints the epoch that has just ended."""
        done = self._history[-1]
        print(
            f"Epoch {done.epoch:>{len(str(self._epochs))}}/{self._epochs}  loss {done.loss:.4f}  accuracy "
            f"{done.accuracy:.4f}  val_loss {done.val_loss:.4f}  val_accuracy {done.val_accuracy:.4f}  learning_rate "
            f"{done.learning_rate:.2g}  {done.seconds:.1f} s",
            flush=True,
        )


def run_variables(model: keras.Model) -> list[keras.Variable]:
    """All variables that the next steps depend on: weights, batch statistics, random states, optimizer."""
    return [*model.variables, *model.optimizer.variables]
