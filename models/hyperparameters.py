"""The training recipe: one frozen, validated value. Imports nothing heavy, so that settings may build it anywhere."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from models import features

NETWORKS = ("alexnet", "alexnet_fit")
NUM_CONVOLUTIONS = 5
OPTIMIZERS = ("sgd", "muon")
SCHEDULES = ("one_cycle", "constant")
EXPORT_WEIGHTS = ("best", "last")
SWITCHES = ("auto", "on", "off")


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What defines a training run, besides its data. The defaults are SGD with what AlexNet brought.

    Raises:
        ValueError: a field is out of its range or of the wrong type; names the field, its value and what is
            allowed.
    """

    network: str = "alexnet"
    """`alexnet`: the notebook's, 2,915,338 parameters. `alexnet_fit`: as deep, its geometry made for 64x64 images."""

    without_convolution: int = 0
    """Leaves one convolution out, with its normalization, in 1..5, to see what it is worth. 0 leaves out none."""

    batch_norm_momentum: float = 0.99
    """Part of the running batch statistics that is kept at each step, in [0, 1)."""

    epochs: int = 20
    """Passes over the training split, at least 1."""

    batch_size: int = 128
    """Images per training step, over all GPUs together. A smaller last batch is dropped."""

    optimizer: str = "sgd"
    """The update rule: `sgd`, or `muon` for the kernels of convolutions and SGD for the rest (`models/muon.py`)."""

    learning_rate: float = 0.05
    """Peak learning rate, per step."""

    kernel_learning_rate: float = 0.02
    """Peak learning rate of the kernels of convolutions, per step. Used by `muon` only."""

    momentum: float = 0.9
    """Of SGD, in [0, 1). 0 is plain SGD."""

    nesterov: bool = True
    """Nesterov's form of momentum. Without effect when momentum is 0."""

    weight_decay: float = 5e-3
    """Decoupled, as Keras' SGD does it: w -= learning_rate * weight_decay * w, a step. Kernels only.

    L2 with coefficient c inside the gradient passes through the momentum buffer, which multiplies it by
    1 / (1 - momentum) in the long run; so 5e-4 of it under momentum 0.9 is 5e-3 here.
    """

    schedule: str = "one_cycle"
    """`one_cycle`: linear warm-up to the peak, then linear to 0, step by step. `constant`: always the peak."""

    warmup_fraction: float = 0.15
    """Part of all steps that warms up, in [0, 1). Used by `one_cycle` only."""

    label_smoothing: float = 0.0
    """Part of each label spread evenly over the ten classes, in [0, 1); training and validation loss have it both."""

    weight_averaging: float = 0.0
    """Part of the exponential moving average of the weights that is kept at each step, in [0, 1): 0.998 averages over
    some 500 steps. The average is what is validated and exported. 0 is off."""

    translation: int = 8
    """Largest random shift in each direction, in pixels of the 64x64 image. 0 is off."""

    horizontal_flip: bool = True
    """Mirrors every second training image, at random."""

    color_jitter: float = 0.0
    """Standard deviation of the PCA colour noise (AlexNet paper, section 4.1; 0.1 there). 0 is off."""

    cutout: int = 0
    """Side of a square that is blanked at a random place of each training image, in pixels of the 64x64 image (DeVries
    and Taylor, 2017: 16 of 32). 0 is off."""

    dropout: float = 0.5
    """Part of the units dropped after each hidden dense layer, in [0, 1)."""

    export_weights: str = "best"
    """`best`: those of the epoch with the highest validation accuracy. `last`: those of the last epoch."""

    test_time_flip: bool = False
    """The exported model answers with the mean over an image and its mirror image, at twice the cost."""

    test_time_shift: int = 0
    """The exported model answers with the mean over an image and the same image moved by so many pixels of 64, to the
    upper left and to the lower right, at three times the cost (after Jordan, 2024, "94% on CIFAR-10 in 3.29 Seconds
    on a Single GPU", section 3.5, unweighted). 0 is off."""

    seed: int = 0
    """Of initial weights, order of images, augmentation and dropout; in [0, 2**31)."""

    steps_per_execution: int = 16
    """Training steps in one call of the compiled function, at most: the largest number up to this that divides an
    epoch's steps. It says how often a step waits for Python, not what is computed. 1 with several devices."""

    mixed_precision: str = "auto"
    """bfloat16 compute, float32 weights. `auto`: on where every GPU is of compute capability 8.0 or later, and without
    a GPU where the CPU has bfloat16 instructions. Recipes that have to give the same figures everywhere say `off`."""

    xla: str = "auto"
    """Compiles the training step with XLA. `auto`: on with exactly one GPU (2-3 times slower on a CPU)."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check_type(field.name, type(field.default))
        largest_shift = features.MODEL_IMAGE_SIZE - 1
        self._check("network", self.network in NETWORKS, f"one of {', '.join(NETWORKS)}")
        removable = f"in 0..{NUM_CONVOLUTIONS}"
        self._check("without_convolution", 0 <= self.without_convolution <= NUM_CONVOLUTIONS, removable)
        self._check("batch_norm_momentum", 0 <= self.batch_norm_momentum < 1, "in [0, 1)")
        self._check("epochs", self.epochs >= 1, "at least 1")
        self._check("batch_size", self.batch_size >= 1, "at least 1")
        self._check("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        self._check("learning_rate", self.learning_rate > 0, "greater than 0")
        self._check("kernel_learning_rate", self.kernel_learning_rate > 0, "greater than 0")
        self._check("momentum", 0 <= self.momentum < 1, "in [0, 1)")
        self._check("weight_decay", self.weight_decay >= 0, "at least 0")
        self._check("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        self._check("warmup_fraction", 0 <= self.warmup_fraction < 1, "in [0, 1)")
        self._check("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)")
        self._check("weight_averaging", 0 <= self.weight_averaging < 1, "in [0, 1)")
        self._check("translation", 0 <= self.translation <= largest_shift, f"in 0..{largest_shift}")
        self._check("color_jitter", self.color_jitter >= 0, "at least 0")
        self._check("cutout", 0 <= self.cutout <= features.MODEL_IMAGE_SIZE, f"in 0..{features.MODEL_IMAGE_SIZE}")
        self._check("dropout", 0 <= self.dropout < 1, "in [0, 1)")
        self._check("export_weights", self.export_weights in EXPORT_WEIGHTS, f"one of {', '.join(EXPORT_WEIGHTS)}")
        self._check("test_time_shift", 0 <= self.test_time_shift <= largest_shift, f"in 0..{largest_shift}")
        self._check("seed", 0 <= self.seed < 2**31, "in [0, 2**31)")
        self._check("steps_per_execution", self.steps_per_execution >= 1, "at least 1")
        self._check("mixed_precision", self.mixed_precision in SWITCHES, f"one of {', '.join(SWITCHES)}")
        self._check("xla", self.xla in SWITCHES, f"one of {', '.join(SWITCHES)}")

    def to_dict(self) -> dict[str, Any]:
        """All fields, as values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Hyperparameters":
        """The inverse of `to_dict`; fields that are absent keep their default.

        Raises:
            ValueError: an unknown field, or a value that is not allowed.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"Hyperparameters has no field {', '.join(unknown)}; it has {', '.join(known)}.")
        return cls(**values)

    def _check_type(self, name: str, expected: type) -> None:
        value = getattr(self, name)
        if expected is float and type(value) is int:
            # JSON writes 1.0 as 1; one type in memory keeps equal recipes equal once written.
            object.__setattr__(self, name, float(value))
        elif type(value) is not expected:
            raise ValueError(f"Hyperparameters.{name} is {value!r}; it has to be of type {expected.__name__}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"Hyperparameters.{name} is {value!r}; it has to be finite.")

    def _check(self, name: str, allowed: bool, expected: str) -> None:
        if not allowed:
            raise ValueError(f"Hyperparameters.{name} is {getattr(self, name)!r}; it has to be {expected}.")
