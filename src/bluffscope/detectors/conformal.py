"""A threshold whose false alarms are known: split conformal calibration, one true text of each group."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

import numpy as np

from bluffscope.errors import InputError

ADVISED_CLUSTERS: Final = 100
"""Groups below which the threshold is said to be coarse."""


@dataclass(frozen=True)
class Alarm:
    """The score above which a text is called hallucinated."""

    alpha: float
    """At most this share of true texts like those of the calibration is called so, on average over calibrations."""
    threshold: float
    """Of the linear score, in log odds before Platt's curve; only scores above it are alarms."""
    clusters: int
    """Groups that it was calibrated on."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def calibration_part(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(text,) whether each text is of the half of the groups, drawn at random, that nothing is fitted to.

    Args:
        groups: (text,) numbers from 0 without gaps.
        rng: draws them.
    """
    number = int(groups.max()) + 1
    return np.isin(groups, rng.permutation(number)[: number // 2])


def calibrated_alarm(scores: np.ndarray, groups: np.ndarray, alpha: float, rng: np.random.Generator) -> Alarm:
    """The threshold that a further true text exceeds with a probability of at most alpha.

    Texts of a group are no independent evidence: of each one counts, drawn at random. Of m scores it is that of rank
    (m + 1)(1 - alpha), rounded up (Vovk et al. 2005): false alarms are between alpha - 1 / (m + 1) and alpha.

    Args:
        scores: (text,) of true texts that nothing was fitted to.
        groups: (text,) of these.
        alpha: between 0 and 1.
        rng: draws a text of each group.

    Raises:
        InputError: too few groups for any threshold.
    """
    order = rng.permutation(len(scores))
    drawn = np.sort(scores[order[np.unique(groups[order], return_index=True)[1]]])
    clusters = len(drawn)
    rank = ceil((clusters + 1) * (1 - alpha) - 1e-9)
    if rank > clusters:
        needed = ceil(1 / alpha - 1 - 1e-9)
        raise InputError(
            f"--alpha {alpha:g}: {clusters} groups of true texts are left to calibrate on; it takes at least {needed}"
        )
    return Alarm(alpha, float(drawn[rank - 1]), clusters)
