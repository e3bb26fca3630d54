import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.muon import Muon, orthogonalize


def reference_orthogonal(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal factor of the polar decomposition: all singular values 1."""
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ v


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(2, 40), columns=st.integers(2, 40), seed=st.integers(0, 99), size=st.floats(1e-3, 1e3))
def test_orthogonalize_keeps_the_singular_vectors_and_lifts_the_values(rows, columns, seed, size):
    rng = np.random.default_rng(seed)
    rank = min(rows, columns)
    u = np.linalg.qr(rng.normal(size=(rows, rank)))[0]
    v = np.linalg.qr(rng.normal(size=(columns, rank)))[0]
    values = np.linspace(0.3, 1, rank)
    found = np.asarray(orthogonalize(keras.ops.convert_to_tensor((u * values * size) @ v.T, "float32")))
    diagonal = u.T @ found @ v
    assert found.shape == (rows, columns)
    np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=2e-3)
    assert np.all((np.diag(diagonal) > 0.6) & (np.diag(diagonal) < 1.3))


def test_zeros_stay_zeros():
    assert not np.any(np.asarray(orthogonalize(keras.ops.zeros((5, 3)))))


def test_kernels_of_convolutions_move_by_the_orthogonal_momentum_and_the_rest_by_sgd():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 3, 4, 8)).astype("float32"), rng.normal(size=(8,)).astype("float32")
    variables = [keras.Variable(kernel, name="kernel"), keras.Variable(bias, name="bias")]
    options = {"momentum": 0.9, "nesterov": True}
    sgd_bias = keras.Variable(bias, name="bias")
    sgd = keras.optimizers.SGD(0.1, **options)
    muon = Muon(0.1, 0.5, **options)
    momentum = np.zeros_like(kernel)
    for _ in range(3):
        gradients = [rng.normal(size=value.shape).astype("float32") for value in (kernel, bias)]
        before = np.asarray(variables[0])
        muon.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients], variables)
        sgd.apply([keras.ops.convert_to_tensor(gradients[1])], [sgd_bias])
        momentum = 0.9 * momentum + gradients[0]
        step = (before - np.asarray(variables[0])).reshape(36, 8) / (0.1 * 0.5)
        wanted = reference_orthogonal((gradients[0] + 0.9 * momentum).reshape(36, 8))
        # The iteration's singular values are near 1, not 1: the direction is the same, the length about.
        cosine = np.sum(step * wanted) / (np.linalg.norm(step) * np.linalg.norm(wanted))
        assert cosine > 0.98
        assert np.linalg.norm(step) == pytest.approx(np.linalg.norm(wanted), rel=0.2)
        np.testing.assert_allclose(np.asarray(variables[1]), np.asarray(sgd_bias), rtol=1e-6)


def test_the_size_of_the_gradient_does_not_matter():
    gradient = np.random.default_rng(1).normal(size=(2, 2, 3, 5)).astype("float32")
    steps = []
    for size in (1e-2, 1e2):
        variable = keras.Variable(np.zeros_like(gradient))
        Muon(0.1, 1.0, momentum=0.0).apply([keras.ops.convert_to_tensor(size * gradient)], [variable])
        steps.append(np.asarray(variable))
    np.testing.assert_allclose(steps[0], steps[1], atol=1e-4)


def test_config_builds_it_again():
    again = Muon.from_config(Muon(0.1, 0.5, momentum=0.9, nesterov=True, weight_decay=0.01).get_config())
    assert (again.kernel_learning_rate_ratio, again.momentum, again.nesterov) == (0.5, 0.9, True)
    assert again.weight_decay == 0.01
