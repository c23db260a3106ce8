"""How well a metric tells hallucinations from facts: AUROC, plain and with a weight for each pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Ordering(NamedTuple):
    """Where the hallucinations of one metric stand among its facts."""

    facts: np.ndarray
    """(pair,) the pairs in ascending order of their fact's value."""
    below: np.ndarray
    """(pair,) how many facts are smaller than each pair's hallucination."""
    upto: np.ndarray
    """(pair,) how many facts are smaller or equal."""

    @property
    def area(self) -> float:
        """P(hall > fact) + P(hall = fact) / 2 over all hallucinations and all facts."""
        return float(self.below.mean() + self.upto.mean()) / (2 * len(self.facts))


def ordering(fact: np.ndarray, hall: np.ndarray) -> Ordering:
    """The ordering of one metric; (pair,) finite values of both sides."""
    order = np.argsort(fact, kind="stable")
    values = fact[order]
    return Ordering(order, np.searchsorted(values, hall, "left"), np.searchsorted(values, hall, "right"))


def auroc(fact: np.ndarray, hall: np.ndarray) -> np.ndarray:
    """(metric,) P(hall > fact) + P(hall = fact) / 2 over all hallucinations and all facts: 0.5 is chance.

    Args:
        fact: (pair, metric) finite.
        hall: (pair, metric) finite.
    """
    return np.array([ordering(*sides).area for sides in zip(fact.T, hall.T, strict=True)], dtype=np.float64)


def paired_share(differences: np.ndarray) -> np.ndarray:
    """(metric,) share of the pairs with hall > fact, ties counted half; (pair, metric) hall - fact."""
    return (differences > 0).mean(axis=0) + (differences == 0).mean(axis=0) / 2


def weighted_auroc(order: Ordering, weights: np.ndarray) -> np.ndarray:
    """(resample,) AUROC of one metric where pair i counts w_i times, as a fact and as a hallucination.

    One running sum over the sorted facts answers, for every hallucination, how much weight lies below it.

    Args:
        order: the metric's `ordering`.
        weights: (pair, resample), not all 0.
    """
    pairs, resamples = weights.shape
    running = np.zeros((pairs + 1, resamples))
    np.cumsum(weights[order.facts], axis=0, out=running[1:])
    below = running[order.below]
    twice = 2 * below if np.array_equal(order.below, order.upto) else below + running[order.upto]
    return np.einsum("pr,pr->r", weights, twice) / (2 * running[-1] ** 2)


def group_kernel(fact: np.ndarray, hall: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    """(group, group) of one metric: pairs of a hallucination (row) and a fact (column) with hall > fact, ties half.

    Where groups are drawn c times, c' K c is what `weighted_auroc` sums up pair by pair.

    Args:
        fact: (pair,) finite.
        hall: (pair,) finite.
        groups: (pair,) numbers from 0.
        number: of groups.
    """
    kernel = np.empty((number, number))
    for group in range(number):
        values = np.sort(fact[groups == group])
        twice = np.searchsorted(values, hall, "left") + np.searchsorted(values, hall, "right")
        kernel[:, group] = np.bincount(groups, weights=twice, minlength=number) / 2
    return kernel


def placements(fact: np.ndarray, hall: np.ndarray) -> np.ndarray:
    """(pair,) what each pair adds to one metric's AUROC to first order: the derivative by its weight, less its mean.

    A hallucination's share of facts below it, and a fact's share of hallucinations above it (DeLong et al. 1988).
    """
    pairs = len(fact)
    _, below, upto = ordering(fact, hall)
    _, under, upto_fact = ordering(hall, fact)
    placed = (below + upto) / (2 * pairs) + 1 - (under + upto_fact) / (2 * pairs)
    return placed - placed.mean()
