"""P values of the difference between false and true texts, by what comes of it when their labels fall otherwise.

Texts of one group are no independent evidence, so labels move with whole groups. Groups of one label: their labels are
dealt anew among those of their domain, as many false as there are. Groups with texts of both labels: each text of the
rarer label gets a partner of the other, and the labels of all partners in the group are exchanged or not, as the sign
flips of pairs are (`bluffscope.stats.flips`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit, gammaln, ndtr

from bluffscope.stats.flips import flip_tail

_COUNTED: Final = 12
"""With at most so many groups that count, all outcomes are counted."""
_SAME: Final = 0.1
"""Least share of a domain's groups that are given its median: what is drawn are the labels of the others, and of these
as many may be false as the rest allows. It changes the statistic a little, and the test of it not at all."""
_EFFECTIVE: Final = 25
"""Effective number of groups from which the normal approximation holds, where p is large."""
_DOUBTLESS: Final = 0.1
"""P values above it come from the normal approximation where it holds, else from fewer draws."""
_DRAWS: Final = 4000
_FEWEST_DRAWS: Final = 250
_CELLS: Final = 1_200_000
"""Groups x draws at which fewer draws are made."""
_STEPS: Final = 25
_NEAR: Final = 0.01
"""Groups by which the expected number of false ones may miss: the draws are weighted, so that it need not be exact."""
_FLAT: Final = 1e-9
_PARTNER_STREAM: Final = 7


@dataclass(frozen=True)
class LabelDesign:
    """How the labels of some texts could have fallen."""

    group: np.ndarray
    """(text,) number of its group among those of one label, and of their domains with groups of both; else -1."""
    false: np.ndarray
    """(group,) whether it is false."""
    stratum: np.ndarray
    """(group,) number of its domain."""
    size: np.ndarray
    """(stratum,) groups."""
    number_false: np.ndarray
    """(stratum,) of them false."""
    mixed: np.ndarray
    """(text,) number of its group among those of both labels, where it has a partner; else -1."""
    sign: np.ndarray
    """(text,) 1 for a false text, -1 for a true one."""
    mixed_groups: int

    @property
    def least(self) -> float:
        """No p value can be smaller."""
        outcomes = _log_choose(self.size, self.number_false).sum() + self.mixed_groups * np.log(2)
        return float(min(1.0, 2 * np.exp(-outcomes)))


def label_design(false: np.ndarray, groups: np.ndarray, domains: np.ndarray, seed: int) -> LabelDesign:
    """The design of some texts.

    Args:
        false: (text,) bool.
        groups: (text,) numbers from 0.
        domains: (text,) numbers from 0; a group is of its first text's.
        seed: finds partners.
    """
    number = int(groups.max(initial=-1)) + 1
    texts, falses = np.bincount(groups, minlength=number), np.bincount(groups, false, number)
    known, first = np.unique(groups, return_index=True)
    domain = np.zeros(number, dtype=np.int64)
    domain[known] = domains[first]
    pure = (texts > 0) & ((falses == 0) | (falses == texts))
    sizes, own = (np.bincount(domain[pure & some], minlength=domain.max(initial=0) + 1) for some in (True, falses > 0))
    kept = pure & ((own > 0) & (own < sizes))[domain]
    place = np.where(kept, np.cumsum(kept) - 1, -1)
    strata, stratum = np.unique(domain[kept], return_inverse=True)
    both = (falses > 0) & (falses < texts)
    partnered = _partnered(false, groups, both, seed)
    return LabelDesign(
        place[groups],
        falses[kept] > 0,
        stratum.ravel(),
        sizes[strata],
        own[strata],
        np.where(partnered, (np.cumsum(both) - 1)[groups], -1),
        np.where(false, 1.0, -1.0),
        int(both.sum()),
    )


def _partnered(false: np.ndarray, groups: np.ndarray, both: np.ndarray, seed: int) -> np.ndarray:
    """(text,) whether it has a partner: all of the rarer label of a group, and as many of the other, at random."""
    rng = np.random.default_rng([seed, _PARTNER_STREAM])
    order = np.lexsort((rng.random(len(groups)), false, groups))
    cell = 2 * groups[order] + false[order]
    counts = np.bincount(cell, minlength=2 * len(both)).reshape(-1, 2)
    starts = np.concatenate([[0], np.cumsum(counts.ravel())[:-1]])
    partnered = np.zeros(len(groups), dtype=bool)
    partnered[order] = np.arange(len(order)) - starts[cell] < counts.min(axis=1)[groups[order]]
    return partnered & both[groups]


def label_tail(design: LabelDesign, texts: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> float:
    """Twice the probability of a sum of false values as far on its side of the expected one: 1 at most.

    Args:
        design: of all texts.
        texts: (cell,) places of the texts whose value is not 0.
        values: (cell,) theirs.
        rng: draws, where outcomes are neither counted nor many enough for a normal approximation.
    """
    differences = np.bincount(design.mixed[texts] + 1, design.sign[texts] * values, minlength=design.mixed_groups + 1)[
        1:
    ]
    differences = differences[differences != 0]
    if not len(design.false):
        return flip_tail(differences, rng)
    dealt = _dealt(design, _group_values(design, texts, values))
    gap = dealt.gap + float(differences.sum()) / 2
    scale = max(np.abs(dealt.values).max(initial=0), np.abs(differences).max(initial=0))
    # What rounding leaves between sums of the same values in another order.
    if abs(gap) <= 1e-9 * scale * (len(dealt.values) + len(differences)):
        return 1.0
    return _tail(dealt.times(np.sign(gap) / scale), differences * np.sign(gap) / scale, rng)


def _group_values(design: LabelDesign, texts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(group,) sums over the texts of value - median of the stratum, which keeps a group's size out of it."""
    group = design.group[texts]
    sums = np.bincount(group + 1, values, len(design.false) + 1)[1:]
    inside = design.group >= 0
    of_text = design.stratum[design.group[inside]]
    dense = np.zeros(len(design.group))
    dense[texts] = values
    medians = np.zeros(len(design.size))
    fires = np.bincount(design.stratum[group[group >= 0]], minlength=len(design.size))
    for stratum in np.flatnonzero(2 * fires > np.bincount(of_text, minlength=len(design.size))):
        medians[stratum] = np.median(dense[inside][of_text == stratum])
    return sums - np.bincount(design.group[inside], minlength=len(sums)) * medians[design.stratum]


@dataclass(frozen=True)
class _Dealt:
    """Groups of one label whose value is not that of most of their stratum."""

    values: np.ndarray
    """(group,) less the stratum's common value."""
    false: np.ndarray
    """(group,)"""
    stratum: np.ndarray
    """(group,)"""
    size: np.ndarray
    """(stratum,) all its groups."""
    number_false: np.ndarray
    """(stratum,)"""
    mean: float
    """Of the sum of the false groups' values."""
    spread: float
    """Its variance."""
    fourth: float
    """The sum of squared variances of independent labels, each with its kurtosis."""

    @property
    def gap(self) -> float:
        """The sum, less its mean."""
        return float(self.values[self.false].sum()) - self.mean

    @property
    def rest(self) -> np.ndarray:
        """(stratum,) groups with the common value."""
        return self.size - np.bincount(self.stratum, minlength=len(self.size))

    def times(self, factor: float) -> _Dealt:
        return _Dealt(
            self.values * factor,
            self.false,
            self.stratum,
            self.size,
            self.number_false,
            self.mean * factor,
            self.spread * factor**2,
            self.fourth * factor**4,
        )


def _dealt(design: LabelDesign, values: np.ndarray) -> _Dealt:
    values = values.copy()
    mean = spread = fourth = 0.0
    for stratum, (size, number_false) in enumerate(
        zip(design.size.tolist(), design.number_false.tolist(), strict=True)
    ):
        own = np.flatnonzero(design.stratum == stratum)
        values[own] = _less_common(values[own])
        away = values[own] - values[own].mean()
        share = number_false / size
        mean += number_false * float(values[own].mean())
        squares = share * (1 - share) * away**2
        spread += float(squares.sum()) * size / (size - 1)
        fourth += float((squares**2).sum()) * (1 / (share * (1 - share)) - 3)
    active = values != 0
    return _Dealt(
        values[active],
        design.false[active],
        design.stratum[active],
        design.size,
        design.number_false,
        mean,
        spread,
        fourth,
    )


def _less_common(values: np.ndarray) -> np.ndarray:
    """Values less the most common one; where none is common, less the median, with the nearest made equal to it."""
    known, times = np.unique(values, return_counts=True)
    if times.max() >= _SAME * len(values):
        return values - known[times.argmax()]
    away = values - np.partition(values, len(values) // 2)[len(values) // 2]
    distance = np.abs(away)
    # All that are as near: which of them come first may hang on their labels.
    return np.where(distance <= np.partition(distance, int(_SAME * len(values)))[int(_SAME * len(values))], 0.0, away)


def _tail(dealt: _Dealt, differences: np.ndarray, rng: np.random.Generator) -> float:
    """Twice the upper tail."""
    gap = dealt.gap + float(differences.sum()) / 2
    squares = differences**2 / 4
    spread = dealt.spread + float(squares.sum())
    usual = 2 * float(ndtr(-gap / np.sqrt(spread)))
    if usual > _DOUBTLESS and spread**2 >= _EFFECTIVE * (dealt.fourth + float((squares**2).sum())):
        return usual
    number = len(dealt.values) + len(differences)
    least = np.exp(_log_weight(dealt, _per_stratum(dealt, dealt.false[None, :]))[0] - len(differences) * np.log(2))
    if number <= _COUNTED:
        return float(min(1.0, 2 * _counted(dealt, differences)))
    draws = int(np.clip(_CELLS // number, _FEWEST_DRAWS, _DRAWS))
    tilts = _tilt(dealt, differences)
    if usual > _DOUBTLESS and (found := 2 * _drawn(dealt, differences, *tilts, _FEWEST_DRAWS, rng)) > _DOUBTLESS:
        return min(1.0, found)
    return float(np.clip(2 * _drawn(dealt, differences, *tilts, draws, rng), 2 * least, 1.0))


def _per_stratum(dealt: _Dealt, false: np.ndarray) -> np.ndarray:
    """(draw, stratum) false groups among those whose value counts; (draw, group) labels."""
    # Counted, not multiplied: some BLAS builds raise the processor's "invalid" flag on matrices of 0 and 1.
    strata = range(len(dealt.size))
    return np.stack([np.count_nonzero(false[:, dealt.stratum == one], axis=1) for one in strata], axis=1)


def _log_weight(dealt: _Dealt, counts: np.ndarray) -> np.ndarray:
    """(draw,) log-probability of one choice of labels with so many false; -inf where the rest do not allow it."""
    left = dealt.number_false - counts
    possible = ((left >= 0) & (left <= dealt.rest)).all(axis=1)
    found = np.full(len(counts), -np.inf)
    found[possible] = (_log_choose(dealt.rest, left[possible]) - _log_choose(dealt.size, dealt.number_false)).sum(
        axis=1
    )
    return found


def _log_choose(size: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return gammaln(size + 1.0) - gammaln(chosen + 1.0) - gammaln(size - chosen + 1.0)


def _reached(dealt: _Dealt, differences: np.ndarray) -> float:
    """The sum that was found, less what rounding leaves."""
    values = np.concatenate([dealt.values[dealt.false], differences])
    return float(values.sum()) - 1e-9 * (np.abs(dealt.values).sum() + np.abs(differences).sum())


def _counted(dealt: _Dealt, differences: np.ndarray) -> float:
    """The upper tail over all outcomes."""
    values = np.concatenate([dealt.values, differences])
    outcomes = np.array(list(itertools.product((False, True), repeat=len(values))), dtype=bool)
    reached = outcomes[outcomes @ values >= _reached(dealt, differences)]
    weights = _log_weight(dealt, _per_stratum(dealt, reached[:, : len(dealt.values)]))
    return float(np.exp(weights - len(differences) * np.log(2)).sum())


def _tilt(dealt: _Dealt, differences: np.ndarray) -> tuple[float, np.ndarray]:
    """The tilt at which the expected sum is the one found, and (stratum,) shifts that keep the number of false ones."""
    tilt, shift = 0.0, np.log(dealt.number_false / (dealt.size - dealt.number_false))
    target = _reached(dealt, differences)
    for _ in range(_STEPS):
        shift = _shifted(dealt, tilt, shift)
        chance, rest = expit(tilt * dealt.values + shift[dealt.stratum]), expit(shift)
        flipped, varying = expit(tilt * differences), chance * (1 - chance)
        gap = target - float(chance @ dealt.values) - float(flipped @ differences)
        crossed, bend = (np.bincount(dealt.stratum, one, len(shift)) for one in (varying * dealt.values, varying))
        bend = np.maximum(bend + dealt.rest * rest * (1 - rest), _FLAT)
        slope = float(varying @ dealt.values**2) - float((crossed**2 / bend).sum())
        slope += float((flipped * (1 - flipped)) @ differences**2)
        if gap <= 0.1 * np.sqrt(max(slope, 0)) or slope < _FLAT:
            break
        tilt += min(gap / slope, 2 + tilt)
    return tilt, shift


def _shifted(dealt: _Dealt, tilt: float, shift: np.ndarray) -> np.ndarray:
    """(stratum,) shifts with which as many groups are expected to be false as are, by Newton's steps from others."""
    for _ in range(_STEPS):
        chance, rest = expit(tilt * dealt.values + shift[dealt.stratum]), expit(shift)
        expected, bend = (np.bincount(dealt.stratum, one, len(shift)) for one in (chance, chance * (1 - chance)))
        excess = dealt.number_false - expected - dealt.rest * rest
        if np.abs(excess).max() < _NEAR:
            break
        shift = shift + np.clip(excess / np.maximum(bend + dealt.rest * rest * (1 - rest), _FLAT), -2, 2)
    return shift


def _drawn(
    dealt: _Dealt, differences: np.ndarray, tilt: float, shift: np.ndarray, draws: int, rng: np.random.Generator
) -> float:
    """The upper tail, by draws of independent labels that are tilted towards it.

    Each counts with the ratio of its probability among equally likely deals to that with which it was drawn: an
    unbiased estimate (importance sampling, as in `bluffscope.stats.flips`).
    """
    logits = np.concatenate([tilt * dealt.values + shift[dealt.stratum], tilt * differences])
    values = np.concatenate([dealt.values, differences])
    labels = rng.random((draws, len(values)), dtype=np.float32) < expit(logits)
    reached = labels[labels @ values >= _reached(dealt, differences)]
    if not len(reached):
        return 0.0
    weights = _log_weight(dealt, _per_stratum(dealt, reached[:, : len(dealt.values)])) - len(differences) * np.log(2)
    weights += np.logaddexp(0, logits).sum() - reached @ logits
    return float(np.exp(weights).sum()) / draws


def drawn_labels(design: LabelDesign, false: np.ndarray, deals: int, rng: np.random.Generator) -> np.ndarray:
    """(deal, text) whether each text is true when the labels fall anew; those that cannot fall otherwise stay.

    Args:
        design: of the texts.
        false: (text,) bool, as they are.
        deals: how many.
        rng: draws them.
    """
    found = np.repeat(~false[None], deals, axis=0)
    inside, partnered = design.group >= 0, design.mixed >= 0
    dealt = np.empty((deals, len(design.false)), dtype=bool)
    for stratum in range(len(design.size)):
        own = np.flatnonzero(design.stratum == stratum)
        dealt[:, own] = rng.permuted(np.tile(~design.false[own], (deals, 1)), axis=1)
    found[:, inside] = dealt[:, design.group[inside]]
    flips = rng.integers(0, 2, (deals, design.mixed_groups), dtype=np.int8).astype(bool)
    found[:, partnered] ^= flips[:, design.mixed[partnered]]
    return found


def never_all_false(design: LabelDesign, texts: np.ndarray) -> bool:
    """Whether all of some texts are false in fewer than one of ten million deals, if in any."""
    groups = np.unique(design.group[texts])
    of_stratum = np.bincount(design.stratum[groups[groups >= 0]], minlength=len(design.size))
    mixed = len(np.unique(design.mixed[texts][design.mixed[texts] >= 0]))
    if (of_stratum > design.number_false).any():
        return True
    chance = _log_choose(design.size - of_stratum, design.number_false - of_stratum)
    chance -= _log_choose(design.size, design.number_false)
    return bool(chance.sum() - mixed * np.log(2) < np.log(1e-7))
