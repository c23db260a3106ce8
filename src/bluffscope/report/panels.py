"""Panels of a figure: the report's charts with their numbers in them, side by side."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.report.charts import CONFIG, NAMED, named, scatter, strip
from bluffscope.report.labels import clean
from bluffscope.report.marks import SCHEMA, Spec
from bluffscope.report.sides import LABELLED, words_of
from bluffscope.table.metric_pairs import MetricPair

MOST_POINTS: Final = 2000
"""Most points of a scatter; of more items a sample is drawn, and its title says so."""

Rows = Sequence[Mapping[str, Any]]


def panel(
    spec: Spec,
    rows: Rows | pl.DataFrame,
    title: str,
    width: float,
    subtitle: Sequence[str] = (),
    colour: str = "#000000",
) -> Spec:
    """A chart with its numbers, a title and a width that is a number, as a part of a figure.

    Args:
        spec: one of the charts above.
        rows: its numbers.
        title: what it shows.
        width: of the space between the axes, in pixels.
        subtitle: lines that say how it is read.
        colour: of the title.
    """
    # Labels are short already, and Vega would cut an emoji in half, which is not valid text.
    spec = {
        name: value for name, value in _unlimited(copy.deepcopy(spec)).items() if name not in ("$schema", "usermeta")
    }
    rows = rows.to_dicts() if isinstance(rows, pl.DataFrame) else rows
    values = [{name: named(value) if name in NAMED else value for name, value in row.items()} for row in rows]
    heading = {"text": named(clean(title, 90)), "subtitle": list(subtitle), "anchor": "start", "color": colour}
    return {**spec, "data": {"values": values}, "width": width, "title": heading}


def pair_values(metrics: pl.DataFrame, pair: MetricPair) -> pl.DataFrame:
    """domain, fact and hall of the pairs in which a metric has both values, or of texts that have a value."""
    domain = pl.col("domain").cast(pl.String) if "domain" in metrics.columns else pl.lit("all").alias("domain")
    both = metrics.select(domain, fact=pl.col(pair.fact).cast(pl.Float64), hall=pl.col(pair.hall).cast(pl.Float64))
    return both.filter(words_of(metrics).used(pl.col("fact"), pl.col("hall")))


def sample(values: pl.DataFrame) -> pl.DataFrame:
    """At most `MOST_POINTS` rows, always the same, in their order."""
    if values.height <= MOST_POINTS:
        return values
    return values[np.sort(np.random.default_rng(0).choice(values.height, MOST_POINTS, replace=False))]


def scatter_panel(values: pl.DataFrame, keys: Spec, title: str, size: float, subtitle: Sequence[str] = ()) -> Spec:
    """Fact against hallucination.

    Args:
        values: domain, fact, hall.
        keys: colours and shapes of the domains.
        title: what was measured.
        size: width and height in pixels.
        subtitle: lines that say how it is read.
    """
    spec = panel(scatter(keys), values, title, size, subtitle)
    # The page's tooltips are of no use on paper, and their texts are not among the rows.
    spec["layer"][1]["encoding"].pop("tooltip")
    both = [*values["fact"], *values["hall"]]
    spec["layer"][0]["data"] = {"values": [{"x": end, "y": end} for end in (min(both), max(both))]}
    return {**spec, "height": size}


def strip_panel(values: pl.DataFrame, title: str, size: float, subtitle: Sequence[str] = ()) -> Spec:
    """Values of true and of false texts by domain.

    Args:
        values: domain, fact, hall; one of the two is null.
        title: what was measured.
        size: width in pixels.
        subtitle: lines that say how it is read.
    """
    true, false = LABELLED.views
    view = pl.when(pl.col("fact").is_not_null()).then(pl.lit(true)).otherwise(pl.lit(false))
    rows = values.select("domain", value=pl.coalesce("fact", "hall"), view=view, i=pl.int_range(pl.len()))
    spec = panel(strip(), rows, title, size, subtitle)
    spec["layer"][0]["encoding"].pop("tooltip")
    return spec


def together(parts: Sequence[Spec], columns: int, title: Spec | None = None) -> Spec:
    """Panels side by side, each with colours and axes of its own."""
    channels = dict.fromkeys(("color", "shape", "x", "y"), "independent")
    spec = {"columns": columns, "concat": list(parts), "resolve": {"scale": channels}, "spacing": 28, "align": "each"}
    return spec if title is None else {"title": {"anchor": "start", **title}, **spec}


def figure(spec: Spec) -> Spec:
    """A whole figure, for white paper."""
    font = "DejaVu Sans, Verdana, Arial, sans-serif"
    return {"$schema": SCHEMA, **spec, "config": {**CONFIG, "background": "white", "font": font, "padding": 12}}


def _unlimited(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: 0 if key == "labelLimit" else _unlimited(value) for key, value in part.items()}
    return [_unlimited(item) for item in part] if isinstance(part, list) else part
