"""Ghost features: those that fire in hallucinations and in no fact, and how many of them label flips alone give."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.features.cells import Cells, PairCells

GHOST_FIRES: Final = 5
"""Hallucinations that a ghost fires in: a feature that fires in one text alone must fire on one side only."""
FLIPS: Final = 1000
_CELLS: Final = 4_000_000
"""Candidates and groups x flips that are held at once."""

GHOST_SCHEMA: Final = {"feature": pl.Int64, "fires": pl.Int64, "groups": pl.Int64}
"""Index in the dictionary, hallucinations that it fires in, groups that they are of."""
LAYER_GHOSTS: Final = {
    "ghosts": pl.Int64,
    "only_in_facts": pl.Int64,
    "ghosts_expected": pl.Float64,
    "ghosts_high": pl.Int64,
    "ghosts_p": pl.Float64,
}
"""Ghosts of a layer, their mirror image, the mean and the 97.5th percentile of their number when the labels of whole
groups are flipped at random, and the share of flips with at least as many."""


def ghosts_of(cells: Cells, ghost: np.ndarray, fires: np.ndarray, groups: np.ndarray) -> pl.DataFrame:
    """`GHOST_SCHEMA`, the most frequent first.

    Args:
        cells: a layer's.
        ghost: (feature,) whether it is one.
        fires: (feature,) hallucinations that it fires in.
        groups: (item,) number of each item's group.
    """
    ghosts = np.flatnonzero(ghost).tolist()
    numbers = [len(np.unique(groups[cells.items_of(place)])) for place in ghosts]
    columns = {"feature": cells.features[ghosts], "fires": fires[ghosts], "groups": numbers}
    frame = pl.DataFrame(columns, schema=GHOST_SCHEMA, strict=False)
    return frame.sort("fires", "feature", descending=[True, False])


def ghost_summary(cells: PairCells, groups: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """`LAYER_GHOSTS`: the ghosts of a layer, and what their number would be if the labels meant nothing.

    A feature can be a ghost under some flip only if it never fires on both sides of a pair, nor on different sides
    within a group; under a fair flip of each of its g groups it is one with probability 2^-g. That gives the mean; the
    flips, which all features share, give the spread.
    """
    sides = _orientations(cells, groups)
    total = np.diff(sides.indptr).astype(np.float32)  # groups of each candidate
    aligned = np.asarray(sides.sum(axis=1)).ravel()
    ghosts, mirrored = int((aligned == total).sum()), int((aligned == -total).sum())
    counts: list[np.ndarray] = []
    step = max(1, min(FLIPS, _CELLS // max(1, sum(sides.shape))))
    for start in range(0, FLIPS, step):
        flips = rng.integers(0, 2, (sides.shape[1], min(step, FLIPS - start)), dtype=np.int8)
        sums = sides @ (1 - 2 * flips).astype(np.float32)  # (candidate, flip)
        counts.append((sums == total[:, None]).sum(axis=0))
    drawn = np.concatenate(counts)
    return {
        "ghosts": ghosts,
        "only_in_facts": mirrored,
        "ghosts_expected": float((0.5**total).sum()),
        "ghosts_high": int(np.quantile(drawn, 0.975, method="higher")),
        "ghosts_p": float((1 + (drawn >= ghosts).sum()) / (1 + FLIPS)),
    }


def _orientations(cells: PairCells, groups: np.ndarray) -> Any:
    """CSR (candidate, group): 1 where a feature that some flip makes a ghost fires in hallucinations, -1 in facts."""
    from scipy.sparse import csr_matrix  # a tenth of a second that not every reader of statistics needs

    number = int(groups.max(initial=0)) + 1
    key = cells.feature_of * number + groups[cells.item]
    found, place = np.unique(key, return_inverse=True)
    fact, hall = (np.bincount(place, side, len(found)) for side in (cells.fact, cells.hall))
    feature = found // number
    both = np.bincount(feature[(fact > 0) & (hall > 0)], minlength=len(cells.features)) > 0
    fires = cells.per_feature(cells.fact) + cells.per_feature(cells.hall)
    kept = (~both & (fires >= GHOST_FIRES))[feature]
    names, row = np.unique(feature[kept], return_inverse=True)
    side = np.where(hall[kept] > 0, 1, -1).astype(np.float32)
    return csr_matrix((side, (row, (found % number)[kept])), shape=(len(names), number))
