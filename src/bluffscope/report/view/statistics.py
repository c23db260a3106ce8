"""A run's strongest effect and its detector, in words, from the few columns of its statistics that say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from bluffscope.detectors.classifiers import BASELINES, INSIDE, called
from bluffscope.host.parquet_limits import check_whole
from bluffscope.report.knowledge import knowledge, known_scopes, knows
from bluffscope.report.labels import clean, effect, in_words, size
from bluffscope.report.sides import LABELLED, PAIRED
from bluffscope.report.summary import POOLED
from bluffscope.report.view.folders import open_inside
from bluffscope.table.metric_pairs import not_interpretable

_EFFECTS: Final = ("metric", "scope", "adj_dz", "adj_g", "dz", "g", "q", "verdict")
_DETECTORS: Final = ("detector", "scope", "auroc", "lo", "hi")
_CROSSINGS: Final = ("detector", "train", "test", "auroc", "lo", "hi", "verdict")
_MOST: Final = 1e300
_LONG: Final = 200

Found = TypeVar("Found")


@dataclass(frozen=True)
class Effect:
    """The strongest effect over some pairs or texts."""

    of: str
    """known, unknown or a scope's name; empty: all of them."""
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

    of: str
    """As of an effect."""
    detector: str
    auroc: float
    lo: float | None
    hi: float | None


def strongest(root: Path, parts: Sequence[str], manifest: Mapping[str, Any]) -> list[Effect]:
    """The largest effect among those that separate; where none does, among all that were judged.

    Args:
        root: a folder.
        parts: names on the way from there to a run's stats.parquet.
        manifest: of the run.

    Returns:
        One of what the model knows and one of what it does not, where the run says so; else one of all items.

    Raises:
        ValueError, OSError, ArrowException: it is damaged, or unpacks to too much.
    """
    return _apart(_rows(root, parts, _EFFECTS, _scopes(manifest)), manifest, _strongest)


def _strongest(of: str, rows: Sequence[dict[str, Any]]) -> Effect | None:
    words = LABELLED if rows and "g" in rows[0] else PAIRED
    sizes = [(row, value) for row in rows if _judged(row) and (value := _value(row)) is not None]
    found = [(row, value) for row, value in sizes if row["verdict"] == "separates"] or sizes
    if not found:
        return None
    # The last layer's lens is the log-probability itself: of equal ones the last has the plain name.
    row, value = max(reversed(found), key=lambda one: float(f"{abs(one[1]):.9g}"))
    name = row["metric"]
    text = f"{words.symbol} {effect(value)}, {size(value)}"
    return Effect(of, clean(name, 80), in_words(name, value), value, text, clean(row["verdict"], 20))


def _value(row: dict[str, Any]) -> float | None:
    """The effect at equal length and wording, or the raw one."""
    for name in ("adj_dz", "adj_g", "dz", "g"):
        if (value := finite(row.get(name))) is not None:
            return value
    return None


def _judged(row: dict[str, Any]) -> bool:
    """Whether a row of the statistics was judged; rows of earlier versions were not."""
    named = isinstance(row.get("metric"), str) and isinstance(row.get("verdict"), str)
    return named and row.get("q") is not None and not not_interpretable(row["metric"])


def detectors(root: Path, parts: Sequence[str], manifest: Mapping[str, Any]) -> list[Area]:
    """The detector that stands for the run, where the effects are; nothing where only baselines were fitted.

    Args:
        root: a folder.
        parts: names on the way from there to a run's detectors.parquet.
        manifest: of the run.

    Raises:
        ValueError, OSError, ArrowException: it is damaged, or unpacks to too much.
    """
    return _apart(_rows(root, parts, _DETECTORS, _scopes(manifest)), manifest, _detector)


def _detector(of: str, rows: Sequence[dict[str, Any]]) -> Area | None:
    fitted = {row["detector"]: row for row in rows if isinstance(row.get("detector"), str)}
    areas = {name: found for name, row in fitted.items() if name not in BASELINES and (found := area(name, row, of))}
    return next((areas[name] for name in (*INSIDE, *areas) if name in areas), None)


def area(name: str, row: dict[str, Any], of: str = "") -> Area | None:
    """A row of a detectors' table; None where it has no AUROC."""
    auroc, lo, hi = (finite(row.get(key)) for key in ("auroc", "lo", "hi"))
    return None if auroc is None else Area(of, clean(called(name), 40), auroc, lo, hi)


def carried(root: Path, parts: Sequence[str]) -> str:
    """What a transfer_matrix.parquet says, in a sentence.

    Raises:
        ValueError, OSError, ArrowException, PolarsError: it is damaged, or unpacks to too much.
    """
    # Imported here: it needs scipy and scikit-learn, which take a second, and few folders hold one.
    from bluffscope.report.crossings import sentence

    kinds = {name: pl.Float64() if name in ("auroc", "lo", "hi") else pl.String() for name in _CROSSINGS}
    return clean(sentence(pl.DataFrame(_rows(root, parts, _CROSSINGS), schema=kinds)), _LONG)


def finite(value: object) -> float | None:
    """A number that can be shown."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _MOST else None


def _apart(
    rows: Sequence[dict[str, Any]],
    manifest: Mapping[str, Any],
    read: Callable[[str, Sequence[dict[str, Any]]], Found | None],
) -> list[Found]:
    """What the rows say of what a model knows and of what it does not, where both are there; else of all items."""
    by_scope: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_scope.setdefault(row["scope"], []).append(row)
    for scopes in (known_scopes(manifest, by_scope), (POOLED,)):
        named = [(_short(manifest, scope), by_scope.get(scope, [])) for scope in scopes]
        if found := [one for of, part in named if (one := read(of, part)) is not None]:
            return found
    return []


def _short(manifest: Mapping[str, Any], scope: str) -> str:
    known = knows(manifest, scope)
    return ("" if scope == POOLED else scope) if known is None else "known" if known else "unknown"


def _scopes(manifest: Mapping[str, Any]) -> list[str]:
    """The scopes that are looked for."""
    return [POOLED, *(f"{name}={value}" for name in knowledge(manifest) for value in ("true", "false"))]


def _rows(
    root: Path, parts: Sequence[str], names: tuple[str, ...], scopes: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of these scopes, or all, with those of the columns that the table has."""
    # Imported here: it costs 0.2 s.
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_inside(root, parts) as opened, pq.ParquetFile(opened) as file:
        check_whole(root.joinpath(*parts), file.metadata, columns=names)
        held = set(file.schema_arrow.names)
        if scopes is not None and "scope" not in held:
            return []
        table = file.read([name for name in names if name in held], use_threads=False)
    if scopes is not None:  # before they become objects of Python: most rows are of other scopes
        places = [place for place, scope in enumerate(table["scope"].to_pylist()) if scope in scopes]
        table = table.take(pa.array(places, pa.int64()))
    return table.to_pylist()
