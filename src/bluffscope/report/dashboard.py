"""The dashboard: one figure that shows a whole run, out of the report's charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from bluffscope.host.terminal import count
from bluffscope.metrics import METRICS
from bluffscope.report import charts
from bluffscope.report.charts import named
from bluffscope.report.labels import clean, distinct, evenly, largest, number
from bluffscope.report.marks import Spec
from bluffscope.report.panels import pair_values, panel, sample, scatter_panel, strip_panel, together
from bluffscope.report.sides import Words, two_sided, words_of
from bluffscope.report.summary import summarize
from bluffscope.table.metric_pairs import metric_pairs, not_interpretable

MOST_DOMAINS: Final = 10
MOST_LAYERS: Final = 40
MOST_EFFECTS: Final = 45
_SPREAD_WIDTH: Final = 195


_KNOWN: Final = {metric.name: metric for metric in METRICS}
_HEAT_MAPS: Final = {
    "reconstruction_error": ("change from {fact} to {hall} in % of the {mean}", "activation units"),
    "sphericity": ("mean difference, {hall} - {fact}", _KNOWN["sphericity"].ends),
}
"""What the change is, and the unit of the means of each metric that has one."""
_IN_PERCENT: Final = "reconstruction_error"
"""Its scale differs by layer, so its change is shown as a share of the fact's mean."""
_SCATTERS: Final = {name: f"{_KNOWN[name].label}, degrees" for name in ("centroid_drift", "axis_twist")}
_SPREADS: Final = {
    "stability": "Jaccard similarity, 0 to 1",
    "entropy": "top-50 features, nats",
    "cross_layer_alignment": "cosine of reconstructions",
    "cross_layer_consistency": "not interpretable: no shared index",
}


@dataclass(frozen=True)
class _Scopes:
    """The domains that are drawn, in their order, and the name of all of them together."""

    labels: dict[str, str]
    """Label of each domain that is drawn."""
    pooled: str | None
    """Label of the pooled scope, or None where there is one domain only."""
    left_out: int
    """Domains that are not drawn."""
    words: Words
    """How to speak of the items."""

    @property
    def all(self) -> list[str]:
        """Labels of all scopes, the pooled one last."""
        return [*self.labels.values(), *([] if self.pooled is None else [self.pooled])]

    def drawn(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of scopes that are drawn, each with the label of its `scope`."""
        label = pl.col("domain").replace_strict(self.labels, default=None, return_dtype=pl.String)
        if "pooled" in rows.columns:
            label = pl.when("pooled").then(pl.lit(self.pooled)).otherwise(label)
        return rows.with_columns(scope=label).drop_nulls("scope")


def dashboard(metrics: pl.DataFrame, title: str) -> Spec:
    """The dashboard with its data in it.

    Panels of analyses that did not run are left out; where a metric has no value the panel says so. More than
    `MOST_DOMAINS` domains, `MOST_EFFECTS` metrics or 2,000 points are cut down, and the titles say so.

    Args:
        metrics: a result table, see `bluffscope.report.summary.summarize`.
        title: headline of the figure.
    """
    metrics = two_sided(metrics)
    if "domain" not in metrics.columns:
        metrics = metrics.with_columns(domain=pl.lit("all"))
    scopes, summary = _scopes(metrics), summarize(metrics)
    drawn = [pair for pair in metric_pairs(metrics.columns) if pair.name in (*_SCATTERS, *_SPREADS)]
    tables = {pair.name: pair_values(metrics, pair) for pair in drawn}
    layered = {
        name: summary.filter(pl.col("metric") == pl.format("l{}_{}", "layer", pl.lit(name))) for name in _HEAT_MAPS
    }
    spreads = [name for name in _SPREADS if name in tables]
    first = next((name for name in spreads if not tables[name].is_empty()), None)
    rows = [
        [_heat_map(cells, name, scopes) for name, cells in layered.items() if not cells.is_empty()],
        [_scatter(tables[name], name, scopes) for name in _SCATTERS if name in tables],
        [_spread(tables[name], name, scopes, first=name == first) for name in spreads],
    ]
    left = [together(row, len(row)) for row in rows if row]
    columns = [*([together(left, 1)] if left else []), *_effects(summary, scopes)]
    if not columns:
        where = "in both texts of a pair" if scopes.words.paired else "in any text"
        columns = [_nothing("Metrics", f"none was measured {where}")]
    return together(columns, 2, _headline(metrics.height, scopes, title))


def _nothing(title: str, subtitle: str, width: float = 320) -> Spec:
    return panel(charts.nothing(), [{"text": "no values in this run"}], title, width, [subtitle])


def _headline(items: int, scopes: _Scopes, title: str) -> Spec:
    domains = count(len(scopes.labels), "domain")
    if scopes.left_out:
        domains = f"the {len(scopes.labels)} largest domains ({scopes.left_out} more are counted in {scopes.pooled!r})"
    words = scopes.words
    subtitle = f"{words.count(items)}, {domains}; every difference is {words.difference}"
    return {"text": clean(title, 100), "subtitle": subtitle, "fontSize": 20, "subtitleFontSize": 13, "offset": 18}


def _scopes(metrics: pl.DataFrame) -> _Scopes:
    order: list[str] = metrics["domain"].drop_nulls().unique(maintain_order=True).to_list()
    sizes = dict(metrics["domain"].drop_nulls().value_counts().iter_rows())
    # Ties keep the order of the table, so that the same table always makes the same figure.
    labels = distinct(largest({name: sizes[name] for name in order}, MOST_DOMAINS), 18, ["all domains"])
    return _Scopes(labels, "all domains" if len(order) > 1 else None, len(order) - len(labels), words_of(metrics))


def _heat_map(rows: pl.DataFrame, metric: str, scopes: _Scopes) -> Spec:
    words, (subtitle, unit) = scopes.words, _HEAT_MAPS[metric]
    title = f"{_KNOWN[metric].label}, by layer and domain"
    mean = "fact's mean" if words.paired else "mean of true texts"
    subtitle = subtitle.format(fact=words.fact, hall=words.hall, mean=mean)
    layers = evenly(rows["layer"].unique(maintain_order=True).to_list(), MOST_LAYERS)
    columns = len(scopes.all)
    wide, tall = max(42, min(86, 430 // max(columns, 1))), 42 if len(layers) <= 8 else 20
    # Large cells show the means too.
    with_means = wide >= 76 and tall >= 40
    shown = scopes.drawn(rows.filter(pl.col("layer").is_in(layers)))
    cells = [_cell(row, metric == _IN_PERCENT, with_means) for row in shown.iter_rows(named=True)]
    sizes = [abs(cell["change"]) for cell in cells if cell["change"] is not None]
    if not sizes:
        return _nothing(title, subtitle)
    below = [f"below: means of {words.fact} → {words.hall} ({unit})"] if with_means else []
    spec = charts.heat_map(words, "change", max(sizes) or 1.0) | {"height": {"step": tall}}
    return panel(spec, cells, title, wide * columns, [subtitle, *below])


def _cell(row: dict[str, Any], percent: bool, with_means: bool) -> dict[str, Any]:
    change, fact = row["mean_diff"], row["mean_fact"]
    if percent and change is not None:
        change = 100 * change / fact if fact else None
    label = cell_text(change, percent)
    if with_means and fact is not None:
        label += f"\n{number(fact)} → {number(row['mean_hall'])}"
    return {"scope": row["scope"], "layer": str(row["layer"]), "change": change, "label": label}


def cell_text(change: float | None, percent: bool) -> str:
    """The upper line of a heat map's cell."""
    if change is None:
        return "-"
    text = f"{change:+.1f}" if percent else f"{change:+.3f}"
    # "-0.0" would claim a sign that zero does not have.
    return (text if float(text) else text[1:]) + (" %" if percent else "")


def _scatter(values: pl.DataFrame, metric: str, scopes: _Scopes) -> Spec:
    words, labelled = scopes.words, scopes.drawn(values).drop("domain")
    if labelled.is_empty():
        return _nothing(_SCATTERS[metric], f"{words.values.lower()}, {words.points.replace('one', 'a')}")
    labels = [named(label) for label in scopes.labels.values()]
    keys = charts.domain_keys("scope", len(labels), labels, columns=2 if max(map(len, labels)) > 12 else 4)
    drawn = sample(labelled)
    subtitle = words.count(labelled.height) + (" of these domains" if labelled.height < values.height else "")
    if drawn.height < labelled.height:
        subtitle = f"{drawn.height:,} of the {subtitle}, drawn at random"
    if not words.paired:
        return strip_panel(drawn.rename({"scope": "domain"}), _SCATTERS[metric], 300, [subtitle, words.points])
    lines = [subtitle, "above the diagonal: larger for the hallucination"]
    return scatter_panel(drawn, keys, _SCATTERS[metric], 300, lines)


def _spread(values: pl.DataFrame, metric: str, scopes: _Scopes, *, first: bool) -> Spec:
    """The spread of one metric; `first` of those that have values, where the scopes are named."""
    title, subtitle = _KNOWN[metric].label, _SPREADS[metric]
    if values.is_empty():
        return _nothing(title, subtitle, _SPREAD_WIDTH)
    drawn = scopes.drawn(values)
    if scopes.pooled is not None:
        drawn = pl.concat([drawn, values.with_columns(scope=pl.lit(scopes.pooled))])
    rows = (
        drawn.rename(dict(zip(("fact", "hall"), scopes.words.views, strict=True)))
        .unpivot(list(scopes.words.views), index="scope", variable_name="view")
        .drop_nulls("value")
        .group_by("scope", "view", maintain_order=True)
        .agg(
            mean=pl.col("value").mean(),
            low=pl.col("value").quantile(0.25, "linear"),
            high=pl.col("value").quantile(0.75, "linear"),
        )
    )
    faint = bool(not_interpretable(metric))
    spec = charts.spread(scopes.words, title, [named(label) for label in scopes.all], first=first, faint=faint)
    return panel(spec, rows, title, _SPREAD_WIDTH, [subtitle], "#666666" if faint else "#000000")


def _effects(summary: pl.DataFrame, scopes: _Scopes) -> list[Spec]:
    """The panel of effect sizes, or none where nothing was measured."""
    if summary.is_empty():
        return []
    rows = summary.filter(pl.col("dz").is_not_null())
    words = scopes.words
    subtitle = [f"{words.effect}, {words.difference}"]
    if rows.is_empty():
        return [_nothing("Effect sizes", subtitle[0])]
    names: Sequence[str] = rows["metric"].unique(maintain_order=True).to_list()
    if len(names) > MOST_EFFECTS:
        largest = rows.filter("pooled").sort(pl.col("dz").abs(), descending=True, maintain_order=True)["metric"]
        kept = set(largest.head(MOST_EFFECTS))
        subtitle.append(f"the {len(kept)} largest (pooled) of {len(names)} metrics")
        names = [name for name in names if name in kept]
    labels = distinct(names, 30)
    points = scopes.drawn(rows.filter(pl.col("metric").is_in(names))).select(
        pl.col("metric").replace_strict(labels, return_dtype=pl.String), "scope", "dz"
    )
    spec = charts.effects(words, [named(label) for label in scopes.all], pooled=scopes.pooled is not None)
    return [panel(spec, points, "Effect sizes by metric and domain", 310, subtitle)]
