"""Whether two result tables say the same, within the tolerances of docs/verify.md.

float64: every column within 1e-6; angles within 1e-4 degrees, within 1e-2 where (l1 - l2) < 1e-3 l1.
float32: |difference| <= 1e-4 (|value| + the column's median magnitude; for a diff the fact column's); angles within
0.05 degrees where (l1 - l2) > 1e-2 l1, elsewhere nothing is promised; features that flip at their threshold are at
most 0.1 % of the active ones. What a flip touches cannot be compared, so it is left out and the flip counted.
Half precision and quantised weights: nothing is promised; differences are given in multiples of float32's tolerance.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import polars as pl

from bluffscope.config import Position
from bluffscope.errors import InputError
from bluffscope.metrics import LOGPROB, METRICS
from bluffscope.records import VIEWS
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
LOGPROBS: Final = tuple(metric.name for metric in LOGPROB.metrics)
"""Metrics that no feature enters, so that none that flips touches them."""
FLIPS: Final = 1e-3
"""Share of the active features that may flip."""
_LAYER_COLUMN = re.compile(r"l(\d+)_(prompt|fact|hall)_(\w+)")
_PAIR_COLUMN = re.compile(r"([\w.+-]+)_(fact|hall|diff)")
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
        gaps: of use for "completion-mean" only, where an elongation is a mean over reads; without them nothing is
            promised of the angles of several reads in float32.
        flips: where the active features are known, how many are active in one table only; else they are told by
            their numbers, which a feature that goes and one that comes leave equal.

    Raises:
        InputError: the tables have other pairs, or `got` lacks a column.
    """
    theirs = {row["pair_id"]: row for row in _rows(expected)}
    ours = {row["pair_id"]: row for row in _rows(got)}
    if ours.keys() != theirs.keys():
        raise InputError(f"the tables have other pairs: {sorted(ours.keys() ^ theirs.keys())[:5]}; compare equal data")
    judge = _Judge(theirs, precision, position, draws, gaps, flips or {})
    for pair, row in theirs.items():
        if absent := [name for name in judge.columns if name not in ours[pair]]:
            raise InputError(f"the table has no column {absent[0]}; compare runs of equal options")
        judge.pair(pair, ours[pair], row)
    return judge.result


def metric_of(column: str) -> str:
    """A column's metric: its name without layer, view and diff; other columns are their own."""
    if match := _LAYER_COLUMN.fullmatch(column):
        return match[3]
    match = _PAIR_COLUMN.fullmatch(column)
    return match[1] if match else column


def _rows(table: Table) -> Iterable[Mapping[str, Any]]:
    return table.iter_rows(named=True) if isinstance(table, pl.DataFrame) else table


@dataclass
class _Judge:
    rows: Mapping[str, Mapping[str, Any]]
    precision: Precision
    position: str
    draws: int
    gaps: Gaps | None
    flips: Flips
    result: Comparison = field(default_factory=Comparison)

    def __post_init__(self) -> None:
        self.columns = [name for name in next(iter(self.rows.values()), {}) if not name.startswith("_")]
        found = (_LAYER_COLUMN.fullmatch(name) for name in self.columns)
        self.layers = list(dict.fromkeys(int(match[1]) for match in found if match))
        self.medians = {name: self._median(name) for name in self.columns}
        self.result.pairs, self.result.columns = len(self.rows), len(self.columns)

    def _median(self, name: str) -> float:
        numbers = [abs(row[name]) for row in self.rows.values() if isinstance(row[name], int | float)]
        return statistics.median(numbers) if numbers else 0.0

    def pair(self, pair: str, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Compare one pair's row."""
        untold = self._flipped(pair, got, expected)  # (layer, view) of the flips
        swapped: set[str] = set()
        for name in self.columns:
            ratio = None if untold & self._where(name) else self._ratio(pair, name, got[name], expected)
            if self._is_swap(name, ratio, swapped):
                self._count_swaps(name, got[name], expected)
                swapped.add(name)
                ratio = None
            if ratio is None:
                self.result.left_out += 1
                continue
            self.result.compared += 1
            self._note(Cell(name, pair, got[name], expected[name], ratio))

    def _note(self, cell: Cell) -> None:
        metric = metric_of(cell.column)
        if metric not in self.result.largest or cell.ratio > self.result.largest[metric].ratio:
            self.result.largest[metric] = cell
        if cell.ratio > 1:
            self.result.beyond.append(cell)

    def _flipped(self, pair: str, got: Mapping[str, Any], expected: Mapping[str, Any]) -> set[tuple[int, str]]:
        """The (layer, view) of which nothing can be told because other features are active; counts those features."""
        flipped: set[tuple[int, str]] = set()
        for layer, view in itertools.product(self.layers, VIEWS):
            name = f"l{layer}_{view}_l0_norm"
            if expected.get(name) is None or got[name] is None:
                continue
            reads = 1 if view == "prompt" or self.position != "completion-mean" else expected[f"{view}_tokens"]
            self.result.active += round(expected[name] * reads)
            flips = max(round(abs(expected[name] - got[name]) * reads), self.flips.get((pair, layer, view), 0))
            self.result.flips += flips
            if flips and self.precision == "float32":
                flipped.add((layer, view))
        return flipped

    def _is_swap(self, name: str, ratio: float | None, swapped: set[str]) -> bool:
        """Whether a feature entered or left a top ten under some noise: a stability beyond its tolerance in float32.

        A diff may be off only because its fact or hall is.
        """
        if self.precision != "float32" or not name.startswith("stability"):
            return False
        if ratio is None or not 1 < ratio < math.inf:
            return False
        base = name.removesuffix("_diff")
        return base == name or bool(swapped & {f"{base}_fact", f"{base}_hall"})

    def _count_swaps(self, name: str, got: float, expected: Mapping[str, Any]) -> None:
        if not name.endswith("_diff"):
            reads = 1 if self.position != "completion-mean" else expected[f"{name.rpartition('_')[2]}_tokens"]
            self.result.flips += math.ceil(abs(got - expected[name]) * reads * self.draws / _LARGEST_STEP)

    def _where(self, name: str) -> set[tuple[int, str]]:
        """The layers and views that a column is computed from."""
        if match := _LAYER_COLUMN.fullmatch(name):
            return {(int(match[1]), match[2])}
        match = _PAIR_COLUMN.fullmatch(name)
        if match is None or not self.layers or name.endswith("_tokens") or match[1] in LOGPROBS:
            return set()
        layers = {self.layers[0]}
        if match[1].startswith("cross_layer"):
            middle = self.layers[0] if len(self.layers) == 2 else self.layers[len(self.layers) // 2]
            layers = {middle, self.layers[-1]}
        views = {"fact", "hall"} if match[2] == "diff" else {match[2]}
        if match[1] in ANGLES:
            views.add("prompt")
        return set(itertools.product(layers, views))

    def _ratio(self, pair: str, name: str, value: Any, expected: Mapping[str, Any]) -> float | None:
        """Difference over what is allowed; None where nothing is promised."""
        target = expected[name]
        if isinstance(target, str) and isinstance(value, str) and name.endswith("shape_class") and value != target:
            return 1.0 if value in self._nearby_shapes(name, expected) else math.inf
        allowed = self._allowed(pair, name, target, expected)
        if allowed is None:
            return None
        if not isinstance(value, int | float) or not isinstance(target, int | float):
            return 0.0 if value == target else math.inf
        if math.isnan(value) or math.isnan(target):
            return math.inf  # undefined is null
        return abs(value - target) / allowed

    def _allowed(self, pair: str, name: str, target: Any, expected: Mapping[str, Any]) -> float | None:
        if self._is_angle(name):
            gap = self._gap(pair, name, expected)
            if self.precision == "float64":
                return 1e-2 if gap < 1e-3 else 1e-4
            return 0.05 if gap > 1e-2 else None
        magnitude = abs(target) if isinstance(target, int | float) else 0.0
        if self.precision == "float64":
            return 1e-6
        source = name.removesuffix("_diff") + "_fact" if name.endswith("_diff") else name
        return max(1e-4 * (magnitude + self.medians.get(source, 0.0)), 1e-12)

    def _is_angle(self, name: str) -> bool:
        layered, paired = _LAYER_COLUMN.fullmatch(name), _PAIR_COLUMN.fullmatch(name)
        return (layered[3] if layered else paired[1] if paired else "") in ANGLES

    def _gap(self, pair: str, name: str, expected: Mapping[str, Any]) -> float:
        """The smallest (l1 - l2) / l1 of the axes that an angle column depends on."""
        if name.startswith("centroid_drift"):
            return 1.0
        gaps = [1.0]
        for layer, view in self._where(name):
            elongation = expected.get(f"l{layer}_{view}_elongation")
            single = view == "prompt" or self.position != "completion-mean" or expected[f"{view}_tokens"] == 1
            if self.gaps is not None and (pair, layer, view) in self.gaps:
                gaps.append(self.gaps[pair, layer, view])
            elif single:
                gaps.append(1.0 if elongation is None else 1 - elongation**2)
            elif self.gaps is None and self.precision != "float64":
                gaps.append(0.0)  # unknown: in float64 the axis is sharp wherever it is defined
        return min(gaps)

    def _nearby_shapes(self, name: str, expected: Mapping[str, Any]) -> set[str | None]:
        """The classes within the tolerance of elongation and sphericity."""
        corners: list[list[float]] = []
        for part in ("elongation", "sphericity"):
            of_part = name.replace("shape_class", part)
            width = self._allowed("", of_part, expected[of_part], expected) or 0.0
            corners.append([expected[of_part] - width, expected[of_part] + width])
        return {shape_class(elongation, sphericity) for elongation, sphericity in itertools.product(*corners)}
