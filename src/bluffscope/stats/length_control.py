"""What is left of a difference where fact and hallucination are equally long: the intercept of d on dL.

The regressor is not centred: its zero is "no difference in length", and the intercept is the effect there. (The
residuals of a fit with an intercept have mean 0 whatever the data: a test of those would always find nothing.)
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
from scipy.stats import t

from bluffscope.stats.cluster_robust import grouped_error
from bluffscope.stats.effects import dz
from bluffscope.stats.intercepts import fit

MIN_EACH_SIDE: Final = 10
"""Pairs that are needed at dL <= 0, and at dL >= 0: else the intercept is an extrapolation."""

EQUIVALENT_DZ: Final = 0.2
"""Two one-sided tests ask whether the adjusted effect lies within this of 0."""

LengthState = Literal["unknown", "equal", "adjustable", "one-sided"]


class Adjusted(NamedTuple):
    """The effect at equal lengths, a value for each metric; NaN where it is not defined."""

    mean_diff: np.ndarray
    """a, the intercept, in the metric's unit."""
    dz: np.ndarray
    """a / sqrt(RSS / (n - 2))."""
    p: np.ndarray
    """Two-sided p of a = 0: HC3 standard error, t with n - 2 degrees of freedom."""
    p_grouped: np.ndarray
    """The same with groups of pairs as the units: CR3 standard error, t with groups - 2 degrees of freedom; `p` where
    each pair is its own group."""
    equivalence_p: np.ndarray
    """The larger p of the two one-sided tests of |adjusted d_z| < `EQUIVALENT_DZ`, and of pairs or groups as units."""


def length_state(lengths: np.ndarray) -> LengthState:
    """Whether lengths can be held constant.

    Args:
        lengths: (pair,) dL = length of the hallucination - length of the fact; NaN where unknown.
    """
    if not np.isfinite(lengths).all():
        return "unknown"
    if (lengths == 0).all():
        return "equal"
    if (lengths <= 0).sum() < MIN_EACH_SIDE or (lengths >= 0).sum() < MIN_EACH_SIDE:
        return "one-sided"
    return "adjustable"


def adjust(differences: np.ndarray, lengths: np.ndarray, groups: np.ndarray) -> Adjusted:
    """Ordinary least squares d = a + b dL, and the test of a with HC3 errors (MacKinnon and White 1985).

    Args:
        differences: (pair, metric) finite.
        lengths: (pair,) dL, not all equal.
        groups: (pair,) numbers from 0 without gaps.
    """
    found = fit(differences, lengths[:, None])
    if found is None:
        return Adjusted(*np.full((5, differences.shape[1]), np.nan))
    effect, error, sd, known, freedom = found
    with np.errstate(invalid="ignore", divide="ignore"):
        p = p_grouped = 2 * t.sf(np.abs(effect / error), freedom)
        equivalence = _equivalence(effect, error, sd, freedom)
        if (number := int(groups.max()) + 1) < len(differences):
            error = grouped_error(differences, lengths[:, None], groups)
            p_grouped = 2 * t.sf(np.abs(effect / error), number - 2)
            equivalence = np.maximum(equivalence, _equivalence(effect, error, sd, number - 2))
        found = (effect / sd, p, p_grouped, equivalence)
    return Adjusted(effect, *(np.where(known, value, np.nan) for value in found))


def unadjusted(differences: np.ndarray, groups: np.ndarray, p_wilcoxon: np.ndarray, p_grouped: np.ndarray) -> Adjusted:
    """Where all lengths are equal there is nothing to adjust: the raw effect and its own p.

    Args:
        differences: (pair, metric) finite, at least two pairs, of which not all are equal.
        groups: (pair,) numbers from 0 without gaps.
        p_wilcoxon: (metric,) p values of the raw test.
        p_grouped: (metric,) those with groups as the units.
    """
    pairs = len(differences)
    mean, sd = differences.mean(axis=0), differences.std(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        equivalence = _equivalence(mean, sd / np.sqrt(pairs), sd, pairs - 1)
        if (number := int(groups.max()) + 1) < pairs:
            error = grouped_error(differences, np.empty((pairs, 0)), groups)
            equivalence = np.maximum(equivalence, _equivalence(mean, error, sd, number - 1))
    return Adjusted(mean, dz(differences), p_wilcoxon, p_grouped, equivalence)


def held_constant(
    differences: np.ndarray, lengths: np.ndarray, groups: np.ndarray, p: np.ndarray, p_grouped: np.ndarray
) -> Adjusted | None:
    """The effect at equal lengths where these are known and can be held constant; arguments as for the two above."""
    state = length_state(lengths)
    if state == "adjustable":
        return adjust(differences, lengths, groups)
    return unadjusted(differences, groups, p, p_grouped) if state == "equal" else None


def _equivalence(effect: np.ndarray, error: np.ndarray, sd: np.ndarray, freedom: int) -> np.ndarray:
    """The larger p of the tests of effect > -0.2 sd and effect < 0.2 sd (Schuirmann 1987)."""
    above = t.sf((effect + EQUIVALENT_DZ * sd) / error, freedom)
    below = t.cdf((effect - EQUIVALENT_DZ * sd) / error, freedom)
    return np.maximum(above, below)
