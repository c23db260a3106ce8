"""P values of a sum under fair sign flips of groups, however small: all flips, or tilted draws of them."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import ndtr

ALL_FLIPS: Final = 10
"""With at most this many groups that differ all their flips are taken."""
DRAWS: Final = 1000
FEWEST_DRAWS: Final = 250
_CELLS: Final = 300_000
"""Groups x draws at which fewer draws are made."""
_DOUBTLESS: Final = 0.1
"""P values above it come from the normal approximation: no decision depends on them."""
_STEPS: Final = 12


def flip_tail(sums: np.ndarray, rng: np.random.Generator) -> float:
    """P(|sum of +-D_g| >= |sum of D_g|) with a fair sign for each group.

    Plain draws of flips cannot show a p value below their own number's inverse, and thousands of features need far
    smaller ones. So signs are drawn with probabilities that make the observed sum the expected one
    (P(+) = 1 / (1 + exp(-2 t |D_g|))), and each draw counts with its likelihood ratio: an unbiased estimate whose
    relative error is some percent at any size (importance sampling with exponential tilting; Siegmund 1976).

    Args:
        sums: (group,) D_g; zeros do not matter.
        rng: draws the signs; not used where all flips are taken.
    """
    size = np.abs(sums[sums != 0])
    if not len(size):
        return 1.0
    size = size / size.max()
    total = abs(float(sums.sum())) / float(np.abs(sums).max())
    # What rounding leaves between sums of the same values in another order.
    total -= 1e-9 * float(size.sum())
    if total <= 0:
        return 1.0
    if len(size) <= ALL_FLIPS:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(size))[:, None] >> np.arange(len(size)) & 1)
        return float((np.abs(signs @ size) >= total).mean())
    usual = 2 * float(ndtr(-total / np.sqrt((size**2).sum())))
    if usual > _DOUBTLESS:
        return usual
    least = 2.0 ** (1 - len(size))
    return float(np.clip(2 * _upper_tail(size, total, rng), least, 1.0))


def _upper_tail(size: np.ndarray, total: float, rng: np.random.Generator) -> float:
    """P(sum of +-size >= total), by draws that are tilted towards it."""
    tilt = 0.0
    for _ in range(_STEPS):  # the slope is concave in the tilt: Newton's steps come from below and never overshoot
        tanh = np.tanh(tilt * size)
        bend = float((size**2 * (1 - tanh**2)).sum())
        gap = total - float((size * tanh).sum())
        if gap <= 1e-6 * total or bend <= 1e-12:
            break
        tilt += gap / bend
    draws = int(np.clip(_CELLS // len(size), FEWEST_DRAWS, DRAWS))
    up = rng.random((draws, len(size)), dtype=np.float32) < 1 / (1 + np.exp(-2 * tilt * size))
    sums = 2 * (up @ size) - size.sum()
    # log cosh without overflow
    cumulant = float((tilt * size + np.log1p(np.exp(-2 * tilt * size)) - np.log(2)).sum())
    return float(np.where(sums >= total, np.exp(np.minimum(cumulant - tilt * sums, 0)), 0.0).mean())
