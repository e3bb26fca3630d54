"""The optimizer and its learning rate, step by step."""

from typing import Any

import keras
from keras import ops

from models.hyperparameters import Hyperparameters


def build_optimizer(hyperparameters: Hyperparameters, total_steps: int) -> keras.optimizers.Optimizer:
    """Builds SGD as the recipe asks for it.

    Args:
        hyperparameters: uses `learning_rate`, `schedule`, `warmup_fraction`, `momentum`, `nesterov` and
            `weight_decay`.
        total_steps: of the whole run, all epochs together.

    Returns:
        An optimizer that is not yet built.
    """
    learning_rate: float | OneCycle = hyperparameters.learning_rate
    if hyperparameters.schedule == "one_cycle":
        warmup_steps = round(hyperparameters.warmup_fraction * total_steps)
        learning_rate = OneCycle(hyperparameters.learning_rate, warmup_steps, total_steps)
    optimizer = keras.optimizers.SGD(
        learning_rate,
        momentum=hyperparameters.momentum,
        nesterov=hyperparameters.nesterov,
        weight_decay=hyperparameters.weight_decay or None,
    )
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
