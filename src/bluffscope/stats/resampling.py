"""Bootstrap draws and the sign-flip test, both over groups of pairs, for many metrics at once.

A group is drawn, or flipped, whole: pairs that share a prompt or a completion are no independent evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from bluffscope.stats.auroc import Ordering, ordering, weighted_auroc
from bluffscope.stats.linear_model import by_group

LEVEL: Final = 0.95
_CELLS: Final = 250_000
"""Pairs x resamples that are held at once: their arrays stay in the cache of a core."""
_FEWEST_DEFINED: Final = 0.5
"""Share of the resamples in which a statistic must be defined for an interval to be given."""
MOST_UNITS: Final = 4000
"""Groups that are flipped; of more, random ones are joined, so that the cost no longer grows with the table."""


def units(groups: np.ndarray) -> np.ndarray:
    """(pair,) what is flipped whole: the groups, or where there are more than `MOST_UNITS`, random unions.

    Flips of unions are flips of groups.

    Args:
        groups: (pair,) numbers from 0 without gaps.
    """
    number = int(groups.max(initial=-1)) + 1
    if number <= MOST_UNITS:
        return groups
    # Always the same unions for so many groups: a p value must not change with what else is asked of the table.
    return (np.random.default_rng(number).permutation(number) % MOST_UNITS)[groups]


def sign_flip_p(differences: np.ndarray, groups: np.ndarray, flips: int, rng: np.random.Generator) -> np.ndarray:
    """(metric,) p of the mean difference when whole groups change their signs: (1 + b) / (1 + B), two-sided.

    b of the B flips have a mean at least as far from 0 as the data's. Where the groups allow no more than `flips`
    choices of signs all of them are taken, and the p value is exact.

    Args:
        differences: (pair, metric) finite.
        groups: (pair,) numbers from 0 without gaps.
        flips: B, how many are drawn where there are more.
        rng: draws them.
    """
    number = int(groups.max()) + 1
    totals = by_group(differences, groups, number)
    # What rounding leaves between sums of the same values in another order.
    bound = np.abs(totals.sum(axis=0)) - 1e-12 * np.abs(totals).sum(axis=0)
    exact = number < 60 and 2**number <= flips + 1
    total = 2**number - 1 if exact else flips
    step = max(8, 4 * _CELLS // number)
    beyond = np.zeros(differences.shape[1])
    for start in range(0, total, step):
        several = min(step, total - start)
        if exact:
            # The bits of 1, 2, ... are all choices but the one that flips nothing.
            choices = np.arange(start + 1, start + several + 1)[:, None] >> np.arange(number)
            signs = 1.0 - 2.0 * (choices & 1)
        else:
            signs = 2.0 * rng.integers(0, 2, (several, number), dtype=np.int8) - 1.0
        beyond += (np.abs(signs @ totals) >= bound).sum(axis=0)
    return (1 + beyond) / (1 + total)


def drawn_counts(groups: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resample, group) how often each group is drawn."""
    drawn = rng.integers(0, groups, (resamples, groups)) + groups * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * groups).reshape(resamples, groups).astype(float)


def draws(groups: int, resamples: int, rng: np.random.Generator, held: int) -> Iterator[np.ndarray]:
    """`drawn_counts` of all resamples, some at a time: as many as leave `held` cells a resample in a core's cache."""
    step = max(8, _CELLS // max(1, held))
    for start in range(0, resamples, step):
        yield drawn_counts(groups, min(step, resamples - start), rng)


def drawn_areas(orders: Sequence[Ordering], groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(resample, metric) AUROC, counted out pair by pair.

    Args:
        orders: each metric's.
        groups: (pair,) numbers from 0.
        counts: (resample, group) how often each group is drawn.
    """
    weights = np.ascontiguousarray(counts.T[groups])  # (pair, resample)
    return np.stack([weighted_auroc(order, weights) for order in orders], axis=1)


def area_draws(
    scores: Sequence[np.ndarray], groups: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """(resample, score) AUROC of several scores in the same resamples of groups.

    Args:
        scores: (2, pair) of facts and hallucinations each.
        groups: (pair,) numbers from 0.
        resamples: how many are drawn.
        rng: draws them.
    """
    orders = [ordering(*sides) for sides in scores]
    drawn = draws(int(groups.max()) + 1, resamples, rng, len(groups))
    return np.concatenate([drawn_areas(orders, groups, counts) for counts in drawn])


def ends(drawn: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """(2, metric) ends of the percentile interval over (resample, metric)."""
    ends = np.full((2, drawn.shape[1]), np.nan)
    defined = np.isfinite(drawn)
    usable = defined.mean(axis=0) >= _FEWEST_DEFINED
    quantiles = ((1 - level) / 2, (1 + level) / 2)
    whole = defined.all(axis=0)
    if whole.any():
        ends[:, whole] = np.quantile(drawn[:, whole], quantiles, axis=0)
    for metric in np.flatnonzero(usable & ~whole):
        ends[:, metric] = np.quantile(drawn[defined[:, metric], metric], quantiles)
    return ends
