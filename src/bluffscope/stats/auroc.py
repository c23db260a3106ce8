"""How well a metric tells hallucinations from facts: AUROC, plain and with a weight for each pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from bluffscope.stats.linear_model import LEVEL


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


class Areas(NamedTuple):
    """AUROC and its interval, (metric,) each."""

    area: np.ndarray
    lo: np.ndarray
    hi: np.ndarray


def areas(
    lower: np.ndarray, upper: np.ndarray, lower_groups: np.ndarray, upper_groups: np.ndarray, level: float = LEVEL
) -> Areas:
    """P(upper > lower) + P(upper = lower) / 2, with intervals over groups; these are NaN for fewer than 2 groups.

    The error comes from each group's share in the area (DeLong et al. 1988; Obuchowski 1997 for groups), the ends from
    its logit and a t distribution. An area of 0 or 1 has the exact bound of as many groups that all agree.

    Args:
        lower: (text, metric) finite, of one class: facts.
        upper: (text, metric) finite, of the other: hallucinations.
        lower_groups: (text,) numbers from 0, the same in both classes, without gaps over both.
        upper_groups: the same of the other class.
        level: confidence of the intervals.
    """
    number = int(max(lower_groups.max(initial=-1), upper_groups.max(initial=-1))) + 1
    found = [placements(*sides) for sides in zip(lower.T, upper.T, strict=True)]
    area = np.array([above.mean() for _, above in found])
    if number < 2:
        return Areas(area, *np.full((2, len(area)), np.nan))
    sums = np.stack(
        [
            np.bincount(lower_groups, (under - under.mean()) / len(under), number)
            + np.bincount(upper_groups, (above - above.mean()) / len(above), number)
            for under, above in found
        ],
        axis=1,
    )  # (group, metric)
    error = np.sqrt(number / (number - 1) * (sums**2).sum(axis=0))
    inside = (area > 0) & (area < 1)
    kept = np.where(inside, area, 0.5)
    reach = t.isf((1 - level) / 2, number - 1) * error / (kept * (1 - kept))
    sure = ((1 - level) / 2) ** (1 / number)
    lo = np.where(inside, expit(logit(kept) - reach), np.where(area < 1, 0.0, sure))
    hi = np.where(inside, expit(logit(kept) + reach), np.where(area > 0, 1.0, 1 - sure))
    return Areas(area, lo, hi)


def placements(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each lower value the share of upper ones above it, of each upper value that of lower ones below; ties half.

    Either mean is the AUROC; less that, they are what each text adds to it to first order (DeLong et al. 1988).

    Args:
        lower: (text,) finite values of one class.
        upper: (text,) finite values of the other.
    """
    ordered = [np.argsort(side, kind="stable") for side in (lower, upper)]
    ranked = [side[order] for side, order in zip((lower, upper), ordered, strict=True)]
    found: list[np.ndarray] = []
    for order, own, other in zip(ordered, ranked, ranked[::-1], strict=True):
        below = np.empty(len(own))
        # Sorted values look each other up in order: that stays in the cache.
        below[order] = np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")
        found.append(below / (2 * len(other)))
    return 1 - found[0], found[1]
