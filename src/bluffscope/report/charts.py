"""The charts of a report as Vega-Lite specifications, one description for the page and for figures/.

A specification names its data set ("rows") and does not hold it: the page fills in the rows of the scope or metric that
is chosen, `bluffscope.report.figures` those of a figure. Rows have fixed field names; domains and metrics are values,
since they can be any text. Colours are those of Okabe and Ito, or viridis.
"""

from __future__ import annotations

from typing import Any, Final

from bluffscope.report.panels import DOMAIN_COLOURS, DOMAIN_SHAPES, FACT_COLOUR, HALL_COLOUR

Spec = dict[str, Any]

SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v6.json"
"""Names the language; nothing is fetched from there."""
FALL: Final = "#7FB8DC"
LEVEL: Final = "#F7F7F7"
RISE: Final = "#EFA06A"
FULL_COLOUR: Final = 1.5
"""|d_z| at which a heat map's colour is full, the same in all of them."""
_GREY: Final = "#808080"
_INK: Final = "#1A1A1A"
_VIEWS: Final = {"domain": ["fact", "hallucination"], "range": [FACT_COLOUR, HALL_COLOUR]}
_KINDS: Final = {"domain": ["raw", "at equal lengths"], "range": [FACT_COLOUR, HALL_COLOUR]}

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


def forest() -> Spec:
    """d_z of every metric, raw and at equal lengths, with intervals. Rows: those of stats.parquet for one scope."""
    tips = [
        _tip("metric", "metric"),
        _tip("n", "pairs"),
        _tip("dz", "d_z", "+.3f"),
        _tip("q", "q", ".2g"),
        _tip("adj_dz", "d_z at equal lengths", "+.3f"),
        _tip("adj_q", "its q", ".2g"),
        _tip("verdict", "verdict"),
    ]
    y = {
        "field": "metric",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "grid": True, "labelLimit": 170, "labelOverlap": False},
    }

    def part(kind: str, value: str, low: str, high: str, shape: str, offset: int) -> list[Spec]:
        colour = {
            "field": "kind",
            "type": "nominal",
            "scale": _KINDS,
            "legend": {"title": None, "orient": "top"},
        }
        named = [{"calculate": f"'{kind}'", "as": "kind"}]
        return [
            {
                "transform": named,
                "mark": {"type": "rule", "strokeWidth": 1.5, "yOffset": offset},
                "encoding": {"x": _x(low, "d_z"), "x2": {"field": high}, "color": colour},
            },
            {
                "transform": named,
                "mark": {"type": "point", "filled": True, "opacity": 1, "size": 55, "shape": shape, "yOffset": offset},
                "encoding": {"x": _x(value, "d_z"), "color": colour, "tooltip": tips},
            },
        ]

    return _beside_line(
        {
            **_base("Effect size d_z of every metric with 95 % intervals, raw and at equal lengths"),
            "usermeta": {"rows": "metric"},
            "height": {"step": 26},
            "encoding": {"y": y},
            "layer": [
                {"mark": {"type": "rule", "color": _GREY}, "encoding": {"x": {"datum": 0}}},
                *part("raw", "dz", "dz_lo", "dz_hi", "circle", -4),
                *part("at equal lengths", "adj_dz", "adj_lo", "adj_hi", "diamond", 5),
            ],
        }
    )


def heat_map() -> Spec:
    """d_z of one metric by layer and scope. Rows: layer, scope, dz, adj_dz, verdict, n."""
    colour = {
        "field": "dz",
        "type": "quantitative",
        "scale": {"domain": [-FULL_COLOUR, 0, FULL_COLOUR], "range": [FALL, LEVEL, RISE], "clamp": True},
        "legend": None,
    }
    tips = [
        _tip("scope", "scope"),
        _tip("layer", "layer"),
        _tip("dz", "d_z", "+.3f"),
        _tip("adj_dz", "d_z at equal lengths", "+.3f"),
        _tip("verdict", "verdict"),
        _tip("n", "pairs"),
    ]
    label = "isValid(datum.dz) ? format(datum.dz, '+.2f') + (datum.verdict === 'separates' ? ' ●' : '') : '-'"
    axis = {"title": None, "labelAngle": -30, "labelLimit": 90, "labelOverlap": False, "ticks": False, "domain": False}
    return {
        **_base("d_z by layer and domain"),
        "usermeta": {"rows": "layer"},
        "height": {"step": 30},
        "transform": [{"calculate": label, "as": "label"}],
        "encoding": {
            "x": {"field": "scope", "type": "nominal", "sort": None, "axis": axis},
            "y": {
                "field": "layer",
                "type": "nominal",
                "sort": None,
                "axis": {"title": "layer", "ticks": False, "domain": False},
            },
            "tooltip": tips,
        },
        "layer": [
            {"mark": {"type": "rect", "stroke": "white", "strokeWidth": 1}, "encoding": {"color": colour}},
            {
                "mark": {"type": "text", "fontSize": 11, "color": _INK},
                "encoding": {"text": {"field": "label", "type": "nominal"}},
            },
        ],
    }


def scatter(domains: int) -> Spec:
    """Fact against hallucination, a point a pair. Rows: fact, hall, domain, id, prompt, fact_text, hall_text.

    A second data set "ends" holds the two ends of the diagonal (x, y).

    Args:
        domains: how many there are, for colours and shapes.
    """
    colours = [DOMAIN_COLOURS[i % len(DOMAIN_COLOURS)] for i in range(domains)]
    shapes = [DOMAIN_SHAPES[i // len(DOMAIN_COLOURS) % len(DOMAIN_SHAPES)] for i in range(domains)]
    key = {"title": None, "orient": "top", "labelLimit": 110, "columns": 4}
    tips = [
        _tip("id", "pair"),
        _tip("domain", "domain"),
        _tip("prompt", "prompt"),
        _tip("fact_text", "fact"),
        _tip("hall_text", "hallucination"),
        _tip("fact", "value of the fact", ".4g"),
        _tip("hall", "value of the hallucination", ".4g"),
    ]

    def scaled(field: str, title: str) -> Spec:
        return {
            "field": field,
            "type": "quantitative",
            "scale": {"zero": False, "nice": False, "padding": 8},
            "axis": {"title": title, "tickCount": 6},
        }

    return {
        **_base("Values of the fact against those of the hallucination, one point a pair"),
        "height": 340,
        "layer": [
            {
                "data": {"name": "ends"},
                "mark": {"type": "line", "color": _GREY, "strokeDash": [4, 4], "strokeWidth": 1},
                "encoding": {"x": scaled("x", "fact"), "y": scaled("y", "hallucination")},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 32, "opacity": 0.75, "cursor": "pointer"},
                "encoding": {
                    "x": scaled("fact", "fact"),
                    "y": scaled("hall", "hallucination"),
                    "color": {
                        "field": "domain",
                        "type": "nominal",
                        "sort": None,
                        "scale": {"range": colours},
                        "legend": key,
                    },
                    "shape": {
                        "field": "domain",
                        "type": "nominal",
                        "sort": None,
                        "scale": {"range": shapes},
                        "legend": key,
                    },
                    "tooltip": tips,
                },
            },
        ],
    }


def dose() -> Spec:
    """Stability by the level of noise. Rows: s, view, mean, lo, hi."""
    x = {
        "field": "s",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False, "padding": 12},
        "axis": {"title": "noise s", "tickCount": 5, "grid": False},
    }
    scale = {"zero": False, "nice": True}
    y = {"field": "mean", "type": "quantitative", "scale": scale, "axis": {"title": "mean Jaccard similarity"}}
    colour = {"field": "view", "type": "nominal", "scale": _VIEWS, "legend": {"title": None, "orient": "top"}}
    shape = {
        "field": "view",
        "type": "nominal",
        "scale": {"domain": _VIEWS["domain"], "range": ["circle", "diamond"]},
        "legend": {"title": None, "orient": "top"},
    }
    tips = [_tip("s", "noise s"), _tip("view", "text"), _tip("mean", "mean", ".3f"), _tip("n", "pairs")]
    return {
        **_base("Stability of the ten strongest features against the level of noise"),
        "height": 240,
        "encoding": {"x": x, "color": colour},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"y": y}},
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"y": {**y, "field": "lo"}, "y2": {"field": "hi"}},
            },
            {
                "mark": {"type": "point", "filled": True, "opacity": 1, "size": 60},
                "encoding": {"y": y, "shape": shape, "tooltip": tips},
            },
        ],
    }


def ladder() -> Spec:
    """What each control leaves of one effect. Rows: rung, form, dz, lo, hi, n, p."""
    x = {
        "field": "rung",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelAngle": -30, "labelLimit": 170, "labelOverlap": False},
    }
    colour = {
        "field": "form",
        "type": "nominal",
        "sort": None,
        "scale": {"range": [FACT_COLOUR, HALL_COLOUR, "#009E73", "#CC79A7"]},
        "legend": {"title": "form", "orient": "top"},
    }
    y = {"field": "dz", "type": "quantitative", "axis": {"title": "d_z"}}
    tips = [
        _tip("rung", "control"),
        _tip("form", "form"),
        _tip("dz", "d_z", "+.3f"),
        _tip("p", "p", ".2g"),
        _tip("n", "pairs"),
    ]
    offset = {"field": "form", "type": "nominal", "sort": None, "scale": {"paddingOuter": 1}}
    return _beside_line(
        {
            **_base("The effect size after each control for confounds"),
            "height": 260,
            "encoding": {"x": x, "xOffset": offset, "color": colour},
            "layer": [
                {"mark": {"type": "rule", "color": _GREY}, "encoding": {"y": {"datum": 0}}},
                {
                    "mark": {"type": "rule", "strokeWidth": 2},
                    "encoding": {"y": {**y, "field": "lo"}, "y2": {"field": "hi"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "opacity": 1, "size": 70},
                    "encoding": {"y": y, "shape": {**colour, "scale": {}, "legend": None}, "tooltip": tips},
                },
            ],
        }
    )


def detectors(value: str, low: str, high: str, title: str, reference: float) -> Spec:
    """One number of each detector with its interval. Rows: those of detectors.parquet for one scope.

    Args:
        value: field of the number.
        low: field of the interval's lower end.
        high: field of the upper end.
        title: of the axis.
        reference: where a line is drawn (chance, or no gain).
    """
    y = {
        "field": "detector",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "grid": True, "labelLimit": 170, "labelOverlap": False},
    }
    tips = [
        _tip("detector", "detector"),
        _tip("auroc", "AUROC", ".3f"),
        _tip("gain", "gain over the best baseline", "+.3f"),
        _tip("ece", "calibration error (ECE)", ".3f"),
        _tip("n", "pairs"),
    ]
    return _beside_line(
        {
            **_base(f"{title} of each detector with 95 % intervals"),
            "usermeta": {"rows": "detector"},
            "height": {"step": 26},
            "encoding": {"y": y},
            "layer": [
                {"mark": {"type": "rule", "color": _GREY}, "encoding": {"x": {"datum": reference}}},
                {
                    "mark": {"type": "rule", "strokeWidth": 2, "color": FACT_COLOUR},
                    "encoding": {"x": _x(low, title), "x2": {"field": high}},
                },
                {
                    "mark": {"type": "point", "filled": True, "opacity": 1, "size": 70, "color": FACT_COLOUR},
                    "encoding": {"x": _x(value, title), "tooltip": tips},
                },
            ],
        }
    )


def transfer() -> Spec:
    """AUROC of one detector trained on one domain and tested on another. Rows: those of transfer.parquet.

    Pale where nothing was learnt from the training domain, so that what comes of it elsewhere is chance.
    """
    tips = [
        _tip("train", "trained on"),
        _tip("test", "tested on"),
        _tip("auroc", "AUROC", ".3f"),
        _tip("lo", "from", ".3f"),
        _tip("hi", "to", ".3f"),
        _tip("n", "pairs"),
    ]
    axis = {"labelLimit": 110, "labelOverlap": False, "ticks": False, "domain": False}
    colour = {
        "field": "auroc",
        "type": "quantitative",
        "scale": {"scheme": "viridis", "domain": [0.5, 1], "clamp": True},
        "legend": None,
    }
    unlearnt = "datum.learnt === false"
    # Viridis is dark at chance and light at 1.
    ink = {
        "condition": [
            {"test": unlearnt, "value": "#808080"},
            {"test": "datum.auroc > 0.75", "value": "#000000"},
        ],
        "value": "#FFFFFF",
    }
    opacity = {"condition": {"test": unlearnt, "value": 0.15}, "value": 1}
    return {
        **_base("AUROC by training and test domain"),
        "usermeta": {"rows": "train"},
        "height": {"step": 34},
        "encoding": {
            "x": {
                "field": "test",
                "type": "nominal",
                "sort": None,
                "axis": {**axis, "title": "tested on", "labelAngle": -30},
            },
            "y": {"field": "train", "type": "nominal", "sort": None, "axis": {**axis, "title": "trained on"}},
            "tooltip": tips,
        },
        "layer": [
            {
                "mark": {"type": "rect", "stroke": "white", "strokeWidth": 1},
                "encoding": {"color": colour, "opacity": opacity},
            },
            {
                "mark": {"type": "text", "fontSize": 12},
                "encoding": {"text": {"field": "auroc", "format": ".2f", "type": "quantitative"}, "color": ink},
            },
        ],
    }


def _base(description: str) -> Spec:
    return {
        "$schema": SCHEMA,
        "description": description,
        "data": {"name": "rows"},
        "width": "container",
    }


def _x(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "scale": {"zero": False}, "axis": {"title": title, "tickCount": 6}}


def _beside_line(spec: Spec) -> Spec:
    """The first layer, a line of reference, shares nothing of the encoding of the others."""
    shared = spec.pop("encoding")
    line, *others = spec["layer"]
    return {**spec, "layer": [line, *({**layer, "encoding": shared | layer["encoding"]} for layer in others)]}


def _tip(field: str, title: str, style: str | None = None) -> Spec:
    if style is None:
        return {"field": field, "title": title, "type": "nominal"}
    return {"field": field, "title": title, "type": "quantitative", "format": style}
