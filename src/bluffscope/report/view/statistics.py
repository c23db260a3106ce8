"""A run's strongest effect and its detector, in words, from the few columns of its statistics that say so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import polars as pl

from bluffscope.detectors.classifiers import called
from bluffscope.host.parquet_limits import check_whole
from bluffscope.report import headlines
from bluffscope.report.headlines import DETECTORS, EFFECTS, SCOPES
from bluffscope.report.knowledge import known_scopes, knows
from bluffscope.report.labels import clean, effect, in_words, size
from bluffscope.report.sides import LABELLED, PAIRED
from bluffscope.report.summary import POOLED
from bluffscope.report.view.folders import open_inside

_CROSSINGS: Final = ("detector", "train", "test", "auroc", "lo", "hi", "verdict")
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
    return _apart(_rows(root, parts, EFFECTS, SCOPES), manifest, _effect)


def _effect(of: str, rows: Sequence[Mapping[str, Any]]) -> Effect | None:
    row = headlines.strongest(rows)
    value = None if row is None else headlines.effect_of(row)
    if row is None or value is None:
        return None
    symbol = (LABELLED if "g" in row else PAIRED).symbol
    text = f"{symbol} {effect(value)}, {size(value)}"
    return Effect(of, clean(row["metric"], 80), in_words(row["metric"], value), value, text, clean(row["verdict"], 20))


def detectors(root: Path, parts: Sequence[str], manifest: Mapping[str, Any]) -> list[Area]:
    """The detector that stands for the run, where the effects are; nothing where only baselines were fitted.

    Args:
        root: a folder.
        parts: names on the way from there to a run's detectors.parquet.
        manifest: of the run.

    Raises:
        ValueError, OSError, ArrowException: it is damaged, or unpacks to too much.
    """
    return _apart(_rows(root, parts, DETECTORS, SCOPES), manifest, _area)


def _area(of: str, rows: Sequence[Mapping[str, Any]]) -> Area | None:
    row = headlines.detector_of(rows)
    return None if row is None else area(row["detector"], row, of)


def area(name: str, row: Mapping[str, Any], of: str = "") -> Area | None:
    """A row of a detectors' table; None where it has no AUROC."""
    auroc, lo, hi = (headlines.finite(row.get(key)) for key in ("auroc", "lo", "hi"))
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


def _rows(
    root: Path, parts: Sequence[str], names: tuple[str, ...], scopes: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of these scopes, or all, with those of the columns that the table has."""
    # Imported here: it costs 0.2 s.
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_inside(root, parts) as opened, pq.ParquetFile(opened) as file:
        if scopes is not None and (told := (file.metadata.metadata or {}).get(headlines.MARK.encode())):
            return _told(told, names)
        check_whole(root.joinpath(*parts), file.metadata, columns=names)
        held = set(file.schema_arrow.names)
        if scopes is not None and "scope" not in held:
            return []
        table = file.read([name for name in names if name in held], use_threads=False)
    if scopes is not None:  # before they become objects of Python: most rows are of other scopes
        places = [place for place, scope in enumerate(table["scope"].to_pylist()) if scope in scopes]
        table = table.take(pa.array(places, pa.int64()))
    return table.to_pylist()


def _told(content: bytes, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows that a footer holds, of which nobody knows who wrote them."""
    if len(content) > headlines.MOST:
        raise ValueError("a footer that is too large")
    found: object = json.loads(content)
    rows = [cast("dict[str, Any]", row) for row in cast("list[Any]", found) if isinstance(row, dict)]
    return [{name: row[name] for name in names if name in row} for row in rows if isinstance(row.get("scope"), str)]
