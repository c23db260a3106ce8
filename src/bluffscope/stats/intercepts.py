"""The effect where several confounds are held at zero: the intercept of a fit, and its resamples from sums by group.

`length_control` is the case of one regressor; the ladder asks for more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.stats import t

from bluffscope.stats.effects import NO_SPREAD
from bluffscope.stats.resampling import by_group

_FULL_LEVERAGE: Final = 1 - 1e-10
"""A pair with this leverage sets a slope alone: HC3 would divide 0 by 0."""
_SINGULAR: Final = 1e-10
"""Determinant of the regressors' moments, scaled to a diagonal of ones, below which they are collinear."""


class Intercepts(NamedTuple):
    """(metric,) each; NaN where it is not defined."""

    effect: np.ndarray
    """The intercept, in the metric's unit."""
    dz: np.ndarray
    """The intercept over the residuals' standard deviation, with as many degrees of freedom as are left."""
    p: np.ndarray
    """Two-sided p of the intercept: HC3 standard error, t with pairs - regressors - 1 degrees of freedom."""


def intercepts(differences: np.ndarray, regressors: np.ndarray) -> Intercepts:
    """Least squares of the differences on regressors that are not centred, and the test of what is left at their zero.

    Args:
        differences: (pair, metric) finite.
        regressors: (pair, regressor) finite; none gives the mean.
    """
    design = np.column_stack([np.ones(len(differences)), regressors])  # (pair, 1 + regressor)
    freedom = len(design) - design.shape[1]
    if freedom < 1 or singular(design.T @ design):
        return Intercepts(*np.full((3, differences.shape[1]), np.nan))
    orthogonal, triangle = np.linalg.qr(design)
    residuals = differences - orthogonal @ (orthogonal.T @ differences)
    # The intercept is the sum of w_i d_i with these weights.
    weights = orthogonal @ np.linalg.inv(triangle)[0]
    effect = weights @ differences
    sd = np.sqrt((residuals**2).sum(axis=0) / freedom)
    leverage = (orthogonal**2).sum(axis=1)
    known = (sd > NO_SPREAD * np.abs(differences).max(axis=0)) & (leverage < _FULL_LEVERAGE).all()
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt((weights / (1 - leverage)) ** 2 @ residuals**2)
        p = 2 * t.sf(np.abs(effect / error), freedom)
        dz = effect / sd
    return Intercepts(*(np.where(known, value, np.nan) for value in (effect, dz, p)))


class Moments(NamedTuple):
    """Sums that a fit is made of, by group of pairs or over a resample of groups; z = (1, regressors)."""

    zz: np.ndarray
    """(group, 1 + regressor, 1 + regressor)"""
    zd: np.ndarray
    """(group, 1 + regressor, metric)"""
    dd: np.ndarray
    """(group, metric)"""

    @classmethod
    def by_group(cls, differences: np.ndarray, regressors: np.ndarray, groups: np.ndarray, number: int) -> Moments:
        """The sums of each group.

        Args:
            differences: (pair, metric), best near 0: rounding grows with their mean.
            regressors: (pair, regressor).
            groups: (pair,) below `number`; a group may have no pair.
            number: of groups.
        """
        design = np.column_stack([np.ones(len(differences)), regressors])
        squares = by_group(design[:, :, None] * design[:, None, :], groups, number)
        products = by_group(design[:, :, None] * differences[:, None, :], groups, number)
        return cls(squares, products, by_group(differences**2, groups, number))

    def drawn(self, counts: np.ndarray) -> Moments:
        """The sums of each resample; counts are (resample, group)."""
        return Moments(*(np.tensordot(counts, part, 1) for part in self))

    def coefficients(self) -> np.ndarray:
        """(resample, 1 + regressor, metric) of each resample's own fit, NaN where its regressors are collinear."""
        usable = ~singular(self.zz)
        found = np.full_like(self.zd, np.nan)
        found[usable] = np.linalg.solve(self.zz[usable], self.zd[usable])
        return found


def drawn_dz(moments: Moments, counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(resample, metric) intercept over residual spread of each resample, NaN where it is not defined.

    Args:
        moments: by group, of differences less `mean`.
        counts: (resample, group) how often each group was drawn.
        mean: (metric,) what was taken off the differences.
    """
    sums = moments.drawn(counts)
    fit = sums.coefficients()
    freedom = sums.zz[:, 0, 0] - sums.zz.shape[1]
    rest = sums.dd - (fit * sums.zd).sum(axis=1)
    return standardised(fit[:, 0] + mean, rest, sums.dd, freedom[:, None])


def standardised(effect: np.ndarray, rest: np.ndarray, total: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Effect / sqrt(rest / freedom), NaN where nothing but rounding is left of `total`."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return effect / np.sqrt(np.where((rest > NO_SPREAD * total) & (freedom > 0), rest, np.nan) / freedom)


def singular(moments: np.ndarray) -> np.ndarray:
    """(...) whether (..., regressor, regressor) moments are those of collinear regressors."""
    scale = np.sqrt(np.einsum("...ii->...i", moments))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = moments / (scale[..., :, None] * scale[..., None, :])
    return ~(np.linalg.det(np.nan_to_num(scaled)) > _SINGULAR)
