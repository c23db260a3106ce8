"""The dashboard: one figure that shows a whole run, as PNG and SVG, drawn without a browser or a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import altair as alt
import numpy as np
import polars as pl
import vl_convert as vlc

from bluffscope.report import panels
from bluffscope.report.labels import clean, distinct, number
from bluffscope.report.panels import Heading, Panel, Row, Scopes
from bluffscope.report.summary import summarize
from bluffscope.table.atomic import write_bytes, writing
from bluffscope.table.metric_pairs import metric_pairs

MOST_DOMAINS: Final = 10
MOST_LAYERS: Final = 40
MOST_POINTS: Final = 2000
MOST_EFFECTS: Final = 45
_SAMPLE_SEED: Final = 0
_PNG_SCALE: Final = 2

_STYLE: Final = alt.Config(
    padding=16,
    background="white",
    font="DejaVu Sans, Verdana, Arial, sans-serif",
    view=alt.ViewConfig(stroke="#DDDDDD"),
    title=alt.TitleConfig(fontSize=13, subtitleFontSize=11, subtitleColor="#555555"),
    axis=alt.AxisConfig(labelFontSize=11, titleFontSize=11, gridColor="#EEEEEE", domainColor="#999999"),
    legend=alt.LegendConfig(labelFontSize=11, titleFontSize=11),
)


class _HeatMap(NamedTuple):
    metric: str
    percent: bool
    """Show the change as a share of the fact's mean: for a metric whose scale differs by layer."""
    unit: str
    """Unit of the means."""
    heading: Heading


_HEAT_MAPS: Final = (
    _HeatMap(
        "reconstruction_error",
        True,
        "activation units",
        Heading(
            "Reconstruction error of the SAE, by layer and domain",
            "change from fact to hallucination in % of the fact's mean",
        ),
    ),
    _HeatMap(
        "sphericity",
        False,
        "0 flat, 1 round",
        Heading(
            "Sphericity of the active features, by layer and domain",
            "mean difference, hallucination - fact",
        ),
    ),
)
_SCATTERS: Final = (
    ("centroid_drift", "Centroid drift from the prompt, degrees"),
    ("axis_twist", "Axis twist from the prompt, degrees"),
)
_DUMBBELLS: Final = (
    ("stability", Heading("Stability under noise", "Jaccard similarity, 0 to 1")),
    ("entropy", Heading("Entropy", "top-50 features, nats")),
    ("cross_layer_alignment", Heading("Cross-layer alignment", "cosine of reconstructions")),
    (
        "cross_layer_consistency",
        Heading("Cross-layer consistency", "not interpretable: no shared index", faint=True),
    ),
)


def write_dashboard(metrics: pl.DataFrame, out_dir: Path, title: str) -> list[Path]:
    """Draws dashboard.png (twice the nominal size) and dashboard.svg into a folder, which is made if need be.

    Panels of analyses that did not run are left out; where a metric has no value the panel says so. More than
    `MOST_DOMAINS` domains, `MOST_POINTS` points or `MOST_EFFECTS` metrics are cut down, and the titles say so.

    Args:
        metrics: a result table, see `bluffscope.report.summary.summarize`.
        out_dir: where the two files go.
        title: headline of the figure.

    Returns:
        The paths of the files, PNG first.

    Raises:
        RunFolderError: The folder or a file cannot be written.
    """
    spec = dashboard_spec(metrics, title)
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    # No base URL is allowed: whatever a title or domain holds, nothing is fetched.
    svg = vlc.vegalite_to_svg(spec, vl_version=version, allowed_base_urls=[])
    png = vlc.svg_to_png(svg, scale=_PNG_SCALE)
    with writing(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, content in (("dashboard.png", png), ("dashboard.svg", svg.encode("utf-8"))):
        write_bytes(out_dir / name, content)
        written.append(out_dir / name)
    return written


def dashboard_spec(metrics: pl.DataFrame, title: str) -> dict[str, Any]:
    """The dashboard as a Vega-Lite specification with its data in it; see `write_dashboard`."""
    if "domain" not in metrics.columns:
        metrics = metrics.with_columns(domain=pl.lit("all"))
    scopes, left_out = _scopes(metrics)
    summary = summarize(metrics)
    rows = [_heat_maps(summary, scopes), _scatters(metrics, scopes), _dumbbells(metrics, scopes)]
    beside = _effects(summary, scopes)
    if not any(rows) and not beside:
        rows = [[panels.nothing(Heading("Metrics", "none was measured in both texts of a pair"), 400, 80)]]
    left = [_row([panel.chart for panel in row], 28) for row in rows if row]
    columns = [*([alt.vconcat(*left, spacing=30)] if left else []), *(panel.chart for panel in beside)]
    chart = _row(columns, 36, title=_headline(len(metrics), scopes, left_out, title), config=_STYLE)
    spec = chart.to_dict()
    spec["datasets"] = {panel.name: list(panel.rows) for row in [*rows, beside] for panel in row}
    return spec


def _row(charts: list[Any], spacing: int, **options: Any) -> alt.HConcatChart:
    # Each panel has colours of its own: those of domains, of fact and hallucination, of a change.
    resolve = alt.Resolve(scale=alt.ScaleResolveMap(color="independent", shape="independent"))
    return alt.hconcat(*charts, spacing=spacing, resolve=resolve, **options)


def _headline(pairs: int, scopes: Scopes, left_out: int, title: str) -> alt.TitleParams:
    count = len(scopes.domains)
    domains = "1 domain" if count == 1 else f"{count} domains"
    if left_out:
        pooled = (scopes.pooled or "").strip()
        domains = f"the {count} largest domains ({left_out} more are counted in {pooled!r})"
    return alt.TitleParams(
        clean(title, 100),
        subtitle=f"{_pairs(pairs)}, {domains}; every difference is hallucination - fact",
        anchor="start",
        fontSize=20,
        subtitleFontSize=13,
        offset=18,
    )


def _scopes(metrics: pl.DataFrame) -> tuple[Scopes, int]:
    """The domains that are drawn, and how many are not."""
    order: list[str] = metrics["domain"].drop_nulls().unique(maintain_order=True).to_list()
    sizes = dict(metrics["domain"].drop_nulls().value_counts().iter_rows())
    # Ties keep the order of the table, so that the same table always gives the same figure.
    largest = set(sorted(order, key=lambda name: -sizes[name])[:MOST_DOMAINS])
    names = [name for name in order if name in largest]
    pooled = "all domains"
    labels = {name: panels.named(label) for name, label in distinct(names, 18, [pooled]).items()}
    return Scopes(labels, panels.named(pooled) if len(order) > 1 else None), len(order) - len(names)


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"


def _label(scopes: Scopes, domain: str, pooled: bool) -> str | None:
    return scopes.pooled if pooled else scopes.label_of.get(domain)


def _heat_maps(summary: pl.DataFrame, scopes: Scopes) -> list[Panel]:
    found: list[Panel] = []
    for kind in _HEAT_MAPS:
        rows = summary.filter(pl.col("layer").is_not_null() & (pl.col("metric").str.ends_with(f"_{kind.metric}")))
        rows = rows.filter(pl.col("metric") == pl.format("l{}_{}", "layer", pl.lit(kind.metric)))
        if rows.is_empty():
            continue
        layers = _spread(rows["layer"].unique(maintain_order=True).to_list())
        cells = [
            _cell(row, label, kind.percent)
            for row in rows.iter_rows(named=True)
            if row["layer"] in layers and (label := _label(scopes, row["domain"], row["pooled"])) is not None
        ]
        if all(cell["change"] is None for cell in cells):
            found.append(panels.nothing(kind.heading, 340, 84))
        else:
            found.append(panels.heat_map(cells, kind.heading, scopes, layers, kind.unit))
    return found


def _spread(layers: list[int]) -> list[int]:
    """All layers, or evenly spaced ones where there are too many for a figure."""
    if len(layers) <= MOST_LAYERS:
        return layers
    return [layers[round(i * (len(layers) - 1) / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]


def _cell(row: dict[str, Any], label: str, percent: bool) -> Row:
    change, fact = row["mean_diff"], row["mean_fact"]
    if percent and change is not None:
        change = 100 * change / fact if fact else None
    means = "" if fact is None else f"{number(fact)} → {number(row['mean_hall'])}"
    text = panels.cell_text(change, percent)
    return {"scope": label, "layer": str(row["layer"]), "change": change, "text": text, "means": means}


def _values(metrics: pl.DataFrame, scopes: Scopes, metric: str) -> pl.DataFrame | None:
    """Label of the domain (null where it is not drawn), fact and hallucination of the pairs that have both.

    None where the table has no such metric.
    """
    pair = next((pair for pair in metric_pairs(metrics.columns) if pair.name == metric), None)
    if pair is None:
        return None
    labels = pl.Series("scope", [scopes.label_of.get(domain) for domain in metrics["domain"]], pl.String)
    both = metrics.select(labels, *(pl.col(name).cast(pl.Float64) for name in (pair.fact, pair.hall)))
    both.columns = ["scope", "fact", "hall"]
    return both.filter(pl.col("fact").is_finite() & pl.col("hall").is_finite())


def _scatters(metrics: pl.DataFrame, scopes: Scopes) -> list[Panel]:
    found: list[Panel] = []
    tables = {metric: _values(metrics, scopes, metric) for metric, _ in _SCATTERS}
    # One legend, beside the last panel that has points.
    with_legend = next((m for m in reversed(tables) if (t := tables[m]) is not None and t["scope"].count()), None)
    for metric, title in _SCATTERS:
        values = tables[metric]
        if values is None:
            continue
        drawn = values.drop_nulls("scope")
        if drawn.is_empty():
            found.append(
                panels.nothing(Heading(title, "fact against hallucination, a point a pair"), panels.SCATTER_WIDTH, 120)
            )
            continue
        subtitle = _pairs(len(drawn)) + (" of these domains" if len(drawn) < len(values) else "")
        if len(drawn) > MOST_POINTS:
            chosen = np.random.default_rng(_SAMPLE_SEED).choice(len(drawn), MOST_POINTS, replace=False)
            subtitle = f"{MOST_POINTS:,} of the {subtitle}, drawn at random"
            drawn = drawn[np.sort(chosen)]
        heading = Heading(title, f"{subtitle}\nabove the diagonal: larger for the hallucination")
        found.append(panels.scatter(drawn.to_dicts(), heading, scopes, legend=metric == with_legend))
    return found


def _dumbbells(metrics: pl.DataFrame, scopes: Scopes) -> list[Panel]:
    found: list[Panel] = []
    for metric, heading in _DUMBBELLS:
        values = _values(metrics, scopes, metric)
        if values is None:
            continue
        if values.is_empty():
            found.append(panels.nothing(heading, panels.DUMBBELL_WIDTH, 60))
            continue
        if scopes.pooled is not None:
            values = pl.concat([values, values.with_columns(scope=pl.lit(scopes.pooled))])
        long = values.drop_nulls("scope").unpivot(["fact", "hall"], index="scope", variable_name="view")
        rows = long.group_by("scope", "view", maintain_order=True).agg(
            mean=pl.col("value").mean(),
            low=pl.col("value").quantile(0.25, "linear"),
            high=pl.col("value").quantile(0.75, "linear"),
        )
        rows = rows.with_columns(pl.col("view").replace("hall", "hallucination"))
        found.append(panels.dumbbells(rows.to_dicts(), heading, scopes, first=not found))
    return found


def _effects(summary: pl.DataFrame, scopes: Scopes) -> list[Panel]:
    """The panel of effect sizes, or none where nothing was measured."""
    if summary.is_empty():
        return []
    rows = summary.filter(pl.col("dz").is_not_null())
    subtitle = "d_z = mean / sd of the paired differences, hallucination - fact"
    if rows.is_empty():
        return [panels.nothing(Heading("Effect sizes", subtitle), panels.EFFECTS_WIDTH, 84)]
    names: list[str] = rows["metric"].unique(maintain_order=True).to_list()
    if len(names) > MOST_EFFECTS:
        largest = rows.filter("pooled").sort(pl.col("dz").abs(), descending=True, maintain_order=True)["metric"]
        kept = set(largest.head(MOST_EFFECTS))
        subtitle += f"\nthe {len(kept)} largest (pooled) of {len(names)} metrics"
        names = [name for name in names if name in kept]
    labels = {name: panels.named(label) for name, label in distinct(names, 30).items()}
    points = [
        {"metric": labels[row["metric"]], "scope": label, "dz": row["dz"]}
        for row in rows.iter_rows(named=True)
        if row["metric"] in labels and (label := _label(scopes, row["domain"], row["pooled"])) is not None
    ]
    return [panels.effects(points, Heading("Effect sizes by metric and domain", subtitle), scopes, labels)]
