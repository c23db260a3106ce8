"""What length alone may do to a metric: a smooth function of each text's length, as flexible as the data allow.

A natural cubic spline and the logarithm: the spline alone bends too little where texts are shortest, which is where
effects such as 1 / L are largest.
"""

from __future__ import annotations

from typing import Final

import numpy as np

FLEXIBILITY: Final = ((500, 8), (100, 4), (40, 2), (0, 1))
"""From so many pairs on, so many degrees of freedom; fewer where lengths take few values."""
OWN_FUNCTION: Final = 100
"""Pairs from which a domain has a function of its own."""
_OUTER_KNOT: Final = {4: 0.05, 8: 0.025}
"""Quantile of the first knot; the others follow at equal distances (Harrell 2015, section 2.4.6)."""


def length_columns(lengths: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """(pair, column) s(L_hall) - s(L_fact) for every basis function s; all zero where the two are equally long.

    Domains of at least `OWN_FUNCTION` pairs have functions of their own, all others share theirs.

    Args:
        lengths: (pair, 2) of fact and hallucination, finite.
        domains: (pair,) numbers from 0.
    """
    basis = length_basis(lengths, domains)
    return basis[:, 1] - basis[:, 0]


def length_basis(lengths: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """(row, ..., column) the basis functions at (row, ...) lengths; domains are (row,)."""
    own = np.bincount(domains) >= OWN_FUNCTION
    parts = [domains == domain for domain in np.flatnonzero(own)] + [~own[domains]]
    columns = [(rows, _functions(lengths[rows])) for rows in parts if rows.any()]
    found = np.zeros((*lengths.shape, sum(values.shape[-1] for _, values in columns)))
    start = 0
    for rows, values in columns:
        found[rows, ..., start : start + values.shape[-1]] = values
        start += values.shape[-1]
    return found


def _functions(lengths: np.ndarray) -> np.ndarray:
    """(row, ..., function) of these lengths alone."""
    number = next(degrees for pairs, degrees in FLEXIBILITY if len(lengths) >= pairs)
    if number == 1:
        return lengths[..., None]
    logarithm = np.log(lengths if lengths.min() > 0 else lengths - lengths.min() + 1)[..., None]
    if number == 2:
        return np.concatenate([lengths[..., None], logarithm], axis=-1)
    outer = _OUTER_KNOT[number]
    knots = np.unique(np.quantile(lengths, np.linspace(outer, 1 - outer, number)))
    return np.concatenate([natural_spline(lengths, knots), logarithm], axis=-1)


def natural_spline(lengths: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """(..., max(1, knot - 1)) natural cubic spline: straight beyond the outer knots (Harrell 2015, section 2.4.5).

    Args:
        lengths: (...) at any lengths.
        knots: (knot,) ascending.
    """
    if len(knots) < 3:
        return lengths[..., None]
    x, at = ((values - knots[0]) / (knots[-1] - knots[0]) for values in (lengths, knots))
    cubes = np.maximum(x[..., None] - at, 0) ** 3  # (..., knot)
    slopes = (cubes[..., :-1] - cubes[..., -1:]) / (at[-1] - at[:-1])
    return np.concatenate([x[..., None], slopes[..., :-1] - slopes[..., -1:]], axis=-1)
