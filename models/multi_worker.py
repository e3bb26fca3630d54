"""Training by several processes, one a machine, with MultiWorkerMirroredStrategy; and what Keras lacks for it.

The cluster is what the environment variable TF_CONFIG says, as TensorFlow and Kubeflow's TFJob define it. A process
takes part in it once it has called `join`; until then it trains alone, whatever TF_CONFIG says: TensorFlow can connect
a process before its first operation only, so that `models.worker` trains in a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

TF_CONFIG = "TF_CONFIG"

_REPLICA_SEED_STEP = 0x9E3779B1
"""Keeps the replicas' seeds far apart: 2**32 divided by the golden ratio."""

_joined: tf.distribute.MultiWorkerMirroredStrategy | None = None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Who trains together, and this machine's part in it.

    Attributes:
        workers: `host:port` of each process that trains, the chief's first.
        index: which of them is this machine's.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this machine's process is the one that writes."""
        return self.index == 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Cluster:
        """Reads TF_CONFIG; without it there is one worker.

        Raises:
            ValueError: TF_CONFIG is not what TensorFlow defines, or this machine is none of its workers.
        """
        text = environment.get(TF_CONFIG)
        if not text:
            return cls(("localhost",), 0)
        try:
            config = json.loads(text)
            chiefs, workers = (list(config["cluster"].get(kind, ())) for kind in ("chief", "worker"))
            kind, index = config["task"]["type"], int(config["task"]["index"])
            position = {"chief": 0, "worker": len(chiefs)}[kind] + index
            if not 0 <= position < len(chiefs + workers):
                raise IndexError(f"there is no {kind} {index}")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{TF_CONFIG} is {text!r} ({error!r}); it has to be like "
                '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}.'
            ) from error
        return cls(tuple(chiefs + workers), position)


def join() -> None:
    """Connects this process with the other workers; waits until all are there.

    Call it before TensorFlow does anything else.

    Raises:
        RuntimeError: TensorFlow has been used in this process.
    """
    global _joined
    import tensorflow as tf

    _joined = tf.distribute.MultiWorkerMirroredStrategy()


def strategy() -> tf.distribute.MultiWorkerMirroredStrategy | None:
    """The strategy of the cluster that this process has joined; None where it trains alone."""
    return _joined


def is_chief() -> bool:
    """Whether this process is the one that writes checkpoints, logs and models: the first, or the only one."""
    return _joined is None or Cluster.from_environment().is_chief


def draw_apart(model: keras.Model, replicas: tf.distribute.Strategy) -> None:
    """Gives each replica random numbers of its own, for augmentation and dropout.

    All replicas' generators begin in the same state: without this, the images of one step would share their shifts by
    as many as there are replicas. The first replica's, which checkpoints hold, stay as they are. Call it once, after
    the variables have been set.

    Args:
        model: built in the scope of the strategy.
        replicas: the strategy.
    """
    import tensorflow as tf

    states = [variable for variable in model.variables if variable.name == "seed_generator_state"]

    def move_seeds() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        step = tf.cast(tf.cast(replica, tf.int64) * _REPLICA_SEED_STEP % 2**32, tf.uint32)
        for state in states:
            state.assign(state + tf.stack([step, tf.zeros_like(step)]))  # a seed and a counter

    replicas.run(move_seeds)


def check_same_start(workers: tf.distribute.Strategy, epoch: int, state_file: Path) -> None:
    """Makes sure that the workers run the same training and go on from the same epoch.

    Args:
        workers: the strategy.
        epoch: that this worker's checkpoint ends with; 0 without one.
        state_file: where this worker looks for it, in the folder that is named after what defines the training.

    Raises:
        ValueError: another worker has another training, or another epoch.
    """
    import tensorflow as tf

    def all_have(number: int) -> bool:
        own = workers.run(lambda: tf.constant(float(number), tf.float64))  # adds up numbers of 32 bits without rounding
        return float(workers.reduce("MEAN", own, axis=None)) == number

    if not all_have(zlib.crc32(state_file.parent.name.encode())):
        raise ValueError(
            "The workers do not run the same training: the project, its settings, its data and its environment have to "
            "be the same on all machines."
        )
    if not all_have(epoch):
        raise ValueError(
            f"{state_file} ends with epoch {epoch}, the other workers' with another: the output folder has to be the "
            "same one, on storage that all machines share."
        )


def prepare_for_fit(model: keras.Model) -> None:
    """Makes `model.fit` work with several replicas, which Keras 3 is not quite ready for.

    Needed with Keras 3.12 to 3.15. It can go when the tests of two devices and of two workers pass without it.

    Args:
        model: compiled; every variable of it, its optimizer and its metrics is built, in the strategy's scope.
    """
    from keras.src.backend.tensorflow import trainer

    # It builds variables that are not built yet, of which there are none, and reduces the first batch for that: over
    # workers it cannot, and over devices only where all parts are of one size.
    model._maybe_symbolic_build = lambda **_: None
    # It would make Keras join the workers' logs of a step along their first axis, which numbers have not. Now a step's
    # are each worker's own; those of an epoch are read from the metrics' variables, which add up all workers'.
    trainer._collective_all_reduce_multi_worker = lambda _: False
