"""A fitted detector as the numbers it comes to: weights, an intercept, and a curve from scores to probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

On = Literal["sae", "metrics", "residual"]
"""What a detector that can be kept looks at; each is a linear classifier."""

_MOST_SLOPE: Final = 50.0


@dataclass(frozen=True)
class Linear:
    """score = sum of weights x values + sum of `missing` where a value is not there + intercept, in log odds."""

    weights: np.ndarray
    """(feature,) in units of the values themselves: scaling is folded in."""
    medians: np.ndarray
    """(feature,) what stands in for a value that is not there."""
    missing: np.ndarray
    """(feature,) added where a value is not there."""
    intercept: float

    @classmethod
    def of(cls, weights: np.ndarray, intercept: float) -> Linear:
        """One of values that are always there."""
        return cls(weights, np.zeros(len(weights)), np.zeros(len(weights)), intercept)

    def scores(self, matrix: Any) -> np.ndarray:
        """(text,) log odds that each text is hallucinated.

        Args:
            matrix: (text, feature), NumPy with NaN where a value is not there, or SciPy's CSR.
        """
        if not isinstance(matrix, np.ndarray):
            return np.asarray(matrix @ self.weights).ravel() + self.intercept
        matrix = matrix.astype(np.float64)
        gaps = np.isnan(matrix)
        if not gaps.any():
            return matrix @ self.weights + self.intercept
        return np.where(gaps, self.medians, matrix) @ self.weights + gaps @ self.missing + self.intercept


class Calibration(NamedTuple):
    """probability = 1 / (1 + exp(-(slope x score + offset)))."""

    slope: float
    offset: float

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """(text,) of (text,) scores."""
        return expit(self.slope * scores + self.offset)


def calibrate(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """The curve of Platt (1999) through scores of texts that were not fitted to, with his smoothed labels.

    A slope below 0 would turn the detector round on the strength of its own failure: it becomes 0, and every
    probability the share of hallucinations.

    Args:
        scores: (text,) out of fold.
        labels: (text,) 0 or 1.
    """
    positives = float(labels.sum())
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    spread = float(scores.std()) or 1.0
    middle = float(scores.mean())
    scaled = (scores - middle) / spread

    def loss(curve: np.ndarray) -> tuple[float, np.ndarray]:
        logits = curve[0] * scaled + curve[1]
        gap = expit(logits) - targets
        return float((np.logaddexp(0, logits) - targets * logits).sum()), np.array([gap @ scaled, gap.sum()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, bounds=[(0.0, _MOST_SLOPE), (None, None)], method="L-BFGS-B")
    slope, offset = found.x
    return Calibration(float(slope / spread), float(offset - slope * middle / spread))
