"""A run's strongest effect and its detector, in words, from the few columns of its statistics that say so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from bluffscope.detectors.classifiers import BASELINES
from bluffscope.metrics import declared
from bluffscope.report.labels import clean, effect
from bluffscope.report.sides import sided_statistics, words_of_statistics
from bluffscope.stats.scopes import POOLED
from bluffscope.table.metric_pairs import interpretable
from bluffscope.table.reader import check_parquet

_EFFECTS: Final = ("metric", "scope", "n_true", "dz", "g", "q", "verdict")
_DETECTORS: Final = ("detector", "scope", "auroc", "lo", "hi")
_KINDS: Final = {
    "sae": "SAE features",
    "residual": "residuals",
    "mean_difference": "difference of means",
    "metrics": "metrics",
}
"""Detectors in words, in the order in which one stands for its run: it is fixed beforehand, not the best of them."""
_MOST: Final = 1e300
_SIZES: Final = ((0.2, "negligible"), (0.5, "small"), (0.8, "medium"), (math.inf, "large"))
"""Cohen's words for a standardised difference below each bound."""


@dataclass(frozen=True)
class Effect:
    """The strongest effect over all pairs or texts."""

    metric: str
    """In words, with the layer."""
    column: str
    """The metric's name."""
    value: float
    """d_z, or Hedges' g of labelled texts."""
    symbol: str
    said: str
    """`d_z +0.85, large`."""
    direction: str
    verdict: str


@dataclass(frozen=True)
class Area:
    """How well a detector tells single texts apart."""

    detector: str
    auroc: float
    lo: float | None
    hi: float | None


def strongest(path: Path) -> Effect | None:
    """The largest effect over all items among those that separate; where none does, among all that were judged.

    Args:
        path: a run's stats.parquet.

    Raises:
        InputError: it is damaged, as errors of polars say too.
    """
    rows = _columns(path, _EFFECTS)
    if not {"metric", "scope", "q", "verdict"} <= set(rows.columns) or not {"dz", "g"} & set(rows.columns):
        return None  # of an earlier version
    words, rows = words_of_statistics(rows), sided_statistics(rows)
    judged = rows.filter(interpretable(), pl.col("dz").is_finite(), scope=POOLED).drop_nulls(["q", "verdict"])
    found = judged.filter(verdict="separates")
    ranked = (judged if found.is_empty() else found).sort(pl.col("dz").abs(), descending=True, maintain_order=True)
    if ranked.is_empty():
        return None
    row = ranked.row(0, named=True)
    value = float(row["dz"])
    size = next(name for bound, name in _SIZES if abs(value) < bound)
    where = f"{'higher' if value > 0 else 'lower'} in {words.halls}"
    said = f"{words.symbol} {effect(value)}, {size}"
    name = str(row["metric"])
    return Effect(in_words(name), clean(name, 80), value, words.symbol, said, where, clean(str(row["verdict"]), 20))


def detector(path: Path) -> Area | None:
    """The detector over all items that stands for the run; None where only baselines were fitted.

    Args:
        path: a run's detectors.parquet.

    Raises:
        InputError: it is damaged, as errors of polars say too.
    """
    rows = _columns(path, _DETECTORS)
    if len(rows.columns) < len(_DETECTORS):
        return None
    fitted = {str(row["detector"]): row for row in rows.filter(scope=POOLED).to_dicts() if finite(row["auroc"])}
    return next((area(name, fitted[name]) for name in (*_KINDS, *fitted) if name in fitted.keys() - BASELINES), None)


def area(name: str, row: dict[str, Any]) -> Area | None:
    """A row of a detectors' table; None where it has no AUROC."""
    auroc, lo, hi = (finite(row.get(key)) for key in ("auroc", "lo", "hi"))
    return None if auroc is None else Area(_KINDS.get(name, clean(name, 40)), auroc, lo, hi)


def in_words(metric: str) -> str:
    """`Entropy`, `Sphericity of the active features, layer 5`."""
    layer, _, name = metric.partition("_")
    in_layer = bool(name) and layer[:1] == "l" and layer[1:].isdecimal()
    known = declared(name if in_layer else metric)
    said = clean((known.metric.label if known else "") or (name if in_layer else metric), 60)
    return f"{said}, layer {clean(layer[1:], 4)}" if in_layer else said


def finite(value: object) -> float | None:
    """A number that can be shown."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _MOST else None


def _columns(path: Path, names: tuple[str, ...]) -> pl.DataFrame:
    check_parquet(path)
    kinds = pl.read_parquet_schema(path)
    there = [name for name in names if name in kinds]
    return pl.read_parquet(path, columns=there, glob=False, hive_partitioning=False)
