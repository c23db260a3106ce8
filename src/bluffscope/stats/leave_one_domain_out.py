"""Length control whose slope comes from elsewhere: fitted on the other domains, applied to this one.

A slope fitted to the very pairs that it corrects can soak up part of a real effect; one from other domains cannot, and
it also serves a domain in which every hallucination is the longer one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import t

from bluffscope.stats.effects import NO_SPREAD
from bluffscope.stats.intercepts import Moments, standardised

FEWEST_OTHERS: Final = 10
"""Pairs of other domains that a slope is fitted to."""


class Transferred(NamedTuple):
    """(metric,) each: the mean of d - b x over the held-out pairs, b being the slope in the other domains."""

    dz: np.ndarray
    p: np.ndarray
    """Two-sided p of a mean of 0: standard error from the squared residuals of both the held-out pairs and those that
    set the slopes, t with pairs - 1 degrees of freedom."""


def slopes_known(lengths: np.ndarray, domains: np.ndarray, held: Sequence[int]) -> bool:
    """Whether the other domains of each held-out one have enough pairs, and lengths that vary.

    Args:
        lengths: (pair,) finite x.
        domains: (pair,) numbers.
        held: the domains that are held out in turn.
    """
    others = [lengths[domains != domain] for domain in held]
    return bool(others) and all(len(x) >= FEWEST_OTHERS and np.ptp(x) > 0 for x in others)


def transferred(differences: np.ndarray, lengths: np.ndarray, domains: np.ndarray, held: Sequence[int]) -> Transferred:
    """Correct each held-out domain by the slope of all other domains, and test what is left.

    Args:
        differences: (pair, metric) finite, of all domains.
        lengths: (pair,) x, for which `slopes_known`.
        domains: (pair,) numbers.
        held: the domains that are held out in turn.
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
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * t.sf(np.abs(mean) / np.sqrt(weights**2 @ left**2), pairs - 1)
        dz = mean / sd
    return Transferred(np.where(known, dz, np.nan), np.where(known, p, np.nan))


def resampled(
    differences: np.ndarray, lengths: np.ndarray, domains: np.ndarray, held: Sequence[int], groups: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """What computes (resample, metric) d_z of resamples, slopes fitted to each, from (resample, group) counts.

    Arguments as for `transferred`, groups (pair,) numbered from 0. Sums by group of each held-out domain and of all
    others are computed once.
    """
    mean, number = differences.mean(axis=0), int(groups.max()) + 1

    def sums(chosen: np.ndarray) -> Moments:
        return Moments.by_group(differences[chosen] - mean, lengths[chosen, None], groups[chosen], number)

    parts = [(sums(domains == domain), sums(domains != domain)) for domain in held]

    def dz(counts: np.ndarray) -> np.ndarray:
        pairs, total, squares, scale = (np.zeros((len(counts), 1)) for _ in range(4))
        for own, other in parts:
            slope = other.drawn(counts).coefficients()[:, 1]
            inside = own.drawn(counts)
            x, xx = inside.zz[:, 0, 1, None], inside.zz[:, 1, 1, None]
            pairs = pairs + inside.zz[:, 0, 0, None]
            total = total + inside.zd[:, 0] - slope * x
            squares = squares + inside.dd - 2 * slope * inside.zd[:, 1] + slope**2 * xx
            scale = scale + inside.dd
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = total / pairs
            rest = squares - pairs * centre**2
        return standardised(centre + mean, rest, scale, pairs - 1)

    return dz
