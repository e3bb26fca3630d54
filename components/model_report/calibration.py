"""How far a classifier's confidence is its accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
"""As in Guo et al. 2017."""


@dataclass(frozen=True)
class ReliabilityBins:
    """Images by confidence, the probability of their most probable class, in bins of equal width over (0, 1].

    Attributes:
        edges: float64 [bins + 1], from 0 to 1; a bin includes its upper edge.
        counts: int64 [bins], images in each bin.
        confidence: float64 [bins], their mean confidence; NaN where there are none.
        accuracy: float64 [bins], share of them that is classified rightly; NaN where there are none.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean over the images of their bin's |accuracy - confidence|, in [0, 1]; 0 where there are no images.

        Source: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, ICML 2017, equation 3
        (after Naeini, Cooper, Hauskrecht, AAAI 2015).
        """
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((self.counts * gaps).sum() / max(self.counts.sum(), 1))


def reliability_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> ReliabilityBins:
    """Sort images into bins by confidence.

    Args:
        confidence: float [n], in [0, 1].
        correct: bool [n], whether the image is classified rightly.
        bins: How many, at least 1.

    Raises:
        ValueError: The shapes differ, a confidence is outside [0, 1], or there are no bins.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} have to be of one shape, [n].")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(f"confidence reaches from {confidence.min()} to {confidence.max()}; it has to be in [0, 1].")
    if bins < 1:
        raise ValueError(f"bins is {bins}; it has to be at least 1.")
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty bin
        mean_confidence = np.bincount(index, confidence, minlength=bins) / counts
        accuracy = np.bincount(index, correct, minlength=bins) / counts
    return ReliabilityBins(edges, counts, mean_confidence, accuracy)
