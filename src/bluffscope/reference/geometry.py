"""The mathematics of the reference: docs/definitions.md, written line by line, in float64, one read at a time.

Nothing here is clever: the d x d matrix is formed and decomposed as the definition says. The fast engine
(`bluffscope.metrics`) is tested against it and shares no code with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

TOP_STABLE = 10
"""Most active features compared by the stability analysis."""
TOP_ENTROPY = 50
"""Largest magnitudes that the entropy analysis looks at."""
ZERO_SPREAD = 1e-24
"""l1 counts as zero at or below this fraction of sum_i w_i ||r_i||^2: the square of 1e-12 of a direction's length."""
AXIS_GAP = 1e-6
"""The principal axis is undefined where (l1 - l2) < AXIS_GAP * l1."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Weighted inertia of the active decoder directions at one read; None is undefined."""

    centroid: Float[np.ndarray, " d_model"] | None
    """c, the weighted mean of the active decoder rows; None without an active feature."""
    axis: Float[np.ndarray, " d_model"] | None
    """Unit eigenvector of the largest eigenvalue (its sign means nothing)."""
    sphericity: float | None = None
    """sqrt(l3 / l1), in [0, 1]; None below four active features (or in fewer than three dimensions)."""
    elongation: float | None = None
    """sqrt(l2 / l1), in [0, 1]; None below three active features (or in fewer than two dimensions)."""
    dimensionality: float | None = None
    """(sum l)^2 / sum l^2, in [1, min(n - 1, d)]."""
    eigenvalue_entropy: float | None = None
    """-sum p ln p of p = l / sum l, in nats, at least 0."""
    misalignment_angle: float | None = None
    """Degrees in [0, 90] between the line of the axis and the centroid."""


def geometry(magnitudes: Float[np.ndarray, " active"], directions: Float[np.ndarray, "active d_model"]) -> Geometry:
    """Geometry of n active features by one eigendecomposition of the d x d matrix C (docs/definitions.md).

    Negative eigenvalues, which only rounding makes, count as 0. l1 counts as 0 when it is at most `ZERO_SPREAD` times
    sum_i w_i ||r_i||^2; then, and for n < 2, only the centroid is defined.

    Args:
        magnitudes: The active feature values a_i > 0, float64.
        directions: Their decoder rows r_i, float64, in the same order.
    """
    n, d = directions.shape
    c = centroid(magnitudes, directions)
    if c is None or n < 2:
        return Geometry(centroid=c, axis=None)

    w = magnitudes / magnitudes.sum()
    centred = directions - c
    inertia = (centred.T * w) @ centred
    ascending, vectors = np.linalg.eigh(inertia)
    eigenvalues = np.maximum(ascending[::-1], 0.0)
    l1 = float(eigenvalues[0])
    l2 = float(eigenvalues[1]) if d > 1 else 0.0
    if l1 <= ZERO_SPREAD * float(w @ np.square(directions).sum(axis=1)):
        return Geometry(centroid=c, axis=None)

    axis = None if l1 - l2 < AXIS_GAP * l1 else vectors[:, -1]
    p = eigenvalues / eigenvalues.sum()
    positive = p[p > 0]
    return Geometry(
        centroid=c,
        axis=axis,
        sphericity=math.sqrt(float(eigenvalues[2]) / l1) if n >= 4 and d > 2 else None,
        elongation=math.sqrt(l2 / l1) if n >= 3 and d > 1 else None,
        dimensionality=float(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()),
        eigenvalue_entropy=max(0.0, -float((positive * np.log(positive)).sum())),
        misalignment_angle=None if axis is None else line_angle(axis, c),
    )


def centroid(
    magnitudes: Float[np.ndarray, " active"], directions: Float[np.ndarray, "active d_model"]
) -> Float[np.ndarray, " d_model"] | None:
    """Mean c = sum_i w_i r_i of the active decoder rows, weighted by the magnitudes; None for n = 0."""
    return magnitudes / magnitudes.sum() @ directions if len(magnitudes) else None


def shape_class(elongation: float | None, sphericity: float | None) -> str | None:
    """Name of a shape from (mean) elongation and sphericity; None unless both are defined.

    The first that holds: Spherical (both > 0.9), Oblate (elongation > 0.8, sphericity < 0.6), Prolate (both < 0.6),
    else Triaxial.
    """
    if elongation is None or sphericity is None:
        return None
    if elongation > 0.9 and sphericity > 0.9:
        return "Spherical"
    if elongation > 0.8 and sphericity < 0.6:
        return "Oblate"
    if elongation < 0.6 and sphericity < 0.6:
        return "Prolate"
    return "Triaxial"


Vector = Float[np.ndarray, " dim"] | None
"""A vector of any length, or one that is undefined."""


def _unit(vector: Vector) -> Vector:
    """The vector over its length; None where it is undefined or its norm exactly 0."""
    if vector is None:
        return None
    norm = float(np.linalg.norm(vector))
    return None if norm == 0 else vector / norm


def angle(first: Vector, second: Vector) -> float | None:
    """Degrees in [0, 180] between two vectors by Kahan's 2 atan2(|u - v|, |u + v|), exact near 0 and near 180.

    None where either vector is undefined or zero.
    """
    u, v = _unit(first), _unit(second)
    if u is None or v is None:
        return None
    return math.degrees(2 * math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v))))


def line_angle(first: Vector, second: Vector) -> float | None:
    """Degrees in [0, 90] between the lines of two vectors; None where either is undefined or zero."""
    there = angle(first, second)
    back = angle(first, None if second is None else -second)
    return None if there is None or back is None else min(there, back)


def cosine(first: Vector, second: Vector) -> float | None:
    """Cosine in [-1, 1] of two vectors of one length; None where either is undefined or zero."""
    u, v = _unit(first), _unit(second)
    return None if u is None or v is None else min(1.0, max(-1.0, float(u @ v)))


def gini(magnitudes: Float[np.ndarray, " active"]) -> float | None:
    """Gini coefficient of the active magnitudes, in [0, 1 - 1/n]: 0 where all are equal; None for n = 0."""
    n = len(magnitudes)
    if n == 0:
        return None
    ascending = np.sort(magnitudes)
    ranks = np.arange(1, n + 1)
    return float(2 * (ranks * ascending).sum() / (n * ascending.sum()) - (n + 1) / n)


def magnitude_entropy(magnitudes: Float[np.ndarray, " active"]) -> float | None:
    """Entropy in nats, in [0, ln 50], of the 50 largest magnitudes, normalised over those 50; None for n = 0."""
    if len(magnitudes) == 0:
        return None
    largest = np.sort(magnitudes)[::-1][:TOP_ENTROPY]
    p = largest / largest.sum()
    p = p[p > 0]  # a magnitude can underflow to p = 0, whose p ln p is 0
    return max(0.0, -float((p * np.log(p)).sum()))


def top_features(features: Float[np.ndarray, " d_sae"]) -> frozenset[int]:
    """Indices of the (at most) 10 largest active features; of equal ones the lower index goes first."""
    active = [int(i) for i in np.flatnonzero(features > 0)]
    return frozenset(sorted(active, key=lambda i: (-features[i], i))[:TOP_STABLE])


def jaccard(first: frozenset[int], second: frozenset[int]) -> float | None:
    """|intersection| / |union|, in [0, 1]; None where either set is empty."""
    return len(first & second) / len(first | second) if first and second else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean over the reads (or noise draws) where the value is defined; None if there is none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def layer_metrics(
    x: Float[np.ndarray, "read d_model"],
    y: Float[np.ndarray, "read d_model"],
    a: Float[np.ndarray, "read d_sae"],
    shapes: Sequence[Geometry],
) -> dict[str, float | str | None]:
    """The metrics of analysis 1 for one layer of one text, each averaged over the reads where it is defined.

    shape_class is that of the mean elongation and the mean sphericity.

    Args:
        x: Residuals as given to the SAE, float64.
        y: Their reconstructions.
        a: Their features.
        shapes: Geometry of each read.
    """
    squared_error = [float(e) for e in np.square(x - y).sum(axis=1)]
    squared_norm = [float(s) for s in np.square(x).sum(axis=1)]
    sphericity = mean(g.sphericity for g in shapes)
    elongation = mean(g.elongation for g in shapes)
    return {
        "l0_norm": mean(float((of_read > 0).sum()) for of_read in a),
        "reconstruction_error": mean(math.sqrt(e) for e in squared_error),
        "relative_error": mean(e / s if s > 0 else None for e, s in zip(squared_error, squared_norm, strict=True)),
        "gini": mean(gini(of_read[of_read > 0]) for of_read in a),
        "sphericity": sphericity,
        "elongation": elongation,
        "dimensionality": mean(g.dimensionality for g in shapes),
        "eigenvalue_entropy": mean(g.eigenvalue_entropy for g in shapes),
        "misalignment_angle": mean(g.misalignment_angle for g in shapes),
        "shape_class": shape_class(elongation, sphericity),
    }
