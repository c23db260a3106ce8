"""What the charts of a report are made of: layers, axes, keys, tooltips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bluffscope.report.sides import Words

Spec = dict[str, Any]

SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v6.json"
"""Names the language; nothing is fetched from there."""
GREY: Final = "#808080"
BARE: Final[Spec] = {"ticks": False, "domain": False}
"""An axis of which only the names are drawn."""
TOP: Final[Spec] = {"title": None, "orient": "top"}
_TIPS: Final[dict[str, tuple[str, str | None]]] = {
    "id": ("{item}", None),
    "train": ("trained on", None),
    "test": ("tested on", None),
    "rung": ("control", None),
    "s": ("noise s", None),
    "view": ("text", None),
    "share": ("height", ".3~g"),
    "fact_text": ("fact", None),
    "hall_text": ("hallucination", None),
    "fact": ("value of the fact", ".4g"),
    "hall": ("value of the hallucination", ".4g"),
    "value": ("value", ".4g"),
    "mean": ("mean", ".3f"),
    "dz": ("{symbol}", "+.3f"),
    "p": ("p", ".2g"),
    "q": ("q", ".2g"),
    "adj_dz": ("{symbol} at equal lengths", "+.3f"),
    "adj_q": ("its q", ".2g"),
    "name": ("detector", None),
    "times": ("folds that chose it", "d"),
    "x": ("x", ".3f"),
    "y": ("y", ".3f"),
    "auroc": ("AUROC", ".3f"),
    "lo": ("from", ".3f"),
    "hi": ("to", ".3f"),
    "gain": ("gain over the best baseline", "+.3f"),
    "ece": ("calibration error (ECE)", ".3f"),
    "n": ("{items}", None),
}
"""What a tooltip calls a field, where not by its name, and how it writes a number."""


def chart(description: str, layers: Sequence[Spec], height: int | Spec, rows: str | None = None) -> Spec:
    """A chart of layers.

    Args:
        description: for those who cannot see it.
        layers: what is drawn, the last on top.
        height: in pixels, or of a row: {"step": pixels}.
        rows: the field that names the rows, where each row has a height.
    """
    spec = {"$schema": SCHEMA, "description": description, "data": {"name": "rows"}, "width": "container"}
    return {**spec, "height": height, "layer": list(layers)} | ({"usermeta": {"rows": rows}} if rows else {})


def intervals(
    channel: str,
    fields: Sequence[Spec],
    encoding: Spec,
    tips: Sequence[Spec] = (),
    *,
    mark: Spec | None = None,
    point: Spec | None = None,
    shape: Spec | None = None,
) -> list[Spec]:
    """A point and a line from end to end.

    Args:
        channel: the axis along which they lie.
        fields: middle, low and high end.
        encoding: what both have.
        tips: of the point.
        mark: how both are drawn.
        point: how the point is drawn.
        shape: what the point's shape says.
    """
    middle, low, high = fields
    rule = {"type": "rule", "strokeWidth": 2, **(mark or {})}
    dot = {"type": "point", "filled": True, "opacity": 1, "size": 70, **(mark or {}), **(point or {})}
    ends = {channel: low, f"{channel}2": {"field": high["field"]}}
    extra = {name: value for name, value in (("shape", shape), ("tooltip", list(tips))) if value}
    return [
        {"mark": rule, "encoding": {**encoding, **ends}},
        {"mark": dot, "encoding": {**encoding, channel: middle, **extra}},
    ]


def matrix(description: str, sides: tuple[Spec, Spec], cell: Spec, text: Spec, tips: list[Spec]) -> Spec:
    """A cell for each two names, with its number in it."""
    x, y = sides
    shared: Spec = {"x": x, "y": y, **({"tooltip": tips} if tips else {})}
    layers: list[Spec] = [
        {"mark": {"type": "rect", "stroke": "white", "strokeWidth": 1}, "encoding": {**shared, **cell}},
        {
            "mark": {"type": "text", "fontSize": 11, "color": "#1A1A1A", "lineBreak": "\n"},
            "encoding": {**shared, **text},
        },
    ]
    return chart(description, layers, {"step": 32}, rows=y["field"])


def rule_at(channel: str, value: float) -> Spec:
    """A line of reference."""
    return {"mark": {"type": "rule", "color": GREY}, "encoding": {channel: {"datum": value}}}


def name_axis(field: str, title: str | None = None, limit: int = 170, **axis: Any) -> Spec:
    """An axis of names, in the order of the rows."""
    axis = {"title": title, "labelLimit": limit, "labelOverlap": False, **axis}
    return {"field": field, "type": "nominal", "sort": None, "axis": axis}


def number_axis(field: str, title: str | None, scale: Spec | None = None, **axis: Any) -> Spec:
    """An axis of numbers, not forced to begin at 0."""
    axis = {"title": title, "tickCount": 6, **axis}
    return {"field": field, "type": "quantitative", "scale": {"zero": False, **(scale or {})}, "axis": axis}


def groups(field: str, **scale: Any) -> Spec:
    """Names, in the order of the rows."""
    return {"field": field, "type": "nominal", "sort": None, "scale": scale}


def colour_key(field: str, title: str | None = None, **scale: Any) -> Spec:
    """Names that are explained above the chart."""
    return {**groups(field, **scale), "legend": {**TOP, "title": title}}


def tooltips(words: Words, *fields: str) -> list[Spec]:
    """A line for each of these fields."""
    found: list[Spec] = []
    for field in fields:
        title, style = _TIPS.get(field, (field, None))
        title = title.format(item=words.item, items=words.items, symbol=words.symbol)
        kind = {"type": "nominal"} if style is None else {"type": "quantitative", "format": style}
        found.append({"field": field, "title": title, **kind})
    return found
