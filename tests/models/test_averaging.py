import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from models.averaging import AveragedModel

STEPS_AN_EPOCH = 4
EPOCHS = 5
MOMENTUM = 0.6


def small_network() -> keras.Model:
    images = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=1))(images)
    x = layers.Flatten()(layers.BatchNormalization(momentum=0.5)(x))
    return keras.Model(images, layers.Dense(3, "softmax", kernel_initializer=keras.initializers.GlorotUniform(2))(x))


class Reference(keras.callbacks.Callback):
    """Averages the network's weights as the definition has it, in NumPy, step by step."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network
        self.step = 0
        self.average = [weight.astype(np.float64) for weight in network.get_weights()]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        kept = min(MOMENTUM, (1 + self.step) / (10 + self.step))
        self.step += 1
        self.average = [
            kept * average + (1 - kept) * weight
            for average, weight in zip(self.average, self.network.get_weights(), strict=True)
        ]


@pytest.fixture(scope="module")
def fitted() -> tuple[AveragedModel, Reference, keras.callbacks.History, tf.data.Dataset]:
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(32, 8, 8, 3)).astype(np.float32), np.arange(32) % 3
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(32 // STEPS_AN_EPOCH)
    network = small_network()
    augmentation = keras.Sequential([keras.Input((8, 8, 3)), layers.RandomFlip(seed=0)])
    model = AveragedModel(augmentation, network, small_network(), MOMENTUM)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    reference = Reference(network)
    history = model.fit(data, epochs=EPOCHS, validation_data=data, callbacks=[reference], verbose=0)
    return model, reference, history, data


def test_the_average_is_numpys_batch_statistics_included(fitted):
    model, reference, _, _ = fitted
    assert reference.step == STEPS_AN_EPOCH * EPOCHS
    assert len(reference.average) == 8
    for found, expected in zip(model.average.get_weights(), reference.average, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(model.average.get_weights()[0], model.network.get_weights()[0], atol=1e-3)


def test_validation_measures_the_average(fitted):
    model, _, history, data = fitted
    model.average.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.average.evaluate(data, verbose=0)
    assert history.history["val_loss"][-1] == pytest.approx(loss, rel=1e-5)
    assert history.history["val_accuracy"][-1] == pytest.approx(accuracy)


def test_the_optimizer_leaves_the_average_alone(fitted):
    model = fitted[0]
    assert [variable.path for variable in model.trainable_variables] == [
        variable.path for variable in model.network.trainable_variables
    ]
    # What a checkpoint has to hold: both networks and the augmentation's random state.
    assert len(model.variables) == 8 + 8 + 1
