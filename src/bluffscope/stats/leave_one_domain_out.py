"""Length control whose slope comes from elsewhere: fitted on the other domains, applied to this one.

A slope fitted to the very pairs that it corrects can soak up part of a real effect; one from other domains cannot, and
it also serves a domain in which every hallucination is the longer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from bluffscope.stats.effects import NO_SPREAD
from bluffscope.stats.linear_model import Estimate, by_group

FEWEST_OTHERS: Final = 10
"""Pairs of other domains that a slope is fitted to."""


def slopes_known(lengths: np.ndarray, domains: np.ndarray, held: Sequence[int]) -> bool:
    """Whether the other domains of each held-out one have enough pairs, and lengths that vary.

    Args:
        lengths: (pair,) finite x.
        domains: (pair,) numbers.
        held: the domains that are held out in turn.
    """
    others = [lengths[domains != domain] for domain in held]
    return bool(others) and all(len(x) >= FEWEST_OTHERS and np.ptp(x) > 0 for x in others)


def transferred(
    differences: np.ndarray, lengths: np.ndarray, domains: np.ndarray, held: Sequence[int], groups: np.ndarray
) -> Estimate:
    """Correct each held-out domain by the slope of all other domains; the mean of what is left.

    Its error adds up, over groups, the squared residuals of both the held-out pairs and those that set the slopes.

    Args:
        differences: (pair, metric) finite, of all domains.
        lengths: (pair,) x, for which `slopes_known`.
        domains: (pair,) numbers.
        held: the domains that are held out in turn.
        groups: (pair,) numbers from 0 without gaps.
    """
    corrected, left = differences.copy(), np.zeros_like(differences)
    inside = np.isin(domains, held)
    pairs = int(inside.sum())
    weights = inside / pairs  # of the differences, in the mean of the corrected ones
    for domain in held:
        own, other = domains == domain, domains != domain
        apart = lengths[other] - lengths[other].mean()
        squares = apart @ apart
        outside = differences[other] - differences[other].mean(axis=0)
        slope = apart @ outside / squares
        corrected[own] -= np.outer(lengths[own], slope)
        weights[other] -= lengths[own].sum() / pairs * apart / squares
        leverage = 1 / other.sum() + apart**2 / squares
        with np.errstate(invalid="ignore", divide="ignore"):
            left[other] = (outside - np.outer(apart, slope)) / (1 - leverage)[:, None]
    mean = corrected[inside].mean(axis=0)
    sd = corrected[inside].std(axis=0, ddof=1)
    left[inside] = (corrected[inside] - mean) * np.sqrt(pairs / (pairs - 1))
    known = sd > NO_SPREAD * np.abs(differences).max(axis=0)
    moved = weights[:, None] * left
    if (number := int(groups.max()) + 1) < len(groups):
        few = len(np.unique(groups[inside]))
        moved = by_group(moved, groups, number) * np.sqrt(few / max(1, few - 1))
    error = np.sqrt((moved**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = (moved**3).sum(axis=0) / error**3
    groups_inside = len(np.unique(groups[inside]))
    found = Estimate(mean, error, sd, skewness, max(1, groups_inside - 1), float(groups_inside))
    return found.where(known)
