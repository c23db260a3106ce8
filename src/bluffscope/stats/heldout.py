"""What a metric adds to length when texts that were not used for fitting are told apart."""

from __future__ import annotations

from typing import Final

import numpy as np

from bluffscope.stats.auroc import auroc
from bluffscope.stats.study import Block

FOLDS: Final = 5

# Below this share a feature has no spread of its own beside the other.
_COLLINEAR: Final = 1e-10


def heldout_gain(block: Block, rng: np.random.Generator) -> np.ndarray:
    """(metric,) cross-validated AUROC of length + metric, less that of length alone; NaN where it cannot be had.

    Each text is judged alone, by Fisher's linear discriminant of its completion's length and its metric, fitted
    on the other folds; a group of pairs is never split between folds. The AUROC is the mean over the folds.

    Args:
        block: the metrics of a scope that share their pairs.
        rng: shuffles the groups.
    """
    metrics, groups = block.fact.shape[1], int(block.groups.max()) + 1
    if groups < 2 or not np.isfinite(block.lengths).all():
        return np.full(metrics, np.nan)
    folds = grouped_folds(block.groups, min(FOLDS, groups), rng)
    gains = np.zeros((int(folds.max()) + 1, metrics))
    for fold in range(len(gains)):
        train, test = folds != fold, folds == fold
        on_length, on_metric = discriminant(block.lengths[train], block.fact[train], block.hall[train])
        length = block.lengths[test].T.reshape(-1, 1)  # (text, 1), facts first
        values = np.concatenate([block.fact[test], block.hall[test]])  # (text, metric)
        apart = np.sign(block.lengths[train, 1].mean() - block.lengths[train, 0].mean())
        alone = _auroc_of_halves(apart * length)
        gains[fold] = _auroc_of_halves(on_length * length + on_metric * values) - alone
    return gains.mean(axis=0)


def grouped_folds(groups: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(pair,) a fold for each pair: shuffled groups, the largest first, each into the fold with the fewest pairs."""
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled = np.zeros(folds, dtype=np.int64)
    fold_of = np.empty(len(sizes), dtype=np.int64)
    for group in order:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[groups]


def discriminant(lengths: np.ndarray, fact: np.ndarray, hall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of length and of metric, (metric,) each: the inverse pooled covariance times the difference of means.

    A feature without spread inside the classes gets no weight.

    Args:
        lengths: (pair, 2) of fact and hallucination.
        fact: (pair, metric).
        hall: (pair, metric).
    """
    length_gap = lengths[:, 1].mean() - lengths[:, 0].mean()
    gap = hall.mean(axis=0) - fact.mean(axis=0)
    x = lengths - lengths.mean(axis=0)
    fact, hall = fact - fact.mean(axis=0), hall - hall.mean(axis=0)
    freedom = 2 * len(fact) - 2 or 1
    xx = (x**2).sum() / freedom
    yy = ((fact**2).sum(axis=0) + (hall**2).sum(axis=0)) / freedom
    xy = (x[:, 0] @ fact + x[:, 1] @ hall) / freedom
    determinant = xx * yy - xy**2
    both = determinant > _COLLINEAR * xx * yy
    with np.errstate(invalid="ignore", divide="ignore"):
        on_length = np.where(both, (yy * length_gap - xy * gap) / determinant, length_gap / xx if xx > 0 else 0.0)
        metric_alone = np.where((yy > 0) & (xx == 0), gap / yy, 0.0)
        on_metric = np.where(both, (xx * gap - xy * length_gap) / determinant, metric_alone)
    return on_length, on_metric


def _auroc_of_halves(scores: np.ndarray) -> np.ndarray:
    """(metric,) AUROC of (text, metric) scores, the first half of the texts being the facts."""
    half = len(scores) // 2
    # Counts and rounded values often give texts the same score: ties that rounding must not break.
    scale = np.abs(scores).max(axis=0)
    scores = np.round(scores / np.where(scale > 0, scale, 1.0), 12)
    return auroc(scores[:half], scores[half:])
