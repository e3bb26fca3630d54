"""A training run on a terminal: a bar for the epoch, with the time that is left for it and for the whole run."""

import datetime
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import tqdm

from models.checkpoint import Epoch

_BAR_FORMAT = "  {desc} {percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}"
_REFRESH_S = 0.2
_ANY_HEIGHT = 20  # tqdm shows nothing on a terminal that does not say how high it is


class ProgressBar(keras.callbacks.Callback):
    """Draws the bar on standard output, which has to be a terminal, and takes it away after each epoch."""

    def __init__(
        self, epochs: int, steps: int, history: list[Epoch], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Holds what is known before the first step.

        Args:
            epochs: of the whole run.
            steps: an epoch.
            history: the epochs that are done; RunRecorder extends it.
            clock: seconds, from any beginning.
        """
        super().__init__()
        self._epochs = epochs
        self._steps = steps
        self._history = history
        self._clock = clock
        self._first_epoch = len(history)
        self._first_step_s: float | None = None
        self._bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws a new bar."""
        self._first_step_s = None
        self._bar = tqdm.tqdm(
            total=self._steps,
            desc=f"Epoch {epoch + 1}/{self._epochs}",
            file=sys.stdout,
            leave=False,
            ncols=shutil.get_terminal_size().columns - 1,
            nrows=_ANY_HEIGHT,
            position=0,
            mininterval=_REFRESH_S,
            bar_format=_BAR_FORMAT,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar on."""
        done = batch + 1
        now_s = self._clock()
        if self._first_step_s is None:
            self._first_step_s, self._first_done = now_s, done
        values = logs or {}
        measured = "".join(f"{name} {values[name]:.4f}  " for name in ("loss", "accuracy") if name in values)
        self._bar.set_postfix_str(f"{measured}{self._time_left(done, now_s)}".rstrip(), refresh=False)
        self._bar.update(done - self._bar.n)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Says that the steps are done and what goes on."""
        if self._bar is not None:
            self._bar.set_postfix_str("validating …", refresh=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the bar away."""
        self._close()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves nothing behind."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _time_left(self, done: int, now_s: float) -> str:
        """Of the epoch and of the run. The first step is left out: it compiles."""
        assert self._first_step_s is not None  # set by the first step
        if done == self._first_done:
            return ""
        step_s = (now_s - self._first_step_s) / (done - self._first_done)
        epoch_left_s = step_s * (self._steps - done)
        measured = [epoch.seconds for epoch in self._history[self._first_epoch :]]
        # With an epoch behind it, the run knows what validation costs.
        epoch_s = sum(measured) / len(measured) if measured else step_s * self._steps
        run_left_s = epoch_left_s + epoch_s * (self._epochs - len(self._history) - 1)
        return f"{duration(epoch_left_s)} left, {duration(run_left_s)} of the run"


def duration(seconds: float) -> str:
    """Seconds as `0:42`, `12:05` or `3:07:09`."""
    text = str(datetime.timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0") if text.startswith("0:0") else text.removeprefix("0:")
