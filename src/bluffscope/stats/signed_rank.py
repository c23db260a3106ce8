"""Wilcoxon's signed-rank test of many metrics at once, and of many sign flips of the same differences."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

from bluffscope.stats.flips import effective_number, flip_tail

FEW_GROUPS: Final = 6
"""Effective number of groups below which their rank sums are no sample for a normal approximation."""


class SignedRanks(NamedTuple):
    """The ranks of differences: flipping a difference's sign flips its rank's, and leaves the spread as it is."""

    signed: np.ndarray
    """(pair, metric): rank of |d| among the differences that are not 0, mean rank for ties, with the sign of d."""
    spread: np.ndarray
    """(metric,): standard deviation of the rank sum of the positive differences under the null."""

    def p_values(self, flips: np.ndarray) -> np.ndarray:
        """(..., metric) two-sided p values of the normal approximation, NaN where every difference is 0.

        Args:
            flips: (..., pair) of 1 and -1: the sign that each pair's differences are multiplied with.
        """
        # The sum of signed ranks is W+ - W-: twice the distance of W+ from its mean.
        with np.errstate(invalid="ignore", divide="ignore"):
            return 2 * norm.sf(np.abs(flips @ self.signed) / 2 / self.spread)

    def grouped_p_value(self, flips: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """(metric,) the same where the pairs of a group are no independent evidence, NaN where every difference is 0.

        The rank sums of whole groups take the place of single ranks (Rosner, Glynn and Lee 2006): with a group for
        each pair this is `p_values`, ties included. Where few groups dominate (`effective_number` below
        `FEW_GROUPS`), p is that of flipping the rank sums (`flip_tail`).

        Args:
            flips: (pair,) of 1 and -1.
            groups: (pair,) numbers from 0 without gaps.
        """
        if len(groups) == int(groups.max(initial=-1)) + 1:
            return self.p_values(flips)
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        sums = np.add.reduceat((flips[:, None] * self.signed)[order], starts, axis=0)  # (group, metric)
        with np.errstate(invalid="ignore", divide="ignore"):
            p = 2 * norm.sf(np.abs(sums.sum(axis=0)) / np.sqrt((sums**2).sum(axis=0)))
        for metric in np.flatnonzero(effective_number(sums) < FEW_GROUPS):
            p[metric] = flip_tail(sums[:, metric], np.random.default_rng(0))
        return p


def signed_ranks(differences: np.ndarray) -> SignedRanks:
    """Ranks of the differences as Wilcoxon's test of 1945 takes them: zeros dropped, ties share their mean rank.

    The same as ``scipy.stats.wilcoxon(d, zero_method="wilcox", correction=False, method="approx")``.

    Args:
        differences: (pair, metric) finite.
    """
    size = np.abs(differences)
    zeros = (size == 0).sum(axis=0)
    # Zeros stand first in the ranking: taking their number off the others' ranks is the ranking without them.
    signed = np.sign(differences) * (rankdata(size, axis=0) - zeros)
    # Each rank has a fair sign under the null: ties need no correction of their own.
    spread = np.sqrt((signed**2).sum(axis=0)) / 2
    return SignedRanks(signed, np.where(spread > 0, spread, np.nan))


def wilcoxon(differences: np.ndarray) -> np.ndarray:
    """(metric,) two-sided p values of the signed-rank test, NaN where every difference is 0.

    Args:
        differences: (pair, metric) finite.
    """
    return signed_ranks(differences).p_values(np.ones(len(differences)))
