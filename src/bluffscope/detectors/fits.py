"""The detectors' fits: from training texts to weights, the penalty chosen within these texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy.special import expit

from bluffscope.detectors.linear import Linear
from bluffscope.detectors.logistic import Texts, blocks, fit_fine, fit_rough, nothing
from bluffscope.detectors.penalties import PENALTIES, Chosen, choose, held_out_loss, inner_folds, strongest
from bluffscope.pairs.wordbag import bag_classifier

FEWEST_ACTIVE: Final = 3
"""Training texts in which an SAE feature must be active to be used."""
SPARSE: Final = (1, 5, 20)
"""How many SAE features a k-sparse probe may choose to look at."""
_LEAST: Final = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Fitted:
    """A detector that has been fitted."""

    linear: Linear
    within: np.ndarray
    """(text,) log odds of each training text from a fit to other folds within the training part."""
    penalty: float | None = None
    """Chosen of `PENALTIES`; None of a difference of means, which has none."""
    k: int | None = None
    """Features that a k-sparse probe chose to look at."""
    words: Any = None
    """Of a bag of words: its weighting, learnt from the training texts."""

    def scores(self, matrix: Any) -> np.ndarray:
        """(text,) log odds of other texts.

        Args:
            matrix: (text, feature).
        """
        return self.linear.scores(matrix if self.words is None else self.words.transform(matrix))

    def probabilities(self, matrix: Any) -> np.ndarray:
        """(text,) probabilities of a hallucination for other texts.

        Args:
            matrix: (text, feature).
        """
        # Texts that look the same to a detector are ties, whatever the order of sums left in the last digits.
        return np.round(expit(self.scores(matrix)), 10)


def fit(detector: str, matrix: Any, labels: np.ndarray, groups: np.ndarray) -> Fitted:
    """Fit a detector; penalty, number of features, scaling and all else are learnt from these texts alone.

    Args:
        detector: one of `bluffscope.detectors.classifiers.DETECTORS`.
        matrix: (text, feature).
        labels: (text,) 0 for a fact, 1 for a hallucination.
        groups: (text,) numbers; the folds within part none.
    """
    folds = inner_folds(groups, labels)
    if detector == "mean_difference":
        return _mean_difference(matrix, labels, folds)
    if detector == "k_sparse":
        return _k_sparse(matrix, labels, folds)
    if detector in ("text", "prompt"):
        words = bag_classifier()[0].fit(matrix)
        counts = words.transform(matrix)
        return replace(_logistic(counts, np.ones(counts.shape[1]), labels, folds), words=words)
    if detector == "sae":
        used = np.flatnonzero(active_enough(matrix))
        values = matrix[:, used]
        most = values.max(axis=0).toarray().ravel() if len(used) else np.ones(0)
        return _placed(_logistic(values, most, labels, folds), used, matrix.shape[1])
    if detector == "residual":
        return _logistic(matrix, None, labels, folds)
    return _with_gaps(matrix, labels, folds, indicators=detector == "metrics")


def _logistic(values: Any, scale: np.ndarray | None, labels: np.ndarray, folds: np.ndarray) -> Fitted:
    """Logistic regression on columns without gaps."""
    texts = Texts.of(values, scale)
    return _fitted(texts, labels, choose(texts, labels, folds))


def _fitted(texts: Texts, labels: np.ndarray, chosen: Chosen) -> Fitted:
    found = fit_fine(texts, labels, chosen.penalty, chosen.start)
    weights = texts.weights(found.counts[0])
    intercept = float(found.intercepts[0] - texts.mean @ weights)
    return Fitted(Linear.of(weights, intercept), chosen.within, chosen.penalty)


def _placed(fitted: Fitted, used: np.ndarray, columns: int) -> Fitted:
    """A fit to some of the columns as one to all."""
    weights = np.zeros(columns)
    weights[used] = fitted.linear.weights
    return replace(fitted, linear=Linear.of(weights, fitted.linear.intercept))


def _with_gaps(matrix: np.ndarray, labels: np.ndarray, folds: np.ndarray, *, indicators: bool) -> Fitted:
    """The same on numbers of which some are not there: the median stands in for them.

    Args:
        matrix: (text, feature) with NaN.
        labels: (text,).
        folds: (text,).
        indicators: whether it may count that a value is not there.
    """
    gaps = np.isnan(matrix)
    known = ~gaps.all(axis=0)
    medians = np.zeros(matrix.shape[1])
    medians[known] = (np.nanmedian if gaps.any() else np.median)(matrix[:, known], axis=0)
    marked = np.flatnonzero(gaps.any(axis=0)) if indicators else np.zeros(0, dtype=np.int64)
    fitted = _logistic(np.hstack([np.where(gaps, medians, matrix), gaps[:, marked]]), None, labels, folds)
    weights, missing = np.split(fitted.linear.weights, [len(medians)])
    absent = np.zeros(len(medians))
    absent[marked] = missing
    return replace(fitted, linear=Linear(weights, medians, absent, fitted.linear.intercept))


def _mean_difference(matrix: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> Fitted:
    """The line through the two classes' means (Marks and Tegmark 2023); a logistic curve calibrates it."""
    inner = np.unique(folds)
    used = np.stack([*(folds != fold for fold in inner), np.ones(len(folds), dtype=bool)])
    apart = used * np.where(labels == 1, 1.0, -1.0)
    for label in (0, 1):
        apart[:, labels == label] /= np.maximum(used[:, labels == label].sum(axis=1, keepdims=True), 1)
    directions = np.zeros((len(used), matrix.shape[1]))
    along = np.zeros(used.shape)  # (fit, text)
    for some in blocks(matrix.shape[1]):
        block = matrix[:, some].astype(np.float64)
        directions[:, some] = apart @ block
        along += directions[:, some] @ block.T
    within = np.full(len(labels), np.nan)
    for fold, place, known in zip(inner, along[:-1], used[:-1], strict=True):
        if len(np.unique(labels[known])) > 1:
            within[folds == fold] = _curve(place[known], labels[known]).scores(place[folds == fold, None])
    curve = _curve(along[-1], labels)
    return Fitted(Linear.of(directions[-1] * curve.weights[0], curve.intercept), within)


def _curve(places: np.ndarray, labels: np.ndarray) -> Linear:
    """Logistic regression on one number a text, scaled, with scikit-learn's usual penalty (C = 1)."""
    texts = Texts.of(places[:, None])
    found = fit_fine(texts, labels, 1 / (texts.spread * len(labels)))
    weights = texts.weights(found.counts[0])
    return Linear.of(weights, float(found.intercepts[0] - texts.mean @ weights))


def _k_sparse(matrix: Any, labels: np.ndarray, folds: np.ndarray) -> Fitted:
    """Logistic regression on the k SAE features whose means lie furthest apart (Gurnee et al. 2023); k as penalties."""
    inner = [fold for fold in np.unique(folds) if len(np.unique(labels[folds != fold])) > 1]
    ranked = {fold: _furthest_apart(matrix[folds != fold], labels[folds != fold]) for fold in inner}
    penalties = np.array(PENALTIES)
    found: list[tuple[int, Chosen]] = []
    for k in SPARSE:
        within = np.full((len(penalties), len(labels)), np.nan)
        for fold in inner:
            texts = Texts.of(_columns(matrix, ranked[fold][:k]))
            used = np.tile(folds != fold, (len(penalties), 1))
            fits = fit_rough(texts, labels, used, penalties, nothing(*used.shape))
            within[:, folds == fold] = fits.scores[:, folds == fold]
        for penalty, scores in zip(PENALTIES, within, strict=True):
            found.append((k, Chosen(penalty, nothing(1, len(labels)), scores, held_out_loss(scores, labels))))
    best = strongest([chosen for _, chosen in found])
    k = next(k for k, chosen in found if chosen is best)
    used = _furthest_apart(matrix, labels)[:k]
    return replace(_placed(_fitted(Texts.of(_columns(matrix, used)), labels, best), used, matrix.shape[1]), k=k)


def _columns(matrix: Any, places: Sequence[int] | np.ndarray) -> np.ndarray:
    return matrix[:, places].toarray()


def _furthest_apart(matrix: Any, labels: np.ndarray) -> np.ndarray:
    """(feature,) places of the features whose two means differ most, in standard deviations; at most `SPARSE`'s."""
    means = [np.asarray(matrix[labels == label].mean(axis=0)).ravel() for label in (0, 1)]
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    variance = np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel() - mean**2
    apart = np.abs(means[1] - means[0]) / np.sqrt(np.maximum(variance, _LEAST))
    apart[~active_enough(matrix)] = 0
    order = np.argsort(-apart, kind="stable")[: max(SPARSE)]
    return order[apart[order] > 0]


def active_enough(matrix: Any) -> np.ndarray:
    """(feature,) whether each SAE feature is active in enough training texts to be used."""
    return np.asarray((matrix > 0).sum(axis=0)).ravel() >= FEWEST_ACTIVE
