"""The panels of the dashboard, each an Altair chart of numbers that are already computed.

Data goes in as plain rows with fixed field names, never by the names of domains or columns: those can be any
text. Colours are those of Okabe and Ito, which remain distinct to colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import altair as alt

FACT_COLOUR: Final = "#0072B2"
HALL_COLOUR: Final = "#D55E00"
SCATTER_WIDTH: Final = 330
DUMBBELL_WIDTH: Final = 195
EFFECTS_WIDTH: Final = 310
POOLED_COLOUR: Final = "#000000"
DOMAIN_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A800")
DOMAIN_SHAPES: Final = ("circle", "square", "triangle-up")
"""A second sign, for more domains than colours."""
_FALL: Final = "#7FB8DC"
_LEVEL: Final = "#F7F7F7"
_RISE: Final = "#EFA06A"
_GREY: Final = "#666666"

NAMED: Final = ("metric", "scope", "domain", "train", "test")
"""Fields of charts that hold names of the user's: metrics and values of columns, which can be any text."""

Row = dict[str, Any]


def named(name: str) -> str:
    """A name as a chart may group by it: Vega looks groups up in plain objects, and those have a "constructor" already.

    No name that an object has of itself ends in a space, which is not drawn.
    """
    return f"{name} "


class Panel(NamedTuple):
    """A chart and its numbers, which stand apart: Altair copies what is inside a chart many times over."""

    chart: Any
    """Altair chart that knows its data by `name`."""
    name: str
    """Name of the data set, unique in a figure."""
    rows: Sequence[Row]


class Heading(NamedTuple):
    """What a panel shows, and how it is read."""

    title: str
    subtitle: str
    faint: bool = False
    """Written in grey: the numbers should not be relied on."""

    def params(self) -> alt.TitleParams:
        """As Altair takes it."""
        colour = _GREY if self.faint else "#000000"
        return alt.TitleParams(self.title, subtitle=self.subtitle.split("\n"), color=colour, anchor="start")


class Scopes(NamedTuple):
    """The domains in their order, and how each is drawn; the pooled scope stands last."""

    label_of: Mapping[str, str]
    """Label of each domain that is drawn."""
    pooled: str | None
    """Label of the pooled scope, or None where there is one domain only."""

    @property
    def domains(self) -> list[str]:
        """Labels of the domains."""
        return list(self.label_of.values())

    @property
    def labels(self) -> list[str]:
        """All scopes."""
        return [*self.domains, *([] if self.pooled is None else [self.pooled])]

    def colour(self, pooled: bool) -> alt.Scale:
        """Colours of the domains, and black for the pooled scope."""
        colours = [DOMAIN_COLOURS[i % len(DOMAIN_COLOURS)] for i in range(len(self.domains))]
        labels = self.labels if pooled else self.domains
        return alt.Scale(domain=labels, range=[*colours, POOLED_COLOUR][: len(labels)])

    def shape(self, pooled: bool) -> alt.Scale:
        """Shapes change when the colours start again; the pooled scope is a diamond."""
        shapes = [DOMAIN_SHAPES[i // len(DOMAIN_COLOURS) % len(DOMAIN_SHAPES)] for i in range(len(self.domains))]
        labels = self.labels if pooled else self.domains
        return alt.Scale(domain=labels, range=[*shapes, "diamond"][: len(labels)])


def nothing(heading: Heading, width: float, height: float) -> Panel:
    """A panel of a metric that has no value anywhere."""
    mark = _chart(heading).mark_text(color=_GREY, fontSize=12).encode(text="text:N")
    return _panel(mark, heading, [{"text": "no values in this run"}], width, height)


def heat_map(rows: Sequence[Row], heading: Heading, scopes: Scopes, layers: Sequence[int], unit: str) -> Panel:
    """Layer by domain: colour and upper number are the change, the lower line the means of fact and hallucination.

    Args:
        rows: fields scope, layer, change, text, means.
        heading: what it shows.
        scopes: columns.
        layers: rows, in this order.
        unit: unit of the means, for the subtitle.
    """
    columns = len(scopes.labels)
    wide, tall = max(42, min(86, 430 // columns)), (42 if len(layers) <= 8 else 20)
    extreme = max((abs(row["change"]) for row in rows if row["change"] is not None), default=0.0) or 1.0
    straight = all(len(label) * 7 <= wide for label in scopes.labels)
    axis = alt.Axis(labelAngle=0 if straight else -30, labelLimit=90, title=None, orient="bottom", labelOverlap=False)
    base = _chart(heading).encode(
        x=alt.X("scope:N", sort=scopes.labels, axis=axis, scale=alt.Scale(domain=scopes.labels)),
        y=alt.Y(
            "layer:N",
            sort=[str(layer) for layer in layers],
            axis=alt.Axis(title="layer", labelOverlap=False),
            scale=alt.Scale(domain=[str(layer) for layer in layers]),
        ),
    )
    scale = alt.Scale(domain=[-extreme, 0, extreme], range=[_FALL, _LEVEL, _RISE])
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(color=alt.Color("change:Q", scale=scale, legend=None))
    two_lines = wide >= 76 and tall >= 40
    change = base.mark_text(fontSize=13 if two_lines else 9, dy=-7 if two_lines else 0).encode(text="text:N")
    parts: list[alt.Chart] = [cells, change]
    if two_lines:
        parts.append(base.mark_text(fontSize=10, dy=9, color="#333333").encode(text="means:N"))
        heading = heading._replace(subtitle=f"{heading.subtitle}\nbelow: means of fact → hallucination ({unit})")
    return _panel(alt.layer(*parts), heading, rows, wide * columns, max(tall * len(layers), 42))


def scatter(rows: Sequence[Row], heading: Heading, scopes: Scopes, legend: bool) -> Panel:
    """Fact against hallucination, one point a pair, with the diagonal.

    Args:
        rows: fields fact, hall, scope.
        heading: what it shows.
        scopes: colours.
        legend: whether the colours are explained beside the panel.
    """
    values = [row[side] for row in rows for side in ("fact", "hall")]
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or 1.0
    ends = [low - margin, high + margin]
    scale = alt.Scale(domain=ends, nice=False, zero=False)
    diagonal = (
        alt.Chart(alt.Data(values=[{"x": end, "y": end} for end in ends]))
        .mark_line(color=_GREY, strokeDash=[4, 4], strokeWidth=1)
        .encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale))
    )
    key = alt.Legend(title="domain", orient="right", labelLimit=130, symbolOpacity=1) if legend else None
    shown = len({row["scope"] for row in rows})
    points = (
        _chart(heading)
        .mark_point(filled=True, size=26 if len(rows) <= 500 else 12, opacity=0.7 if shown * len(rows) < 2000 else 0.5)
        .encode(
            x=alt.X("fact:Q", title="fact", scale=scale),
            y=alt.Y("hall:Q", title="hallucination", scale=scale),
            color=alt.Color("scope:N", scale=scopes.colour(pooled=False), legend=key),
            shape=alt.Shape("scope:N", scale=scopes.shape(pooled=False), legend=key),
        )
    )
    return _panel(alt.layer(diagonal, points), heading, rows, SCATTER_WIDTH, 270)


def dumbbells(rows: Sequence[Row], heading: Heading, scopes: Scopes, first: bool) -> Panel:
    """Means of fact and hallucination by domain, with the middle half of the pairs as a line.

    Args:
        rows: fields scope, view ("fact" or "hallucination"), mean, low, high (quartiles).
        heading: what it shows.
        scopes: rows of the panel.
        first: whether the names of the domains stand beside it (the panels stand in a row).
    """
    names = alt.Axis(title=None, labelLimit=130, labelOverlap=False) if first else None
    views = ["fact", "hallucination"]
    key = (
        alt.Legend(title="mean, and middle half of pairs", titleFontWeight="normal", orient="bottom", symbolOpacity=1)
        if first
        else None
    )
    opacity = 0.45 if heading.faint else 1.0
    base = _chart(heading).encode(
        y=alt.Y("scope:N", sort=scopes.labels, axis=names, scale=alt.Scale(domain=scopes.labels)),
        yOffset=alt.YOffset("view:N", sort=views, scale=alt.Scale(domain=views, paddingOuter=0.6)),
        color=alt.Color(
            "view:N",
            scale=alt.Scale(domain=views, range=[FACT_COLOUR, HALL_COLOUR]),
            legend=key,
        ),
    )
    ends = [value for row in rows for value in (row["low"], row["high"], row["mean"])]
    margin = 0.05 * (max(ends) - min(ends)) or 0.05 * abs(max(ends)) or 1.0
    scale = alt.Scale(domain=[min(ends) - margin, max(ends) + margin], zero=False, nice=False)
    axis = alt.Axis(title=None, tickCount=3)
    lines = base.mark_rule(strokeWidth=2, opacity=0.5 * opacity).encode(
        x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q"
    )
    shape = alt.Shape(
        "view:N",
        scale=alt.Scale(domain=views, range=["circle", "diamond"]),
        legend=key,
    )
    means = base.mark_point(filled=True, size=70, opacity=opacity).encode(
        x=alt.X("mean:Q", scale=scale, axis=axis), shape=shape
    )
    height = max(28 * len(scopes.labels), 60)
    return _panel(alt.layer(lines, means), heading, rows, DUMBBELL_WIDTH, height)


def effects(rows: Sequence[Row], heading: Heading, scopes: Scopes, metrics: Mapping[str, str]) -> Panel:
    """d_z of each metric (rows) in each domain (points), with a line at 0.

    Args:
        rows: fields metric, scope, dz.
        heading: what it shows.
        scopes: colours and shapes.
        metrics: labels of the rows in their order, by metric.
    """
    order = list(metrics.values())
    step = 21 if len(order) <= 40 else 16
    extreme = max(abs(row["dz"]) for row in rows)
    ends = max(1.1 * extreme, 0.5)
    # Two columns of long labels are as wide as the panel.
    per_line = 2 if max(map(len, scopes.labels)) > 11 else 3
    key = alt.Legend(title=None, orient="top", columns=per_line, labelLimit=120, symbolOpacity=1)
    base = _chart(heading)
    x = alt.X("dz:Q", scale=alt.Scale(domain=[-ends, ends], nice=False), axis=alt.Axis(title="d_z", tickCount=5))
    y = alt.Y(
        "metric:N",
        sort=order,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(title=None, grid=True, labelLimit=190, labelOverlap=False),
    )
    points = base.mark_point(filled=True, size=50, opacity=0.85).encode(
        x=x,
        y=y,
        color=alt.Color("scope:N", scale=scopes.colour(pooled=True), legend=key),
        shape=alt.Shape("scope:N", scale=scopes.shape(pooled=True), legend=key),
    )
    zero = alt.Chart(alt.Data(values=[{"dz": 0}])).mark_rule(color=_GREY).encode(x=x)
    return _panel(alt.layer(zero, points), heading, rows, EFFECTS_WIDTH, step * len(order))


def cell_text(change: float | None, percent: bool) -> str:
    """The upper line of a heat map's cell."""
    if change is None:
        return "-"
    text = f"{change:+.1f}" if percent else f"{change:+.3f}"
    # "-0.0" would claim a sign that zero does not have.
    return (text if float(text) else text[1:]) + (" %" if percent else "")


def _chart(heading: Heading) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=heading.title))


def _panel(chart: Any, heading: Heading, rows: Sequence[Row], width: float, height: float) -> Panel:
    return Panel(chart.properties(width=width, height=height, title=heading.params()), heading.title, rows)
