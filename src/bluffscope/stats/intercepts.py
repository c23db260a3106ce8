"""The effect where several confounds are held at zero: the intercept of a fit, and its resamples from sums by group.

`length_control` tests the case of one regressor in more ways; the ladder asks for more of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import t

from bluffscope.stats.effects import NO_SPREAD

_FULL_LEVERAGE: Final = 1 - 1e-10
"""A pair with this leverage sets a slope alone: HC3 would divide 0 by 0."""
_SINGULAR: Final = 1e-10
"""Determinant of the regressors' moments, scaled to a diagonal of ones, below which they are collinear."""


class Fit(NamedTuple):
    """Least squares with an intercept, (metric,) each."""

    intercept: np.ndarray
    """In the metric's unit."""
    error: np.ndarray
    """Its HC3 standard error (MacKinnon and White 1985)."""
    sd: np.ndarray
    """The residuals' standard deviation, with as many degrees of freedom as are left."""
    known: np.ndarray
    """Whether error and spread mean anything: not where the data lie on the fit up to rounding, or where one pair sets
    a slope alone."""
    freedom: int


class Intercepts(NamedTuple):
    """(metric,) each; NaN where it is not defined."""

    effect: np.ndarray
    """The intercept, in the metric's unit."""
    dz: np.ndarray
    """The intercept over the residuals' standard deviation, with as many degrees of freedom as are left."""
    p: np.ndarray
    """Two-sided p of the intercept: HC3 standard error, t with pairs - regressors - 1 degrees of freedom."""


def fit(differences: np.ndarray, regressors: np.ndarray) -> Fit | None:
    """Least squares of the differences on regressors that are not centred; None where these are collinear.

    Args:
        differences: (pair, metric) finite.
        regressors: (pair, regressor) finite; none gives the mean.
    """
    design = np.column_stack([np.ones(len(differences)), regressors])  # (pair, 1 + regressor)
    freedom = len(design) - design.shape[1]
    if freedom < 1 or singular(design.T @ design):
        return None
    orthogonal, triangle = np.linalg.qr(design)
    residuals = differences - orthogonal @ (orthogonal.T @ differences)
    # The intercept is the sum of w_i d_i with these weights.
    weights = orthogonal @ np.linalg.inv(triangle)[0]
    sd = np.sqrt((residuals**2).sum(axis=0) / freedom)
    leverage = (orthogonal**2).sum(axis=1)
    known = (sd > NO_SPREAD * np.abs(differences).max(axis=0)) & (leverage < _FULL_LEVERAGE).all()
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt((weights / (1 - leverage)) ** 2 @ residuals**2)
    return Fit(weights @ differences, error, sd, known, freedom)


def intercepts(differences: np.ndarray, regressors: np.ndarray) -> Intercepts:
    """The test of what is left at the regressors' zero; arguments as for `fit`."""
    found = fit(differences, regressors)
    if found is None:
        return Intercepts(*np.full((3, differences.shape[1]), np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * t.sf(np.abs(found.intercept / found.error), found.freedom)
        dz = found.intercept / found.sd
    return Intercepts(*(np.where(found.known, value, np.nan) for value in (found.intercept, dz, p)))


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

    def alone(self) -> Moments:
        """The same sums without the regressors."""
        return Moments(self.zz[:, :1, :1], self.zd[:, :1], self.dd)

    def dz(self, mean: np.ndarray, off: float = 0.0) -> np.ndarray:
        """(resample, metric) intercept over residual spread of each resample, NaN where it is not defined.

        Args:
            mean: (metric,) what was taken off the differences.
            off: what was taken off every regressor.
        """
        found = self.coefficients()
        freedom = self.zz[:, 0, 0] - self.zz.shape[1]
        rest = self.dd - (found * self.zd).sum(axis=1)
        effect = found[:, 0] - off * found[:, 1:].sum(axis=1) + mean
        return standardised(effect, rest, self.dd, freedom[:, None])


def by_group(values: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    """(group, ...) sums of (pair, ...) values."""
    pairs = len(values)
    membership = csr_array((np.ones(pairs), (groups, np.arange(pairs))), shape=(number, pairs))
    return np.asarray(membership @ values.reshape(pairs, -1)).reshape(number, *values.shape[1:])


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
