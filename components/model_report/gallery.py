"""Which of the test images a page shows: the few whose files have to be read."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from components.model_report.predictions import Predictions, flips, most_confident_mistakes

IMAGES = 32
MISTAKES = 24
FLIPS = 16
"""At most, in each direction."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Positions in the test split, int64 [n] each, in the order in which they are shown.

    Attributes:
        first: The first ones, at most IMAGES; ExampleGen's order is as good as drawn by lot.
        mistakes: The wrong answers that were given with the most confidence, at most MISTAKES.
        gained: Wrong by the last blessed model and right now, at most FLIPS; none where there was no such model.
        lost: The other way round.
    """

    first: np.ndarray
    mistakes: np.ndarray
    gained: np.ndarray
    lost: np.ndarray

    @property
    def indices(self) -> list[int]:
        """All of them, each once, in ascending order."""
        return [int(index) for index in np.unique(np.concatenate(astuple(self)))]


def choose(now: Predictions, before: Predictions | None = None) -> Gallery:
    """Pick what is worth a look.

    Args:
        now: The candidate's answers to the test split.
        before: The last blessed model's; None where there is none.
    """
    none = np.zeros(0, np.int64)
    gained, lost = flips(before, now) if before else (none, none)
    return Gallery(
        first=np.arange(min(IMAGES, len(now.labels))),
        mistakes=most_confident_mistakes(now, MISTAKES),
        gained=gained[:FLIPS],
        lost=lost[:FLIPS],
    )
