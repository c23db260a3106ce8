"""The features of one layer as arrays: a cell for each feature and each pair, or text, in which it fires."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Cells:
    """Cells in the order of feature and item (a pair, or a text); an item without a cell has activation 0."""

    layer: int
    features: np.ndarray
    """(feature,) indices in the dictionary, ascending: those that fire in some text."""
    starts: np.ndarray
    """(feature + 1,) borders of each feature's cells."""
    item: np.ndarray
    """(cell,) place of the pair or text."""

    @property
    def feature_of(self) -> np.ndarray:
        """(cell,) place of its feature."""
        return np.repeat(np.arange(len(self.features)), np.diff(self.starts))

    def items_of(self, feature: int) -> np.ndarray:
        """(item,) places of the items in which the feature at a place fires."""
        return self.item[self.starts[feature] : self.starts[feature + 1]]

    def per_feature(self, values: np.ndarray) -> np.ndarray:
        """(feature,) float64 sums of (cell,) values."""
        # Differences of one running sum would lose the small sums behind large ones.
        return np.bincount(self.feature_of, values, len(self.features))


@dataclass(frozen=True)
class PairCells(Cells):
    """Of pairs: a cell has the activations in both texts."""

    in_fact: np.ndarray
    """(cell,) activation in the fact, 0 where it does not fire."""
    in_hall: np.ndarray
    """(cell,) activation in the hallucination."""

    @property
    def fact(self) -> np.ndarray:
        """(cell,) whether it fires in the fact."""
        return self.in_fact > 0

    @property
    def hall(self) -> np.ndarray:
        """(cell,) whether it fires in the hallucination."""
        return self.in_hall > 0


@dataclass(frozen=True)
class TextCells(Cells):
    """Of labelled texts."""

    activation: np.ndarray
    """(cell,) more than 0."""


def pair_cells(features: pl.LazyFrame, pair_ids: pl.Series, layer: int) -> PairCells:
    """Read one layer of a run's features for some pairs; no other layer is held in memory.

    Args:
        features: `pair_id, view, layer, feature, activation`.
        pair_ids: the pairs; their places are those of the cells.
        layer: which.
    """
    places = pl.DataFrame({"pair_id": pair_ids.cast(pl.String), "pair": np.arange(len(pair_ids), dtype=np.uint32)})
    frame = (
        features.filter(pl.col("layer") == layer, pl.col("view").is_in(["fact", "hall"]))
        .join(places.lazy(), on="pair_id", how="inner")
        .select("pair", pl.col("feature").cast(pl.UInt32), "activation", hall=pl.col("view") == "hall")
        .collect(engine="streaming")
    )
    key = frame["feature"].to_numpy().astype(np.int64) * max(1, len(pair_ids)) + frame["pair"].to_numpy()
    cells, cell = np.unique(key, return_inverse=True)
    hall, activation = frame["hall"].to_numpy(), frame["activation"].cast(pl.Float64).to_numpy()
    sides = [np.bincount(cell[side], activation[side], len(cells)) for side in (~hall, hall)]
    feature, pair = np.divmod(cells, max(1, len(pair_ids)))
    names, starts = np.unique(feature, return_index=True)
    return PairCells(layer, names, np.append(starts, len(cells)), pair, *sides)


def text_cells(features: pl.LazyFrame, ids: pl.Series, layer: int) -> TextCells:
    """Read one layer of a run's features for some labelled texts; no other layer is held in memory.

    Args:
        features: `text_id, view, layer, feature, activation`.
        ids: the texts, as text; their places are those of the cells.
        layer: which.
    """
    places = pl.DataFrame({"text_id": ids, "text": np.arange(len(ids), dtype=np.uint32)})
    frame = (
        features.filter(pl.col("layer") == layer, pl.col("view") == "text")
        .join(places.lazy(), on="text_id", how="inner")
        .select(pl.col("feature").cast(pl.UInt32), "text", "activation")
        .collect(engine="streaming")
        .sort("feature", "text")
    )
    names, starts = np.unique(frame["feature"].to_numpy(), return_index=True)
    activation = frame["activation"].cast(pl.Float64).to_numpy()
    return TextCells(
        layer, names.astype(np.int64), np.append(starts, frame.height), frame["text"].to_numpy(), activation
    )


def in_groups(cells: PairCells, groups: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of hallucination - fact by feature and group, and the borders of each feature's sums.

    Args:
        cells: a layer's.
        groups: (pair,) number of each pair's group.
        used: (pair,) whether it counts.
    """
    kept = used[cells.item]
    number = int(groups.max(initial=0)) + 1
    key = cells.feature_of[kept] * number + groups[cells.item[kept]]
    found, place = np.unique(key, return_inverse=True)
    sums = np.bincount(place, (cells.in_hall - cells.in_fact)[kept], len(found))
    return sums, np.searchsorted(found // number, np.arange(len(cells.features) + 1))
