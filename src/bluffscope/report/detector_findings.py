"""What curves and tables of detectors come to in a sentence: titles of their pictures, and what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Final

import polars as pl

from bluffscope.detectors.classifiers import BASELINES, INSIDE, NAMES, called
from bluffscope.detectors.evaluate import CURVES_SCHEMA
from bluffscope.detectors.sweep import CHOSEN, SWEPT_SCHEMA
from bluffscope.detectors.transfer import CARRIED_SCHEMA
from bluffscope.report.labels import auroc, capital, clean
from bluffscope.table.atomic import table_errors
from bluffscope.table.reader import Run

MOST_POINTS: Final = 26
"""Points of a risk-coverage curve that are drawn."""
_CLOSE: Final = 0.03
"""Of sureness and share of right answers: that near they count as equal."""
_LEAST: Final = 0.05
"""Share of texts from which a risk is drawn: among the first few it is all or nothing."""
_EDGE: Final = 1.96
_APART: Final = 0.06
"""Of the distance of two layers: between detectors at the same one."""
_SPREAD: Final = 0.3
"""Likewise: most that all detectors and positions at one layer take."""

_KEYS: Final = ("detector", "scope", "curve", "train", "test")
_WRITTEN: Final[dict[str, tuple[pl.Schema, tuple[str, ...]]]] = {
    "detector_curves.parquet": (CURVES_SCHEMA, ("x", "y", "n")),
    "sweep.parquet": (SWEPT_SCHEMA, ("auroc", "lo", "hi")),
    "transfer_matrix.parquet": (CARRIED_SCHEMA, ()),
}
"""Columns of each file, and those without which a row is left out."""

Row = dict[str, Any]


def checked_table(run: Run, name: str) -> pl.DataFrame | None:
    """A table of a run's folder in the columns that it is written with, whoever wrote it; None where it is not there.

    Args:
        run: that may have it.
        name: a file of `_WRITTEN`.

    Raises:
        InputError: the file is damaged, or a column is missing or of another kind.
    """
    schema, needed = _WRITTEN[name]
    if (table := run.table(name)) is None:
        return None
    with table_errors(run.path / name, "remove it, or make it again"):
        if name == "sweep.parquet" and "position" not in table.columns:  # of before runs had several
            table = table.with_columns(position=pl.lit(run.positions[0]))
        table = table.select(pl.col(column).cast(kind) for column, kind in schema.items())
        names = [column for column in _KEYS if column in schema]
        table = table.with_columns(pl.col(*names).fill_null("null"))
        return table.filter(pl.all_horizontal(pl.lit(value=True), *(pl.col(column).is_finite() for column in needed)))


def area_title(rows: Sequence[Row]) -> str:
    """Title of the AUROCs of one scope.

    Args:
        rows: of `DETECTORS_SCHEMA`, those with an AUROC.
    """
    known = {row["detector"]: row for row in rows}
    name = next((name for name in INSIDE if name in known), None)
    if name is None:
        return "AUROC of the baselines"
    row, best = known[name], best_baseline(rows)
    beside = (
        "0.50 is guessing" if best is None else f"the best baseline, {called(best['detector'])}, {best['auroc']:.2f}"
    )
    return f"{_begun(name)}: AUROC {auroc(row)}; {beside}"


def gain_title(rows: Sequence[Row]) -> str:
    """Title of the gains of one scope, of rows that have one."""
    found = [row["detector"] for row in rows if row["gain_lo"] is not None and row["gain_lo"] > 0]
    names = ", ".join(called(name) for name in found)
    return f"Better than the best baseline: {names or 'none is shown to be'}"


def best_baseline(rows: Sequence[Row]) -> Row | None:
    """The baseline with the largest AUROC, the first of equals."""
    there = [row for row in rows if row["detector"] in BASELINES]
    return max(there, key=lambda row: row["auroc"], default=None)


def reliability_title(name: str, points: Sequence[Row]) -> str:
    """Title of a reliability curve: how sure the detector is, and how often right."""
    total = sum(point["n"] for point in points)
    if not total:
        return f"{_begun(name)}: no curve"
    if len(points) == 1:
        return f"{_begun(name)}: the same for all texts, about {points[0]['x']:.2f}"
    sure = sum(point["n"] * max(point["x"], 1 - point["x"]) for point in points) / total
    right = sum(point["n"] * (point["y"] if point["x"] >= 0.5 else 1 - point["y"]) for point in points) / total
    said = "as sure as it may be" if abs(sure - right) <= _CLOSE else "too sure" if sure > right else "not sure enough"
    return f"{_begun(name)}: {said}; {_percent(sure)} right by the probabilities, {_percent(right)} in fact"


def risk_title(name: str, points: Sequence[Row]) -> str:
    """Title of a risk-coverage curve: wrong answers among all texts and among the surer half."""
    if not points:
        return f"{_begun(name)}: no curve"
    half = min(points, key=lambda point: abs(point["x"] - 0.5))
    wrong = [_percent(point["y"]) for point in (points[-1], half)]
    return f"{_begun(name)}: wrong in {wrong[0]} of texts, in {wrong[1]} of the half it is surest of"


def sweep_title(rows: pl.DataFrame) -> str:
    """Title of AUROC by layer.

    Args:
        rows: `bluffscope.detectors.sweep.Sweep.table`.
    """
    cells, chosen = rows.filter(pl.col("detector") != CHOSEN), rows.filter(detector=CHOSEN)
    cells = cells.drop_nulls("layer")
    if cells.is_empty() or chosen.is_empty():
        return "AUROC by layer"
    best, fair = cells.sort("auroc", descending=True).row(0, named=True), chosen.row(0, named=True)
    read = f", read at {best['position']}" if cells["position"].n_unique() > 1 else ""
    return (
        f"Best at layer {best['layer']}{read}: {called(best['detector'])}, AUROC {best['auroc']:.2f}; "
        f"chosen without looking at the test, {auroc(fair)}"
    )


def positions_differ(rows: pl.DataFrame | None) -> bool:
    """Whether a sweep has several read positions."""
    return rows is not None and rows["position"].n_unique() > 1 + (rows["position"].null_count() > 0)


def sweep_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """With `name`, what a chart calls each detector, and `x`, its layer moved so that no line covers another.

    Args:
        rows: `bluffscope.detectors.sweep.Sweep.table`.
    """
    line = pl.concat_str("detector", "position", separator=" ", ignore_nulls=True)
    lines = rows.filter(pl.col("detector") != CHOSEN).select(line).to_series().unique(maintain_order=True)
    layers = rows["layer"].drop_nulls().unique().sort()
    gap = float(layers.diff().min() or 1) if len(layers) > 1 else 1.0  # pyright: ignore[reportArgumentType]
    apart = gap * min(_APART, _SPREAD / max(1, len(lines)))
    moved = {name: apart * (place - (len(lines) - 1) / 2) for place, name in enumerate(lines)}
    shift = line.replace_strict(moved, default=0.0, return_dtype=pl.Float64)
    return rows.with_columns(name=pl.col("detector").replace(NAMES), x=pl.col("layer") + shift)


Curves = dict[str, dict[str, dict[str, Any]]]


def curves(table: pl.DataFrame) -> Curves:
    """By detector and scope: points of both curves, column by column, and their titles.

    `reliability`: x, y, n, and lo and hi, 95 % of a share of n independent texts (Wilson); `risk`: x and y; `titles`:
    of either.

    Args:
        table: `bluffscope.detectors.evaluate.CURVES_SCHEMA`.
    """
    found: Curves = {}
    for (detector, scope), part in table.group_by("detector", "scope", maintain_order=True):
        bins = [_with_ends(row) for row in _of(part, "reliability") if row["n"] > 0]
        risk = _of(part, "risk_coverage")
        step = max(1, -(-(len(risk) - 1) // (MOST_POINTS - 1)))
        drawn = [row for place, row in enumerate(risk) if place % step == 0 or place == len(risk) - 1]
        drawn = [row for row in drawn if row["x"] >= _LEAST]
        name = str(detector)
        found.setdefault(name, {})[str(scope)] = {
            "reliability": _columns(bins, ("x", "y", "n", "lo", "hi")),
            "risk": _columns(drawn, ("x", "y")),
            "titles": [reliability_title(name, bins), risk_title(name, drawn)],
        }
    return found


def _of(part: pl.DataFrame, curve: str) -> list[Row]:
    return part.filter(pl.col("curve") == curve).sort("x").select("x", "y", "n").to_dicts()


def _columns(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [round(row[name], 3) for row in rows] for name in names}


def points(columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Columns row by row."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _with_ends(row: Row) -> Row:
    share, n = row["y"], row["n"]
    middle, scale = share + _EDGE**2 / (2 * n), 1 + _EDGE**2 / n
    half = _EDGE * sqrt(share * (1 - share) / n + (_EDGE / (2 * n)) ** 2)
    return {**row, "lo": max(0.0, (middle - half) / scale), "hi": min(1.0, (middle + half) / scale)}


def compared(found: Mapping[str, Mapping[str, Any]], name: str, scope: str, baseline: str | None) -> list[Row]:
    """Rows of the risk-coverage chart: the detector's points, and those of the best baseline of the scope."""
    names = [name, *([baseline] if baseline and baseline != name else [])]
    return [
        {**point, "name": called(one), "other": one != name}
        for one in names
        if scope in found.get(one, {})
        for point in points(found[one][scope]["risk"])
    ]


def titles(detectors: pl.DataFrame | None) -> dict[str, Row]:
    """By scope: titles of AUROC and gain, and the best baseline."""
    if detectors is None:
        return {}
    found: dict[str, Row] = {}
    for (scope,), part in detectors.filter(pl.col("auroc").is_not_null()).group_by("scope", maintain_order=True):
        rows = part.to_dicts()
        best = best_baseline(rows)
        found[str(scope)] = {
            "auroc": area_title(rows),
            "gain": gain_title([row for row in rows if row["gain"] is not None]),
            "baseline": best and best["detector"],
        }
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _begun(name: str) -> str:
    return capital(clean(called(name), 40))
