"""Two result tables over the same pairs: rows aligned by pair, cells within tolerances, active features in both.

The tolerances are those of docs/verify.md.
float64: every column within 1e-6; angles within 1e-4 degrees, within 1e-2 where (l1 - l2) < 1e-3 l1.
float32: |difference| <= 1e-4 (|value| + the column's median magnitude; for a diff the fact column's); angles within
0.05 degrees where (l1 - l2) > 1e-2 l1, elsewhere nothing is promised; features that flip at their threshold are at
most 0.1 % of the active ones. What a flip touches cannot be compared, so it is left out and the flip counted.
Half precision and quantised weights: nothing is promised; differences are given in multiples of float32's tolerance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import polars as pl

from bluffscope.config import READ_WHOLE, Position
from bluffscope.errors import InputError
from bluffscope.metrics import LOGPROB, METRICS, P_TRUE, declared
from bluffscope.records import VIEWS, View
from bluffscope.reference.geometry import shape_class

Precision = Literal["float64", "float32", "reduced"]
"""Whose tolerances hold; "reduced" compares by float32's, leaves nothing out for a flip, and decides nothing."""
Table = pl.DataFrame | Iterable[Mapping[str, Any]]
ReadKey = tuple[str, int, str]
"""Pair id, layer, view."""
Gaps = Mapping[ReadKey, float]
"""(l1 - l2) / l1, the smallest over the reads."""
Flips = Mapping[ReadKey, int]
"""Features that are active in one of two tables only."""

ANGLES: Final = tuple(metric.name for metric in METRICS if metric.unit == "degrees")
LOGPROBS: Final = tuple(metric.name for metric in (*LOGPROB.metrics, *P_TRUE.metrics))
"""Metrics that no feature enters, so that none that flips touches them."""
FLIPS: Final = 1e-3
"""Share of the active features that may flip."""
_NAMES: Final = (
    re.compile(r"l(?P<layer>\d+)_(?P<view>prompt|fact|hall|text)_(?P<metric>\w+)"),
    re.compile(r"(?P<metric>[\w.+-]+)_(?P<view>fact|hall|diff|text)"),
)
_OF_TEXT: Final = re.compile(r"(l\d+)_((?!prompt_)\w+|prompt_cosine)")
_FEATURE: Final = ("pair_id", "view", "layer", "feature")
EVERY_VIEW: Final[tuple[View, ...]] = (*VIEWS, "text")
_LARGEST_STEP: Final = 2 / 11
"""What one swapped feature changes at most in a Jaccard similarity of two sets of ten: 1 - 9 / 11."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the two tables, and how far apart they are there."""

    column: str
    pair: str
    got: Any
    expected: Any
    ratio: float
    """The difference over what is allowed; infinite where there is no tolerance (text, null against a value)."""

    @property
    def difference(self) -> float | None:
        """How far apart two numbers are; None where either is none."""
        if isinstance(self.got, int | float) and isinstance(self.expected, int | float):
            return abs(self.got - self.expected)
        return None

    def __str__(self) -> str:
        return (
            f"{self.column} of pair {self.pair}: {self.got!r}, expected {self.expected!r} ({self.ratio:.3g} of allowed)"
        )


@dataclass
class Comparison:
    """What a comparison of two tables found."""

    largest: dict[str, Cell] = field(default_factory=dict)
    """By metric (a column's name without layer, view and diff) the cell that comes nearest to its tolerance, or
    exceeds it by most."""
    beyond: list[Cell] = field(default_factory=list)
    """Cells that differ by more than is allowed, in the table's order."""
    compared: int = 0
    columns: int = 0
    pairs: int = 0
    left_out: int = 0
    """Cells of which nothing is promised."""
    flips: int = 0
    active: int = 0
    """Active features of all reads."""

    @property
    def worst(self) -> Cell | None:
        """The cell that comes nearest to its tolerance, or exceeds it by most."""
        return max(self.largest.values(), key=lambda cell: cell.ratio, default=None)

    @property
    def holds(self) -> bool:
        """Whether the two tables say the same."""
        return not self.beyond and self.flips <= FLIPS * self.active

    def __str__(self) -> str:
        return (
            f"worst: {self.worst}; {self.compared} cells compared, {self.left_out} left out, "
            f"{self.flips} flips of {self.active} active features"
        )


class Name(NamedTuple):
    """A column's name, taken apart."""

    metric: str
    """Without layer, view and diff; a column that has none of them is its own."""
    layer: int | None = None
    view: str = ""
    """ "prompt", "fact", "hall" or "text"; "diff" for hallucination - fact; empty for a column of no view."""

    @classmethod
    def of(cls, column: str) -> Name:
        """Take a name apart."""
        match = _NAMES[0].fullmatch(column) or _NAMES[1].fullmatch(column)
        if match is None:
            return cls(column)
        found = match.groupdict()
        return cls(found["metric"], int(found["layer"]) if "layer" in found else None, found["view"])


def with_views(table: pl.DataFrame) -> pl.DataFrame:
    """A table of labelled texts with names as those of pairs, its view "text"; a table of pairs as it is.

    `l5_gini` becomes `l5_text_gini`, `entropy` `entropy_text`, and `text_id` `pair_id`.
    """
    if "text_id" not in table.columns:
        return table
    names = {"text_id": "pair_id", "read_token": "text_read_token"}
    for name in table.columns:
        if match := _OF_TEXT.fullmatch(name):
            names[name] = f"{match[1]}_text_{match[2]}"
        elif declared(name) is not None:
            names[name] = f"{name}_text"
    return table.rename(names, strict=False)


def aligned(pair_ids: pl.DataFrame, *tables: pl.DataFrame) -> list[pl.DataFrame]:
    """Each table's rows of the pairs (or texts) in the first column, `pair_id` (or `text_id`), in its order."""
    key = pair_ids.columns[0]
    return [pair_ids.join(table, on=key, how="left", maintain_order="left") for table in tables]


def active_features(
    first: pl.DataFrame | pl.LazyFrame, other: pl.DataFrame | pl.LazyFrame, by: Sequence[str]
) -> pl.DataFrame:
    """How many features are active in each of two runs and in both.

    Args:
        first: pair_id, view, layer, feature; one row for each active feature.
        other: the same of another run.
        by: which of these columns the counts are for.

    Returns:
        One row for each value of `by`, in its order: those columns, then `first`, `other` and `both`.
    """
    key = [pl.col("pair_id", "view").cast(pl.String), "layer", "feature"]
    one, two = first.lazy().select(key), other.lazy().select(key)
    frames = {"first": one, "other": two, "both": one.join(two, on=_FEATURE, how="semi")}
    counts = [frame.group_by(by).agg(pl.len().alias(name)) for name, frame in frames.items()]
    return pl.concat(counts, how="align").collect().fill_null(0).sort(by)


def compare(
    got: Table,
    expected: Table,
    precision: Precision,
    *,
    position: Position = "last",
    draws: int = 8,
    gaps: Gaps | None = None,
    flips: Flips | None = None,
) -> Comparison:
    """Compare every column of `expected` in every pair, matched by pair id whatever the order.

    Args:
        got: a table or rows; further columns are ignored, but it must have the same pairs.
        expected: a table or rows.
        precision: whose tolerances hold.
        position: how the texts were read.
        draws: noise draws of the stability analysis.
        gaps: of use for `READ_WHOLE` only, where an elongation is a mean over reads; without them nothing is
            promised of the angles of several reads in float32.
        flips: where the active features are known, how many are active in one table only; else only their numbers
            show it, which a feature that goes and one that comes leave equal.

    Raises:
        InputError: the tables have other pairs, or `got` lacks a column.
    """
    ours, theirs = (
        table if isinstance(table, pl.DataFrame) else pl.DataFrame([*table], infer_schema_length=None)
        for table in (got, expected)
    )
    if apart := {*ours["pair_id"]} ^ {*theirs["pair_id"]}:
        raise InputError(f"the tables have other pairs: {sorted(apart)[:5]}; compare equal data")
    columns = [name for name in theirs.columns if not name.startswith("_")]
    if absent := [name for name in columns if name not in ours.columns]:
        raise InputError(f"the table has no column {absent[0]}; compare runs of equal options")
    ours, theirs = aligned(theirs.select("pair_id"), ours.select(columns), theirs.select(columns))
    return _Judge(ours, theirs, precision, position, draws, gaps, flips or {}).judge()


@dataclass
class _Judge:
    """Arrays are over the pairs unless said otherwise."""

    got: pl.DataFrame
    expected: pl.DataFrame
    precision: Precision
    position: str
    draws: int
    gaps: Gaps | None
    flips: Flips
    result: Comparison = field(default_factory=Comparison)

    def __post_init__(self) -> None:
        self.columns = self.expected.columns
        self.pairs = self.expected["pair_id"].to_list()
        self.names = {column: Name.of(column) for column in self.columns}
        self.layers = list(dict.fromkeys(name.layer for name in self.names.values() if name.layer is not None))

    def judge(self) -> Comparison:
        """Compare all cells."""
        result, flipped = self.result, self._flipped()
        ratios = np.full((len(self.pairs), len(self.columns)), np.nan)  # of the allowed; NaN where nothing is promised
        for place, column in enumerate(self.columns):
            ratios[:, place] = self._ratios(column)
            for where in flipped.keys() & self._where(column):
                ratios[flipped[where], place] = np.nan
        if self.precision == "float32":
            self._leave_out_swaps(ratios)
        result.pairs, result.columns = ratios.shape
        result.left_out = int(np.isnan(ratios).sum())
        result.compared = ratios.size - result.left_out
        result.beyond = [self._cell(row, place, ratios) for row, place in np.argwhere(ratios > 1).tolist()]
        for metric in dict.fromkeys(name.metric for name in self.names.values()):
            places = [place for place, column in enumerate(self.columns) if self.names[column].metric == metric]
            if not np.isnan(found := ratios[:, places]).all():
                row, column = np.unravel_index(np.nanargmax(found), found.shape)
                result.largest[metric] = self._cell(int(row), places[int(column)], ratios)
        return result

    def _cell(self, row: int, place: int, ratios: np.ndarray) -> Cell:
        column = self.columns[place]
        got, expected = self.got[column][row], self.expected[column][row]
        return Cell(column, self.pairs[row], got, expected, float(ratios[row, place]))

    def _reads(self, view: str) -> np.ndarray:
        """Tokens read of a view."""
        if view == "prompt" or self.position not in READ_WHOLE:
            return np.ones(len(self.pairs))
        return _numbers(self.expected[f"{view}_tokens"])

    def _flipped(self) -> dict[tuple[int, str], np.ndarray]:
        """The pairs of which nothing can be told because other features are active, by layer and view; counts those."""
        flipped: dict[tuple[int, str], np.ndarray] = {}
        for layer, view in product(self.layers, EVERY_VIEW):
            if (column := f"l{layer}_{view}_l0_norm") not in self.columns:
                continue
            got, expected = _numbers(self.got[column]), _numbers(self.expected[column])
            known, reads = ~np.isnan(got - expected), self._reads(view)
            told = np.array([self.flips.get((pair, layer, view), 0) for pair in self.pairs])
            flips = np.maximum(np.round(np.abs(expected - got) * reads), told)[known]
            self.result.active += int(np.round(expected * reads)[known].sum())
            self.result.flips += int(flips.sum())
            if self.precision == "float32":
                flipped[layer, view] = np.flatnonzero(known)[flips > 0]
        return flipped

    def _leave_out_swaps(self, ratios: np.ndarray) -> None:
        """A stability beyond its tolerance in float32 is a feature that entered or left a top ten under some noise.

        A diff may be off only because its fact or hall is.
        """
        swapped: dict[str, np.ndarray] = {}
        for place, column in enumerate(self.columns):
            metric, _, view = self.names[column]
            if not metric.startswith("stability"):
                continue
            swap = (ratios[:, place] > 1) & np.isfinite(ratios[:, place])
            if view == "diff":
                swap &= swapped.get(metric, False)
            else:
                swapped[metric] = swapped.get(metric, False) | swap
                off = np.abs(_numbers(self.got[column]) - _numbers(self.expected[column])) * self._reads(view)
                self.result.flips += int(np.ceil(off * self.draws / _LARGEST_STEP)[swap].sum())
            ratios[swap, place] = np.nan

    def _where(self, column: str) -> set[tuple[int, str]]:
        """The layers and views that a column is computed from."""
        metric, layer, view = self.names[column]
        if layer is not None:
            return {(layer, view)}
        if not view or not self.layers or metric in LOGPROBS:
            return set()
        layers = {self.layers[0]}
        if metric.startswith("cross_layer"):
            middle = self.layers[0] if len(self.layers) == 2 else self.layers[len(self.layers) // 2]
            layers = {middle, self.layers[-1]}
        views = {"fact", "hall"} if view == "diff" else {view}
        return set(product(layers, views | {"prompt"} if metric in ANGLES else views))

    def _ratios(self, column: str) -> np.ndarray:
        """Differences over what is allowed; NaN where nothing is promised."""
        got, expected = self.got[column], self.expected[column]
        if not all(series.dtype.is_numeric() or series.dtype == pl.Null for series in (got, expected)):
            same = got.cast(pl.String).eq_missing(expected.cast(pl.String)).to_numpy()
            ratios = np.where(same, 0.0, np.inf)
            if self.names[column].metric == "shape_class":
                for row in np.flatnonzero(~same & (got.is_not_null() & expected.is_not_null()).to_numpy()).tolist():
                    ratios[row] = 1.0 if got[row] in self._nearby_shapes(column, row) else math.inf
            return ratios
        allowed = self._allowed(column)
        delta = np.abs(_numbers(got) - _numbers(expected))
        ratios = np.where(np.isnan(delta), np.inf, delta / allowed)  # undefined is null, so NaN agrees with nothing
        ratios[(got.is_null() & expected.is_null()).to_numpy()] = 0.0
        return np.where(np.isnan(allowed), np.nan, ratios)

    def _allowed(self, column: str) -> np.ndarray:
        metric, _, view = self.names[column]
        magnitude = np.abs(_numbers(self.expected[column]))
        if metric in ANGLES:
            gap = self._gap(column)
            if self.precision == "float64":
                return np.where(gap < 1e-3, 1e-2, 1e-4)
            return np.where(gap > 1e-2, 0.05, np.nan)
        if self.precision == "float64":
            return np.full_like(magnitude, 1e-6)
        source = f"{metric}_fact" if view == "diff" else column
        typical = np.abs(_numbers(self.expected[source])) if source in self.columns else np.array([np.nan])
        median = 0.0 if np.isnan(typical).all() else float(np.nanmedian(typical))
        # Tokens of nearly the same probability change places with the last bit.
        return np.maximum(1e-4 * (np.nan_to_num(magnitude) + median), 1.0 if metric == "lens_rank" else 1e-12)

    def _gap(self, column: str) -> np.ndarray:
        """The smallest (l1 - l2) / l1 of the axes that an angle column depends on."""
        gaps = np.ones(len(self.pairs))
        for layer, view in self._where(column) if self.names[column].metric != "centroid_drift" else ():
            elongation, gap = f"l{layer}_{view}_elongation", np.ones(len(self.pairs))
            if elongation in self.columns:
                gap = np.nan_to_num(1 - _numbers(self.expected[elongation]) ** 2, nan=1.0)
            several = self._reads(view) != 1
            # Where several axes are averaged and not known: in float64 each is sharp wherever it is defined.
            gap[several] = 0.0 if self.gaps is None and self.precision != "float64" else 1.0
            told = self.gaps or {}
            gaps = np.minimum(
                gaps, [told.get((pair, layer, view), own) for pair, own in zip(self.pairs, gap, strict=True)]
            )
        return gaps

    def _nearby_shapes(self, column: str, row: int) -> set[str | None]:
        """The classes within the tolerance of elongation and sphericity."""
        corners: list[tuple[float, float]] = []
        for part in ("elongation", "sphericity"):
            name = column.replace("shape_class", part)
            value, width = self.expected[name][row], float(self._allowed(name)[row])
            corners.append((value - width, value + width))
        return {shape_class(*corner) for corner in product(*corners)}


def _numbers(series: pl.Series) -> np.ndarray:
    """As float64, NaN where null."""
    return series.cast(pl.Float64).to_numpy()
