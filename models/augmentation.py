"""Random changes of training images (AlexNet paper, section 4.1). Runs on every Keras 3 backend.

All of it acts on the standardized 64x64 images inside the training step, so an exported model has none of it.
"""

import keras
import numpy as np
from keras import layers, ops

from models import features
from models.hyperparameters import Hyperparameters


def build_augmentation(
    hyperparameters: Hyperparameters, principal_components: np.ndarray | None = None
) -> keras.Sequential:
    """Builds the layers that the recipe asks for; none of them changes an image outside training.

    Args:
        hyperparameters: uses `translation`, `horizontal_flip`, `color_jitter`, `cutout` and `seed`.
        principal_components: float [3, 3] from `rgb_principal_components`; needed for `color_jitter` only.

    Returns:
        A model from float32 [N, 64, 64, 3] to the same.

    Raises:
        ValueError: `color_jitter` is on and there are no principal components.
    """
    seeds = np.random.SeedSequence([hyperparameters.seed, 1]).generate_state(3).tolist()
    shift_seed, jitter_seed, cutout_seed = seeds
    augmentation: list[layers.Layer] = []
    if hyperparameters.translation or hyperparameters.horizontal_flip:
        augmentation.append(
            RandomShiftAndFlip(hyperparameters.translation, hyperparameters.horizontal_flip, shift_seed)
        )
    if hyperparameters.color_jitter:
        if principal_components is None:
            raise ValueError(
                f"color_jitter is {hyperparameters.color_jitter}: give principal_components, from "
                "rgb_principal_components of training images."
            )
        augmentation.append(ColorJitter(hyperparameters.color_jitter, principal_components, jitter_seed))
    if hyperparameters.cutout:
        augmentation.append(Cutout(hyperparameters.cutout, cutout_seed))
    size = features.MODEL_IMAGE_SIZE
    images = keras.Input((size, size, features.NUM_CHANNELS), name=features.IMAGE_KEY)
    return keras.Sequential([images, *(augmentation or [layers.Identity()])], name="augmentation")


class RandomShiftAndFlip(layers.Layer):
    """Shifts each image by whole pixels, reflecting its border, and mirrors every second one."""

    def __init__(self, translation: int, horizontal_flip: bool, seed: int) -> None:
        """Holds the settings.

        Args:
            translation: largest shift up, down, left and right, in pixels; less than the image's size.
            horizontal_flip: whether to mirror, with probability 1/2.
            seed: of the random numbers.
        """
        super().__init__(dtype="float32")
        self.translation = translation
        self.horizontal_flip = horizontal_flip
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """float32 [N, H, W, 3] to the same."""
        if not training:
            return images
        n = ops.shape(images)[0]

        def draw(low: int, high: int) -> keras.KerasTensor:
            return keras.random.randint((n,), low, high, dtype="int32", seed=self.seed_generator)

        rows = draw(-self.translation, self.translation + 1)
        columns = draw(-self.translation, self.translation + 1)
        flips = draw(0, 2) if self.horizontal_flip else ops.zeros((n,), dtype="int32")
        return shift_and_flip(images, rows, columns, flips)


class ColorJitter(layers.Layer):
    """Adds to each image a random colour along the principal components of the training images' colours."""

    def __init__(self, std: float, principal_components: np.ndarray, seed: int) -> None:
        """Holds the settings.

        Args:
            std: standard deviation of the three normal numbers drawn for each image.
            principal_components: float [3, 3], from `rgb_principal_components`.
            seed: of the random numbers.
        """
        super().__init__(dtype="float32")
        self.std = std
        self.principal_components = np.asarray(principal_components, np.float32)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """float32 [N, H, W, 3] to the same."""
        if not training:
            return images
        shape = (ops.shape(images)[0], features.NUM_CHANNELS)
        alphas = keras.random.normal(shape, stddev=self.std, dtype="float32", seed=self.seed_generator)
        return add_color_noise(images, alphas, self.principal_components)


class Cutout(layers.Layer):
    """Blanks a random square of each image (DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552)."""

    def __init__(self, size: int, seed: int) -> None:
        """Holds the settings.

        Args:
            size: height and width of the square, in pixels, at least 1.
            seed: of the random numbers.
        """
        super().__init__(dtype="float32")
        self.size = size
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """float32 [N, H, W, 3] to the same. The centre may be any pixel: at a border, part of the square is outside."""
        if not training:
            return images
        height, width = images.shape[1:3]
        shape = (ops.shape(images)[0],)
        rows = keras.random.randint(shape, 0, height, dtype="int32", seed=self.seed_generator)
        columns = keras.random.randint(shape, 0, width, dtype="int32", seed=self.seed_generator)
        return blank_square(images, rows, columns, self.size)


def shift_and_flip(
    images: keras.KerasTensor, rows: keras.KerasTensor, columns: keras.KerasTensor, flips: keras.KerasTensor
) -> keras.KerasTensor:
    """Mirrors left to right where asked, then shifts; what comes in at a border is the image's reflection.

    Both are a matter of which pixel is read where, so one gather does them, without a padded copy.

    Args:
        images: float [N, H, W, C], H and W known.
        rows: int32 [N], pixels down (negative: up), less than H in size.
        columns: int32 [N], pixels to the right (negative: left), less than W in size.
        flips: int32 [N], 1 to mirror, 0 not to.

    Returns:
        The images' shape and dtype.
    """
    n = ops.shape(images)[0]
    height, width, channels = images.shape[1:]
    row_indices = reflect(ops.arange(height, dtype="int32")[None, :] - rows[:, None], height)
    column_indices = reflect(ops.arange(width, dtype="int32")[None, :] - columns[:, None], width)
    column_indices = ops.where(flips[:, None] == 1, width - 1 - column_indices, column_indices)
    first_pixels = ops.arange(n, dtype="int32")[:, None, None] * (height * width)
    indices = first_pixels + row_indices[:, :, None] * width + column_indices[:, None, :]
    return ops.take(ops.reshape(images, (-1, channels)), indices, axis=0)


def blank_square(
    images: keras.KerasTensor, rows: keras.KerasTensor, columns: keras.KerasTensor, size: int
) -> keras.KerasTensor:
    """Sets a square to 0, which is the mean of a standardized image.

    Args:
        images: float [N, H, W, C], H and W known.
        rows: int32 [N], the square's centre from the top; of an even size, the first pixel behind it.
        columns: int32 [N], the same from the left.
        size: height and width of the square, in pixels.

    Returns:
        The images' shape and dtype.
    """

    def inside(centres: keras.KerasTensor, length: int) -> keras.KerasTensor:
        offsets = ops.arange(length, dtype="int32")[None, :] - (centres[:, None] - size // 2)
        return ops.logical_and(offsets >= 0, offsets < size)

    height, width = images.shape[1:3]
    square = ops.logical_and(inside(rows, height)[:, :, None], inside(columns, width)[:, None, :])
    return ops.where(square[..., None], ops.zeros((), images.dtype), images)


def reflect(indices: keras.KerasTensor, size: int) -> keras.KerasTensor:
    """Folds indices in (-size, 2 * size - 1) into [0, size), the edge not repeated: -1 is 1, `size` is size - 2."""
    return (size - 1) - ops.abs((size - 1) - ops.abs(indices))


def rgb_principal_components(images: np.ndarray) -> np.ndarray:
    """Principal components of the colours of all pixels, each as long as its variance.

    Args:
        images: float [N, H, W, 3].

    Returns:
        float32 [3, 3]; column i is p_i * lambda_i, with p_i an eigenvector of the 3x3 covariance of the RGB values
        and lambda_i its eigenvalue (AlexNet paper, section 4.1).
    """
    pixels = np.asarray(images, np.float64).reshape(-1, features.NUM_CHANNELS)
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(pixels, rowvar=False))
    return (eigenvectors * eigenvalues).astype(np.float32)


def add_color_noise(
    images: keras.KerasTensor, alphas: keras.KerasTensor, principal_components: np.ndarray
) -> keras.KerasTensor:
    """Adds [p1 p2 p3] [a1 l1, a2 l2, a3 l3]^T to each pixel of an image.

    Args:
        images: float32 [N, H, W, 3].
        alphas: float32 [N, 3], a1 a2 a3 of each image.
        principal_components: float32 [3, 3], columns p_i * l_i.

    Returns:
        float32 [N, H, W, 3].
    """
    noise = ops.matmul(alphas, ops.convert_to_tensor(principal_components.T))
    return images + noise[:, None, None, :]
