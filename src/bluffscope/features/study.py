"""What a study of a run's features is, of pairs or of labelled texts, and which layers and values it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.features.ghosts import LAYER_GHOSTS
from bluffscope.features.selection import named_values

LAYER_SCHEMA: Final = pl.Schema(
    {"layer": pl.Int64, "active": pl.Int64, "tested": pl.Int64, "found": pl.Int64, **LAYER_GHOSTS}
)
"""A row a layer: features that fire at all, tested, found (q < .05), and ghosts against what label flips give."""

FEWEST_FIRED: Final = 10
"""Texts that a feature must fire in to be tested: with fewer no p value could be small. The labels play no part."""
FOUND: Final = 0.05
"""Largest q of a feature that is said to differ."""
TOP_PAIRS: Final = 3
MOST_PAIRS: Final = 50_000
"""Pairs that are looked at: with three layers of Gemma 2 2B's size they take 1.3 GB (bench/features.py)."""
MOST_VALUES: Final = 12
"""Values of the column `by` beyond which features are not tested in each."""

Family = Literal["layer", "all"]


@dataclass(frozen=True)
class FeatureStudy:
    """What the features of a run say of fact and hallucination, or of true and false texts."""

    rows: pl.DataFrame
    """`EFFECT_SCHEMA`, or `LABELLED_EFFECTS`: the tested features, layer by layer, the largest |d_z| (|g|) first."""
    ghosts: pl.DataFrame
    """`GHOST_SCHEMA` with the layer in front: features that fire in hallucinations (false texts) only, the most
    frequent first."""
    layers: pl.DataFrame
    """`LAYER_SCHEMA`."""
    about: dict[str, Any]
    """Pairs or texts, groups, family and its size, column of `differs_in`, seed, notes."""


def chosen_layers(features: pl.LazyFrame, asked: Sequence[int]) -> list[int]:
    """The layers that are looked at: those asked for, all where none is."""
    known = features.select(pl.col("layer").unique()).collect()["layer"].sort().to_list()
    for layer in asked:
        if layer not in known:
            raise InputError(f"--layer {layer}: the run has features of {', '.join(map(str, known)) or 'no layer'}")
    return list(dict.fromkeys(asked)) or known


def values_of(items: pl.DataFrame, by: str, notes: list[str]) -> dict[str, np.ndarray]:
    """(item,) whether each item has a value of the column, by the value's name; empty where it is no use."""
    of = "texts" if "text_id" in items.columns else "pairs"
    if by not in items.columns:
        raise InputError(f"--by {by}: no such column in the {of}; they have {', '.join(items.columns)}")
    texts = named_values(items[by])
    names = texts.unique(maintain_order=True).to_list()
    if len(names) > MOST_VALUES:
        notes.append(f"{by} has {len(names)} values, more than {MOST_VALUES}: features are not tested in each.")
        return {}
    return {name: texts.eq(name).to_numpy() for name in names} if len(names) > 1 else {}
