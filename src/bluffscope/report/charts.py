"""The charts of a report as Vega-Lite specifications, one description for the page and for figures/.

A specification names its data set ("rows") and does not hold it: the page fills in the rows of the scope or metric that
is chosen, `bluffscope.report.panels` those of a figure. Rows have fixed field names; domains and metrics are values,
since they can be any text. Colours are those of Okabe and Ito, or viridis, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

Spec = dict[str, Any]

SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v6.json"
"""Names the language; nothing is fetched from there."""
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
_GREY: Final = "#808080"
_PAIR: Final = [FACT_COLOUR, HALL_COLOUR]
_VIEWS: Final = ["fact", "hallucination"]
_VIEW_COLOURS: Final[Spec] = {"domain": _VIEWS, "range": _PAIR}
_VIEW_SHAPES: Final[Spec] = {"domain": _VIEWS, "range": ["circle", "diamond"]}
_CLOSE: Final[Spec] = {"nice": False, "padding": 8}
"""A scale that ends where the numbers do."""
_BARE: Final[Spec] = {"ticks": False, "domain": False}
_TOP: Final[Spec] = {"title": None, "orient": "top"}
_TIPS: Final[dict[str, tuple[str, str | None]]] = {
    "id": ("pair", None),
    "train": ("trained on", None),
    "test": ("tested on", None),
    "rung": ("control", None),
    "s": ("noise s", None),
    "view": ("text", None),
    "fact_text": ("fact", None),
    "hall_text": ("hallucination", None),
    "fact": ("value of the fact", ".4g"),
    "hall": ("value of the hallucination", ".4g"),
    "mean": ("mean", ".3f"),
    "dz": ("d_z", "+.3f"),
    "p": ("p", ".2g"),
    "q": ("q", ".2g"),
    "adj_dz": ("d_z at equal lengths", "+.3f"),
    "adj_q": ("its q", ".2g"),
    "auroc": ("AUROC", ".3f"),
    "lo": ("from", ".3f"),
    "hi": ("to", ".3f"),
    "gain": ("gain over the best baseline", "+.3f"),
    "ece": ("calibration error (ECE)", ".3f"),
    "n": ("pairs", None),
}
"""What a tooltip calls a field, where not by its name, and how it writes a number."""

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


def forest() -> Spec:
    """d_z of every metric, raw and at equal lengths, with intervals. Rows: those of stats.parquet for one scope."""
    kinds = {"raw": ("dz", "dz", "circle", -4), "at equal lengths": ("adj_dz", "adj", "diamond", 5)}
    tips = _tips("metric", "n", "dz", "q", "adj_dz", "adj_q", "verdict")
    encoding = {"y": _names("metric", grid=True), "color": _key("kind", domain=list(kinds), range=_PAIR)}
    layers: list[Spec] = []
    for kind, (value, ends, shape, offset) in kinds.items():
        fields = [_numbers(field, "d_z") for field in (value, f"{ends}_lo", f"{ends}_hi")]
        mark = {"yOffset": offset, "strokeWidth": 1.5}
        parts = _intervals("x", fields, encoding, tips, mark=mark, point={"size": 55, "shape": shape})
        layers += [{**part, "transform": [{"calculate": f"'{kind}'", "as": "kind"}]} for part in parts]
    title = "Effect size d_z of every metric with 95 % intervals, raw and at equal lengths"
    return _chart(title, [_line("x", 0), *layers], {"step": 26}, rows="metric")


def detectors(value: str) -> Spec:
    """AUROC of each detector, or its gain, with intervals. Rows: those of detectors.parquet for one scope.

    Args:
        value: "auroc" or "gain".
    """
    title, ends, reference = {
        "auroc": ("AUROC", "", 0.5),
        "gain": ("gain over the best baseline", "gain_", 0.0),
    }[value]
    fields = [_numbers(name, title) for name in (value, f"{ends}lo", f"{ends}hi")]
    tips = _tips("detector", "auroc", "gain", "ece", "n")
    layers = _intervals("x", fields, {"y": _names("detector", grid=True)}, tips, mark={"color": FACT_COLOUR})
    description = f"{title} of each detector with 95 % intervals"
    return _chart(description, [_line("x", reference), *layers], {"step": 26}, rows="detector")


def ladder() -> Spec:
    """What each control leaves of one effect. Rows: rung, form, dz, lo, hi, n, p."""
    encoding = {
        "x": _names("rung", labelAngle=-30),
        "xOffset": _groups("form", paddingOuter=1),
        "color": _key("form", range=[*_PAIR, "#009E73", "#CC79A7"], title="form"),
    }
    fields = [_numbers(field, "d_z") for field in ("dz", "lo", "hi")]
    shape = _key("form") | {"legend": None}
    layers = _intervals("y", fields, encoding, _tips("rung", "form", "dz", "p", "n"), shape=shape)
    return _chart("The effect size after each control for confounds", [_line("y", 0), *layers], 260)


def dose() -> Spec:
    """Stability by the level of noise. Rows: s, view, mean, lo, hi."""
    scale = {"type": "log", "nice": False, "padding": 12}
    encoding = {
        "x": _numbers("s", "noise s", tickCount=5, grid=False) | {"scale": scale},
        "color": _key("view", **_VIEW_COLOURS),
    }
    fields = [_numbers(field, "mean Jaccard similarity") for field in ("mean", "lo", "hi")]
    line = {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {**encoding, "y": fields[0]}}
    shape = _key("view", **_VIEW_SHAPES)
    layers = _intervals("y", fields, encoding, _tips("s", "view", "mean", "n"), shape=shape)
    return _chart("Stability of the ten strongest features against the level of noise", [line, *layers], 240)


def trajectory(low: float, high: float) -> Spec:
    """Log-probability through the logit lens by layer. Rows: layer, view, mean, lo, hi.

    Args:
        low: smallest value of any chart beside this one.
        high: largest value of any chart beside this one.
    """
    encoding = {
        "x": _numbers("layer", "layer", tickMinStep=1, grid=False) | {"scale": {"zero": False, "nice": False}},
        "color": _key("view", **_VIEW_COLOURS),
    }
    scale = {"domain": [low, high], "zero": False}
    middle, lower = (_numbers(field, "nats a token", scale) for field in ("mean", "lo"))
    point = {"type": "point", "filled": True, "size": 40, "opacity": 1}
    layers = [
        {"mark": {"type": "area", "opacity": 0.2}, "encoding": {**encoding, "y": lower, "y2": {"field": "hi"}}},
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**encoding, "y": middle}},
        {"mark": point, "encoding": {**encoding, "y": middle, "tooltip": _tips("layer", "view", "mean", "n")}},
    ]
    return _chart("Log-probability of the completions through the logit lens, by layer", layers, 240)


def spread(title: str, scopes: Sequence[str], *, first: bool, faint: bool) -> Spec:
    """Means of fact and hallucination by scope, with the middle half of the pairs. Rows: scope, view, mean, low, high.

    Args:
        title: what the numbers are.
        scopes: names in the rows, the same in all charts side by side.
        first: whether it is the first of a row, where the scopes are named and the colours explained.
        faint: drawn pale, since the numbers should not be relied on.
    """
    legend = {"title": "mean, and middle half of pairs", "orient": "bottom", "titleLimit": 0}
    key = {"legend": legend if first else None}
    encoding = {
        "y": {**_names("scope"), "scale": {"domain": list(scopes)}, **({} if first else {"axis": None})},
        "yOffset": _groups("view", domain=_VIEWS, paddingOuter=0.6),
        "color": _key("view", **_VIEW_COLOURS) | key,
    }
    fields = [_numbers(field, None, {"padding": 8}, tickCount=3) for field in ("mean", "low", "high")]
    shape = _key("view", **_VIEW_SHAPES) | key
    layers = _intervals("x", fields, encoding, mark={"opacity": 0.45 if faint else 1}, shape=shape)
    return _chart(title, layers, {"step": 28, "for": "position"})


def effects(scopes: Sequence[str], pooled: bool) -> Spec:
    """d_z of each metric in each scope, a point each. Rows: metric, scope, dz.

    Args:
        scopes: names in the rows, in the order of their colours.
        pooled: whether the last of them holds all the pairs.
    """
    columns = 2 if max(map(len, scopes)) > 12 else 3
    encoding = {
        "x": _numbers("dz", "d_z", _CLOSE),
        "y": _names("metric", grid=True),
        **domain_keys("scope", len(scopes), scopes, pooled=pooled, columns=columns),
    }
    points = {"mark": {"type": "point", "filled": True, "size": 50, "opacity": 0.85}, "encoding": encoding}
    return _chart("Effect size d_z of every metric by domain", [_line("x", 0), points], {"step": 21})


def heat_map(value: str = "dz", full: float = FULL_COLOUR) -> Spec:
    """A change of one metric by layer and scope. Rows: layer, scope, `value`; verdict, adj_dz and n for d_z.

    Args:
        value: field of the change: "dz", or another with its text in the field `label`.
        full: size of the change at which the colour is full.
    """
    colour = {"domain": [-full, 0, full], "range": _CHANGES, "clamp": True}
    spec = _matrix(
        "d_z by layer and domain" if value == "dz" else "Change by layer and domain",
        (_names("scope", limit=90, labelAngle=-30, **_BARE), _names("layer", "layer", **_BARE)),
        {"color": {"field": value, "type": "quantitative", "scale": colour, "legend": None}},
        {"text": {"field": "label", "type": "nominal"}},
        _tips("scope", "layer", "dz", "adj_dz", "verdict", "n") if value == "dz" else [],
    )
    if value == "dz":
        label = "isValid(datum.dz) ? format(datum.dz, '+.2f') + (datum.verdict === 'separates' ? ' ●' : '') : '-'"
        spec["transform"] = [{"calculate": label, "as": "label"}]
    return spec


def transfer() -> Spec:
    """AUROC of one detector trained on one domain and tested on another. Rows: those of transfer.parquet.

    Pale where nothing was learnt from the training domain, so that its direction elsewhere is chance.
    """
    unlearnt = "datum.learnt === false"
    scale = {"scheme": "viridis", "domain": [0.5, 1], "clamp": True}
    # Viridis is dark at chance and light at 1.
    dark = [{"test": unlearnt, "value": _GREY}, {"test": "datum.auroc > 0.75", "value": "#000000"}]
    return _matrix(
        "AUROC by training and test domain",
        (
            _names("test", "tested on", limit=110, labelAngle=-30, **_BARE),
            _names("train", "trained on", limit=110, **_BARE),
        ),
        {
            "color": {"field": "auroc", "type": "quantitative", "scale": scale, "legend": None},
            "opacity": {"condition": {"test": unlearnt, "value": 0.15}, "value": 1},
        },
        {
            "text": {"field": "auroc", "format": ".2f", "type": "quantitative"},
            "color": {"condition": dark, "value": "#FFFFFF"},
        },
        _tips("train", "test", "auroc", "lo", "hi", "n"),
    )


def scatter(keys: Spec) -> Spec:
    """Fact against hallucination, a point a pair. Rows: fact, hall, domain, id, prompt, fact_text, hall_text.

    A second data set "ends" holds the two ends of the diagonal (x, y).

    Args:
        keys: colours and shapes of the domains, see `domain_keys`.
    """
    diagonal = {
        "data": {"name": "ends"},
        "mark": {"type": "line", "color": _GREY, "strokeDash": [4, 4], "strokeWidth": 1},
        "encoding": {"x": _numbers("x", "fact", _CLOSE), "y": _numbers("y", "hallucination", _CLOSE)},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 32, "opacity": 0.75, "cursor": "pointer"},
        "encoding": {
            "x": _numbers("fact", "fact", _CLOSE),
            "y": _numbers("hall", "hallucination", _CLOSE),
            **keys,
            "tooltip": _tips("id", "domain", "prompt", "fact_text", "hall_text", "fact", "hall"),
        },
    }
    return _chart("Values of the fact against those of the hallucination, one point a pair", [diagonal, points], 340)


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
    key["legend"] = {**_TOP, "labelLimit": 110, "columns": columns}
    return {
        "color": {**key, "scale": {**domain, "range": colours}},
        "shape": {**key, "scale": {**domain, "range": shapes}},
    }


def nothing() -> Spec:
    """A text in place of a chart without numbers. Rows: text."""
    mark = {"type": "text", "color": _GREY, "fontSize": 12}
    return _chart("Nothing to show", [{"mark": mark, "encoding": {"text": {"field": "text", "type": "nominal"}}}], 80)


def _chart(description: str, layers: Sequence[Spec], height: int | Spec, rows: str | None = None) -> Spec:
    """A chart of layers.

    Args:
        description: for those who cannot see it.
        layers: what is drawn, the last on top.
        height: in pixels, or of a row: {"step": pixels}.
        rows: the field that names the rows, where each row has a height.
    """
    spec = {"$schema": SCHEMA, "description": description, "data": {"name": "rows"}, "width": "container"}
    return {**spec, "height": height, "layer": list(layers)} | ({"usermeta": {"rows": rows}} if rows else {})


def _intervals(
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


def _matrix(description: str, sides: tuple[Spec, Spec], cell: Spec, text: Spec, tips: list[Spec]) -> Spec:
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
    return _chart(description, layers, {"step": 32}, rows=y["field"])


def _line(channel: str, value: float) -> Spec:
    """A line of reference."""
    return {"mark": {"type": "rule", "color": _GREY}, "encoding": {channel: {"datum": value}}}


def _names(field: str, title: str | None = None, limit: int = 170, **axis: Any) -> Spec:
    """An axis of names, in the order of the rows."""
    axis = {"title": title, "labelLimit": limit, "labelOverlap": False, **axis}
    return {"field": field, "type": "nominal", "sort": None, "axis": axis}


def _numbers(field: str, title: str | None, scale: Spec | None = None, **axis: Any) -> Spec:
    axis = {"title": title, "tickCount": 6, **axis}
    return {"field": field, "type": "quantitative", "scale": {"zero": False, **(scale or {})}, "axis": axis}


def _groups(field: str, **scale: Any) -> Spec:
    return {"field": field, "type": "nominal", "sort": None, "scale": scale}


def _key(field: str, title: str | None = None, **scale: Any) -> Spec:
    return {**_groups(field, **scale), "legend": {**_TOP, "title": title}}


def _tips(*fields: str) -> list[Spec]:
    found: list[Spec] = []
    for field in fields:
        title, style = _TIPS.get(field, (field, None))
        kind = {"type": "nominal"} if style is None else {"type": "quantitative", "format": style}
        found.append({"field": field, "title": title, **kind})
    return found
