"""A fitted detector as the numbers it comes to: weights, an intercept, and a curve from scores to probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from bluffscope.detectors.classifiers import active_enough, classifier

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

    def scores(self, matrix: Any) -> np.ndarray:
        """(text,) log odds that each text is hallucinated.

        Args:
            matrix: (text, feature), NumPy with NaN where a value is not there, or SciPy's CSR.
        """
        if not isinstance(matrix, np.ndarray):
            return np.asarray(matrix @ self.weights).ravel() + self.intercept
        matrix = matrix.astype(np.float64)
        gaps = np.isnan(matrix)
        return np.where(gaps, self.medians, matrix) @ self.weights + gaps @ self.missing + self.intercept


def fit_linear(on: On, matrix: Any, labels: np.ndarray) -> Linear:
    """The classifier of `bluffscope.detectors.classifiers`, fitted, with all its steps folded into one.

    Args:
        on: what the columns are.
        matrix: (text, feature).
        labels: (text,) 0 for a fact, 1 for a hallucination.
    """
    width = matrix.shape[1]
    weights, medians, missing = np.zeros(width), np.zeros(width), np.zeros(width)
    used = active_enough(matrix) if on == "sae" else np.ones(width, dtype=bool)
    if not used.any():
        return Linear(weights, medians, missing, 0.0)
    fitted = classifier(on).fit(matrix[:, used], labels)
    logistic = fitted[-1]
    slopes, intercept = logistic.coef_[0].astype(np.float64), float(logistic.intercept_[0])
    scaler = fitted[-2]
    slopes = slopes / scaler.scale_
    if on != "sae":  # a sparse matrix is not centred
        intercept -= float(scaler.mean_ @ slopes)
    if on == "metrics":
        imputer = fitted[0]
        medians = np.asarray(imputer.statistics_, dtype=np.float64)
        missing[imputer.indicator_.features_] = slopes[width:]
        slopes = slopes[:width]
    weights[used] = slopes
    return Linear(weights, medians, missing, intercept)


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
