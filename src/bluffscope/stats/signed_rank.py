"""Wilcoxon's signed-rank test of many metrics at once."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata


def wilcoxon(differences: np.ndarray) -> np.ndarray:
    """(metric,) two-sided p values of the normal approximation; NaN where every difference is 0.

    Zeros are dropped and ties share their mean rank, as in Wilcoxon's test of 1945: the same as
    ``scipy.stats.wilcoxon(d, zero_method="wilcox", correction=False, method="approx")``.

    Args:
        differences: (pair, metric) finite.
    """
    size = np.abs(differences)
    # Zeros stand first in the ranking: taking their number off the others' ranks is the ranking without them.
    signed = np.sign(differences) * (rankdata(size, axis=0) - (size == 0).sum(axis=0))
    # Each rank has a fair sign under the null: ties need no correction of their own.
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * norm.sf(np.abs(signed.sum(axis=0)) / np.sqrt((signed**2).sum(axis=0)))
