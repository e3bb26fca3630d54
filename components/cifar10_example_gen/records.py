"""What every reader yields: one labelled image of one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image, as it was read.

    Attributes:
        split: "train" or "test".
        source: The file or archive member that it came from.
        index: Its position in that file, from 0.
        label: Index into `models.features.CLASS_NAMES`.
        image: Raw pixels, uint8 [32, 32, 3] in RGB, or the bytes of a PNG or JPEG file that is not yet checked.
    """

    split: str
    source: str
    index: int
    label: int
    image: npt.NDArray[np.uint8] | bytes
