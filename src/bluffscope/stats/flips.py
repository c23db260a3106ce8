"""P values of a sum under fair sign flips of groups, however small: all flips, or tilted draws of them."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import ndtr

ALL_FLIPS: Final = 24
"""With at most this many groups that differ all their flips are counted."""
EFFECTIVE: Final = 25
"""Effective number of groups from which the normal approximation holds, where p is large."""
DRAWS: Final = 1000
FEWEST_DRAWS: Final = 250
_CELLS: Final = 300_000
"""Groups x draws at which fewer draws are made."""
_DOUBTLESS: Final = 0.1
"""P values above it come from the normal approximation where it holds, else from fewer draws."""
_STEPS: Final = 12


def effective_number(sums: np.ndarray) -> np.ndarray:
    """How many groups of equal size flip as (group, ...) sums do: (sum of D²)² / sum of D⁴; NaN where all are 0."""
    squares = sums**2
    with np.errstate(invalid="ignore"):
        return squares.sum(axis=0) ** 2 / (squares**2).sum(axis=0)


def flip_tail(sums: np.ndarray, rng: np.random.Generator) -> float:
    """P(|sum of +-D_g| >= |sum of D_g|) with a fair sign for each group.

    Few groups: all flips are counted. More: plain draws of flips cannot show a p value below their own number's
    inverse, and thousands of features need far smaller ones. So signs are drawn with probabilities that make the
    observed sum the expected one (P(+) = 1 / (1 + exp(-2 t |D_g|))), and each draw counts with its likelihood ratio:
    an unbiased estimate whose relative error is some percent at any size (importance sampling with exponential
    tilting; Siegmund 1976). Large p values come from the normal approximation, unless few groups dominate the sum:
    one large group and many small ones, all of one sign, have a normal p of .3 and a true one below any level.

    Args:
        sums: (group,) D_g; zeros do not matter.
        rng: draws the signs; used for neither exact nor normal p values.
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
        return _counted(size, total)
    spread = float(np.sqrt((size**2).sum()))
    usual = 2 * float(ndtr(-total / spread))
    if usual > _DOUBTLESS and effective_number(size) >= EFFECTIVE:
        return min(1.0, 2 * float(ndtr(-(total - _half_step(size)) / spread)))
    tilt, draws = _tilt(size, total), int(np.clip(_CELLS // len(size), FEWEST_DRAWS, DRAWS))
    if usual > _DOUBTLESS and (found := 2 * _upper_tail(size, total, tilt, FEWEST_DRAWS, rng)) > _DOUBTLESS:
        return min(1.0, found)
    return float(np.clip(2 * _upper_tail(size, total, tilt, draws, rng), 2.0 ** (1 - len(size)), 1.0))


def _counted(size: np.ndarray, total: float) -> float:
    """Over all flips: for each choice of signs in one half of the groups, those in the other that reach the total."""
    halves = [np.zeros(1), np.zeros(1)]
    for place, one in enumerate(size.tolist()):
        half = halves[place % 2]
        halves[place % 2] = np.concatenate((half + one, half - one))
    first, second = np.sort(halves[0]), np.sort(halves[1])
    reached = len(second) - np.searchsorted(second, total - first)
    return 2 * float(reached.sum()) / (len(first) * len(second))


def _half_step(size: np.ndarray) -> float:
    """Half the distance between the values that the sum can take; 0 unless sizes are multiples of the smallest."""
    step = float(size.min())
    multiples = size / step
    return step if np.abs(multiples - np.rint(multiples)).max() < 1e-6 else 0.0


def _tilt(size: np.ndarray, total: float) -> float:
    """The t at which the expected sum is the total."""
    tilt = 0.0
    for _ in range(_STEPS):  # the slope is concave in the tilt: Newton's steps come from below and never overshoot
        tanh = np.tanh(tilt * size)
        bend = float((size**2 * (1 - tanh**2)).sum())
        gap = total - float((size * tanh).sum())
        if gap <= 1e-6 * total or bend <= 1e-12:
            break
        tilt += gap / bend
    return tilt


def _upper_tail(size: np.ndarray, total: float, tilt: float, draws: int, rng: np.random.Generator) -> float:
    """P(sum of +-size >= total), by draws that are tilted towards it."""
    up = rng.random((draws, len(size)), dtype=np.float32) < 1 / (1 + np.exp(-2 * tilt * size))
    sums = 2 * (up @ size) - size.sum()
    # log cosh without overflow
    cumulant = float((tilt * size + np.log1p(np.exp(-2 * tilt * size)) - np.log(2)).sum())
    return float(np.where(sums >= total, np.exp(np.minimum(cumulant - tilt * sums, 0)), 0.0).mean())
