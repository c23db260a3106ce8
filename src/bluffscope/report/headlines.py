"""The rows that say most of a run, which stand in the footers of its tables: a page over many runs reads no more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from bluffscope.detectors.classifiers import BASELINES, INSIDE
from bluffscope.metrics.logprob import KNOWS
from bluffscope.report.summary import POOLED
from bluffscope.table.folder import plain
from bluffscope.table.metric_pairs import not_interpretable

MARK: Final = "headlines"
"""The footer's key."""
MOST: Final = 64 * 1024
"""Bytes of its value."""
EFFECTS: Final = ("metric", "scope", "adj_dz", "adj_g", "dz", "g", "q", "verdict")
DETECTORS: Final = ("detector", "scope", "auroc", "lo", "hi")
SCOPES: Final = (POOLED, *(f"{name}={value}" for name in (KNOWS, "known") for value in ("true", "false")))
"""All items, and those that a model knows and does not know."""
_MOST_VALUE: Final = 1e300

Row = Mapping[str, Any]


def strongest(rows: Sequence[Row]) -> Row | None:
    """The row of the largest effect among those that separate; where none does, among all that were judged."""
    sizes = [(row, abs(value)) for row in rows if _judged(row) and (value := effect_of(row)) is not None]
    found = [(row, value) for row, value in sizes if row["verdict"] == "separates"] or sizes
    # The last layer's lens is the log-probability itself: of equal ones the last has the plain name.
    return max(reversed(found), key=lambda one: float(f"{one[1]:.9g}"))[0] if found else None


def effect_of(row: Row) -> float | None:
    """The effect at equal length and wording, or the raw one."""
    values = (finite(row.get(name)) for name in ("adj_dz", "adj_g", "dz", "g"))
    return next((value for value in values if value is not None), None)


def detector_of(rows: Sequence[Row]) -> Row | None:
    """The row of the detector that stands for a run; None where only baselines were fitted."""
    named = {row["detector"]: row for row in rows if isinstance(row.get("detector"), str)}
    fitted = {
        name: row for name, row in named.items() if name not in BASELINES and finite(row.get("auroc")) is not None
    }
    return next((fitted[name] for name in (*INSIDE, *fitted) if name in fitted), None)


def finite(value: object) -> float | None:
    """A number that can be shown."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _MOST_VALUE else None


def headlines(table: pl.DataFrame) -> dict[str, str]:
    """The mark of stats.parquet, or of detectors.parquet: the row that says most of each of `SCOPES`."""
    names, told = (DETECTORS, detector_of) if "detector" in table.columns else (EFFECTS, strongest)
    table = table.select(name for name in names if name in table.columns)
    rows = [told(table.filter(scope=scope).to_dicts()) for scope in SCOPES]
    return {MARK: json.dumps(plain([row for row in rows if row is not None]))}


def _judged(row: Row) -> bool:
    """Whether a row of the statistics was judged; rows of earlier versions were not."""
    named = isinstance(row.get("metric"), str) and isinstance(row.get("verdict"), str)
    return named and row.get("q") is not None and not not_interpretable(row["metric"])
