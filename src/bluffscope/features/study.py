"""A study of a run's features, of pairs or of labelled texts: what both have in common, one layer at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.features.cells import Cells
from bluffscope.features.ghosts import GHOST_FIRES, GHOST_SCHEMA, LAYER_GHOSTS, ghosts_of
from bluffscope.features.selection import named_values
from bluffscope.stats.multiplicity import benjamini_hochberg, by_family

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
Of = TypeVar("Of", bound=Cells)


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


@dataclass(frozen=True)
class Items(ABC, Generic[Of]):
    """The pairs or labelled texts that are looked at, and how the features of their two sides are compared."""

    ids: pl.Series
    groups: np.ndarray
    """(item,) numbers from 0."""
    seed: int

    schema: ClassVar[pl.Schema]
    """Of `FeatureStudy.rows`."""
    effect: ClassVar[str]
    """Column of the difference in standard deviations."""
    sides: ClassVar[tuple[str, str]]
    """What the columns of both sides end with."""
    top: ClassVar[tuple[str, str]]
    """Columns of the items that show a feature best, and of their numbers."""

    @abstractmethod
    def cells(self, layer: int) -> Of:
        """A layer's."""

    @abstractmethod
    def numbers(self, cells: Of) -> dict[str, np.ndarray]:
        """(feature,) columns of the schema."""

    @abstractmethod
    def p_values(self, cells: Of, chosen: np.ndarray, used: np.ndarray) -> np.ndarray:
        """(chosen,) p of some features over the (item,) items used. A feature's p depends on no other feature."""

    @abstractmethod
    def shown(self, cells: Of, higher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(cell,) how well each shows its feature, at all if above 0, and the number to be said of it.

        Args:
            cells: a layer's.
            higher: (cell,) whether its feature is the stronger one in hallucinations.
        """

    @abstractmethod
    def ghost_summary(self, cells: Of) -> dict[str, Any]:
        """`LAYER_GHOSTS`."""

    def study(
        self,
        layers: Sequence[int],
        by: tuple[str, Mapping[str, np.ndarray]],
        family: Family,
        about: Mapping[str, Any],
        notes: list[str],
    ) -> FeatureStudy:
        """Test every feature of some layers that fires often enough.

        Args:
            layers: which.
            by: a column, and what `values_of` gives for it.
            family: what is corrected together.
            about: what begins the study's own.
            notes: what ends it.
        """
        parts = [_Layer.of(self, layer) for layer in layers]
        q_values = by_family([part.p for part in parts], "scope" if family == "layer" else "all")
        rows = [pl.DataFrame(schema=self.schema)]
        ghosts = [pl.DataFrame(schema={"layer": pl.Int64, **GHOST_SCHEMA})]
        summaries: list[dict[str, Any]] = []
        for part, q in zip(parts, q_values, strict=True):
            layer, fires = part.cells.layer, part.numbers[f"fires_{self.sides[1]}"]
            found = ghosts_of(part.cells, part.ghost, fires, self.groups)
            ghosts.append(found.select(pl.lit(layer, pl.Int64).alias("layer"), pl.all()))
            rows.append(part.table(q, by[1]))
            numbers = {"active": len(part.cells.features), "tested": len(part.p), "found": int((q < FOUND).sum())}
            summaries.append({"layer": layer, **numbers, **self.ghost_summary(part.cells)})
        tests = {part.cells.layer: len(part.p) for part in parts}
        about = {
            **about,
            "family": family,
            "tests": tests if family == "layer" else sum(tests.values()),
            "fewest_fired": FEWEST_FIRED,
            "by": by[0] if by[1] else None,
            "values": list(by[1]),
            "seed": self.seed,
            "notes": notes,
        }
        return FeatureStudy(pl.concat(rows), pl.concat(ghosts), pl.DataFrame(summaries, schema=LAYER_SCHEMA), about)


@dataclass(frozen=True)
class _Layer(Generic[Of]):
    """A layer's cells, and the tests of its features."""

    items: Items[Of]
    cells: Of
    numbers: dict[str, np.ndarray]
    """(feature,) columns of the schema."""
    ghost: np.ndarray
    """(feature,)"""
    tested: np.ndarray
    """(test,) places among the features."""
    p: np.ndarray
    """(test,)"""

    @classmethod
    def of(cls, items: Items[Of], layer: int) -> _Layer[Of]:
        cells = items.cells(layer)
        numbers = items.numbers(cells)
        first, second = (numbers[f"fires_{side}"] for side in items.sides)
        tested = np.flatnonzero(first + second >= FEWEST_FIRED)
        p = items.p_values(cells, tested, np.ones(len(items.ids), dtype=bool))
        return cls(items, cells, numbers, (first == 0) & (second >= GHOST_FIRES), tested, p)

    def table(self, q: np.ndarray, values: Mapping[str, np.ndarray]) -> pl.DataFrame:
        """The schema's rows."""
        items, number = self.items, len(self.tested)
        columns = {
            "layer": np.full(number, self.cells.layer),
            "feature": self.cells.features[self.tested],
            "n": np.full(number, len(items.ids)),
            **{name: column[self.tested] for name, column in self.numbers.items()},
            "p": self.p,
            "q": q,
            "ghost": self.ghost[self.tested],
            "differs_in": pl.Series(self._differs_in(q < FOUND, values), dtype=pl.List(pl.String)),
            **self._top(),
        }
        frame = pl.DataFrame(columns).with_columns(pl.col(items.effect).fill_nan(None))
        frame = frame.select(pl.col(name).cast(kind) for name, kind in items.schema.items())
        return frame.sort(pl.col(items.effect).abs(), "feature", descending=[True, False], nulls_last=True)

    def _differs_in(self, found: np.ndarray, values: Mapping[str, np.ndarray]) -> list[list[str] | None]:
        """For each feature found the values in which it differs too, corrected over these tests of the layer."""
        listed: list[list[str] | None] = [None] * len(self.tested)
        if not values or not found.any():
            return listed
        chosen = self.tested[found]
        p = [self.items.p_values(self.cells, chosen, used) for used in values.values()]
        q = benjamini_hochberg(np.stack(p, axis=1).ravel()).reshape(len(chosen), len(p))
        for row, significant in zip(np.flatnonzero(found).tolist(), q < FOUND, strict=True):
            listed[row] = [name for name, there in zip(values, significant, strict=True) if there]
        return listed

    def _top(self) -> dict[str, pl.Series]:
        """The items that show each tested feature best, and their numbers."""
        cells, feature = self.cells, self.cells.feature_of
        strength, shown = self.items.shown(cells, (self.numbers["mean_diff"] >= 0)[feature])
        order = np.lexsort((-strength, feature))
        rank = np.arange(len(order)) - np.repeat(cells.starts[:-1], np.diff(cells.starts))
        order = order[(rank < TOP_PAIRS) & (strength[order] > 0)]
        named = (self.items.ids.cast(pl.String).gather(cells.item[order]), shown[order])
        top = dict(zip(self.items.top, named, strict=True))
        frame = pl.DataFrame({"place": feature[order], **top}).group_by("place", maintain_order=True).agg(*top)
        listed = pl.DataFrame({"place": self.tested}).join(frame, on="place", how="left", maintain_order="left")
        return {name: listed[name] for name in top}


def standardised(mean: np.ndarray, squares: np.ndarray, freedom: int) -> np.ndarray:
    """(feature,) means in standard deviations; NaN where there is no spread.

    Args:
        mean: (feature,).
        squares: (feature,) sums of squared deviations.
        freedom: degrees of freedom that they have.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(np.maximum(squares, 0) / freedom)
        # Rounding leaves a spread where there is none.
        return np.where(sd > 1e-7 * np.abs(mean), mean / sd, np.nan)
