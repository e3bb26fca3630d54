"""Muon: momentum whose direction is made orthogonal, for the kernels of convolutions. Runs on every Keras 3 backend.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/. Keras' own `Muon` leaves four-dimensional kernels to Adam.
"""

from typing import Any

import keras
from keras import ops

NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial a s + b s**3 + c s**5 on singular values: Jordan et al., section "Newton-Schulz iteration".

They were chosen to lift small values fast; those of the result lie in about 0.7 to 1.2 and do not converge to 1.
"""

CONVOLUTION_RANK = 4
"""Dimensions of a convolution's kernel: height, width, channels in, channels out."""


class Muon(keras.optimizers.SGD):
    """Muon for the kernels of convolutions, SGD with (Nesterov) momentum for everything else.

    A kernel is taken as a matrix [height * width * channels in, channels out]. Its step is

        w -= learning_rate * kernel_ratio * sqrt(max(1, channels out / rows)) * orthogonal(momentum)

    so the size of a gradient does not matter, only its direction.
    """

    def __init__(self, learning_rate: Any, kernel_learning_rate_ratio: float, **options: Any) -> None:
        """Holds the settings.

        Args:
            learning_rate: of SGD, per step: a number or a schedule.
            kernel_learning_rate_ratio: learning rate of the convolutions' kernels, as a part of `learning_rate`.
            **options: of `keras.optimizers.SGD`; momentum, Nesterov's form and weight decay hold for both rules.
        """
        super().__init__(learning_rate, name="muon", **options)
        self.kernel_learning_rate_ratio = kernel_learning_rate_ratio

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Changes one variable, and its momentum, given its gradient; all three are of one shape."""
        if len(variable.shape) != CONVOLUTION_RANK:
            super().update_step(gradient, variable, learning_rate)
            return
        gradient = ops.cast(gradient, variable.dtype)
        learning_rate = ops.cast(learning_rate, variable.dtype)
        update = gradient
        if self.momentum:
            momentum = self.momentums[self._get_variable_index(variable)]
            accumulated = ops.add(self.momentum * momentum, gradient)
            self.assign(momentum, accumulated)
            update = gradient + self.momentum * accumulated if self.nesterov else accumulated
        columns = variable.shape[-1]
        direction = ops.reshape(orthogonalize(ops.reshape(update, (-1, columns))), variable.shape)
        rows = 1
        for size in variable.shape[:-1]:
            rows *= size
        scale = self.kernel_learning_rate_ratio * max(1.0, columns / rows) ** 0.5
        self.assign_sub(variable, learning_rate * scale * direction)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config() | {"kernel_learning_rate_ratio": self.kernel_learning_rate_ratio}
        del config["name"]
        return config


def orthogonalize(matrix: keras.KerasTensor) -> keras.KerasTensor:
    """Brings the singular values of a matrix near 1 and keeps its singular vectors, without decomposing it.

    Args:
        matrix: float [M, N]; all zeros stay zeros.

    Returns:
        The matrix' shape and dtype. Singular values that were not tiny beside the others are in about 0.7 to 1.2.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if tall else matrix  # the products below are then of the smaller size
    x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)  # no singular value above 1
    # Each step multiplies x from the left by a polynomial of x x^T. Those polynomials commute: their product, and
    # x x^T after each step, need square matrices of the smaller size only, and x itself is multiplied once.
    gram = ops.matmul(x, ops.transpose(x))
    product = identity = ops.eye(x.shape[0], dtype=x.dtype)
    for _ in range(NEWTON_SCHULZ_STEPS):
        polynomial = a * identity + b * gram + c * ops.matmul(gram, gram)
        product = ops.matmul(polynomial, product)
        gram = ops.matmul(polynomial, ops.matmul(gram, polynomial))
    x = ops.matmul(product, x)
    return ops.transpose(x) if tall else x
