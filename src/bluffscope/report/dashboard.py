"""The dashboard: one figure that shows a whole run, out of the report's charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from bluffscope.report import charts
from bluffscope.report.charts import Spec, named
from bluffscope.report.labels import clean, distinct, number
from bluffscope.report.panels import pair_values, panel, sample, scatter_panel, together
from bluffscope.report.summary import summarize
from bluffscope.table.metric_pairs import NOT_INTERPRETABLE, metric_pairs

MOST_DOMAINS: Final = 10
MOST_LAYERS: Final = 40
MOST_EFFECTS: Final = 45
_SPREAD_WIDTH: Final = 195


_HEAT_MAPS: Final = {
    "reconstruction_error": (
        "Reconstruction error of the SAE, by layer and domain",
        "change from fact to hallucination in % of the fact's mean",
        "activation units",
    ),
    "sphericity": (
        "Sphericity of the active features, by layer and domain",
        "mean difference, hallucination - fact",
        "0 flat, 1 round",
    ),
}
"""Title, what the change is, and the unit of the means of each metric that has one."""
_IN_PERCENT: Final = "reconstruction_error"
"""Its scale differs by layer, so its change is shown as a share of the fact's mean."""
_SCATTERS: Final = {
    "centroid_drift": "Centroid drift from the prompt, degrees",
    "axis_twist": "Axis twist from the prompt, degrees",
}
_SPREADS: Final = {
    "stability": ("Stability under noise", "Jaccard similarity, 0 to 1"),
    "entropy": ("Entropy", "top-50 features, nats"),
    "cross_layer_alignment": ("Cross-layer alignment", "cosine of reconstructions"),
    NOT_INTERPRETABLE: ("Cross-layer consistency", "not interpretable: no shared index"),
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

    @property
    def all(self) -> list[str]:
        """Labels of all scopes, the pooled one last."""
        return [*self.labels.values(), *([] if self.pooled is None else [self.pooled])]

    def label(self, row: dict[str, Any]) -> str | None:
        """Of a row of the summary; None where its domain is not drawn."""
        return self.pooled if row["pooled"] else self.labels.get(row["domain"])


def dashboard(metrics: pl.DataFrame, title: str) -> Spec:
    """The dashboard with its data in it.

    Panels of analyses that did not run are left out; where a metric has no value the panel says so. More than
    `MOST_DOMAINS` domains, `MOST_EFFECTS` metrics or 2,000 points are cut down, and the titles say so.

    Args:
        metrics: a result table, see `bluffscope.report.summary.summarize`.
        title: headline of the figure.
    """
    if "domain" not in metrics.columns:
        metrics = metrics.with_columns(domain=pl.lit("all"))
    scopes, summary = _scopes(metrics), summarize(metrics)
    tables = {pair.name: pair_values(metrics, pair) for pair in metric_pairs(metrics.columns) if _drawn(pair.name)}
    rows = [_heat_maps(summary, scopes), _scatters(tables, scopes), _spreads(tables, scopes)]
    left = [together(row, len(row)) for row in rows if row]
    columns = [*([together(left, 1)] if left else []), *_effects(summary, scopes)]
    if not columns:
        columns = [_nothing("Metrics", "none was measured in both texts of a pair")]
    return together(columns, 2, _headline(metrics.height, scopes, title))


def _drawn(metric: str) -> bool:
    return metric in _SCATTERS or metric in _SPREADS


def _nothing(title: str, subtitle: str, width: float = 320) -> Spec:
    return panel(charts.nothing(), [{"text": "no values in this run"}], title, width, [subtitle])


def _headline(pairs: int, scopes: _Scopes, title: str) -> Spec:
    domains = f"{len(scopes.labels)} domain{'s' * (len(scopes.labels) != 1)}"
    if scopes.left_out:
        domains = f"the {len(scopes.labels)} largest domains ({scopes.left_out} more are counted in {scopes.pooled!r})"
    subtitle = f"{_pairs(pairs)}, {domains}; every difference is hallucination - fact"
    return {"text": clean(title, 100), "subtitle": subtitle, "fontSize": 20, "subtitleFontSize": 13, "offset": 18}


def _scopes(metrics: pl.DataFrame) -> _Scopes:
    order: list[str] = metrics["domain"].drop_nulls().unique(maintain_order=True).to_list()
    sizes = dict(metrics["domain"].drop_nulls().value_counts().iter_rows())
    # Ties keep the order of the table, so that the same table always gives the same figure.
    largest = set(sorted(order, key=lambda name: -sizes[name])[:MOST_DOMAINS])
    labels = distinct([name for name in order if name in largest], 18, ["all domains"])
    return _Scopes(labels, "all domains" if len(order) > 1 else None, len(order) - len(labels))


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"


def _heat_maps(summary: pl.DataFrame, scopes: _Scopes) -> list[Spec]:
    found: list[Spec] = []
    for metric, (title, subtitle, unit) in _HEAT_MAPS.items():
        rows = summary.filter(pl.col("metric") == pl.format("l{}_{}", "layer", pl.lit(metric)))
        if rows.is_empty():
            continue
        layers = _evenly(rows["layer"].unique(maintain_order=True).to_list())
        columns = len(scopes.all)
        wide, tall = max(42, min(86, 430 // max(columns, 1))), 42 if len(layers) <= 8 else 20
        # Where cells are large enough the means stand in them too.
        with_means = wide >= 76 and tall >= 40
        cells = [
            _cell(row, label, metric == _IN_PERCENT, with_means)
            for row in rows.iter_rows(named=True)
            if row["layer"] in layers and (label := scopes.label(row)) is not None
        ]
        sizes = [abs(cell["change"]) for cell in cells if cell["change"] is not None]
        if not sizes:
            found.append(_nothing(title, subtitle))
            continue
        below = [f"below: means of fact → hallucination ({unit})"] if with_means else []
        spec = charts.heat_map("change", max(sizes) or 1.0) | {"height": {"step": tall}}
        found.append(panel(spec, cells, title, wide * columns, [subtitle, *below]))
    return found


def _evenly(layers: list[int]) -> list[int]:
    """All layers, or evenly spaced ones where there are too many for a figure."""
    if len(layers) <= MOST_LAYERS:
        return layers
    return [layers[round(i * (len(layers) - 1) / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]


def _cell(row: dict[str, Any], scope: str, percent: bool, with_means: bool) -> dict[str, Any]:
    change, fact = row["mean_diff"], row["mean_fact"]
    if percent and change is not None:
        change = 100 * change / fact if fact else None
    label = cell_text(change, percent)
    if with_means and fact is not None:
        label += f"\n{number(fact)} → {number(row['mean_hall'])}"
    return {"scope": scope, "layer": str(row["layer"]), "change": change, "label": label}


def cell_text(change: float | None, percent: bool) -> str:
    """The upper line of a heat map's cell."""
    if change is None:
        return "-"
    text = f"{change:+.1f}" if percent else f"{change:+.3f}"
    # "-0.0" would claim a sign that zero does not have.
    return (text if float(text) else text[1:]) + (" %" if percent else "")


def _labelled(values: pl.DataFrame, scopes: _Scopes) -> pl.DataFrame:
    """The values of the domains that are drawn, by label."""
    labels = pl.col("domain").replace_strict(scopes.labels, default=None, return_dtype=pl.String)
    return values.with_columns(labels).drop_nulls("domain")


def _scatters(tables: dict[str, pl.DataFrame], scopes: _Scopes) -> list[Spec]:
    found: list[Spec] = []
    labels = [named(label) for label in scopes.labels.values()]
    columns = 2 if max(map(len, labels), default=0) > 12 else 4
    keys = charts.domain_keys("domain", len(labels), labels, columns=columns)
    for metric, title in _SCATTERS.items():
        if metric not in tables:
            continue
        values = _labelled(tables[metric], scopes)
        if values.is_empty():
            found.append(_nothing(title, "fact against hallucination, a point a pair"))
            continue
        drawn = sample(values)
        subtitle = _pairs(values.height) + (" of these domains" if values.height < tables[metric].height else "")
        if drawn.height < values.height:
            subtitle = f"{drawn.height:,} of the {subtitle}, drawn at random"
        lines = [subtitle, "above the diagonal: larger for the hallucination"]
        found.append(scatter_panel(drawn, keys, title, 300, lines))
    return found


def _spreads(tables: dict[str, pl.DataFrame], scopes: _Scopes) -> list[Spec]:
    found: list[Spec] = []
    for metric, (title, subtitle) in _SPREADS.items():
        if metric not in tables:
            continue
        values = tables[metric]
        if values.is_empty():
            found.append(_nothing(title, subtitle, _SPREAD_WIDTH))
            continue
        drawn = _labelled(values, scopes)
        if scopes.pooled is not None:
            drawn = pl.concat([drawn, values.with_columns(domain=pl.lit(scopes.pooled))])
        rows = (
            drawn.rename({"domain": "scope", "hall": "hallucination"})
            .unpivot(["fact", "hallucination"], index="scope", variable_name="view")
            .group_by("scope", "view", maintain_order=True)
            .agg(
                mean=pl.col("value").mean(),
                low=pl.col("value").quantile(0.25, "linear"),
                high=pl.col("value").quantile(0.75, "linear"),
            )
        )
        faint = metric == NOT_INTERPRETABLE
        spec = charts.spread(title, [named(label) for label in scopes.all], first=not found, faint=faint)
        found.append(panel(spec, rows.to_dicts(), title, _SPREAD_WIDTH, [subtitle], "#666666" if faint else "#000000"))
    return found


def _effects(summary: pl.DataFrame, scopes: _Scopes) -> list[Spec]:
    """The panel of effect sizes, or none where nothing was measured."""
    if summary.is_empty():
        return []
    rows = summary.filter(pl.col("dz").is_not_null())
    subtitle = ["d_z = mean / sd of the paired differences, hallucination - fact"]
    if rows.is_empty():
        return [_nothing("Effect sizes", subtitle[0])]
    names: Sequence[str] = rows["metric"].unique(maintain_order=True).to_list()
    if len(names) > MOST_EFFECTS:
        largest = rows.filter("pooled").sort(pl.col("dz").abs(), descending=True, maintain_order=True)["metric"]
        kept = set(largest.head(MOST_EFFECTS))
        subtitle.append(f"the {len(kept)} largest (pooled) of {len(names)} metrics")
        names = [name for name in names if name in kept]
    labels = distinct(names, 30)
    points = [
        {"metric": labels[row["metric"]], "scope": label, "dz": row["dz"]}
        for row in rows.iter_rows(named=True)
        if row["metric"] in labels and (label := scopes.label(row)) is not None
    ]
    spec = charts.effects([named(label) for label in scopes.all], pooled=scopes.pooled is not None)
    return [panel(spec, points, "Effect sizes by metric and domain", 310, subtitle)]
