"""A fit's penalty, chosen by folds within its training texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from bluffscope.detectors.folds import label_folds
from bluffscope.detectors.logistic import Fits, Texts, fit_rough, nothing
from bluffscope.stats.heldout import FOLDS
from bluffscope.stats.study import numbered

PENALTIES: Final = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
"""Strongest first. Each stands for scikit-learn's C = 1 / (penalty x spread x texts), where spread is the mean squared
length of a centred and scaled text: it means the same for two columns and for a hundred thousand."""
_TOGETHER: Final = (PENALTIES[:4], PENALTIES[4:5], PENALTIES[5:])
"""Those that are fitted at once, which takes hardly longer than one; each next begins where the last ended."""
_SAME: Final = 1e-4
"""Of the mean held-out loss: penalties that differ by less do equally well, and the strongest of them is taken."""
_WORSE: Final = 0.01
"""A penalty whose loss is so far above the least so far ends the search: weaker ones fit noise still more closely."""


class Chosen(NamedTuple):
    """What the search comes to."""

    penalty: float
    start: Fits
    """The fit to all training texts with it, roughly."""
    within: np.ndarray
    """(text,) log odds of each training text from a fit to the other inner folds; NaN where these have one label."""
    loss: float
    """Mean held-out loss."""


def inner_folds(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(text,) folds of a training part that part no group: the same for all detectors.

    Args:
        groups: (text,) of the training texts.
        labels: (text,) 0 or 1.
    """
    return label_folds(numbered(groups), labels, FOLDS, np.random.default_rng(FOLDS))


def choose(texts: Texts, labels: np.ndarray, folds: np.ndarray) -> Chosen:
    """The penalty with the least loss on texts that had no part in the fit.

    Args:
        texts: of the training part.
        labels: (text,) 0 or 1.
        folds: (text,) inner folds.
    """
    usable = [fold for fold in np.unique(folds) if len(np.unique(labels[folds != fold])) > 1]
    used = np.stack([*(folds != fold for fold in usable), np.ones(len(folds), dtype=bool)])
    start = nothing(*used.shape)
    found: list[Chosen] = []
    for penalties in _TOGETHER:
        times = len(penalties)
        begin = Fits(*(np.repeat(part, times, axis=0) for part in start))
        fits = fit_rough(texts, labels, np.repeat(used, times, axis=0), np.tile(penalties, len(used)), begin)
        for place, penalty in enumerate(penalties):
            start = Fits(*(part[place::times] for part in fits))
            within = np.full(len(folds), np.nan)
            for fold, scores in zip(usable, start.scores[:-1], strict=True):
                within[folds == fold] = scores[folds == fold]
            found.append(Chosen(penalty, start.only(len(usable)), within, held_out_loss(within, labels)))
        if found[-1].loss > min(one.loss for one in found) + _WORSE:
            break
    return strongest(found)


def strongest(found: Sequence[Chosen]) -> Chosen:
    """The first of those with the least loss; of none with a loss, the first."""
    least = min(one.loss for one in found)
    return next((one for one in found if one.loss <= least + _SAME), found[0])


def held_out_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean logistic loss of (text,) log odds, those that are NaN left out; NaN where all are."""
    known = np.isfinite(scores)
    if not known.any():
        return np.nan
    return float(np.mean(np.logaddexp(0, scores[known]) - labels[known] * scores[known]))
