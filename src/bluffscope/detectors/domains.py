"""What a detector does in a domain that it was not trained on, for the model card of one that is trained on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import polars as pl

MOST_DOMAINS: Final = 12
"""Of more, none is left out: each takes a fit."""


def new_domains(
    domains: pl.Series, groups: np.ndarray, judged: Callable[[np.ndarray, np.ndarray], dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row a domain: what is fitted to the others comes to in it; none for one domain or for very many.

    Args:
        domains: (text,) or (token,).
        groups: (text,) or (token,) numbers; those of the domain that is tested are left out of the fit whole.
        judged: takes the places to fit to and to test.
    """
    names = domains.unique(maintain_order=True).drop_nulls().to_list()
    if not 1 < len(names) <= MOST_DOMAINS:
        return []
    found: list[dict[str, Any]] = []
    for name in names:
        here = domains.eq_missing(name).to_numpy()
        apart = ~np.isin(groups, groups[here])
        found.append({"domain": str(name), **judged(np.flatnonzero(apart), np.flatnonzero(here))})
    return found
