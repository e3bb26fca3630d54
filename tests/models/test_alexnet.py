import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from models.alexnet import EMBEDDING_LAYER, build_alexnet

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


def test_model_and_augmentation_run_on_jax():
    code = """
import jax
import keras
import numpy as np
from models.alexnet import build_alexnet
from models.augmentation import build_augmentation
from models.hyperparameters import Hyperparameters
from models.optimization import build_optimizer

recipe = Hyperparameters(color_jitter=0.1)
model = keras.Sequential([build_augmentation(recipe, np.eye(3)), build_alexnet()])
model.compile(build_optimizer(recipe, 2), "sparse_categorical_crossentropy")
images = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")
before = model.get_weights()[0]
model.fit(images, np.arange(4), batch_size=2, verbose=0)
assert keras.backend.backend() == "jax"
assert isinstance(model.layers[1].get_layer("conv1").kernel.value, jax.Array)
assert model.predict(images, verbose=0).shape == (4, 10)
assert model.count_params() == 2_915_338
assert not np.array_equal(before, model.get_weights()[0])
"""
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
