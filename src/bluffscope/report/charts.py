"""The charts of a report as Vega-Lite specifications, one description for the page and for figures/.

A specification names its data set ("rows") and does not hold it: the page fills in the rows of the scope or metric that
is chosen, `bluffscope.report.panels` those of a figure. Rows have fixed field names; domains and metrics are values,
since they can be any text. Colours are those of Okabe and Ito, or viridis, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bluffscope.report.marks import (
    BARE,
    GREY,
    TOP,
    Spec,
    chart,
    colour_key,
    groups,
    intervals,
    matrix,
    name_axis,
    number_axis,
    rule_at,
    tooltips,
)
from bluffscope.report.sides import LABELLED, PAIRED, Words

FACT_COLOUR: Final = "#0072B2"
HALL_COLOUR: Final = "#D55E00"
DOMAIN_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A800")
DOMAIN_SHAPES: Final = ("circle", "square", "triangle-up")
"""A second sign, for more domains than colours."""
FULL_COLOUR: Final = 1.5
"""|d_z| at which a heat map's colour is full, the same in all of them."""
NAMED: Final = ("metric", "scope", "domain", "train", "test")
"""Fields of charts that hold names of the user's: metrics and values of columns, which can be any text."""

_CHANGES: Final = ["#7FB8DC", "#F7F7F7", "#EFA06A"]
"""Fall, level, rise."""
_PAIR: Final = [FACT_COLOUR, HALL_COLOUR]
_SIGNS: Final = ["circle", "diamond"]
_CLOSE: Final[Spec] = {"nice": False, "padding": 8}
"""A scale that ends where the numbers do."""
CONFIG: Final[Spec] = {
    "background": "transparent",
    "font": "system-ui, 'DejaVu Sans', Verdana, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "labelSeparation": 6,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridOpacity": 0.6,
    },
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "symbolOpacity": 1},
    "header": {"labelFontSize": 12},
}
"""How charts look; the page's style sheet colours axes and text, so that they follow the theme."""


def named(name: str) -> str:
    """A name as a chart may group by it: Vega looks groups up in plain objects, and those have a "constructor" already.

    No name that an object has of itself ends in a space, which is not drawn.
    """
    return f"{name} "


def forest(words: Words) -> Spec:
    """Effect size of every metric, raw and at equal lengths. Rows: those of stats.parquet for one scope."""
    kinds = {"raw": ("dz", "dz", "circle", -4), "at equal lengths": ("adj_dz", "adj", "diamond", 5)}
    tips = tooltips(words, "metric", "n", "dz", "q", "adj_dz", "adj_q", "verdict")
    encoding = {"y": name_axis("metric", grid=True), "color": colour_key("kind", domain=list(kinds), range=_PAIR)}
    layers: list[Spec] = []
    for kind, (value, ends, shape, offset) in kinds.items():
        fields = [number_axis(field, words.symbol) for field in (value, f"{ends}_lo", f"{ends}_hi")]
        mark = {"yOffset": offset, "strokeWidth": 1.5}
        parts = intervals("x", fields, encoding, tips, mark=mark, point={"size": 55, "shape": shape})
        layers += [{**part, "transform": [{"calculate": f"'{kind}'", "as": "kind"}]} for part in parts]
    title = f"Effect size {words.symbol} of every metric with 95 % intervals, raw and at equal lengths"
    return chart(title, [rule_at("x", 0), *layers], {"step": 26}, rows="metric")


def ladder(words: Words) -> Spec:
    """What each control leaves of one effect. Rows: rung, form, dz, lo, hi, n, p."""
    encoding = {
        "x": name_axis("rung", labelAngle=-30),
        "xOffset": groups("form", paddingOuter=1),
        "color": colour_key("form", range=[*_PAIR, "#009E73", "#CC79A7"], title="form"),
    }
    fields = [number_axis(field, words.symbol) for field in ("dz", "lo", "hi")]
    shape = colour_key("form") | {"legend": None}
    layers = intervals("y", fields, encoding, tooltips(words, "rung", "form", "dz", "p", "n"), shape=shape)
    return chart("The effect size after each control for confounds", [rule_at("y", 0), *layers], 260)


def dose(words: Words) -> Spec:
    """Stability by the level of noise. Rows: s, view, mean, lo, hi."""
    scale = {"type": "log", "nice": False, "padding": 12}
    encoding = {
        "x": number_axis("s", "noise s", tickCount=5, grid=False) | {"scale": scale},
        "color": colour_key("view", **_colours(words)),
    }
    fields = [number_axis(field, "mean Jaccard similarity") for field in ("mean", "lo", "hi")]
    line = {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {**encoding, "y": fields[0]}}
    shape = colour_key("view", **_signs(words))
    layers = intervals("y", fields, encoding, tooltips(words, "s", "view", "mean", "n"), shape=shape)
    return chart("Stability of the ten strongest features against the level of noise", [line, *layers], 240)


def trajectory(words: Words, low: float, high: float) -> Spec:
    """Log-probability through the logit lens by layer. Rows: layer, view, mean, lo, hi.

    Args:
        words: of the run.
        low: smallest value of any chart beside this one.
        high: largest value of any chart beside this one.
    """
    encoding = {
        "x": number_axis("layer", "layer", tickMinStep=1, grid=False) | {"scale": {"zero": False, "nice": False}},
        "color": colour_key("view", **_colours(words)),
    }
    scale = {"domain": [low, high], "zero": False}
    middle, lower = (number_axis(field, "nats a token", scale) for field in ("mean", "lo"))
    point = {"type": "point", "filled": True, "size": 40, "opacity": 1}
    layers = [
        {"mark": {"type": "area", "opacity": 0.2}, "encoding": {**encoding, "y": lower, "y2": {"field": "hi"}}},
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**encoding, "y": middle}},
        {
            "mark": point,
            "encoding": {**encoding, "y": middle, "tooltip": tooltips(words, "layer", "view", "mean", "n")},
        },
    ]
    return chart(
        "Log-probability of the completions through the logit lens, by layer",
        layers,
        240,
    )


def histogram(words: Words, title: str | None, share: str, limits: Sequence[float] = ()) -> Spec:
    """How both sides' values are spread, one over the other. Rows: view, lo, hi, share.

    Args:
        words: of the run.
        title: of the values.
        share: title of the bars' height.
        limits: of the axis, the same in charts side by side; those of the rows where empty.
    """
    scale = {"nice": False, "zero": False, **({"domain": list(limits)} if limits else {})}
    encoding = {
        "x": number_axis("lo", title, scale, grid=False, tickCount=4),
        "x2": {"field": "hi"},
        "y": number_axis("share", share, tickCount=3) | {"stack": None},
        "y2": {"datum": 0},
        "color": colour_key("view", **_colours(words)),
        "tooltip": tooltips(words, "view", "lo", "hi", "share"),
    }
    return chart(
        "How the values of both sides are spread",
        [{"mark": {"type": "rect", "opacity": 0.6}, "encoding": encoding}],
        110,
    )


def by_layer(words: Words) -> Spec:
    """One item's values from layer to layer. Rows: layer, view, value."""
    encoding = {
        "x": number_axis("layer", "layer", tickMinStep=1, grid=False) | {"scale": {"zero": False, "padding": 12}},
        "y": number_axis("value", None, {"zero": False}),
        "color": colour_key("view", **_colours(words)),
    }
    points = {"type": "point", "filled": True, "size": 50, "opacity": 1}
    layers = [
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": encoding},
        {"mark": points, "encoding": {**encoding, "tooltip": tooltips(words, "layer", "view", "value")}},
    ]
    return chart("One item's values from layer to layer", layers, 170)


def spread(words: Words, title: str, scopes: Sequence[str], *, first: bool, faint: bool) -> Spec:
    """Means of both sides by scope, with the middle half of their values. Rows: scope, view, mean, low, high.

    Args:
        words: of the run.
        title: what the numbers are.
        scopes: names in the rows, the same in all charts side by side.
        first: whether it is the first of a row, where the scopes are named and the colours explained.
        faint: drawn pale, since the numbers should not be relied on.
    """
    legend = {"title": f"mean, and middle half of {words.items}", "orient": "bottom", "titleLimit": 0}
    key = {"legend": legend if first else None}
    encoding = {
        "y": {**name_axis("scope"), "scale": {"domain": list(scopes)}, **({} if first else {"axis": None})},
        "yOffset": groups("view", domain=list(words.views), paddingOuter=0.6),
        "color": colour_key("view", **_colours(words)) | key,
    }
    fields = [number_axis(field, None, {"padding": 8}, tickCount=3) for field in ("mean", "low", "high")]
    shape = colour_key("view", **_signs(words)) | key
    layers = intervals("x", fields, encoding, mark={"opacity": 0.45 if faint else 1}, shape=shape)
    return chart(title, layers, {"step": 28, "for": "position"})


def effects(words: Words, scopes: Sequence[str], pooled: bool) -> Spec:
    """Effect size of each metric in each scope, a point each. Rows: metric, scope, dz.

    Args:
        words: of the run.
        scopes: names in the rows, in the order of their colours.
        pooled: whether the last of them holds all the items.
    """
    columns = 2 if max(map(len, scopes)) > 12 else 3
    encoding = {
        "x": number_axis("dz", words.symbol, _CLOSE),
        "y": name_axis("metric", grid=True),
        **domain_keys("scope", len(scopes), scopes, pooled=pooled, columns=columns),
    }
    points = {"mark": {"type": "point", "filled": True, "size": 50, "opacity": 0.85}, "encoding": encoding}
    return chart(f"Effect size {words.symbol} of every metric by domain", [rule_at("x", 0), points], {"step": 21})


def heat_map(words: Words, value: str = "dz", full: float = FULL_COLOUR) -> Spec:
    """A change of one metric by layer and scope. Rows: layer, scope, `value`; verdict, adj_dz and n for an effect size.

    Args:
        words: of the run.
        value: field of the change: "dz", or another with its text in the field `label`.
        full: size of the change at which the colour is full.
    """
    colour = {"domain": [-full, 0, full], "range": _CHANGES, "clamp": True}
    spec = matrix(
        f"{words.symbol} by layer and domain" if value == "dz" else "Change by layer and domain",
        (name_axis("scope", limit=90, labelAngle=-30, **BARE), name_axis("layer", "layer", **BARE)),
        {"color": {"field": value, "type": "quantitative", "scale": colour, "legend": None}},
        {"text": {"field": "label", "type": "nominal"}},
        tooltips(words, "scope", "layer", "dz", "adj_dz", "verdict", "n") if value == "dz" else [],
    )
    if value == "dz":
        label = "isValid(datum.dz) ? format(datum.dz, '+.2f') + (datum.verdict === 'separates' ? ' ●' : '') : '-'"
        spec["transform"] = [{"calculate": label, "as": "label"}]
    return spec


def scatter(keys: Spec) -> Spec:
    """Fact against hallucination, a point a pair. Rows: fact, hall, domain, id, prompt, fact_text, hall_text.

    A second data set "ends" holds the two ends of the diagonal (x, y).

    Args:
        keys: colours and shapes of the domains, see `domain_keys`.
    """
    diagonal = {
        "data": {"name": "ends"},
        "mark": {"type": "line", "color": GREY, "strokeDash": [4, 4], "strokeWidth": 1},
        "encoding": {"x": number_axis("x", "fact", _CLOSE), "y": number_axis("y", "hallucination", _CLOSE)},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 32, "opacity": 0.75, "cursor": "pointer"},
        "encoding": {
            "x": number_axis("fact", "fact", _CLOSE),
            "y": number_axis("hall", "hallucination", _CLOSE),
            **keys,
            "tooltip": tooltips(PAIRED, "id", "domain", "prompt", "fact_text", "hall_text", "fact", "hall"),
        },
    }
    return chart("Values of the fact against those of the hallucination, one point a pair", [diagonal, points], 340)


def strip() -> Spec:
    """Values of labelled texts by domain and label, a point a text. Rows: value, domain, view, i, id, prompt, text."""
    words = LABELLED
    # Texts of a label lie on a band of their own, at heights that follow from their places and repeat after many.
    place = f"(datum.view === '{words.views[1]}' ? 1 : 0)"
    band = {"type": "quantitative", "scale": {"domain": [-0.5, 1.5], "nice": False}}
    shared = {"y": name_axis("domain"), "color": colour_key("view", **_colours(words))}
    points = {
        "transform": [{"calculate": f"{place} + 0.6 * ((datum.i * 0.618034) % 1 - 0.5)", "as": "height"}],
        "mark": {"type": "point", "filled": True, "size": 26, "opacity": 0.55, "cursor": "pointer"},
        "encoding": {
            **shared,
            "x": number_axis("value", None, _CLOSE),
            "yOffset": {"field": "height", **band},
            "tooltip": tooltips(words, "id", "view", "domain", "prompt", "text", "value"),
        },
    }
    means = {
        "transform": [
            {"aggregate": [{"op": "mean", "field": "value", "as": "value"}], "groupby": ["domain", "view"]},
            {"calculate": place, "as": "height"},
        ],
        "mark": {"type": "point", "filled": True, "shape": "diamond", "size": 150, "opacity": 1, "stroke": GREY},
        "encoding": {
            **shared,
            "x": number_axis("value", None, _CLOSE),
            "yOffset": {"field": "height", **band},
            "tooltip": tooltips(words, "domain", "view", "value"),
        },
    }
    return chart("Values of true and of false texts by domain", [points, means], {"step": 84}, rows="domain")


def domain_keys(field: str, count: int, names: Sequence[str] = (), *, pooled: bool = False, columns: int = 4) -> Spec:
    """Colour and shape of each domain; shapes change when the colours start again.

    Args:
        field: that names the domain.
        count: how many domains there are.
        names: what they are called in the rows; without them they are taken in the order of the rows.
        pooled: whether the last of them is all domains together: a black diamond.
        columns: of the legend.
    """
    colours = [DOMAIN_COLOURS[i % len(DOMAIN_COLOURS)] for i in range(count - pooled)]
    shapes = [DOMAIN_SHAPES[i // len(DOMAIN_COLOURS) % len(DOMAIN_SHAPES)] for i in range(count - pooled)]
    if pooled:
        colours, shapes = [*colours, "#000000"], [*shapes, "diamond"]
    domain: Spec = {"domain": list(names)} if names else {}
    key: Spec = {"field": field, "type": "nominal", "sort": None}
    key["legend"] = {**TOP, "labelLimit": 110, "columns": columns}
    return {
        "color": {**key, "scale": {**domain, "range": colours}},
        "shape": {**key, "scale": {**domain, "range": shapes}},
    }


def nothing() -> Spec:
    """A text in place of a chart without numbers. Rows: text."""
    mark = {"type": "text", "color": GREY, "fontSize": 12}
    return chart("Nothing to show", [{"mark": mark, "encoding": {"text": {"field": "text", "type": "nominal"}}}], 80)


def _colours(words: Words) -> Spec:
    return {"domain": list(words.views), "range": _PAIR}


def _signs(words: Words) -> Spec:
    return {"domain": list(words.views), "range": _SIGNS}
