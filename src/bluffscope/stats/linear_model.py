"""One coefficient of a linear model for many metrics at once: its estimate, and errors that trust no equal spread.

The coefficient is a weighted sum of the values, and so is each change that leaving out a cluster makes to it. Both sets
of weights depend on the design alone, so a design is prepared once for all metrics that share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import nctdtrinc
from scipy.stats import chi2, t

from bluffscope.stats.effects import NO_SPREAD

_RANK: Final = 1e-9
"""Singular values below this share of the largest belong to columns that others explain."""
_UNIDENTIFIED: Final = 1e-9
"""Share of the target's sum of squares below which the other columns explain it."""
_FULL_LEVERAGE: Final = 1e-9
"""1 - leverage below which a cluster alone decides on a direction of the fit."""
_HIDDEN: Final = 180.0
"""Over the square of the number of clusters: skewness of a mean that its sample hides, since it lacks the tail that
makes it. `Estimate.skew_p` allows for as much, at 20 clusters for that of exponential noise; found by simulation
(tools/simulate_verdicts.py)."""
LEVEL: Final = 0.95
_FAR: Final = 1e4
"""Studentised effects beyond which intervals follow from the chi distribution of the error."""
_CELLS: Final = 4_000_000
"""Numbers that are held at once."""

Unfit = Literal["unidentified", "one cluster", "no freedom"]
"""Why there is no design: other columns explain the target; without one cluster they would; nothing is left over."""


class Estimate(NamedTuple):
    """One coefficient, (metric,) each; NaN where the data or the sums of all clusters are on the fit up to rounding."""

    effect: np.ndarray
    """In the metric's unit."""
    error: np.ndarray
    """Its standard error: CR3 (Bell and McCaffrey 2002), which is HC3 where each row is its own cluster."""
    sd: np.ndarray
    """Standard deviation of the residuals, sqrt(RSS / (rows - rank))."""
    skewness: np.ndarray
    """Skewness of the effect's distribution, estimated from what each cluster adds to it."""
    freedom: int
    """Degrees of freedom of the t test."""
    evenness: float
    """How many clusters of equal weight decide as much as these do (see `Design.evenness`)."""

    @property
    def t(self) -> np.ndarray:
        """(metric,) the studentised effect."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.effect / self.error

    @property
    def standardised(self) -> np.ndarray:
        """(metric,) effect over sd."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.effect / self.sd

    @property
    def p(self) -> np.ndarray:
        """(metric,) two-sided p of no effect."""
        return 2 * t.sf(np.abs(self.t), self.freedom)

    @property
    def skew_p(self) -> np.ndarray:
        """(metric,) the same, with an allowance for as much skewness as so few clusters may hide.

        The first term of the Edgeworth expansion of a studentised mean (Hall 1992, section 2.6), for the skewness that
        was found and what so many clusters hide, where that makes the tail heavier.
        """
        distance = np.abs(self.t)
        hidden = _HIDDEN / self.evenness**2
        adverse = np.maximum(0, hidden - np.sign(self.t) * self.skewness)
        heavier = adverse * (2 * distance**2 + 1) / 6 * t.pdf(distance, self.freedom)
        return np.minimum(1, 2 * (t.sf(distance, self.freedom) + heavier))

    def interval(self, level: float = LEVEL) -> np.ndarray:
        """(2, metric) ends of the interval of `standardised`; it holds 0 where p is above 1 - level.

        The effects whose noncentral t distribution has the observed t between its tails (Steiger and Fouladi 1997).
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            unit = self.error / self.sd
        return np.stack([self._shift(tail) * unit for tail in ((1 + level) / 2, (1 - level) / 2)])

    def _shift(self, tail: float) -> np.ndarray:
        """(metric,) noncentrality at which the observed t has this share below it."""
        observed = self.t
        near = np.abs(observed) < _FAR
        found = nctdtrinc(self.freedom, tail, np.where(near, observed, 0.0))
        # Far out only the error's own chance is left; the library's search never ends there.
        spread = np.sqrt(chi2.ppf([tail, 1 - tail], self.freedom) / self.freedom)
        return np.where(near, found, observed * np.where(observed < 0, *spread))

    def equivalence_p(self, bound: float) -> np.ndarray:
        """(metric,) the larger p of the two one-sided tests of -bound < effect / sd < bound (Schuirmann 1987)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            above = (self.effect + bound * self.sd) / self.error
            below = (self.effect - bound * self.sd) / self.error
        return np.maximum(t.sf(above, self.freedom), t.cdf(below, self.freedom))

    def where(self, known: np.ndarray) -> Estimate:
        """The same, undefined but for the (metric,) known ones."""
        effect, error, sd, skewness = (np.where(known, part, np.nan) for part in self[:4])
        return Estimate(effect, error, sd, skewness, self.freedom, self.evenness)


@dataclass(frozen=True)
class Design:
    """What a fit of any metric needs of the rows' target, other columns and clusters."""

    basis: np.ndarray
    """(row, rank) orthonormal columns that span the target and the others."""
    weights: np.ndarray
    """(row,) the coefficient is the sum of weights x values."""
    moves: np.ndarray
    """(row,) leaving a cluster out takes the sum of moves x residuals over its rows off the coefficient."""
    clusters: np.ndarray
    """(row,) numbers from 0 without gaps."""

    @property
    def rank(self) -> int:
        """Independent columns."""
        return self.basis.shape[1]

    @property
    def freedom(self) -> int:
        """Of the t test: clusters - 1, or rows - rank where each row is a cluster."""
        number = int(self.clusters.max()) + 1
        return len(self.clusters) - self.rank if number == len(self.clusters) else number - 1

    @property
    def evenness(self) -> float:
        """How many equal clusters decide as much as these: fewer than there are where a few decide.

        Satterthwaite's degrees of freedom of the error, plus 1 (Bell and McCaffrey 2002).
        """
        number = int(self.clusters.max()) + 1
        squares = np.bincount(self.clusters, self.moves**2, number)
        along = self._summed(self.moves[:, None] * self.basis)  # (cluster, rank)
        inside = (along**2).sum(axis=1)
        trace = (squares - inside).sum()
        return 1 + trace**2 / (squares @ squares - 2 * squares @ inside + ((along.T @ along) ** 2).sum())

    def estimate(self, values: np.ndarray) -> Estimate:
        """The coefficient for each metric.

        Args:
            values: (row, metric) finite.
        """
        residuals = values - self.basis @ (self.basis.T @ values)
        sd = np.sqrt((residuals**2).sum(axis=0) / (len(values) - self.rank))
        moved = self._summed(self.moves[:, None] * residuals)  # (cluster, metric)
        error = np.sqrt((moved**2).sum(axis=0))
        scale = NO_SPREAD * np.abs(values).max(axis=0)
        known = (sd > scale) & (error > scale * np.linalg.norm(self.weights))
        with np.errstate(invalid="ignore", divide="ignore"):
            skewness = (moved**3).sum(axis=0) / error**3
        error, sd, skewness = (np.where(known, part, np.nan) for part in (error, sd, skewness))
        return Estimate(self.weights @ values, error, sd, skewness, self.freedom, self.evenness)

    def _summed(self, values: np.ndarray) -> np.ndarray:
        """(cluster, ...) sums of (row, ...) values."""
        number = int(self.clusters.max()) + 1
        return values if number == len(values) else by_group(values, self.clusters, number)


def design(target: np.ndarray, held: np.ndarray, clusters: np.ndarray) -> Design | Unfit:
    """Prepare the fit of values = coefficient x target + held columns x their coefficients + rest.

    Args:
        target: (row,) the column whose coefficient is asked for: ones for a mean.
        held: (row, rank) orthonormal columns of what is held constant, see `span`.
        clusters: (row,) numbers from 0 without gaps: rows of a cluster are no independent evidence.
    """
    alone = target - held @ (held.T @ target)
    alone -= held @ (held.T @ alone)  # once more: rounding
    squares = alone @ alone
    if squares <= _UNIDENTIFIED * (target @ target):
        return "unidentified"
    basis = np.column_stack([held, alone / np.sqrt(squares)])
    if len(target) <= basis.shape[1] or clusters.max() < 1:
        return "no freedom"
    weights = alone / squares
    moves = _moves(basis, weights, clusters)
    return "one cluster" if moves is None else Design(basis, weights, moves, clusters)


def span(columns: np.ndarray) -> np.ndarray:
    """(row, rank) orthonormal columns that span the (row, column) given ones, which may repeat each other."""
    scale = np.sqrt((columns**2).sum(axis=0))
    columns = columns[:, scale > 0] / scale[scale > 0]
    if not columns.shape[1]:
        return columns
    orthogonal, triangle = np.linalg.qr(columns)
    left, values, _ = np.linalg.svd(triangle)
    return orthogonal @ left[:, : len(values)][:, values > _RANK * values.max()]


def by_group(values: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    """(group, ...) sums of (row, ...) values."""
    rows = len(values)
    membership = csr_array((np.ones(rows), (groups, np.arange(rows))), shape=(number, rows))
    return np.asarray(membership @ values.reshape(rows, -1)).reshape(number, *values.shape[1:])


def _moves(basis: np.ndarray, weights: np.ndarray, clusters: np.ndarray) -> np.ndarray | None:
    """(row,) (I - H_gg)^-1 w_g of each cluster g; None where the fit without some cluster has no such coefficient."""
    moves = np.empty_like(weights)
    scale = np.abs(weights).max()
    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters)
    starts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]  # (cluster, row)
        step = max(1, _CELLS // (int(size) * basis.shape[1]))
        for part in (rows[start : start + step] for start in range(0, len(rows), step)):
            found = _solved(basis[part], weights[part], scale)
            if found is None:
                return None
            moves[part] = found
    return moves


def _solved(basis: np.ndarray, weights: np.ndarray, scale: float) -> np.ndarray | None:
    """(cluster, row) solutions for clusters of one size; (cluster, row, rank) basis, (cluster, row) weights.

    Weights that are tiny beside `scale`, the largest of all, are rounding.
    """
    size, rank = basis.shape[1:]
    if size == 1:
        kept = 1 - (basis[:, 0] ** 2).sum(axis=1, keepdims=True)
        free = kept > _FULL_LEVERAGE
        if (np.abs(weights[~free]) > _FULL_LEVERAGE * scale).any():
            return None
        return np.where(free, weights / np.where(free, kept, 1), 0.0)
    if size <= rank:
        return _inverted(np.eye(size) - basis @ basis.swapaxes(1, 2), weights, scale)
    # w_g = Q_g v, and (I - Q_g Q_g')^-1 Q_g = Q_g (I - Q_g' Q_g)^-1: a small system however large the cluster.
    inside = basis.swapaxes(1, 2) @ basis
    whole = np.linalg.pinv(inside, hermitian=True) @ (basis.swapaxes(1, 2) @ weights[..., None])
    found = _inverted(np.eye(rank) - inside, whole[..., 0], scale)
    return None if found is None else (basis @ found[..., None])[..., 0]


def _inverted(matrices: np.ndarray, vectors: np.ndarray, scale: float) -> np.ndarray | None:
    """(cluster, row) pseudo-inverse x vector; None where a vector has a part in a null space."""
    values, directions = np.linalg.eigh(matrices)
    along = (directions.swapaxes(1, 2) @ vectors[..., None])[..., 0]
    free = values > _FULL_LEVERAGE
    if (np.abs(along[~free]) > 1e-6 * scale).any():
        return None
    return (directions @ np.where(free, along / np.where(free, values, 1), 0.0)[..., None])[..., 0]
