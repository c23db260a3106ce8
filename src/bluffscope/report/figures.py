"""The report's charts as PNG and SVG, of a size and sharpness for a paper, drawn without a browser or a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from bluffscope.detectors.classifiers import BASELINES, DETECTORS, NAMES, called
from bluffscope.report import charts, detector_charts
from bluffscope.report.bundle import VEGA_LITE, vl_convert
from bluffscope.report.contents import Contents
from bluffscope.report.dashboard import dashboard
from bluffscope.report.detector_charts import CELL
from bluffscope.report.detector_findings import (
    compared,
    curves,
    points,
    positions_differ,
    sweep_rows,
    sweep_title,
    titles,
)
from bluffscope.report.labels import distinct
from bluffscope.report.marks import Spec
from bluffscope.report.panels import Rows, figure, pair_values, panel, sample, scatter_panel, strip_panel, together
from bluffscope.report.sides import PAIRED, Words
from bluffscope.stats.scopes import POOLED
from bluffscope.table.atomic import make_folder, remove, write_bytes

MOST_EFFECTS: Final = 60
"""Metrics of the forest plot; of more the largest are drawn."""
MOST_DOMAINS: Final = 10
MOST_METRICS: Final = 6
"""Most metrics with scatters and ladders: those with the largest effects over all items."""
_COLUMNS: Final = 3


def write_figures(drawn: dict[str, Spec | None], folder: Path) -> list[Path]:
    """Write each figure as PNG and SVG, and remove earlier ones of those that are None.

    Args:
        drawn: specifications by the name of the file.
        folder: where the files go; created if missing.

    Raises:
        InputError: the package that draws is not installed.
        RunFolderError: the folder or a file cannot be written.
    """
    vlc = vl_convert("figures")
    if any(drawn.values()):
        make_folder(folder)
    written: list[Path] = []
    # What a run or its statistics no longer hold must not be shown by an earlier figure.
    remove(folder / f"{name}.{kind}" for name in drawn if drawn[name] is None for kind in ("png", "svg"))
    for name, spec in ((name, spec) for name, spec in drawn.items() if spec is not None):
        svg = drawn_svg(spec)
        png = vlc.svg_to_png(svg, scale=2 if name == "dashboard" else 3)
        for path, content in ((folder / f"{name}.png", png), (folder / f"{name}.svg", svg.encode("utf-8"))):
            write_bytes(path, content)
            written.append(path)
    return written


def drawn_svg(spec: Spec) -> str:
    """A figure as SVG, drawn without a browser.

    Raises:
        InputError: the package that draws is not installed.
    """
    # No base URL is allowed: whatever a text holds, nothing is fetched.
    return vl_convert("figures").vegalite_to_svg(figure(spec), vl_version=VEGA_LITE, allowed_base_urls=[])


def figures(contents: Contents) -> dict[str, Spec | None]:
    """All figures by name, with their numbers in them; None for what the run has no numbers for."""
    named = replace(
        contents,
        metrics=labelled(contents.metrics, ("domain",)),
        stats=labelled(contents.stats, ("scope",)),
        ladder=labelled(contents.ladder, ("scope",)),
        detectors=labelled(contents.detectors, ("scope", "detector")),
        transfer=labelled(contents.transfer, ("train", "test", "detector")),
        carried=labelled(contents.carried, ("train", "test", "detector"), 16),
    )
    model = contents.manifest.get("model", {}).get("name") or "model"
    layers = " ".join(map(str, contents.config.get("model", {}).get("layers", ())))
    return {
        "dashboard": None if contents.metrics.is_empty() else dashboard(contents.metrics, f"{model}, layers {layers}"),
        "effects": effects_figure(named.stats, contents.words),
        "heatmaps": _heat_maps(named),
        "scatters": _scatters(named),
        "stability": _stability(named),
        "ladder": _ladder(named),
        "detectors": _detectors(named),
        "transfer": _transfer(named),
        "reliability": _reliability(contents),
        "risk_coverage": _risk(contents),
        "sweep": _sweep(contents),
        "transfer_matrix": None if named.carried is None else matrix_figure(named.carried),
    }


Table = TypeVar("Table", pl.DataFrame, pl.DataFrame | None)


def labelled(table: Table, columns: tuple[str, ...], width: int = 20) -> Table:
    """The table with names that an image can hold: a control character in one would end the process that draws it."""
    for column in columns:
        if table is not None and column in table.columns:
            names = table[column].cast(pl.String).fill_null("null")
            others = [name for name in names.unique(maintain_order=True) if name != POOLED]
            labels = distinct(others, width, [POOLED]) | {POOLED: POOLED}
            table = table.with_columns(names.replace_strict(labels, return_dtype=pl.String).alias(column))
    return table


def _largest(rows: pl.DataFrame | None) -> pl.DataFrame:
    """The rows over all items that have an effect size, the largest first."""
    rows = pl.DataFrame(schema={"scope": pl.String, "dz": pl.Float64, "metric": pl.String}) if rows is None else rows
    rows = rows.filter(pl.col("dz").is_not_null(), scope=POOLED)
    return rows.sort(pl.col("dz").abs(), descending=True, maintain_order=True)


def effects_figure(stats: pl.DataFrame | None, words: Words = PAIRED) -> Spec | None:
    """Effect sizes of the metrics with the largest over all items; None where there are none.

    Args:
        stats: stats.parquet, in the columns of pairs.
        words: of the run.
    """
    rows = _largest(stats)
    if rows.is_empty():
        return None
    more = f"; the {MOST_EFFECTS} largest of {rows.height}" if rows.height > MOST_EFFECTS else ""
    shown = labelled(rows.head(MOST_EFFECTS), ("metric",), 34)
    return panel(charts.forest(words), shown, f"Effect sizes over all {words.items}, 95 % intervals{more}", 560)


def _heat_maps(contents: Contents) -> Spec | None:
    layered = {pair.name: pair for pair in contents.measured if pair.layer is not None}
    if contents.stats is None or not layered:
        return None
    scopes = [scope for scope in contents.scopes if "=" not in scope and scope != POOLED][:MOST_DOMAINS]
    rows = contents.stats.filter(pl.col("metric").is_in(list(layered)), pl.col("scope").is_in([*scopes, POOLED]))
    rows = rows.with_columns(
        layer=pl.col("metric").replace_strict({name: str(pair.layer) for name, pair in layered.items()}),
        base=pl.col("metric").replace_strict({name: pair.metric for name, pair in layered.items()}),
    ).filter(pl.col("dz").count().over("base") > 0)
    words = contents.words
    side = "the hallucination" if words.paired else words.halls
    title = f"{words.symbol} by layer and domain: blue smaller, orange larger for {side}; ● separates"
    return _each(rows, ["base"], charts.heat_map(words), title, by_cell="scope")


def _scatters(contents: Contents) -> Spec | None:
    columns = {pair.name: pair for pair in contents.measured}
    names = list(columns) if contents.stats is None else _largest(contents.stats)["metric"].to_list()
    shown = [name for name in names if name in columns][:MOST_METRICS]
    values = {name: pair_values(contents.metrics, columns[name]) for name in shown}
    words = contents.words
    parts = [scatter_figure(name, both, words=words) for name, both in values.items() if not both.is_empty()]
    return _titled(parts, f"{words.values}, {words.points}")


def scatter_figure(name: str, both: pl.DataFrame, size: float = 260, words: Words = PAIRED) -> Spec:
    """One metric of the fact against that of the hallucination, or of true and of false texts by domain.

    Args:
        name: of the metric.
        both: `bluffscope.report.panels.pair_values` of it, with rows.
        size: width and height in pixels.
        words: of the run.
    """
    drawn = sample(both)
    title = name if drawn.height == both.height else f"{name} ({drawn.height:,} of {both.height:,} {words.items})"
    if not words.paired:
        return strip_panel(drawn, title, size)
    return scatter_panel(drawn, charts.domain_keys("domain", both["domain"].n_unique()), title, size)


def _stability(contents: Contents) -> Spec | None:
    rows = contents.dose
    if rows.is_empty():
        return None
    return panel(charts.dose(contents.words), rows.filter(scope=POOLED), "Stability by the level of noise", 420)


def _ladder(contents: Contents) -> Spec | None:
    """The ladders of the metrics with the largest raw effects over all items."""
    if contents.ladder is None:
        return None
    rows = contents.ladder.filter(pl.col("dz").is_not_null(), scope=POOLED)
    rows = rows.with_columns(size=pl.col("dz").first().abs().over("metric"))
    rows = rows.sort("size", descending=True, maintain_order=True).drop("size")
    names = rows["metric"].unique(maintain_order=True).head(MOST_METRICS)
    rows = rows.filter(pl.col("metric").is_in(names.implode()))
    over = f"over all {contents.words.items}"
    return _each(rows, ["metric"], charts.ladder(contents.words), f"What each control leaves of an effect, {over}")


def _detectors(contents: Contents) -> Spec | None:
    if contents.detectors is None:
        return None
    rows = contents.detectors.filter(pl.col("auroc").is_not_null(), scope=POOLED)
    rows = rows.with_columns(name=pl.col("detector").replace(NAMES))
    found, words = titles(rows).get(POOLED, {}), contents.words
    shown = {"auroc": rows, "gain": rows.filter(pl.col("gain").is_not_null())}
    parts = [
        panel(detector_charts.detectors(words, value), part, found[value], 320)
        for value, part in shown.items()
        if part.height
    ]
    return _titled(parts, f"Detectors over all {words.items}, cross-validated by group")


def _transfer(contents: Contents) -> Spec | None:
    if contents.transfer is None:
        return None
    rows = contents.transfer.filter(pl.col("auroc").is_not_null())
    title = "AUROC of detectors trained on one domain, tested on another"
    # Scopes of a further column are named COLUMN=VALUE: they make a matrix of their own.
    column = pl.col("train").str.extract("^([^=]*)=").alias("column")
    return _each(rows, ["detector", column], detector_charts.transfer(contents.words), title, by_cell="test")


def _pooled_curves(contents: Contents) -> dict[str, dict[str, dict[str, Any]]]:
    """The curves over all items of detectors that look inside."""
    if contents.curves is None:
        return {}
    found = curves(contents.curves.filter(scope=POOLED))
    return {name: found[name] for name in reversed(DETECTORS) if name in found and name not in BASELINES}


def _reliability(contents: Contents) -> Spec | None:
    spec = detector_charts.reliability(contents.words)
    parts = [
        _found(spec, points(found[POOLED]["reliability"]), found[POOLED]["titles"][0])
        for found in _pooled_curves(contents).values()
    ]
    return _titled(parts, f"Reliability over all {contents.words.items}; the number of texts at each point")


def _risk(contents: Contents) -> Spec | None:
    found = {} if contents.curves is None else curves(contents.curves.filter(scope=POOLED))
    best = titles(contents.detectors).get(POOLED, {}).get("baseline")
    parts = [
        _found(detector_charts.risk(), compared(found, name, POOLED, best), found[name][POOLED]["titles"][1])
        for name in _pooled_curves(contents)
    ]
    return _titled(parts, f"Risk and coverage over all {contents.words.items}")


def _found(spec: Spec, rows: Rows, title: str) -> Spec:
    """A panel with what was found below the detector's name."""
    name, _, found = title.partition(": ")
    return panel(spec, rows, name, 320, [found])


def _sweep(contents: Contents) -> Spec | None:
    if contents.sweep is None:
        return None
    chart = detector_charts.by_layer(contents.words, several=positions_differ(contents.sweep))
    return panel(chart, sweep_rows(contents.sweep), sweep_title(contents.sweep), 620)


def matrix_figure(rows: pl.DataFrame) -> Spec | None:
    """Matrices of verdicts, one a detector.

    Args:
        rows: `bluffscope.detectors.transfer.CARRIED_SCHEMA`, with names that an image can hold.
    """
    if rows.is_empty():
        return None
    parts = [
        panel(detector_charts.carried(), part, called(str(name)), CELL * part["test"].n_unique())
        for (name,), part in rows.group_by("detector", maintain_order=True)
        if part["auroc"].count()
    ]
    return _titled(parts, "AUROC, 95 % interval and verdict; rows: trained on, columns: tested on")


def _each(
    rows: pl.DataFrame, by: list[str | pl.Expr], chart: Spec, title: str, *, by_cell: str | None = None
) -> Spec | None:
    """The same chart for each group of rows, titled by the first column of `by`, wide enough for the cells."""
    parts = [
        panel(chart, part, str(key[0]), 260 if by_cell is None else 62 * part[by_cell].n_unique())
        for key, part in rows.group_by(by, maintain_order=True)
    ]
    return _titled(parts, title)


def _titled(parts: list[Spec], text: str) -> Spec | None:
    return together(parts, _COLUMNS, {"text": text, "fontSize": 14, "offset": 14}) if parts else None
