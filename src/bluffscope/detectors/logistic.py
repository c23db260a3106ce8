"""Logistic regression with a ridge penalty, many fits at a time, in the space of the texts.

The weights of such a fit are sums over its texts, so that it needs only the inner products of texts: one Gram matrix
serves every penalty and every fold of a training part, however many columns there are. What is found is what
scikit-learn's LogisticRegression finds with C = 1 / penalty (`tests/detectors/test_logistic.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

_BLOCK: Final = 4096
"""Columns of a dense input that are in memory as float64 at once."""
_MOST_SQUARES: Final = 1 << 21
"""Products of columns, over all texts (16 MB): where there are no more, Newton's steps are solved for directly."""
_CONSTANT: Final = 1e-12
"""A standard deviation below this share of the mean is rounding."""
_MOST_STEPS: Final = 100
_MOST_PRODUCTS: Final = 500
"""Of a Newton step; what is left over falls to the next."""
_ROUGH: Final = 1e-4
"""Of the mean loss: how close to its least a rough fit comes."""
_FINE: Final = 1e-18
"""Likewise of a fine one, relative to penalty and spread: decision values are then right to 1e-7."""
_SOLVED: Final = 0.01
"""Square of how much of the gradient a Newton step may leave over; less near the end."""
_SOLVABLE: Final = 1e-12
"""Likewise at the end: what is less is for the next step, and not for rounding errors that have piled up in this."""
_ROUNDING: Final = 10.0
"""Times a number's precision, of squares: what is left below is rounding alone."""
_FULL_STEP: Final = 1e-6
"""Of the mean loss: what is gained by a step that is taken whole; below, losses differ by rounding alone."""


@dataclass(frozen=True)
class Texts:
    """The texts of a training part as fits see them: columns less their mean, divided by their scale."""

    values: Any
    """(text, column) NumPy, or SciPy's CSR, as they were given."""
    mean: np.ndarray
    """(column,) of the values. An intercept is fitted: taking the mean off changes nothing but the numbers' size."""
    scale: np.ndarray
    """(column,)."""
    spread: float
    """Mean squared length of a text's centred and scaled values: what penalties are relative to."""
    scaled: np.ndarray | None
    """(text, column), where columns are so few that going through them is the cheaper way."""
    gram: np.ndarray | None
    """(text, text) inner products, where columns are many."""

    @classmethod
    def of(cls, values: Any, scale: np.ndarray | None = None) -> Texts:
        """Means and inner products.

        Args:
            values: (text, column), without NaN; sparse ones only with a scale.
            scale: (column,) above 0; each column's standard deviation where there is none.
        """
        texts, columns = values.shape
        few = 2 * columns < texts
        if few and not isinstance(values, np.ndarray):
            values = values.toarray()
        if not isinstance(values, np.ndarray):
            assert scale is not None
            mean = np.asarray(values.mean(axis=0), dtype=np.float64).ravel()
            scaled = values.multiply(1 / scale).tocsr()
            gram = (scaled @ scaled.T).toarray()
            means = gram.mean(axis=0)
            gram += means.mean() - means - means[:, None]
            return cls(values, mean, scale, _mean_square(np.diag(gram)), None, gram)
        mean, divisor, block = np.zeros(columns), np.ones(columns), np.zeros((texts, 0))
        gram = np.zeros((0, 0) if few else (texts, texts))
        for some in blocks(columns):
            block = values[:, some].astype(np.float64)
            mean[some] = block.mean(axis=0)
            block -= mean[some]
            divisor[some] = _deviation(block, mean[some]) if scale is None else scale[some]
            block /= divisor[some]
            if not few:
                gram += block @ block.T
        scale = divisor
        if few:  # in one block: so few texts there are not
            return cls(values, mean, scale, _mean_square(np.square(block).sum(axis=1)), block, None)
        return cls(values, mean, scale, _mean_square(np.diag(gram)), None, gram)

    @cached_property
    def rough_gram(self) -> np.ndarray | None:
        """The Gram matrix in half the memory, for rough fits."""
        return None if self.gram is None else self.gram.astype(np.float32)

    @cached_property
    def squares(self) -> np.ndarray | None:
        """(text, (column + 1) squared) products of a text's columns and a 1; None where they would be too many."""
        if self.scaled is None or len(self.scaled) * (self.scaled.shape[1] + 1) ** 2 > _MOST_SQUARES:
            return None
        columns = np.column_stack([self.scaled, np.ones(len(self.scaled))])
        return (columns[:, :, None] * columns[:, None]).reshape(len(columns), -1)

    def products(self, given: np.ndarray, gram: np.ndarray | None = None) -> np.ndarray:
        """(fit, text) inner products of each text with sums of texts.

        Args:
            given: (fit, text) what each text counts in the sum.
            gram: in place of the own, in another precision.
        """
        if self.scaled is not None:
            return (given @ self.scaled) @ self.scaled.T
        gram = self.gram if gram is None else gram
        assert gram is not None  # `of` makes one of the two
        return given @ gram

    def weights(self, counts: np.ndarray) -> np.ndarray:
        """(column,) weights of the values as they were given, from what each text counts in their sum.

        Args:
            counts: (text,).
        """
        return (np.asarray(self.values.T @ counts).ravel() - self.mean * counts.sum()) / self.scale**2


def blocks(columns: int) -> Iterator[slice]:
    """So many columns in parts of which a few fit into memory."""
    return (slice(start, start + _BLOCK) for start in range(0, columns, _BLOCK))


def _deviation(block: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(column,) standard deviations of centred columns; 1 for one that is constant but for rounding."""
    deviation = np.sqrt(np.square(block).mean(axis=0))
    return np.where(deviation > _CONSTANT * np.abs(mean), deviation, 1.0)


def _mean_square(squares: np.ndarray) -> float:
    return float(squares.mean()) or 1.0  # where nothing differs, of nothing


class Fits(NamedTuple):
    """Fits to the same texts."""

    counts: np.ndarray
    """(fit, text) what each text counts in the weights."""
    products: np.ndarray
    """(fit, text) inner products with the weights: scores without the intercept, of texts left out as well."""
    intercepts: np.ndarray
    """(fit,)."""

    @property
    def scores(self) -> np.ndarray:
        """(fit, text) log odds."""
        return self.products + self.intercepts[:, None]

    def only(self, fit: int) -> Fits:
        """One of them."""
        return Fits(*(part[fit : fit + 1] for part in self))


def fit_rough(texts: Texts, labels: np.ndarray, used: np.ndarray, penalties: np.ndarray, start: Fits) -> Fits:
    """Fits that are good enough to choose among: the mean loss is within 1e-4 of its least.

    Args:
        texts: of the training part.
        labels: (text,) 0 or 1.
        used: (fit, text) whether each text is fitted to.
        penalties: (fit,) share of `Texts.spread`, for each text that is fitted to.
        start: where to begin: `nothing`, or fits of a stronger penalty.
    """
    sizes = used.sum(axis=1)
    return _newton(texts, texts.rough_gram, labels, used, penalties * texts.spread * sizes, start, _ROUGH * sizes)


def nothing(fits: int, texts: int) -> Fits:
    """Fits without weights."""
    return Fits(np.zeros((fits, texts)), np.zeros((fits, texts)), np.zeros(fits))


def fit_fine(texts: Texts, labels: np.ndarray, penalty: float, start: Fits | None = None) -> Fits:
    """The fit to all texts: scores are within about 1e-7 of those of the least loss.

    Args:
        texts: of the training part.
        labels: (text,) 0 or 1.
        penalty: share of `Texts.spread` for each text.
        start: a rough fit.
    """
    start = nothing(1, len(labels)) if start is None else start
    start = start._replace(products=texts.products(start.counts))  # in full precision
    used = np.ones((1, len(labels)), dtype=bool)
    total = np.array([penalty * texts.spread * len(labels)])
    if not _loss(start, labels, used, total) <= np.log(2) * len(labels):  # worse than to know nothing
        start = nothing(1, len(labels))
    return _newton(texts, None, labels, used, total, start, np.array([_FINE * penalty * len(labels)]))


def _newton(
    texts: Texts,
    gram: np.ndarray | None,
    labels: np.ndarray,
    used: np.ndarray,
    penalties: np.ndarray,
    start: Fits,
    close: np.ndarray,
) -> Fits:
    """Newton's method for all fits at once.

    Args:
        texts: of the training part.
        gram: in place of the texts' own.
        labels: (text,) 0 or 1.
        used: (fit, text).
        penalties: (fit,) of squared weights, halved.
        start: where to begin.
        close: (fit,) a fit ends once its loss is so close to the least.
    """
    counts, products, intercepts = (part.copy() for part in start)
    going = np.arange(len(used))
    for _ in range(_MOST_STEPS):
        mask, penalty = used[going].astype(float), penalties[going, None]
        chance = (1 + np.tanh((products[going] + intercepts[going, None]) / 2)) / 2  # several times as fast as expit
        off = mask * (chance - labels)
        gradient, slope = penalty * counts[going] + off, off.sum(axis=1)  # times the texts: that of the weights
        curve = mask * chance * (1 - chance)
        if texts.scaled is not None and texts.squares is not None:
            step = _solved(texts.scaled, texts.squares, gradient, slope, curve, penalty)
        else:
            step = _direction(texts, gram, gradient, slope, curve, penalty, texts.spread * mask.sum(axis=1) ** 2)
        towards = Fits(counts[going], products[going], intercepts[going])
        gained = -((gradient * step.products).sum(axis=1) + slope * step.intercepts)
        share = _share(towards, step, labels, mask, penalty[:, 0], gained)
        counts[going] += share[:, None] * step.counts
        products[going] += share[:, None] * step.products
        intercepts[going] += share * step.intercepts
        going = going[(gained > close[going]) & (share > 0)]
        if not len(going):
            break
    return Fits(counts, products, intercepts)


def _solved(
    scaled: np.ndarray, squares: np.ndarray, gradient: np.ndarray, slope: np.ndarray, curve: np.ndarray, penalty: Any
) -> Fits:
    """Newton's step of each fit on few columns, by their second derivatives.

    Args:
        scaled: (text, column).
        squares: (text, (column + 1) squared), `Texts.squares`.
        gradient: (fit, text) of the weights, as a sum of texts.
        slope: (fit,) of the intercept.
        curve: (fit, text) second derivative of each text's loss.
        penalty: (fit, 1).
    """
    columns = np.arange(scaled.shape[1])
    bend = (curve @ squares).reshape(len(curve), len(columns) + 1, -1)
    bend[:, columns, columns] += penalty
    bend[:, -1, -1] += np.finfo(float).tiny
    found = np.linalg.solve(bend, -np.column_stack([gradient @ scaled, slope])[:, :, None])[:, :, 0]
    products = found[:, :-1] @ scaled.T
    # the sum of texts that these weights are
    return Fits(-(gradient + curve * (products + found[:, -1:])) / penalty, products, found[:, -1])


def _direction(
    texts: Texts,
    gram: np.ndarray | None,
    gradient: np.ndarray,
    slope: np.ndarray,
    curve: np.ndarray,
    penalty: np.ndarray,
    largest: np.ndarray,
) -> Fits:
    """Newton's step of each fit, by conjugate gradients on weights, as sums of texts, and intercept.

    Args:
        texts: of the training part.
        gram: in place of the texts' own.
        gradient: (fit, text) of the weights, as a sum of texts.
        slope: (fit,) of the intercept.
        curve: (fit, text) second derivative of each text's loss.
        penalty: (fit, 1).
        largest: (fit,) what the gradient's square can be.
    """
    precise = np.float64 if gram is None else gram.dtype
    left, rest, curve, penalty = (part.astype(precise) for part in (-gradient, -slope, curve, penalty))
    products = texts.products(left, gram)
    ahead, beyond, forward = left.copy(), products.copy(), rest.copy()
    size = (left * products).sum(axis=1) + rest**2
    eps = float(np.finfo(precise).eps)
    rounding = _ROUNDING * eps * np.maximum(texts.spread * (left**2).sum(axis=1), eps * largest)
    enough = np.maximum(np.clip(size / largest, _SOLVABLE, _SOLVED) * size, rounding)
    step = Fits(np.zeros_like(left), np.zeros_like(left), np.zeros_like(rest))
    for _ in range(_MOST_PRODUCTS):
        unsolved = np.flatnonzero(size > enough)
        if not len(unsolved):
            break
        going = slice(None) if len(unsolved) == len(size) else unsolved  # a slice copies nothing
        bent = curve[going] * (beyond[going] + forward[going, None])
        full = penalty[going] * ahead[going] + bent
        summed = bent.sum(axis=1)
        bend = (full * beyond[going]).sum(axis=1) + summed * forward[going]
        if (flat := bend <= 0).any():  # nothing but rounding is left
            size[unsolved[flat]] = 0
            continue
        length = size[going] / bend
        step.counts[going] += length[:, None] * ahead[going]
        step.products[going] += length[:, None] * beyond[going]
        step.intercepts[going] += length * forward[going]
        left[going] -= length[:, None] * full
        rest[going] -= length * summed
        products[going] = texts.products(left[going], gram)
        before = size[going].copy()
        size[going] = np.maximum((left[going] * products[going]).sum(axis=1), 0) + rest[going] ** 2
        turn = size[going] / before
        ahead[going] = left[going] + turn[:, None] * ahead[going]
        beyond[going] = products[going] + turn[:, None] * beyond[going]
        forward[going] = rest[going] + turn * forward[going]
    return Fits(*(part.astype(np.float64) for part in step))


def _share(
    at: Fits, step: Fits, labels: np.ndarray, mask: np.ndarray, penalty: np.ndarray, gained: np.ndarray
) -> np.ndarray:
    """(fit,) how much of its step each fit takes: halved until the loss falls as it should; 0 where it never does."""
    share = np.ones(len(gained))
    # All of it near the end.
    doubtful = np.flatnonzero(gained > _FULL_STEP * mask.sum(axis=1))
    before = _loss(at, labels, mask, penalty)
    for _ in range(30):
        if not len(doubtful):
            break
        moved = Fits(
            *(part[doubtful] + _along(share[doubtful], way[doubtful]) for part, way in zip(at, step, strict=True))
        )
        fallen = before[doubtful] - _loss(moved, labels, mask[doubtful], penalty[doubtful])
        doubtful = doubtful[fallen < 1e-4 * share[doubtful] * gained[doubtful]]
        share[doubtful] /= 2
    share[doubtful] = 0
    return share


def _along(share: np.ndarray, way: np.ndarray) -> np.ndarray:
    return share * way if way.ndim == 1 else share[:, None] * way


def _loss(fits: Fits, labels: np.ndarray, mask: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """(fit,) what a fit makes least."""
    scores = fits.scores
    ridge = (fits.counts * fits.products).sum(axis=1)
    # logaddexp(0, scores), several times as fast
    losses = np.log1p(np.exp(-np.abs(scores))) + np.maximum(scores, 0) - labels * scores
    return (mask * losses).sum(axis=1) + penalty * ridge / 2
