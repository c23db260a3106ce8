"""What the report's page says in words and tables: plain values for the template, which escapes all of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, Final, NamedTuple

import polars as pl

from bluffscope.detectors.classifiers import compared_with
from bluffscope.features.neuronpedia import feature_pages
from bluffscope.report.answer import Answer
from bluffscope.report.contents import Contents
from bluffscope.report.feature_cards import chosen_features
from bluffscope.report.features import found_sentence, ghost_sentence
from bluffscope.report.labels import by_analysis, distinct, largest
from bluffscope.report.next_commands import stats_flags
from bluffscope.stats.scopes import POOLED
from bluffscope.table.metric_pairs import not_interpretable

Values = dict[str, Any]

MOST_SCOPES: Final = 12
"""Scopes that the verdict table shows; stats.parquet has all."""
_PROBLEMS: Final = ("error", "warning", "info")


class Doubt(NamedTuple):
    """Something that would make the answer wrong."""

    severity: str
    text: str
    pairs: Sequence[str] = ()
    """Ids of items that show it."""


def baselines(contents: Contents) -> str:
    """What gains of detectors are measured against."""
    rows = contents.detectors
    return "" if rows is None else compared_with(rows.filter(pl.col("auroc").is_not_null())["detector"].to_list())


def strongest(contents: Contents, said: Answer) -> str | None:
    """Name of the metric that the answer leads with; else of the largest effect at equal lengths over all items."""
    if said.effects:
        return said.effects[0].metric
    names = [pair.name for pair in contents.measured if not not_interpretable(pair.name)]
    if contents.stats is None:
        return next(iter(names), None)
    rows = contents.stats.filter(pl.col("metric").is_in(names), scope=POOLED)
    rows = rows.with_columns(size=pl.coalesce("adj_dz", "dz").abs()).drop_nulls("size")
    ranked = rows.sort("size", descending=True, maintain_order=True)["metric"]
    return ranked[0] if len(ranked) else next(iter(names), None)


def verdict_table(contents: Contents) -> Values | None:
    """Every metric by scope, grouped by analysis; each cell with its row of the statistics and the row's place."""
    rows = contents.stats
    if rows is None or rows.is_empty():
        return None
    sizes = dict(rows.group_by("scope", maintain_order=True).agg(pl.col("n").max()).iter_rows())
    shown = largest({scope: inf if scope == POOLED else n for scope, n in sizes.items()}, MOST_SCOPES)
    measured = {pair.name: pair for pair in contents.measured}
    names = rows["metric"].unique(maintain_order=True)
    places = enumerate(rows.iter_rows(named=True))
    return {
        "labels": distinct(shown, 22),
        "sizes": sizes,
        "groups": by_analysis(measured[name] for name in names if name in measured),
        "cells": {(row["metric"], row["scope"]): row | {"place": place} for place, row in places},
    }


def doubts(contents: Contents) -> list[Doubt]:
    """What would make the answer wrong: health, lint, pairs left out, precision; worst first."""
    order = {severity: place for place, severity in enumerate(_PROBLEMS)}
    return sorted(_doubts(contents), key=lambda doubt: order.get(doubt.severity, len(order)))


def _doubts(contents: Contents) -> Iterator[Doubt]:
    manifest, words = contents.manifest, contents.words
    for item in contents.health.findings:
        # A message of a run says it all.
        parts = [item.message, *(part for part in (item.means, item.do) if part.rstrip(".") not in item.message)]
        yield Doubt(item.severity, " ".join(f"{part.rstrip('.')}." for part in parts if part))
    lint = manifest.get("lint", {})
    if "rows_in_all" in lint:
        text = f"Of {lint['rows_in_all']:,} {words.items}, {lint['rows']:,} were linted: whole groups drawn at random."
        yield Doubt("info", f"{text} bluffscope lint takes all.")
    for item in lint.get("findings", ()):
        yield Doubt(item.get("severity", "info"), item.get("message", ""), item.get("pairs", [])[:12])
    quarantine = contents.run.quarantine
    for reason, times in quarantine["reason"].value_counts(sort=True).head(5).iter_rows():
        ids = quarantine.filter(reason=reason)[words.key].head(12).to_list()
        yield Doubt("warning", f"{words.count(times)} could not be measured and count nowhere: {reason}", ids)
    dtype, quantize = manifest.get("dtype"), manifest.get("quantize", "none")
    if dtype not in ("float32", "float64") or quantize != "none":
        weights = "" if quantize == "none" else f", {quantize} weights"
        known = manifest.get("fidelity")
        where = "fidelity.parquet says what that changed" if known else "--fidelity N measures what that changes"
        yield Doubt("info", f"The model ran in {dtype}{weights}; {where}.")
    unit = contents.about.get("length_unit", "tokens")
    if contents.stats is not None and unit not in ("tokens", None):
        yield Doubt("warning", f"Lengths are {'unknown' if unit == 'unknown' else f'in {unit}, not tokens'}.")


def feature_tables(contents: Contents) -> list[Values]:
    """The features that differ most, by layer."""
    if (study := contents.features) is None:
        return []
    chosen = chosen_features(contents)
    return [
        {
            **layer,
            "rows": part.head(len(chosen[layer["layer"]])).to_dicts(),
            "sentence": found_sentence(layer, study.about["groups"], contents.words, study.about.get("least_p")),
            "ghosts": ghost_sentence(layer, contents.words),
        }
        for layer in study.layers.iter_rows(named=True)
        if not (part := study.rows.filter(layer=layer["layer"])).is_empty()
    ]


def feature_homes(contents: Contents) -> dict[str, str]:
    """Address of the pages of each layer's features at Neuronpedia, where the SAE is there."""
    layers = [] if contents.features is None else contents.features.layers["layer"].to_list()
    return {str(layer): page for layer in layers if (page := feature_pages(contents.manifest, layer))}


def repeat(contents: Contents) -> list[str]:
    """Commands that make the run, its statistics and this page again."""
    folder = shlex.quote(contents.path.name or ".")
    manifest = contents.manifest
    identities = [manifest.get("model", {}), *manifest.get("saes", {}).values()]
    objects = any(identity.get("in_memory") for identity in identities)
    data = contents.words.items.upper()
    again = f"bluffscope.analyze({data}, model=MODEL, tokenizer=TOKENIZER, sae=SAES)  # Python: they lay in memory"
    return [
        again if objects else f"bluffscope analyze --config {folder}/config.yaml",
        statistics(contents, detectors=contents.detectors is not None),
        f"bluffscope report {folder}",
    ]


def statistics(contents: Contents, *, detectors: bool) -> str:
    """The command that makes the statistics, with the choices that those of the page were made with."""
    words = ["bluffscope", "stats", contents.path.name or ".", *stats_flags(contents.about)]
    return shlex.join([*words, *(["--detectors"] if detectors else [])])
