"""The state of a training run in one file, so that a run that was killed goes on at its last whole epoch."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

STATE_FILE = "state.npz"


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one epoch came to; a row of history.csv.

    Attributes:
        epoch: counted from 1.
        loss: mean training loss, over the epoch's steps, with augmentation and dropout.
        accuracy: training accuracy, the same way, 0 to 1.
        val_loss: mean loss on the validation split, after the epoch.
        val_accuracy: accuracy on the validation split, after the epoch, 0 to 1.
        learning_rate: at the end of the epoch; one_cycle ends at 0.
        seconds: wall-clock time, validation included.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclasses.dataclass
class TrainingState:
    """All that the rest of a run depends on, besides its recipe and its data.

    Attributes:
        history: the epochs that are done.
        variables: of the training model and its optimizer, random number generators included, in their order.
        best_weights: the network's at the best epoch so far; empty when the recipe does not keep them.
    """

    history: list[Epoch]
    variables: list[np.ndarray]
    best_weights: list[np.ndarray]


def run_key(definition: Mapping[str, Any]) -> str:
    """Names a run after everything that defines it: a digest, in hexadecimal, of values that JSON can hold."""
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save(path: Path, state: TrainingState) -> None:
    """Writes the state; whenever the process is killed, `path` holds this whole state or the whole one before.

    Args:
        path: of the file; its folder is made when absent.
        state: what to write.
    """
    arrays: dict[str, Any] = {f"variables/{i}": array for i, array in enumerate(state.variables)}
    arrays |= {f"best_weights/{i}": array for i, array in enumerate(state.best_weights)}
    history = json.dumps([dataclasses.asdict(epoch) for epoch in state.history])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, history=np.array(history), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load(path: Path) -> TrainingState | None:
    """Reads what `save` wrote.

    Args:
        path: of the file.

    Returns:
        The state, or None when there is no such file.

    Raises:
        ValueError: the file is damaged; names it.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            history = [Epoch(**epoch) for epoch in json.loads(str(arrays["history"]))]
            groups = {
                group: [arrays[f"{group}/{i}"] for i in range(sum(name.startswith(f"{group}/") for name in arrays))]
                for group in ("variables", "best_weights")
            }
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to train from the beginning.") from error
    return TrainingState(history, **groups)


def history_csv(history: list[Epoch]) -> str:
    """The history as CSV with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(epoch) for epoch in history)
    return text.getvalue()
