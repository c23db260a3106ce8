"""What a detector does on texts that it was not fitted to: means over repeated folds, and their intervals.

Fits to overlapping texts are no independent evidence: the variance of their mean is that of Nadeau and Bengio (2003),
with t on as many degrees of freedom as a repeat has folds, less one. With those of all fits an interval that says 95 %
covers 85 (`tools/simulate_detectors.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import t

from bluffscope.detectors.folds import label_folds
from bluffscope.stats.heldout import FOLDS
from bluffscope.stats.linear_model import LEVEL

CHANCE: Final = 0.5
_TAIL: Final = (1 - LEVEL) / 2
EDGE: Final = float(t.isf(_TAIL, FOLDS - 1))
"""Half the width of an interval, in standard errors."""
_ENOUGH_GROUPS: Final = 40
"""With fewer, folds vary together more than their spread shows: their variance counts that many times as they fall
short (chosen on data like those of `tools/simulate_detectors.py`, of 24 groups)."""
_EXACT: Final = 1e-12


class Estimated(NamedTuple):
    """A mean over fits and its 95 % interval."""

    value: float
    lo: float
    hi: float

    def columns(self, name: str, ends: str) -> dict[str, float]:
        """As columns of a table: `name`, and `lo` and `hi` behind `ends`."""
        return {name: self.value, f"{ends}lo": self.lo, f"{ends}hi": self.hi}


@dataclass(frozen=True)
class Splits:
    """Folds of some texts, drawn anew a few times; the same for all detectors."""

    folds: np.ndarray
    """(repeat, text) the fold that each text is tested in."""
    labels: np.ndarray
    """(text,) 0 or 1."""
    groups: int
    """Groups of the texts; folds part none."""

    @classmethod
    def drawn(cls, groups: np.ndarray, labels: np.ndarray, repeats: int, rng: np.random.Generator) -> Splits:
        """Folds for (text,) groups, numbered from 0 without gaps, and their labels."""
        folds = [label_folds(groups, labels, FOLDS, rng) for _ in range(repeats)]
        return cls(np.stack(folds), labels, int(groups.max()) + 1)

    @classmethod
    def of(cls, folds: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> Splits:
        """Folds that were drawn before: (text,) each."""
        return cls(folds[None], labels, len(np.unique(groups)))

    def scores(self, fitted: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """(repeat, text) scores, each from a fit to the other folds.

        Args:
            fitted: takes places of training and of test texts, and returns (test text,) scores.
        """
        found = np.empty(self.folds.shape)
        for repeat, folds in enumerate(self.folds):
            for fold in range(FOLDS):
                test = np.flatnonzero(folds == fold)
                found[repeat, test] = fitted(np.flatnonzero(folds != fold), test)
        return found

    def by_fit(self, measure: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray) -> np.ndarray:
        """(fit,) a measure of (text,) scores and labels in each test fold; NaN in one without texts of a label.

        Args:
            measure: of the scores of a fold, and their labels.
            scores: (repeat, text).
        """
        found: list[float] = []
        for repeat, folds in enumerate(self.folds):
            for fold in range(FOLDS):
                labels, own = self.labels[folds == fold], scores[repeat, folds == fold]
                found.append(measure(own, labels) if 0 < labels.sum() < len(labels) else np.nan)
        return np.array(found)

    def estimated(self, by_fit: np.ndarray, elsewhere: float | None = None) -> Estimated:
        """The mean of (fit,) shares and its interval within 0 and 1; where all are 0 or 1, the exact one of groups.

        Args:
            by_fit: a share in each test fold.
            elsewhere: variance from other texts that the fits are to; None of fits to these texts.
        """
        if elsewhere is None:
            value, half = self._mean(by_fit)
        else:
            value, half = self._mean(by_fit, 1 / FOLDS, elsewhere)  # all of these texts are tested once a repeat
        sure = _TAIL ** (1 / self.groups)
        if value > 1 - _EXACT:
            return Estimated(1.0, sure, 1.0)
        if value < _EXACT:
            return Estimated(0.0, 0.0, 1 - sure)
        return Estimated(value, max(0.0, value - half), min(1.0, value + half))

    def difference(self, own: np.ndarray, other: np.ndarray, beyond: float = 0.0) -> Estimated:
        """How far (fit,) areas lie above others on the same folds; where both never vary, as sure as the own are.

        Args:
            own: (fit,) areas.
            other: (fit,) areas.
            beyond: variance that folds of these texts do not show.
        """
        value, half = self._mean(own - other, beyond=beyond)
        lo, hi = max(-1.0, value - half), min(1.0, value + half)
        if half < _EXACT:
            surest = self.estimated(own)
            lo, hi = value - (surest.value - surest.lo), value + (surest.hi - surest.value)
        return Estimated(value, lo, hi)

    def gained(self, own: np.ndarray, others: Sequence[np.ndarray]) -> Estimated:
        """How far (fit,) areas lie above the best of others, and of guessing.

        The lower end is the least over all of these: whichever is the best, it is exceeded by as much.
        """
        found = [self.difference(own, other) for other in (*others, np.full(len(own), CHANCE))]
        least = min(found)
        return Estimated(least.value, min(one.lo for one in found), least.hi)

    def _mean(self, by_fit: np.ndarray, share: float = 0.0, beyond: float = 0.0) -> tuple[float, float]:
        """The mean of (fit,) values that are defined, and half the width of its interval; NaN for fewer than two."""
        known = by_fit[np.isfinite(by_fit)]
        if len(known) < 2:
            return float(np.mean(known)) if len(known) else np.nan, np.nan
        # Of each fit a share 1 / FOLDS is tested: n_test / n_train.
        share = share or (1 / len(known) + 1 / (FOLDS - 1)) * max(1.0, _ENOUGH_GROUPS / self.groups)
        return float(known.mean()), EDGE * float(np.sqrt(known.var(ddof=1) * share + beyond))
