"""The doubt about an intercept where pairs of a group are no independent evidence: a group is left out at a time."""

from __future__ import annotations

import numpy as np

from bluffscope.stats.intercepts import Moments, singular


def grouped_error(differences: np.ndarray, regressors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(metric,) standard error of the intercept of differences on regressors: CR3 of Bell and McCaffrey (2002).

    error^2 = the sum over groups of (intercept without the group - intercept)^2, which is HC3 where each pair is a
    group of its own. NaN for fewer than 2 groups, and where one group alone sets a slope.

    Args:
        differences: (pair, metric) finite.
        regressors: (pair, regressor) finite, not centred; none gives the error of the mean.
        groups: (pair,) numbers from 0 without gaps.
    """
    number, metrics = int(groups.max(initial=-1)) + 1, differences.shape[1]
    # Sums are of small numbers then; all intercepts move by the same mean.
    moments = Moments.by_group(differences - differences.mean(axis=0), regressors, groups, number)
    whole = Moments(*(part.sum(axis=0, keepdims=True) for part in moments))
    others = Moments(*(every - part for every, part in zip(whole, moments, strict=True)))
    if number < 2 or singular(whole.zz).any() or singular(others.zz).any():
        return np.full(metrics, np.nan)
    moved = others.coefficients()[:, 0] - whole.coefficients()[:, 0]  # (group, metric)
    return np.sqrt((moved**2).sum(axis=0))
