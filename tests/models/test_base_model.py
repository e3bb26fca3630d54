from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from models import base_model
from models.alexnet import build_alexnet

FILE = base_model.WEIGHTS_FILE


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build_alexnet(seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: keras.Model) -> Path:
    folder = tmp_path_factory.mktemp("base") / "Format-Serving"
    base_model.save(network, str(folder))
    return folder


def test_a_network_gets_the_convolutions_and_keeps_its_dense_layers(folder: Path, network: keras.Model):
    other = build_alexnet(seed=2)
    dense = other.get_layer("dense6").get_weights()
    base_model.load(str(folder)).initialize(other)
    for name in ("conv1", "norm1", "conv5", "norm5"):
        given, taken = network.get_layer(name).get_weights(), other.get_layer(name).get_weights()
        for found, expected in zip(taken, given, strict=True):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(other.get_layer("dense6").get_weights()[0], dense[0])
    assert not np.array_equal(dense[0], network.get_layer("dense6").get_weights()[0])


def test_the_file_holds_the_trunks_arrays_and_nothing_that_runs_when_it_is_read(folder: Path):
    with np.load(folder / FILE, allow_pickle=False) as arrays:
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.float32)}
        layers = {name.partition("/")[0] for name in arrays.files}
    assert layers == {f"{kind}{index}" for kind in ("conv", "norm") for index in range(1, 6)}


def test_the_digest_is_that_of_the_values(folder: Path, network: keras.Model, tmp_path: Path):
    base = base_model.load(str(folder))
    base_model.save(network, str(tmp_path))
    assert base_model.load(str(tmp_path)).digest() == base.digest()
    changed = {name: array.copy() for name, array in base.weights.items()}
    changed["conv3/bias"][0] += 1
    assert base_model.BaseModel(changed, base.source).digest() != base.digest()


def test_another_network_is_refused_by_the_layers_that_differ(folder: Path):
    base = base_model.load(str(folder))
    other = build_alexnet(without_convolution=4)
    with pytest.raises(
        ValueError, match=r"does not fit the network: conv4/bias \(\(256,\), not absent\), conv4/kernel"
    ):
        base.initialize(other)
    with pytest.raises(ValueError, match="has no layer flatten"):
        base.initialize(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ValueError, match=rf"There is no {tmp_path}/{FILE}"):
        base_model.load(str(tmp_path))


def test_a_damaged_file_and_a_pickle_are_refused(folder: Path, tmp_path: Path):
    content = (folder / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{FILE} is damaged"):
        base_model.load(str(tmp_path))
    pickled: dict[str, Any] = {"conv1/kernel": np.array([{"any": "object"}], dtype=object)}
    np.savez(tmp_path / FILE, **pickled)
    with pytest.raises(ValueError, match=rf"{FILE} is damaged"):
        base_model.load(str(tmp_path))
