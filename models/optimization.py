"""What a training step minimizes, and how: the loss, the optimizer and its learning rate, step by step."""

from typing import Any

import keras
from keras import ops

from models.hyperparameters import Hyperparameters
from models.muon import Muon


def build_loss(hyperparameters: Hyperparameters) -> keras.losses.Loss:
    """Builds the cross-entropy between labels, int [N], and probabilities, float32 [N, number of classes].

    Args:
        hyperparameters: uses `label_smoothing`.
    """
    if not hyperparameters.label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy()
    return SmoothedCrossentropy(hyperparameters.label_smoothing)


class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy with smoothed labels (Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7).

    With smoothing s and K classes, the right class is asked for with 1 - s + s / K, each other one with s / K.
    """

    def __init__(self, smoothing: float) -> None:
        """Holds the setting.

        Args:
            smoothing: part of each label that is spread over all classes, in [0, 1).
        """
        super().__init__(name="smoothed_crossentropy")
        self.smoothing = smoothing

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Labels, int [N] or [N, 1], and probabilities, float32 [N, K], to losses, float32 [N]."""
        labels = ops.one_hot(ops.reshape(ops.cast(y_true, "int32"), (-1,)), y_pred.shape[-1])
        return keras.losses.categorical_crossentropy(labels, y_pred, label_smoothing=self.smoothing)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"smoothing": self.smoothing}


def build_optimizer(hyperparameters: Hyperparameters, total_steps: int) -> keras.optimizers.Optimizer:
    """Builds the optimizer that the recipe asks for.

    Args:
        hyperparameters: uses `optimizer`, `learning_rate`, `kernel_learning_rate`, `schedule`, `warmup_fraction`,
            `momentum`, `nesterov` and `weight_decay`.
        total_steps: of the whole run, all epochs together.

    Returns:
        An optimizer that is not yet built.
    """
    learning_rate: float | OneCycle = hyperparameters.learning_rate
    if hyperparameters.schedule == "one_cycle":
        warmup_steps = round(hyperparameters.warmup_fraction * total_steps)
        learning_rate = OneCycle(hyperparameters.learning_rate, warmup_steps, total_steps)
    options = {
        "momentum": hyperparameters.momentum,
        "nesterov": hyperparameters.nesterov,
        "weight_decay": hyperparameters.weight_decay or None,
    }
    if hyperparameters.optimizer == "muon":
        ratio = hyperparameters.kernel_learning_rate / hyperparameters.learning_rate
        optimizer = Muon(learning_rate, ratio, **options)
    else:
        optimizer = keras.optimizers.SGD(learning_rate, **options)
    # Decay pulls to 0, which means nothing for a bias, nor for the scale and offset of a batch normalization.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from near 0 to the peak, then linear to near 0 (Smith, "Super-Convergence", 2018).

    No step has a learning rate of 0: step s of w warming up takes (s + 1) / w of the peak, and step s of the
    remaining ones (total - s) / (total - w).
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int) -> None:
        """Holds the settings.

        Args:
            peak: the highest learning rate.
            warmup_steps: 0 to total_steps - 1.
            total_steps: at least 1.
        """
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step: Any) -> Any:
        """The learning rate, float32 [], of a step counted from 0; 0 after the last one."""
        step = ops.cast(step, "float32")
        rise = (step + 1) / max(self.warmup_steps, 1)
        fall = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        part = ops.where(step < self.warmup_steps, rise, fall)
        return self.peak * ops.clip(part, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}
