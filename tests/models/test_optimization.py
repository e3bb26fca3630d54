import keras
import numpy as np
import pytest

from models.hyperparameters import Hyperparameters
from models.optimization import OneCycle, build_loss, build_optimizer


def rates(schedule: OneCycle, steps: int) -> list[float]:
    return [float(schedule(step)) for step in range(steps)]


def test_one_cycle_rises_to_the_peak_and_falls_to_zero():
    learning_rates = rates(OneCycle(0.5, warmup_steps=4, total_steps=14), 15)
    np.testing.assert_allclose(learning_rates[:4], [0.125, 0.25, 0.375, 0.5], rtol=1e-6)
    np.testing.assert_allclose(learning_rates[4:], np.linspace(0.5, 0, 11), atol=1e-6)


def test_one_cycle_without_warm_up_begins_at_the_peak():
    np.testing.assert_allclose(rates(OneCycle(1.0, warmup_steps=0, total_steps=4), 4), [1, 0.75, 0.5, 0.25])


def test_one_cycle_of_one_step_takes_the_peak():
    recipe = Hyperparameters(learning_rate=0.1)
    assert float(build_optimizer(recipe, total_steps=1).learning_rate) == pytest.approx(0.1)


def test_constant_stays():
    recipe = Hyperparameters(learning_rate=0.001, schedule="constant", momentum=0.0, weight_decay=0.0)
    optimizer = build_optimizer(recipe, total_steps=10)
    weight = keras.Variable([1.0, -2.0], name="kernel")
    optimizer.build([weight])
    for _ in range(3):
        optimizer.apply_gradients([(keras.ops.convert_to_tensor([1.0, 1.0]), weight)])
    np.testing.assert_allclose(weight, [1 - 0.003, -2 - 0.003], rtol=1e-6)


@pytest.mark.parametrize("name", ["kernel", "bias", "gamma", "beta"])
def test_decay_pulls_kernels_only(name: str):
    recipe = Hyperparameters(learning_rate=0.1, schedule="constant", weight_decay=0.5)
    optimizer = build_optimizer(recipe, total_steps=10)
    weight = keras.Variable([1.0], name=name)
    optimizer.build([weight])
    optimizer.apply_gradients([(keras.ops.zeros([1]), weight)])
    np.testing.assert_allclose(weight, [0.95 if name == "kernel" else 1.0], rtol=1e-6)


def test_default_decay_equals_l2_of_5e_4_in_the_long_run():
    recipe = Hyperparameters(learning_rate=0.01, schedule="constant", nesterov=False)
    decoupled = keras.Variable([1.0], name="kernel")
    optimizer = build_optimizer(recipe, total_steps=1)
    optimizer.build([decoupled])
    coupled, velocity = 1.0, 0.0
    for _ in range(2000):
        optimizer.apply_gradients([(keras.ops.zeros([1]), decoupled)])
        velocity = 0.9 * velocity - 0.01 * 5e-4 * coupled
        coupled += velocity
    assert float(decoupled[0]) == pytest.approx(coupled, rel=2e-3)
    assert coupled < 0.92


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("num_classes", [10, 4])
def test_loss_is_the_cross_entropy_with_smoothed_labels(smoothing: float, num_classes: int):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(num_classes), size=7)
    labels = rng.integers(num_classes, size=7)
    wanted = np.full((7, num_classes), smoothing / num_classes)
    wanted[np.arange(7), labels] += 1 - smoothing
    expected = -(wanted * np.log(probabilities)).sum(axis=-1).mean()
    loss = build_loss(Hyperparameters(label_smoothing=smoothing))
    for shape in ((7,), (7, 1)):
        found = loss(labels.reshape(shape), probabilities.astype(np.float32))
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_loss_of_a_certain_and_wrong_answer_is_finite():
    certain = np.eye(10, dtype=np.float32)[[3]]
    for smoothing in (0.0, 0.1):
        assert np.isfinite(float(build_loss(Hyperparameters(label_smoothing=smoothing))(np.array([4]), certain)))
