"""Correction for testing many metrics: the false discovery rate of Benjamini and Hochberg (1995)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import false_discovery_control

Family = Literal["scope", "all"]
"""What is corrected together: the metrics of one scope, or every metric in every scope."""


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Q values along the last axis: the smallest false discovery rate at which each test is still found.

    A NaN is no test: it stays NaN and does not count in its family.

    Args:
        p_values: (..., test).
    """
    rows = p_values.reshape(-1, max(1, p_values.shape[-1]))
    q = np.full(rows.shape, np.nan)
    for tested in np.unique(there := np.isfinite(rows), axis=0):  # SciPy knows no NaN
        family = np.ix_((there == tested).all(axis=1), tested)
        if tested.any():
            q[family] = false_discovery_control(rows[family], axis=-1)
    return q.reshape(p_values.shape)


def by_family(p_values: Sequence[np.ndarray], family: Family) -> list[np.ndarray]:
    """Q values of the metrics of each scope, corrected within a scope or over all of them.

    Args:
        p_values: one (..., metric) array a scope.
        family: what is corrected together.
    """
    if family == "scope" or not p_values:
        return [benjamini_hochberg(scope) for scope in p_values]
    borders = np.cumsum([scope.shape[-1] for scope in p_values])[:-1]
    return np.split(benjamini_hochberg(np.concatenate(p_values, axis=-1)), borders, axis=-1)
