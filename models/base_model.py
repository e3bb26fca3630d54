"""The weights that pre-training hands to training: one file of plain arrays, by layer and name."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

WEIGHTS_FILE = "weights.npz"

TRUNK_END = "flatten"
"""The layer that ends the trunk. What comes after it, the dense layers, is the objective's own and starts anew."""


@dataclass(frozen=True)
class BaseModel:
    """Weights of a network's trunk.

    Attributes:
        weights: arrays of the shapes and dtype (float32) that the layers have, by `<layer>/<variable>`.
        source: where they were read, for messages.
    """

    weights: Mapping[str, np.ndarray]
    source: str

    def digest(self) -> str:
        """SHA-256 of all names, shapes and values, in hexadecimal."""
        sha256 = hashlib.sha256()
        for name, array in sorted(self.weights.items()):
            sha256.update(f"{name} {array.dtype} {array.shape}\n".encode())
            sha256.update(np.ascontiguousarray(array).tobytes())
        return sha256.hexdigest()

    def initialize(self, network: keras.Model) -> None:
        """Sets the trunk's weights; the layers after it stay as they are.

        Args:
            network: with a layer TRUNK_END.

        Raises:
            ValueError: the trunk has other weights or other shapes; names them.
        """
        variables = trunk_variables(network)
        wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
        found = {name: array.shape for name, array in self.weights.items()}
        if wanted != found:
            differing = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
            described = ", ".join(f"{n} ({found.get(n, 'absent')}, not {wanted.get(n, 'absent')})" for n in differing)
            raise ValueError(
                f"The base model in {self.source} does not fit the network: {described}. Pre-train with the "
                "hyperparameters that the network is built with."
            )
        for name, variable in variables.items():
            variable.assign(self.weights[name])


def trunk_variables(network: keras.Model) -> dict[str, keras.Variable]:
    """The weights and batch statistics before TRUNK_END, by `<layer>/<variable>`.

    Raises:
        ValueError: the network has no such layer.
    """
    names = [layer.name for layer in network.layers]
    if TRUNK_END not in names:
        raise ValueError(f"The network {network.name} has no layer {TRUNK_END}; it has {', '.join(names)}.")
    trunk = network.layers[: names.index(TRUNK_END)]
    return {f"{layer.name}/{variable.name}": variable for layer in trunk for variable in layer.weights}


def save(network: keras.Model, folder: str) -> None:
    """Writes the trunk's weights.

    Args:
        network: with a layer TRUNK_END.
        folder: path or URI; made when absent.
    """
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(variable) for name, variable in trunk_variables(network).items()}
    np.savez(file, **arrays)
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(f"{folder}/{WEIGHTS_FILE}", "wb") as target:
        target.write(file.getvalue())


def load(folder: str) -> BaseModel:
    """Reads what `save` wrote. The file holds numbers only: reading it runs nothing (no pickle).

    Args:
        folder: path or URI.

    Raises:
        ValueError: the file is not there or is damaged; names it.
    """
    path = f"{folder}/{WEIGHTS_FILE}"
    if not tf.io.gfile.exists(path):
        raise ValueError(f"There is no {path}: a base model is what pre-training wrote (models/pretraining.py).")
    with tf.io.gfile.GFile(path, "rb") as file:
        content = io.BytesIO(file.read())
    try:
        with np.load(content, allow_pickle=False) as arrays:
            return BaseModel({name: arrays[name] for name in arrays.files}, path)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); pre-train again.") from error
