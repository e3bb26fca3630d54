"""What several rounds of a measurement came to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum of what the rounds found."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def text(values: Mapping[str, float], form: str = ".0f") -> str:
    """A spread as `median [min to max]`.

    Args:
        values: from `spread`.
        form: of a number, in Python's format language.
    """
    return f"{values['median']:{form}} [{values['min']:{form}} to {values['max']:{form}}]"
