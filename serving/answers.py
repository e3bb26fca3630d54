"""What is asked of a model server and what it answers, the same over gRPC and REST."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SIGNATURE = "serving_default"
INPUT = "image_bytes"
PROBABILITIES, CLASSES, LABEL = "probabilities", "classes", "label"
"""Outputs that are read. A model exported before `classes` was an output names the most probable class alone."""


@dataclass(frozen=True)
class ServedModel:
    """Which model, and which of its versions.

    Attributes:
        name: the server's name of the model.
        version: its number, or None for the latest (or what `label` names).
        label: a label that the server's configuration gives to a version, e.g. `canary`, or None.

    Raises:
        ValueError: there is no name, or both a version and a label.
    """

    name: str = "alexnet"
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("The model's name is empty; TensorFlow Serving's --model_name says what it has to be.")
        if self.version is not None and self.label is not None:
            raise ValueError(f"Give the version {self.version} or the label {self.label!r}, not both.")


@dataclass(frozen=True)
class Prediction:
    """A classified image, as the model names and orders the classes.

    Attributes:
        classes: their names, in label order.
        probabilities: one a class, each in [0, 1].

    Raises:
        ServingError: there are not as many of the one as of the other, or none.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.classes or len(self.classes) != len(self.probabilities):
            raise ServingError(
                "INTERNAL",
                f"The model answered {len(self.probabilities)} probabilities and the names of "
                f"{len(self.classes)} classes.",
            )

    @classmethod
    def of_label(cls, label: str | None, probabilities: tuple[float, ...]) -> Prediction:
        """The answer of a model that names the most probable class alone, or none; others are `class 0` and so on."""
        names = [f"class {index}" for index in range(len(probabilities))]
        if probabilities and label is not None:
            names[probabilities.index(max(probabilities))] = label
        return cls(tuple(names), probabilities)

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k most probable classes and their probabilities, the most probable first."""
        by_probability = sorted(zip(self.classes, self.probabilities, strict=True), key=lambda pair: -pair[1])
        return by_probability[:k]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top(1)[0][0]

    @property
    def score(self) -> float:
        """The probability of `label`."""
        return self.top(1)[0][1]


@dataclass(frozen=True)
class VersionStatus:
    """What the server does with a version.

    Attributes:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: why it failed to load, else empty.
    """

    version: int
    state: str
    error: str


@dataclass(frozen=True)
class Signature:
    """A way to call a model. `inputs` and `outputs`: by name, e.g. `string [?]` or `float32 [?, 10]`."""

    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Metadata:
    """A version and its signatures by name."""

    version: int
    signatures: dict[str, Signature]


class ServingError(Exception):
    """A server did not answer, or answered with an error.

    Attributes:
        code: name of the gRPC status code that it is, e.g. INVALID_ARGUMENT; HTTP's codes are translated.
        message: the server's own words.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class PredictionClient(Protocol):
    """A connection to a model server; it is closed at the end of a `with` block."""

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Classify encoded image files in one request.

        Raises:
            ServingError: there is no answer, or it is an error.
        """
        ...

    def status(self) -> list[VersionStatus]:
        """Ask for the model's versions, of which the highest comes first."""
        ...

    def metadata(self) -> Metadata:
        """Ask how the model can be called."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...

    def __enter__(self) -> PredictionClient: ...

    def __exit__(self, *exc: object) -> None: ...


def describe_tensor(dtype: str, shape: Sequence[int] | None) -> str:
    """`float32 [?, 10]` for DT_FLOAT and (-1, 10); `float32 of any shape` where the shape is None."""
    name = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64"}.get(dtype, dtype.removeprefix("DT_").lower())
    if shape is None:
        return f"{name} of any shape"
    return f"{name} [{', '.join('?' if size < 0 else str(size) for size in shape)}]"
