"""Correction for testing many metrics: the false discovery rate of Benjamini and Hochberg (1995)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Family = Literal["scope", "all"]
"""What is corrected together: the metrics of one scope, or every metric in every scope."""


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Q values along the last axis: the smallest false discovery rate at which each test is still found.

    A NaN is no test: it stays NaN and does not count in its family.

    Args:
        p_values: (..., test).
    """
    order = np.argsort(p_values, axis=-1)  # NaN last
    ordered = np.take_along_axis(p_values, order, axis=-1)
    tests = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    raised = ordered * tests / np.arange(1, p_values.shape[-1] + 1)
    raised = np.where(np.isfinite(ordered), raised, np.inf)
    lowered = np.minimum.accumulate(raised[..., ::-1], axis=-1)[..., ::-1]
    q = np.empty_like(lowered)
    np.put_along_axis(q, order, np.minimum(lowered, 1.0), axis=-1)
    return np.where(np.isfinite(p_values), q, np.nan)


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
