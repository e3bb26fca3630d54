import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from models import hyperparameters
from models.alexnet import EMBEDDING_LAYER, GEOMETRIES, build_alexnet, build_network
from models.hyperparameters import Hyperparameters

PARAMETERS = [
    ("conv1", 46_592),
    ("norm1", 512),
    ("conv2", 819_456),
    ("norm2", 1_024),
    ("conv3", 590_080),
    ("norm3", 1_024),
    ("conv4", 65_792),
    ("norm4", 1_024),
    ("conv5", 65_792),
    ("norm5", 1_024),
    ("dense6", 263_168),
    ("dense7", 1_049_600),
    ("dense8", 10_250),
]

SHAPES = [
    ("conv1", (14, 14, 128)),
    ("pool1", (7, 7, 128)),
    ("conv2", (7, 7, 256)),
    ("pool2", (2, 2, 256)),
    ("conv5", (2, 2, 256)),
    ("pool5", (1, 1, 256)),
    ("flatten", (256,)),
    (EMBEDDING_LAYER, (1024,)),
    ("dense8", (10,)),
]

FITTED_PARAMETERS = [
    ("conv1", 5 * 5 * 3 * 64),
    ("norm1", 4 * 64),
    ("conv2", 3 * 3 * 64 * 128),
    ("norm2", 4 * 128),
    ("conv3", 3 * 3 * 128 * 256),
    ("norm3", 4 * 256),
    ("conv4", 3 * 3 * 256 * 256),
    ("norm4", 4 * 256),
    ("conv5", 3 * 3 * 256 * 256),
    ("norm5", 4 * 256),
    ("dense6", 4 * 4 * 256 * 1024 + 1024),
    ("dense7", 1024 * 1024 + 1024),
    ("dense8", 1024 * 10 + 10),
]

FITTED_SHAPES = [
    ("conv1", (32, 32, 64)),
    ("conv2", (32, 32, 128)),
    ("pool2", (16, 16, 128)),
    ("pool3", (8, 8, 256)),
    ("conv4", (8, 8, 256)),
    ("pool5", (4, 4, 256)),
    (EMBEDDING_LAYER, (1024,)),
    ("dense8", (10,)),
]


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build_alexnet()


def test_parameters_by_layer(network: keras.Model):
    assert [(layer.name, layer.count_params()) for layer in network.layers if layer.weights] == PARAMETERS
    assert network.count_params() == 2_915_338
    assert sum(np.prod(weight.shape) for weight in network.non_trainable_weights) == 2_304


def test_shapes(network: keras.Model):
    assert network.input_shape == (None, 64, 64, 3)
    assert [(name, network.get_layer(name).output.shape[1:]) for name, _ in SHAPES] == SHAPES


def test_every_name_of_a_network_has_a_geometry_of_five_convolutions():
    assert tuple(GEOMETRIES) == hyperparameters.NETWORKS
    assert {len(geometry.convolutions) for geometry in GEOMETRIES.values()} == {hyperparameters.NUM_CONVOLUTIONS}


def test_the_fitted_network():
    network = build_network(Hyperparameters(network="alexnet_fit"))
    assert [(layer.name, layer.count_params()) for layer in network.layers if layer.weights] == FITTED_PARAMETERS
    assert [(name, network.get_layer(name).output.shape[1:]) for name, _ in FITTED_SHAPES] == FITTED_SHAPES
    assert [layer.name for layer in network.layers][1:5] == ["conv1", "norm1", "relu1", "conv2"]
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(network(images)).sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("removed", range(1, 6))
def test_a_network_without_one_convolution(name: str, removed: int):
    whole = build_network(Hyperparameters(network=name))
    network = build_network(Hyperparameters(network=name, without_convolution=removed))
    gone = {f"conv{removed}", f"norm{removed}", f"relu{removed}"}
    stays = [layer.name for layer in whole.layers if layer.name not in gone | {"pool1"}]
    assert [layer.name for layer in network.layers if layer.name != "pool1"] == stays
    maps, sizes = (
        {layer.name: layer.output.shape[1:3] for layer in each.layers if layer.name.startswith("pool")}
        for each in (network, whole)
    )
    if removed == 1:  # a pooling of the convolution's stride
        sizes["pool1"] = {"alexnet": (8, 8), "alexnet_fit": (32, 32)}[name]
    assert maps == sizes
    assert network.output_shape == (None, 10)


def test_what_stays_begins_as_in_the_whole_network(network: keras.Model):
    smaller = build_alexnet(without_convolution=4)
    for name in ("conv1", "conv5", "dense6"):
        mine, its = (keras.ops.convert_to_numpy(net.get_layer(name).kernel) for net in (smaller, network))
        np.testing.assert_array_equal(mine, its)


def test_seeds_are_handed_out_in_the_order_of_the_layers(network: keras.Model):
    seeds = np.random.SeedSequence(0).generate_state(10).tolist()
    drawing = ("conv1", "conv2", "conv3", "conv4", "conv5", "dense6", None, "dense7", None, "dense8")
    for seed, name in zip(seeds, drawing, strict=True):
        if name:
            kernel = network.get_layer(name).kernel
            expected = keras.initializers.GlorotUniform(seed=seed)(kernel.shape)
            np.testing.assert_array_equal(kernel, expected)


def test_the_recipe_sets_batch_statistics_and_dropout():
    network = build_network(Hyperparameters(batch_norm_momentum=0.9, dropout=0.25))
    assert {network.get_layer(f"norm{i}").momentum for i in range(1, 6)} == {0.9}
    assert {network.get_layer(f"dropout{i}").rate for i in (6, 7)} == {0.25}


def test_answers_probabilities(network: keras.Model):
    images = np.random.default_rng(0).normal(size=(5, 64, 64, 3)).astype(np.float32)
    probabilities = keras.ops.convert_to_numpy(network(images))
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_the_seed_decides_the_weights(network: keras.Model):
    same, other = build_alexnet(seed=0), build_alexnet(seed=1)
    for mine, its in zip(network.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert not np.array_equal(network.get_layer("conv1").kernel, other.get_layer("conv1").kernel)


def test_layers_of_one_shape_begin_with_different_weights(network: keras.Model):
    conv4, conv5 = (keras.ops.convert_to_numpy(network.get_layer(name).kernel) for name in ("conv4", "conv5"))
    assert conv4.shape == conv5.shape
    assert not np.array_equal(conv4, conv5)


def test_mixed_precision_keeps_weights_and_answer_in_float32():
    network = build_alexnet(dtype="mixed_bfloat16")
    assert network.get_layer("conv1").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert network.output.dtype == "float32"


def test_models_and_augmentation_run_on_jax():
    code = """
import os
import models  # which decides for TensorFlow: what comes after it is meant
os.environ["KERAS_BACKEND"] = "jax"
import jax
import keras
import numpy as np
from models.alexnet import build_network
from models.augmentation import build_augmentation
from models.hyperparameters import Hyperparameters
from models.optimization import build_loss, build_optimizer
from models.rotation import rotate

assert keras.backend.backend() == "jax"
images = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")
for network, smoothing, parameters in (("alexnet", 0.0, 2_915_338), ("alexnet_fit", 0.1, 6_812_106)):
    recipe = Hyperparameters(network=network, label_smoothing=smoothing, color_jitter=0.1)
    model = keras.Sequential([build_augmentation(recipe, np.eye(3)), build_network(recipe)])
    model.compile(build_optimizer(recipe, 2), build_loss(recipe))
    before = model.get_weights()[0]
    model.fit(images, np.arange(4), batch_size=2, verbose=0)
    assert isinstance(model.layers[1].get_layer("conv1").kernel.value, jax.Array)
    assert model.predict(images, verbose=0).shape == (4, 10)
    assert model.count_params() == parameters, model.count_params()
    assert not np.array_equal(before, model.get_weights()[0])
for turns, rotated in enumerate(rotate(images, np.arange(4))):
    np.testing.assert_array_equal(rotated, np.rot90(images[turns], turns))
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
