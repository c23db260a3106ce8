"""A run's strongest effect and its detector, in words, from the few columns of its statistics that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bluffscope.detectors.classifiers import BASELINES
from bluffscope.host.parquet_limits import check_whole
from bluffscope.report.labels import clean, effect, in_words, size
from bluffscope.report.sides import LABELLED, PAIRED
from bluffscope.report.summary import POOLED
from bluffscope.report.view.folders import open_inside
from bluffscope.table.metric_pairs import not_interpretable

_EFFECTS: Final = ("metric", "scope", "adj_dz", "adj_g", "dz", "g", "q", "verdict")
_DETECTORS: Final = ("detector", "scope", "auroc", "lo", "hi")
_KINDS: Final = {
    "sae": "SAE features",
    "residual": "residuals",
    "mean_difference": "difference of means",
    "metrics": "metrics",
}
"""Detectors in words, in the order in which one stands for its run: it is fixed beforehand, not the best of them."""
_MOST: Final = 1e300


@dataclass(frozen=True)
class Effect:
    """The strongest effect over all pairs or texts."""

    metric: str
    """Its column's name."""
    words: str
    """The difference in words, with the layer."""
    value: float
    """d_z, of labelled texts Hedges' g, at equal length and wording; raw where there is no such number."""
    text: str
    """`d_z +0.85, large`."""
    verdict: str


@dataclass(frozen=True)
class Area:
    """How well a detector tells single texts apart."""

    detector: str
    auroc: float
    lo: float | None
    hi: float | None


def strongest(root: Path, parts: Sequence[str]) -> Effect | None:
    """The largest effect over all items among those that separate; where none does, among all that were judged.

    Args:
        root: a folder.
        parts: names on the way from there to a run's stats.parquet.

    Raises:
        ValueError, OSError, ArrowException: it is damaged, or unpacks to too much.
    """
    rows = _rows(root, parts, _EFFECTS)
    words = LABELLED if rows and "g" in rows[0] else PAIRED
    sizes = [(row, value) for row in rows if _judged(row) and (value := _value(row)) is not None]
    found = [(row, value) for row, value in sizes if row["verdict"] == "separates"] or sizes
    if not found:
        return None
    # The last layer's lens is the log-probability itself: of equal ones the last has the plain name.
    row, value = max(reversed(found), key=lambda one: float(f"{abs(one[1]):.9g}"))
    name = row["metric"]
    text = f"{words.symbol} {effect(value)}, {size(value)}"
    return Effect(clean(name, 80), in_words(name, value), value, text, clean(row["verdict"], 20))


def _value(row: dict[str, Any]) -> float | None:
    """The effect at equal length and wording, or the raw one."""
    for name in ("adj_dz", "adj_g", "dz", "g"):
        if (value := finite(row.get(name))) is not None:
            return value
    return None


def _judged(row: dict[str, Any]) -> bool:
    """Whether a row of the statistics is of all items and was judged; rows of earlier versions were not."""
    named = isinstance(row.get("metric"), str) and isinstance(row.get("verdict"), str)
    return named and row.get("q") is not None and not not_interpretable(row["metric"])


def detector(root: Path, parts: Sequence[str]) -> Area | None:
    """The detector over all items that stands for the run; None where only baselines were fitted.

    Args:
        root: a folder.
        parts: names on the way from there to a run's detectors.parquet.

    Raises:
        ValueError, OSError, ArrowException: it is damaged, or unpacks to too much.
    """
    fitted = {row["detector"]: row for row in _rows(root, parts, _DETECTORS) if isinstance(row.get("detector"), str)}
    areas = {name: found for name, row in fitted.items() if name not in BASELINES and (found := area(name, row))}
    return next((areas[name] for name in (*_KINDS, *areas) if name in areas), None)


def area(name: str, row: dict[str, Any]) -> Area | None:
    """A row of a detectors' table; None where it has no AUROC."""
    auroc, lo, hi = (finite(row.get(key)) for key in ("auroc", "lo", "hi"))
    return None if auroc is None else Area(_KINDS.get(name, clean(name, 40)), auroc, lo, hi)


def finite(value: object) -> float | None:
    """A number that can be shown."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _MOST else None


def _rows(root: Path, parts: Sequence[str], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows over all items, with those of the columns that the table has."""
    # Imported here: it costs 0.2 s.
    import pyarrow.parquet as pq

    with open_inside(root, parts) as opened, pq.ParquetFile(opened) as file:
        check_whole(root.joinpath(*parts), file.metadata, columns=names)
        held = set(file.schema_arrow.names)
        table = file.read([name for name in names if name in held], use_threads=False)
        columns: dict[str, list[Any]] = table.to_pydict()
    scopes = columns.pop("scope", [])
    places = [place for place, scope in enumerate(scopes) if scope == POOLED]
    return [{name: values[place] for name, values in columns.items()} for place in places]
