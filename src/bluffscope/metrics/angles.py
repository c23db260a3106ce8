"""Angles and cosines between vectors, read by read. Imports no torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def angle(left: Float[np.ndarray, "*n d"], right: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
    """Angle in degrees, 0 to 180, between vectors; NaN with a zero or undefined vector.

    2 atan2(|u - v|, |u + v|) of the unit vectors (Kahan) stays exact near 0 and 180, where the arccos
    of a rounded cosine does not.
    """
    u, v = _unit(left), _unit(right)
    return np.degrees(2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)))


def line_angle(left: Float[np.ndarray, "*n d"], right: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
    """Angle in degrees, 0 to 90, between the lines of two vectors: their signs do not matter."""
    u, v = _unit(left), _unit(right)
    apart, together = np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)
    return np.degrees(2 * np.arctan2(np.minimum(apart, together), np.maximum(apart, together)))


def cosine(left: Float[np.ndarray, "*n d"], right: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
    """Cosine, -1 to 1; NaN with a zero vector."""
    return np.clip((_unit(left) * _unit(right)).sum(-1), -1, 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.full_like(vectors, np.nan), where=norms > 0)
