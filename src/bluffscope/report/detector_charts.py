"""Charts of detectors as Vega-Lite specifications, as those of `bluffscope.report.charts`."""

from __future__ import annotations

from typing import Final

from bluffscope.report.marks import (
    BARE,
    GREY,
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
from bluffscope.report.sides import Words

INSIDE: Final = "#009E73"
"""What looks inside the model; baselines are grey. Neither is a side's colour."""
_LAYERS: Final = (INSIDE, "#CC79A7", "#E69F00")
_SHARE: Final[Spec] = {"domain": [0, 1], "nice": False}
KINDS: Final = {
    "found": "#C9ECDF",
    "carries over": "#C9ECDF",
    "partly": "#D3EBFA",
    "no better than text": "#FBE3B5",
    "reversed": "#FADFCD",
    "unclear": "#ECEEF1",
    "chance": "#DDE1E6",
    "nothing learnt": "#F6F7F9",
    "not judged": "#FFFFFF",
}
"""Colours of the verdicts on a transfer, each with its words in it."""
CELL: Final = 108
"""Width of a cell of the matrix of verdicts that its longest verdict needs, in pixels."""


def detectors(words: Words, value: str) -> Spec:
    """AUROC of each detector, or its gain, with intervals. Rows: those of detectors.parquet for one scope, with name.

    Args:
        words: of the run.
        value: "auroc" or "gain".
    """
    title, ends, reference = {
        "auroc": ("AUROC (0.5: chance)", "", 0.5),
        "gain": ("gain in AUROC over the best baseline", "gain_", 0.0),
    }[value]
    fields = [number_axis(name, title) for name in (value, f"{ends}lo", f"{ends}hi")]
    tips = tooltips(words, "name", "auroc", "gain", "ece", "n")
    # Baselines have no gain.
    colour = {"condition": {"test": "isValid(datum.gain)", "value": INSIDE}, "value": GREY}
    encoding = {"y": name_axis("name", grid=True), "color": colour}
    layers = intervals("x", fields, encoding, tips)
    description = f"{title} of each detector with 95 % intervals"
    return chart(description, [rule_at("x", reference), *layers], {"step": 26}, rows="name")


def reliability(words: Words) -> Spec:
    """Share of hallucinations by the probability that one detector gives them. Rows: x, y, n, lo, hi."""
    x = number_axis("x", "probability that the detector gives", _SHARE, tickCount=5)
    title = f"share of {words.halls} among them"
    y, lo, hi = (number_axis(field, title, _SHARE, tickCount=5) for field in ("y", "lo", "hi"))
    diagonal = {
        "data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
        "mark": {"type": "line", "color": GREY, "strokeDash": [4, 4], "strokeWidth": 1},
        "encoding": {"x": x, "y": y},
    }
    line = {"mark": {"type": "line", "color": INSIDE, "strokeWidth": 1.5}, "encoding": {"x": x, "y": y}}
    tips = tooltips(words, "x", "y", "lo", "hi", "n")
    tips[0]["title"], tips[1]["title"], tips[-1]["title"] = "mean probability", title, "texts"
    points = intervals("y", [y, lo, hi], {"x": x}, tips, mark={"color": INSIDE})
    counts = {
        "mark": {"type": "text", "dy": -7, "fontSize": 11, "color": GREY},
        "encoding": {"x": x, "y": hi, "text": {"field": "n", "type": "quantitative", "format": ","}},
    }
    return chart("Reliability curve with the number of texts at each point", [diagonal, line, *points, counts], 270)


def risk() -> Spec:
    """Wrong answers among the texts that a detector is surest of. Rows: x, y, name, other (whether of a baseline)."""
    shares = {"format": ".0%"}
    x = number_axis("x", "share of texts answered, the surest first", _SHARE, tickCount=5, **shares)
    y = number_axis("y", "wrong among them", {"zero": True, "nice": True}, tickCount=5, **shares)
    encoding: Spec = {
        "x": x,
        "y": y,
        "color": colour_key("name", range=[INSIDE, GREY]),
        "strokeDash": {"condition": {"test": "datum.other", "value": [5, 4]}, "value": [1, 0]},
    }
    line = {"mark": {"type": "line", "strokeWidth": 2}, "encoding": encoding}
    tips = [
        {"field": "name", "title": "detector", "type": "nominal"},
        {"field": "x", "title": "answered", "type": "quantitative", "format": ".0%"},
        {"field": "y", "title": "wrong", "type": "quantitative", "format": ".1%"},
    ]
    over = {
        "mark": {"type": "point", "size": 60, "opacity": 0},
        "encoding": {"x": x, "y": y, "tooltip": tips},
    }
    return chart("Risk-coverage curve", [line, over], 270)


def by_layer(words: Words, *, several: bool = False) -> Spec:
    """AUROC of each detector at each layer, with a line a read position where there are several.

    Rows: detector, position, name, layer, x, auroc, lo, hi, times; one of no layer, which is what choosing among them
    is worth: a dashed line across.
    """
    x = number_axis("x", "layer", {"nice": False, "padding": 10}, tickMinStep=1, grid=False, format="d")
    fields = [number_axis(field, "AUROC (0.5: chance)") for field in ("auroc", "lo", "hi")]
    cells = [{"filter": "isValid(datum.layer)"}]
    shared: Spec = {"x": x, "color": colour_key("name", range=list(_LAYERS))}
    tips = tooltips(words, "name", *(["position"] if several else []), "layer", "auroc", "lo", "hi", "n", "times")
    shape = colour_key("position") if several else groups("name") | {"legend": None}
    dashes = {"strokeDash": groups("position") | {"legend": None}} if several else {}
    line: Spec = {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {**shared, **dashes, "y": fields[0]}}
    parts = [line, *intervals("y", fields, shared, tips, mark={"strokeWidth": 1.5}, point={"size": 55}, shape=shape)]
    dashed = {
        "transform": [{"filter": "!isValid(datum.layer)"}],
        "mark": {"type": "rule", "color": GREY, "strokeDash": [5, 4], "strokeWidth": 2},
        "encoding": {"y": fields[0]},
    }
    layers = [rule_at("y", 0.5), dashed, *({**part, "transform": cells} for part in parts)]
    by = "layer and read position" if several else "layer"
    return chart(f"AUROC of each detector by {by} with 95 % intervals", layers, 260)


def transfer(words: Words) -> Spec:
    """AUROC of one detector trained on one domain and tested on another. Rows: those of transfer.parquet.

    Pale where nothing was learnt from the training domain, so that its direction elsewhere is chance.
    """
    unlearnt = "datum.learnt === false"
    scale = {"scheme": "viridis", "domain": [0.5, 1], "clamp": True}
    # Viridis is dark at chance and light at 1.
    dark = [{"test": unlearnt, "value": GREY}, {"test": "datum.auroc > 0.75", "value": "#000000"}]
    return matrix(
        "AUROC by training and test domain",
        _sides(),
        {
            "color": {"field": "auroc", "type": "quantitative", "scale": scale, "legend": None},
            "opacity": {"condition": {"test": unlearnt, "value": 0.15}, "value": 1},
        },
        {
            "text": {"field": "auroc", "format": ".2f", "type": "quantitative"},
            "color": {"condition": dark, "value": "#FFFFFF"},
        },
        tooltips(words, "train", "test", "auroc", "lo", "hi", "n"),
    )


def carried() -> Spec:
    """What one detector is worth on each data set. Rows: those of transfer_matrix.parquet.

    Each cell has its AUROC, the interval, and the verdict in words and colour.
    """
    fields = {"train": None, "test": None, "verdict": None, "auroc": ".3f", "lo": ".3f", "hi": ".3f"}
    fields |= {"own": ".3f", "text": ".3f", "gain": "+.3f", "reason": None}
    called = {
        "train": "trained on",
        "test": "tested on",
        "auroc": "AUROC",
        "lo": "from",
        "hi": "to",
        "own": "trained on the test's own",
        "text": "text alone",
        "gain": "beyond text",
    }
    tips = [
        {"field": field, "title": called.get(field, field)}
        | ({"type": "nominal"} if style is None else {"type": "quantitative", "format": style})
        for field, style in fields.items()
    ]
    colour = {"domain": list(KINDS), "range": list(KINDS.values())}
    spec = matrix(
        "AUROC, 95 % interval and verdict by training and test data",
        _sides(angle=0),
        {"color": {"field": "said", "type": "nominal", "scale": colour, "legend": None}},
        {"text": {"field": "label", "type": "nominal"}},
        tips,
    )
    spec["height"] = {"step": 60}
    spec["layer"][1]["mark"] |= {"dy": -14, "lineHeight": 15, "baseline": "middle"}
    number = "format(datum.auroc, '.2f') + '\\n' + format(datum.lo, '.2f') + ' to ' + format(datum.hi, '.2f')"
    label = f"isValid(datum.auroc) ? {number} + '\\n' + datum.said : '\\nnot judged'"
    said = "isValid(datum.auroc) ? datum.verdict : 'not judged'"
    return {**spec, "transform": [{"calculate": said, "as": "said"}, {"calculate": label, "as": "label"}]}


def _sides(angle: int = -30) -> tuple[Spec, Spec]:
    return (
        name_axis("test", "tested on", limit=104, labelAngle=angle, **BARE),
        name_axis("train", "trained on", limit=104, **BARE),
    )
