"""What the report's page says in words and tables: plain values for the template, which escapes all of them."""

from __future__ import annotations

import shlex
from itertools import groupby
from typing import Any, Final

import polars as pl

from bluffscope.features.neuronpedia import feature_pages
from bluffscope.report.contents import Contents
from bluffscope.report.features import found_sentence, ghost_sentence
from bluffscope.report.labels import clean, distinct, group_title, number
from bluffscope.report.verdicts import headline, judged
from bluffscope.stats.study import POOLED
from bluffscope.stats.verdicts import NAMES
from bluffscope.table.metric_pairs import not_interpretable

Values = dict[str, Any]

MOST_SCOPES: Final = 12
"""Scopes that the verdict table shows; stats.parquet has all."""
FEATURES_SHOWN: Final = 15
"""Features of a layer that the page lists."""
SIGNS: Final = {"separates": "●", "confounded": "◐", "equivalent": "=", "inconclusive": "○"}
"""A second sign of each verdict, beside its colour."""
MEANINGS: Final = {
    "separates": "differs between fact and hallucination, also at equal lengths, after correction",
    "confounded": "length accounts for more than half of the difference",
    "equivalent": "shown to be practically zero (|d_z| < 0.2)",
    "inconclusive": "neither shown nor ruled out",
}
BASELINE_NAMES: Final = {"length": "length", "logprob": "log-probability", "text": "completion text"}
_PROBLEMS: Final = ("error", "warning", "info")


def answer(contents: Contents) -> Values:
    """The sentence that the page opens with, and how many of the metrics tested over all pairs got which verdict."""
    rows = contents.stats
    if rows is None or rows.is_empty():
        why = "no effect was tested: " + ("there is no stats.parquet" if rows is None else "no metric is in the table")
        return {
            "sentence": why[0].upper() + why[1:] + ".",
            "kind": "none",
            "tiles": [],
            "banner": _banner(contents),
            "alone": None,
        }
    if contents.withheld:
        failures = list(contents.health.failures) or ["as its statistics say"]
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        sentence = f"Verdicts are withheld: the health gate failed ({failures[0].rstrip('.')}{more})."
        return {"sentence": sentence, "kind": "withheld", "tiles": [], "banner": None, "alone": None}
    tested = judged(rows)
    pooled = tested.filter(scope=POOLED)
    tiles = [
        {"name": name, "sign": SIGNS[name], "count": pooled.filter(verdict=name).height, "meaning": MEANINGS[name]}
        for name in NAMES
    ]
    kind = "some" if (tested["verdict"] == "separates").any() else "nothing" if tested.height else "none"
    said = {"sentence": headline(rows), "banner": _banner(contents), "alone": _alone(contents)}
    return said | {"kind": kind, "tiles": tiles if pooled.height else []}


def _alone(contents: Contents) -> str | None:
    """What one text without its partner tells, by its SAE features: the one detector that is fixed beforehand."""
    if contents.detectors is None:
        return None
    rows = contents.detectors.filter(pl.col("auroc").is_not_null(), scope=POOLED)
    found = rows.filter(pl.col("gain_lo").is_not_null(), detector="sae")
    if found.is_empty():
        return None
    row = found.row(0, named=True)
    known = [BASELINE_NAMES[name] for name in rows["detector"] if name in BASELINE_NAMES]
    best = f"the best of {', '.join(known[:-1])} and {known[-1]}" if len(known) > 1 else "chance"
    beaten = "more than" if row["gain_lo"] > 0 else "not shown to be more than"
    return (
        f"From one text alone, SAE features tell a hallucination with AUROC {row['auroc']:.2f} "
        f"({row['lo']:.2f} to {row['hi']:.2f}): {beaten} {best} "
        f"({row['gain']:+.2f}, {row['gain_lo']:+.2f} to {row['gain_hi']:+.2f})."
    )


def _banner(contents: Contents) -> str | None:
    """What stands above verdicts that were asked for although the health gate failed."""
    failures = contents.health.failures
    if not failures:
        return None
    listed = "; ".join(failure.rstrip(".") for failure in failures)
    return f"The health gate failed: {listed}. The verdicts below were asked for all the same; do not rely on them."


def strongest(contents: Contents) -> str | None:
    """Name of the metric with the largest effect at equal lengths (raw where there is none) over all pairs."""
    names = [pair.name for pair in contents.measured if not not_interpretable(pair.name)]
    if contents.stats is None:
        return next(iter(names), None)
    rows = contents.stats.filter(pl.col("metric").is_in(names), scope=POOLED)
    rows = rows.with_columns(size=pl.coalesce("adj_dz", "dz").abs()).drop_nulls("size")
    ranked = rows.sort("size", descending=True, maintain_order=True)["metric"]
    return ranked[0] if len(ranked) else next(iter(names), None)


def verdict_table(contents: Contents) -> Values | None:
    """Every metric by scope, grouped by analysis; each cell with its verdict and the row of stats that it shows."""
    rows = contents.stats
    if rows is None or rows.is_empty():
        return None
    scopes = contents.scopes
    shown = scopes
    if len(scopes) > MOST_SCOPES:
        largest = rows.group_by("scope", maintain_order=True).agg(pl.col("n").max())
        largest = largest.sort(pl.col("scope") == POOLED, "n", descending=True, maintain_order=True)
        kept = set(largest["scope"].head(MOST_SCOPES))
        shown = [scope for scope in scopes if scope in kept]
    labels = distinct(shown, 22)
    cells = {(row["metric"], row["scope"]): index for index, row in enumerate(rows.iter_rows(named=True))}
    layers = {pair.name: pair for pair in contents.measured}
    groups: list[Values] = []
    names = [name for name in rows["metric"].unique(maintain_order=True) if name in layers]
    titles = {name: group_title(layers[name].metric, layers[name].layer) for name in names}
    # A noise sweep stands after the other analyses in the table, but belongs to stability.
    order = list(dict.fromkeys(titles.values()))
    names.sort(key=lambda name: order.index(titles[name]))
    for title, members in groupby(names, key=lambda name: titles[name]):
        lines: list[Values] = []
        for name in members:
            known = contents.definition(layers[name].metric)
            line = [_cell(rows, cells.get((name, scope))) for scope in shown]
            # Zero-width spaces: long names break after underscores.
            label = clean(known.label, 60).replace("_", "_\u200b")
            entry = {"metric": name, "label": label, "doc": known.doc, "unit": known.unit, "cells": line}
            lines.append({**entry, "doubtful": bool(not_interpretable(name))})
        groups.append({"title": title, "lines": lines})
    sizes = dict(rows.group_by("scope").agg(pl.col("n").max()).iter_rows())
    return {
        "scopes": [{"label": labels[scope], "n": sizes[scope]} for scope in shown],
        "groups": groups,
        "left_out": len(scopes) - len(shown),
    }


def _cell(rows: pl.DataFrame, index: int | None) -> Values | None:
    if index is None:
        return None
    row = rows.row(index, named=True)
    raw, adjusted = (effect(row[name]) for name in ("dz", "adj_dz"))
    return {"index": index, "verdict": row["verdict"], "sign": SIGNS[row["verdict"]], "dz": raw, "adj_dz": adjusted}


def effect(value: float | None) -> str:
    """An effect size, always with its sign."""
    return "-" if value is None else f"{value:+.2f}"


def doubts(contents: Contents) -> list[Values]:
    """What would make the answer wrong: health, lint, pairs left out, precision; worst first."""
    found: list[Values] = []
    for item in contents.health.findings:
        text = " ".join(part for part in (item.message, item.means, item.do) if part)
        found.append({"severity": item.severity, "source": "health", "text": text, "pairs": []})
    lint = contents.manifest.get("lint", {})
    if "rows_in_all" in lint:
        text = f"Of {lint['rows_in_all']:,} pairs, {lint['rows']:,} were linted: whole groups drawn at random."
        found.append({"severity": "info", "source": "pairs", "text": f"{text} bluffscope lint takes all.", "pairs": []})
    for item in lint.get("findings", ()):
        found.append(
            {
                "severity": item.get("severity", "info"),
                "source": "pairs",
                "text": item.get("message", ""),
                "pairs": item.get("pairs", [])[:12],
            }
        )
    quarantine = contents.run.quarantine
    for reason, times in quarantine["reason"].value_counts(sort=True).head(5).iter_rows():
        ids = quarantine.filter(reason=reason)["pair_id"].head(12).to_list()
        text = f"{times} pair{'s' * (times != 1)} could not be measured and count nowhere: {reason}"
        found.append({"severity": "warning", "source": "quarantine", "text": text, "pairs": ids})
    dtype, quantize = contents.manifest.get("dtype"), contents.manifest.get("quantize", "none")
    if dtype not in ("float32", "float64") or quantize != "none":
        weights = "" if quantize == "none" else f", {quantize} weights"
        text = f"The model ran in {dtype}{weights}; --fidelity N measures what that changes."
        if contents.manifest.get("fidelity"):
            text = f"The model ran in {dtype}{weights}; fidelity.parquet says what that changed."
        found.append({"severity": "info", "source": "precision", "text": text, "pairs": []})
    if contents.stats is not None and contents.about.get("length_unit") not in ("tokens", None):
        unit = contents.about["length_unit"]
        text = f"Lengths are {'unknown' if unit == 'unknown' else f'in {unit}, not tokens'}."
        found.append({"severity": "warning", "source": "length", "text": text, "pairs": []})
    order = {severity: place for place, severity in enumerate(_PROBLEMS)}
    return sorted(found, key=lambda item: order.get(item["severity"], len(order)))


def feature_tables(contents: Contents) -> list[Values]:
    """The features that differ most, by layer, with links to Neuronpedia where the SAE is there."""
    if (study := contents.features) is None:
        return []
    tables: list[Values] = []
    for layer in study.layers.iter_rows(named=True):
        part = study.rows.filter(layer=layer["layer"])
        if part.is_empty():
            continue
        page = feature_pages(contents.manifest, layer["layer"])
        rows = [
            {
                "feature": f"{row['feature']}{'*' if row['ghost'] else ''}",
                "link": f"{page}/{row['feature']}" if page else None,
                "fact": f"{100 * row['share_fact']:.0f} %",
                "hall": f"{100 * row['share_hall']:.0f} %",
                "width_fact": round(100 * row["share_fact"], 1),
                "width_hall": round(100 * row["share_hall"], 1),
                "dz": number(row["dz"], signed=True),
                "mean_diff": number(row["mean_diff"], signed=True),
                "strongest": ", ".join(clean(pair, 40) for pair in row["top_pairs"] or ()),
                "differs_in": ", ".join(clean(value, 40) for value in row["differs_in"] or ()),
                "p": f"{row['p']:.1e}",
                "q": chance(row["q"]),
            }
            for row in part.head(FEATURES_SHOWN).iter_rows(named=True)
        ]
        sentence = found_sentence(layer, study.about["groups"])
        tables.append({**layer, "rows": rows, "sentence": sentence, "ghosts": ghost_sentence(layer)})
    return tables


def chance(value: float | None) -> str:
    """A p or q value."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def feature_homes(contents: Contents) -> dict[str, str]:
    """Address of the pages of each layer's features at Neuronpedia, where the SAE is there."""
    layers = [] if contents.features is None else contents.features.layers["layer"].to_list()
    pages = {str(layer): feature_pages(contents.manifest, layer) for layer in layers}
    return {layer: page for layer, page in pages.items() if page}


def timings(contents: Contents, total: float | None) -> Values:
    """Seconds by stage, as a share of the longest, and pairs a second.

    Args:
        contents: the run.
        total: seconds that the run and this page took together; None leaves the page out.
    """
    taken: dict[str, float] = contents.manifest.get("timings", {})
    measured = taken.get("total")
    stages = {name: seconds for name, seconds in taken.items() if name != "total"}
    if fidelity := (contents.manifest.get("fidelity") or {}).get("seconds"):
        stages["fidelity"] = fidelity
    if total is not None and measured is not None:
        stages["report"] = max(0.0, total - measured - stages.get("fidelity", 0.0))
    longest = max(stages.values(), default=0.0) or 1.0
    working = sum(stages.get(name, 0.0) for name in ("tokenise", "forward", "sae", "geometry"))
    pairs = contents.manifest.get("counts", {}).get("pairs", 0)
    memory = contents.manifest.get("memory", {}).get("peak_bytes")
    return {
        "stages": [
            {"name": name, "seconds": f"{seconds:.2f}", "width": round(100 * seconds / longest, 1)}
            for name, seconds in stages.items()
        ],
        "total": None if measured is None else f"{measured if total is None else total:.1f}",
        "rate": f"{pairs / working:,.0f}" if working > 0 and pairs else None,
        "memory": f"{memory / 1e9:.1f}" if memory else None,
    }


def provenance(contents: Contents) -> list[Values]:
    """Everything that made the numbers, as tables of names and values."""
    manifest, config = contents.manifest, contents.config
    measure = config.get("measure", {})
    run = {
        "made": manifest.get("created"),
        "counts": ", ".join(f"{name} {count}" for name, count in manifest.get("counts", {}).items()),
        "data": manifest.get("data", {}).get("name"),
        "data digest": manifest.get("data", {}).get("digest"),
        "position": measure.get("position"),
        "noise": f"{measure.get('noise_std')} ({measure.get('noise_mode')}), {measure.get('noise_draws')} draws",
        "strategy": manifest.get("strategy"),
        "device": manifest.get("device"),
        "precision": manifest.get("dtype"),
        "quantised": manifest.get("quantize"),
        "seeds": ", ".join(f"{name} {seed}" for name, seed in manifest.get("seeds", {}).items()),
        "platform": manifest.get("platform"),
        "table version": manifest.get("schema_version"),
    }
    parts = [("Run", run), ("Model", manifest.get("model", {}))]
    parts += [(f"SAE of layer {layer}", sae) for layer, sae in manifest.get("saes", {}).items()]
    parts.append(("Packages", manifest.get("packages", {})))
    return [
        {"title": title, "rows": [(name, str(value)) for name, value in values.items() if value is not None]}
        for title, values in parts
    ]


def repeat(contents: Contents) -> list[str]:
    """Commands that make the run, its statistics and this page again."""
    folder = shlex.quote(contents.path.name or ".")
    return [
        f"bluffscope analyze --config {folder}/config.yaml",
        statistics(contents, detectors=contents.detectors is not None),
        f"bluffscope report {folder}",
    ]


def statistics(contents: Contents, *, detectors: bool) -> str:
    """The command that makes the statistics, with the choices that those of the page were made with."""
    about = contents.about
    words = ["bluffscope", "stats", contents.path.name or "."]
    if about.get("by"):
        words += ["--by", *about["by"]]
    for name, default in (("family", "scope"), ("seed", 0)):
        if about.get(name, default) != default:
            words += [f"--{name}", str(about[name])]
    return shlex.join([*words, *(["--detectors"] if detectors else [])])
