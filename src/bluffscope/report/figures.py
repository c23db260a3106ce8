"""The report's charts as PNG and SVG, of a size and sharpness for a paper, drawn without a browser or a network."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl
import vl_convert as vlc

from bluffscope.report import charts
from bluffscope.report.charts import Spec
from bluffscope.report.contents import Contents
from bluffscope.report.labels import clean, distinct
from bluffscope.report.page import MOST_POINTS, VEGA_LITE, dose_rows
from bluffscope.report.panels import NAMED, named
from bluffscope.stats.study import POOLED
from bluffscope.table.atomic import remove, write_bytes

NAMES: Final = ("effects", "heatmaps", "scatters", "stability", "ladder", "detectors", "transfer")
MOST_EFFECTS: Final = 60
"""Metrics of the forest plot; of more the largest are drawn."""
MOST_DOMAINS: Final = 10
SCATTERS: Final = 6
"""Metrics that are drawn as scatters: those with the largest effects over all pairs."""
_SCALE: Final = 3
_COLUMNS: Final = 3

Rows = list[dict[str, Any]]


def write_figures(contents: Contents, folder: Path) -> list[Path]:
    """Draws effects, heatmaps, scatters, stability, ladder, detectors and transfer, each where its numbers are there.

    Args:
        contents: the run.
        folder: where the files go; it must exist.

    Raises:
        RunFolderError: a file cannot be written.
    """
    written: list[Path] = []
    drawn = figures(contents)
    # What a run or its statistics no longer hold must not be shown by an earlier figure.
    remove(folder / f"{name}.{kind}" for name in NAMES if name not in drawn for kind in ("png", "svg"))
    for name, spec in drawn.items():
        # No base URL is allowed: whatever a text holds, nothing is fetched.
        svg = vlc.vegalite_to_svg(spec, vl_version=VEGA_LITE, allowed_base_urls=[])
        for path, content in (
            (folder / f"{name}.png", vlc.svg_to_png(svg, scale=_SCALE)),
            (folder / f"{name}.svg", svg.encode("utf-8")),
        ):
            write_bytes(path, content)
            written.append(path)
    return written


def figures(contents: Contents) -> dict[str, Spec]:
    """The figures that can be drawn, by name, with their numbers in them."""
    contents = replace(
        contents,
        metrics=_labelled(contents.metrics, ("domain",)),
        stats=_labelled(contents.stats, ("scope",)),
        ladder=_labelled(contents.ladder, ("scope",)),
        detectors=_labelled(contents.detectors, ("scope", "detector")),
        transfer=_labelled(contents.transfer, ("train", "test", "detector")),
    )
    draw = (_effects, _heat_maps, _scatters, _stability, _ladder, _detectors, _transfer)
    found = {name: made(contents) for name, made in zip(NAMES, draw, strict=True)}
    config = {**charts.CONFIG, "background": "white", "font": "DejaVu Sans, Verdana, Arial, sans-serif", "padding": 12}
    return {
        name: {**spec, "$schema": charts.SCHEMA, "config": config} for name, spec in found.items() if spec is not None
    }


Table = TypeVar("Table", pl.DataFrame, pl.DataFrame | None)


def _labelled(table: Table, columns: tuple[str, ...], width: int = 20) -> Table:
    """The table with names that an image can hold: a control character in one would end the process that draws it."""
    for column in columns:
        if table is not None and column in table.columns:
            names = table[column].cast(pl.String).fill_null("null")
            others = [name for name in names.unique(maintain_order=True) if name != POOLED]
            labels = distinct(others, width, [POOLED]) | {POOLED: POOLED}
            table = table.with_columns(names.replace_strict(labels, return_dtype=pl.String).alias(column))
    return table


def _effects(contents: Contents) -> Spec | None:
    if contents.stats is None:
        return None
    rows = contents.stats.filter(pl.col("dz").is_not_null(), scope=POOLED)
    largest = rows.sort(pl.col("dz").abs(), descending=True, maintain_order=True).head(MOST_EFFECTS)
    more = f"; the {MOST_EFFECTS} largest of {rows.height}" if rows.height > MOST_EFFECTS else ""
    title = f"Effect sizes over all pairs, 95 % intervals{more}"
    largest = _labelled(largest, ("metric",), 34)
    return _filled(charts.forest(), largest.to_dicts(), title, 560) if rows.height else None


def _heat_maps(contents: Contents) -> Spec | None:
    layered = {pair.name: pair for pair in contents.measured if pair.layer is not None}
    if contents.stats is None or not layered:
        return None
    scopes = [scope for scope in contents.scopes if "=" not in scope and scope != POOLED][:MOST_DOMAINS]
    rows = contents.stats.filter(
        pl.col("metric").is_in(list(layered)) & pl.col("scope").is_in([*scopes, POOLED])
    ).with_columns(
        layer=pl.col("metric").map_elements(lambda name: str(layered[name].layer), pl.String),
        base=pl.col("metric").map_elements(lambda name: layered[name].metric, pl.String),
    )
    parts = [
        _filled(charts.heat_map(), part.to_dicts(), str(name), 62 * part["scope"].n_unique())
        for (name,), part in rows.group_by("base", maintain_order=True)
        if part["dz"].count()
    ]
    title = "d_z by layer and domain: blue smaller, orange larger for the hallucination; ● separates"
    return _together(parts, title) if parts else None


def _scatters(contents: Contents) -> Spec | None:
    names = [pair.name for pair in contents.measured]
    if contents.stats is not None:
        rows = contents.stats.filter(pl.col("dz").is_not_null(), scope=POOLED)
        names = rows.sort(pl.col("dz").abs(), descending=True, maintain_order=True)["metric"].to_list()
    columns = {pair.name: pair for pair in contents.measured}
    parts: list[Spec] = []
    for name in [name for name in names if name in columns][:SCATTERS]:
        pair = columns[name]
        both = contents.metrics.select(
            domain=pl.col("domain") if "domain" in contents.metrics.columns else pl.lit("all"),
            fact=pl.col(pair.fact).cast(pl.Float64),
            hall=pl.col(pair.hall).cast(pl.Float64),
        ).filter(pl.col("fact").is_finite() & pl.col("hall").is_finite())
        if both.is_empty():
            continue
        shown = name
        if both.height > MOST_POINTS:
            drawn = np.random.default_rng(0).choice(both.height, MOST_POINTS, replace=False)
            shown = f"{name} ({MOST_POINTS:,} of {both.height:,} pairs)"
            both = both[np.sort(drawn)]
        ends = [min(both["fact"].min(), both["hall"].min()), max(both["fact"].max(), both["hall"].max())]  # type: ignore[type-var]
        spec = _filled(charts.scatter(both["domain"].n_unique()), both.to_dicts(), shown, 260)
        spec["height"] = 260
        # The page's tooltips are of no use on paper, and their texts are not among the rows.
        spec["layer"][1]["encoding"].pop("tooltip")
        spec["layer"][0]["data"] = {"values": [{"x": end, "y": end} for end in ends]}
        parts.append(spec)
    return _together(parts, "Fact against hallucination, one point a pair") if parts else None


def _stability(contents: Contents) -> Spec | None:
    rows = dose_rows(contents)
    if rows.is_empty():
        return None
    return _filled(charts.dose(), rows.filter(scope=POOLED).to_dicts(), "Stability by the level of noise", 420)


def _ladder(contents: Contents) -> Spec | None:
    """The ladders of the metrics with the largest raw effects over all pairs."""
    if contents.ladder is None:
        return None
    rows = contents.ladder.filter(pl.col("dz").is_not_null(), scope=POOLED)
    sizes = rows.group_by("metric", maintain_order=True).agg(pl.col("dz").first().abs())
    names = sizes.sort("dz", descending=True, maintain_order=True)["metric"].head(SCATTERS)
    parts = [_filled(charts.ladder(), rows.filter(metric=name).to_dicts(), name, 260) for name in names]
    return _together(parts, "What each control leaves of an effect, over all pairs") if parts else None


def _detectors(contents: Contents) -> Spec | None:
    if contents.detectors is None:
        return None
    rows = contents.detectors.filter(pl.col("auroc").is_not_null(), scope=POOLED)
    if rows.is_empty():
        return None
    area = charts.detectors("auroc", "lo", "hi", "AUROC", 0.5)
    gain = charts.detectors("gain", "gain_lo", "gain_hi", "gain over the best baseline", 0.0)
    gained = rows.filter(pl.col("gain").is_not_null()).to_dicts()
    parts = [_filled(area, rows.to_dicts(), "AUROC", 320), *([_filled(gain, gained, "Gain", 320)] if gained else [])]
    return _together(parts, "Detectors over all pairs, cross-validated by group")


def _transfer(contents: Contents) -> Spec | None:
    if contents.transfer is None:
        return None
    rows = contents.transfer.filter(pl.col("auroc").is_not_null())
    # Scopes of a further column are named COLUMN=VALUE: they make a matrix of their own.
    column = pl.col("train").str.extract("^([^=]*)=").alias("column")
    parts = [
        _filled(charts.transfer(), part.to_dicts(), str(name), 62 * part["test"].n_unique())
        for (name, _), part in rows.group_by("detector", column, maintain_order=True)
    ]
    return _together(parts, "AUROC of detectors trained on one domain, tested on another") if parts else None


def _filled(spec: Spec, rows: Rows, title: str, width: float) -> Spec:
    """A chart with its numbers, a title and a width that is a number."""
    spec = _unlimited(copy.deepcopy(spec))
    rows = [{name: named(value) if name in NAMED else value for name, value in row.items()} for row in rows]
    return {
        **spec,
        "data": {"values": rows},
        "width": width,
        "title": {"text": named(clean(title, 90)), "anchor": "start"},
    }


def _unlimited(part: Any) -> Any:
    """Without limits on labels, which are short already: Vega would cut an emoji in two, and its text would be none."""
    if isinstance(part, dict):
        return {key: 0 if key == "labelLimit" else _unlimited(value) for key, value in part.items()}
    return [_unlimited(item) for item in part] if isinstance(part, list) else part


def _together(parts: list[Spec], title: str) -> Spec:
    """Charts side by side, each with colours and axes of its own."""
    for part in parts:
        for name in ("$schema", "usermeta"):  # of whole figures only
            part.pop(name, None)
    independent = {"scale": {"color": "independent", "shape": "independent", "x": "independent", "y": "independent"}}
    heading = {"text": title, "anchor": "start", "fontSize": 14, "offset": 14}
    return {"title": heading, "columns": _COLUMNS, "concat": parts, "resolve": independent, "spacing": 28}
