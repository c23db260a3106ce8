"""report.html: one page that needs nothing but a browser; no request leaves it, no text in it can act."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

import jinja2
import numpy as np
import polars as pl
import vl_convert as vlc

from bluffscope import __version__
from bluffscope.metrics import declared
from bluffscope.report import charts, sections
from bluffscope.report.contents import Contents
from bluffscope.report.labels import clean
from bluffscope.report.panels import NAMED
from bluffscope.report.story import metric_columns, pair_columns, strongest_features
from bluffscope.stats.sampling import SEED
from bluffscope.stats.study import POOLED
from bluffscope.table.folder import plain

MOST_PAIRS: Final = 10_000
"""Pairs that the page holds with their texts and numbers; of more a sample is drawn, and the page says so."""
MOST_POINTS: Final = 2000
"""Points of a scatter; of more pairs a sample is drawn, and the page says so."""
VEGA_LITE: Final = "6.1"
"""Of the versions that vl-convert bundles, the one whose language `charts` speaks."""

_ESCAPED: Final = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def render_page(contents: Contents) -> bytes:
    """The page as UTF-8."""
    environment = jinja2.Environment(
        loader=jinja2.BaseLoader(), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    scripts = [_bundle(), _asset("report.js")]
    name = clean(str(contents.manifest.get("model", {}).get("name") or "a model"), 60)
    data_name = clean(str(contents.manifest.get("data", {}).get("name") or "pairs"), 60)
    text = environment.from_string(_asset("report.html.j2")).render(
        title=f"{name} on {data_name}",
        layers=" ".join(map(str, contents.config.get("model", {}).get("layers", ()))),
        pairs=contents.total,
        held=min(MOST_PAIRS, contents.metrics.height),
        features_from=contents.features_from,
        version=__version__,
        answer=sections.answer(contents),
        about=contents.about,
        detector_notes=contents.about.get("detectors", {}).get("notes", ()),
        doubts=sections.doubts(contents),
        gated=contents.health.ran,
        linted=bool(contents.manifest.get("lint")),
        verdicts=None if contents.withheld else sections.verdict_table(contents),
        has={
            "stats": contents.stats is not None and not contents.stats.is_empty(),
            "ladder": _filled(contents.ladder),
            "detectors": _filled(contents.detectors),
            "transfer": _filled(contents.transfer),
            "dose": not dose_rows(contents).is_empty(),
            "layers": any(pair.layer is not None for pair in contents.measured),
            "metrics": bool(contents.measured),
        },
        features=sections.feature_tables(contents),
        timings=sections.timings(contents),
        provenance=sections.provenance(contents),
        repeat=sections.repeat(contents),
        detect=sections.statistics(contents, detectors=True),
        full_colour=charts.FULL_COLOUR,
        # These are the package's own or already escaped for where they stand.
        style=_asset("report.css"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        data=_embedded(page_data(contents)),
    )
    # A lone surrogate (text that is no Unicode) stays visible, and does not lose the page.
    return text.encode("utf-8", "backslashreplace")


def page_data(contents: Contents) -> dict[str, Any]:
    """What the page's script shows: pairs, metrics, statistics and the charts' specifications."""
    domains = contents.metrics["domain"].n_unique() if "domain" in contents.metrics.columns else 1
    held = _held(contents)
    return {
        "pairs": pair_columns(held),
        "metrics": metric_columns(held),
        "features": strongest_features(held),
        "neuronpedia": {
            str(table["layer"]): table["rows"][0]["link"].rpartition("/")[0]
            for table in sections.feature_tables(contents)
            if table["rows"] and table["rows"][0]["link"]
        },
        "stats": _rows(contents.stats),
        "scopes": contents.scopes,
        "first": sections.strongest(contents),
        "mostPoints": MOST_POINTS,
        "ladder": _rows(contents.ladder),
        "detectors": _rows(contents.detectors),
        "transfer": _rows(contents.transfer),
        "dose": _rows(dose_rows(contents)),
        "config": charts.CONFIG,
        "named": NAMED,
        "specs": {
            "forest": charts.forest(),
            "heat": charts.heat_map(),
            "scatter": charts.scatter(domains),
            "dose": charts.dose(),
            "ladder": charts.ladder(),
            "auroc": charts.detectors("auroc", "lo", "hi", "AUROC", 0.5),
            "gain": charts.detectors("gain", "gain_lo", "gain_hi", "gain over the best baseline", 0.0),
            "transfer": charts.transfer(),
        },
    }


def _held(contents: Contents) -> Contents:
    """With no more pairs than a page can bear: a sample of single pairs, always the same, in their order."""
    rows = contents.metrics.height
    if rows <= MOST_PAIRS:
        return contents
    drawn = np.sort(np.random.default_rng(SEED).choice(rows, MOST_PAIRS, replace=False))
    return replace(contents, metrics=contents.metrics[drawn], pairs=contents.pairs[drawn])


def dose_rows(contents: Contents) -> pl.DataFrame:
    """Mean stability of both texts at each level of noise and in each domain, with 95 % intervals of the mean.

    scope, s, view, mean, lo, hi, n; no rows where the run has no noise sweep.
    """
    parts: list[pl.DataFrame] = []
    metrics = contents.metrics
    domains = metrics["domain"].unique(maintain_order=True).to_list() if "domain" in metrics.columns else []
    scopes = [(POOLED, metrics)]
    if len(domains) > 1:
        # A domain of that name is called as the statistics call it.
        names = [f"domain={POOLED}" if domain == POOLED else str(domain) for domain in domains]
        parted = [metrics.filter(pl.col("domain").eq_missing(domain)) for domain in domains]
        scopes += list(zip(names, parted, strict=True))
    for pair in contents.measured:
        known = declared(pair.metric)
        if known is None or not (level := known.level or 0):
            continue
        for scope, table in scopes:
            for view, column in (("fact", pair.fact), ("hallucination", pair.hall)):
                parts.append(
                    table.select(pl.col(column).cast(pl.Float64).alias("value"))
                    .drop_nulls()
                    .select(
                        scope=pl.lit(scope),
                        s=pl.lit(level),
                        view=pl.lit(view),
                        mean=pl.col("value").mean(),
                        half=1.96 * pl.col("value").std() / pl.len().sqrt(),
                        n=pl.len(),
                    )
                )
    if not parts:
        return pl.DataFrame()
    rows = pl.concat(parts).filter(pl.col("n") > 0)
    return rows.with_columns(lo=pl.col("mean") - pl.col("half"), hi=pl.col("mean") + pl.col("half")).drop("half")


def _filled(table: pl.DataFrame | None) -> bool:
    return table is not None and not table.is_empty()


def _rows(table: pl.DataFrame | None) -> dict[str, list[Any]]:
    """Column by column, a third of the size of row by row; four significant digits."""
    if table is None:
        return {}
    floats = [name for name, kind in table.schema.items() if kind.is_float()]
    table = table.with_columns(pl.col(name).cast(pl.Float64).round_sig_figs(4) for name in floats)
    return table.to_dict(as_series=False)


def _embedded(data: dict[str, Any]) -> str:
    """JSON that may stand in a script element: nothing in it can end the element or begin another."""
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPED)


def _hash(script: str) -> str:
    """What the page's security policy names: no script but these two can run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("bluffscope.report") / "templates" / name).read_text("utf-8")


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script."""
    return vlc.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE).replace(
        "</script", "<\\/script"
    )
