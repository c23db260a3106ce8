"""How good (text,) probabilities of a hallucination are, given (text,) labels: 0 for a fact, 1 for a hallucination.

Each is scikit-learn's where that has the same (`tests/detectors/test_measures.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from bluffscope.stats.auroc import ordering

BINS: Final = 10
"""Equal bins of probability of the calibration error and of the reliability curve."""


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUROC: a hallucination drawn at random scores higher than a fact drawn at random; ties count half."""
    return ordering(scores[labels == 0], scores[labels == 1]).area


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUPRC as average precision: the sum over thresholds of the recall gained times the precision there."""
    caught, alarms = _above(scores, labels)
    precision = caught / (caught + alarms)
    return float((np.diff(caught, prepend=0) * precision).sum() / labels.sum())


def recall_at(share: float, scores: np.ndarray, labels: np.ndarray) -> float:
    """Most hallucinations caught where at most this share of the facts raises a false alarm.

    NaN where so few facts are there that none might.
    """
    caught, alarms = _above(scores, labels)
    facts = len(labels) - labels.sum()
    if facts * share < 1:
        return np.nan
    return float(caught[alarms <= share * facts].max(initial=0) / labels.sum())


def precision_at(share: float, scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of hallucinations among the alarms where `recall_at` is reached; NaN without any alarm, or as there."""
    caught, alarms = _above(scores, labels)
    facts = len(labels) - labels.sum()
    if facts * share < 1 or alarms[0] > share * facts:
        return np.nan
    last = int(np.argmax(np.where(alarms <= share * facts, caught, -1)))
    return float(caught[last] / (caught[last] + alarms[last]))


def brier(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of probability and label: 0.25 for one that always says 0.5."""
    return float(np.mean((scores - labels) ** 2))


def risk_coverage(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(text,) share of wrong answers among the k texts that the detector is surest of, for k = 1, 2, ...

    A text is answered "hallucinated" from a probability of 0.5 on; of texts it is equally sure of, each counts as the
    mean of them all.
    """
    sureness = np.round(np.abs(scores - 0.5), 12)
    wrong = ((scores >= 0.5) != (labels == 1)).astype(float)
    levels, place = np.unique(-sureness, return_inverse=True)
    mean = np.bincount(place, wrong, len(levels)) / np.bincount(place, minlength=len(levels))
    ordered = mean[np.sort(place)]
    return np.cumsum(ordered) / np.arange(1, len(ordered) + 1)


def risk_area(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under `risk_coverage` (AURC): 0 for a detector that is never wrong."""
    return float(risk_coverage(scores, labels).mean())


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: |mean probability - share of hallucinations| over `BINS` bins, by their size."""
    gaps = np.bincount(_bins(scores), scores - labels, BINS)
    return float(np.abs(gaps).sum() / len(scores))


def reliability(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of `BINS` equal bins the mean probability, the share of hallucinations (NaN where empty), and texts."""
    bins = _bins(scores)
    texts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return np.bincount(bins, scores, BINS) / texts, np.bincount(bins, labels, BINS) / texts, texts


def _bins(scores: np.ndarray) -> np.ndarray:
    return np.minimum((scores * BINS).astype(int), BINS - 1)


def _above(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(threshold,) hallucinations and facts at or above each score that occurs, from the highest."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)  # ties are passed together
    caught = np.cumsum(labels[order])[last]
    return caught, last + 1 - caught


MEASURES: Final[dict[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "auprc": average_precision,
    "recall_1": partial(recall_at, 0.01),
    "recall_5": partial(recall_at, 0.05),
    "brier": brier,
    "aurc": risk_area,
}
"""Those with a column and an interval of their own, beside the AUROC."""
