"""Effect sizes of paired differences, and how small an effect a sample can show."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, cast

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import nct, t

# Rounding leaves a spread of this order, relative to the values, where all differences are equal.
NO_SPREAD: Final = 1e-12

ALPHA: Final = 0.05
POWER: Final = 0.8


def varies(fact: np.ndarray, hall: np.ndarray) -> np.ndarray:
    """(metric,) whether the differences spread by more than rounding; (pair, metric) values of both sides."""
    if len(fact) < 2:
        return np.zeros(fact.shape[1], dtype=bool)
    scale = np.maximum(np.abs(fact).max(axis=0), np.abs(hall).max(axis=0))
    return (hall - fact).std(axis=0, ddof=1) > NO_SPREAD * scale


def dz(differences: np.ndarray) -> np.ndarray:
    """(metric,) d_z of (pair, metric) differences: mean over standard deviation; not finite without spread."""
    if len(differences) < 2:
        return np.full(differences.shape[1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return differences.mean(axis=0) / differences.std(axis=0, ddof=1)


def hedges_factor(freedom: int) -> float:
    """What makes an effect over a standard deviation of so many degrees of freedom unbiased (Hedges 1981, exact form).

    NaN for fewer than 2: pairs - 1 for d_z, texts - 2 for two classes.
    """
    if freedom < 2:
        return float("nan")
    return float(np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) * np.sqrt(2 / freedom))


def minimum_detectable_dz(pairs: int) -> float:
    """The smallest d_z that a two-sided paired t test at level 0.05 finds with a probability of 80 %.

    From the noncentral t distribution; a test over many metrics needs more. NaN for fewer than 2 pairs.
    """
    return float("nan") if pairs < 2 else _detectable_shift(pairs - 1) / float(np.sqrt(pairs))


def minimum_detectable_g(true: int, false: int) -> float:
    """The smallest difference in sd that a two-sided t test of so many texts of each class finds with 80 %."""
    if min(true, false) < 2:
        return float("nan")
    return _detectable_shift(true + false - 2) * float(np.sqrt(1 / true + 1 / false))


@lru_cache(maxsize=1024)
def _detectable_shift(freedom: int) -> float:
    """The noncentrality at which a t test has a power of 80 %."""
    critical = float(t.isf(ALPHA / 2, freedom))

    def lacking(shift: float) -> float:
        # Scipy has no number for the far tail where it is too small to matter.
        far = np.nan_to_num(nct.cdf(-critical, freedom, shift))
        return float(nct.sf(critical, freedom, shift) + far) - POWER

    # The shift at which a t test has a power of 0.8 is below critical + 2 z for any freedom, and above 1.
    return cast(float, brentq(lacking, 1.0, 2 * critical + 4, xtol=1e-12))
