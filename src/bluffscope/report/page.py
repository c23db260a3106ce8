"""report.html: one page that needs nothing but a browser; it makes no request, and no text in it can act."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import polars as pl

from bluffscope import __version__
from bluffscope.records import STATEMENTS
from bluffscope.report import charts, detector_charts, sections
from bluffscope.report.answer import Results, answer
from bluffscope.report.bundle import javascript
from bluffscope.report.contents import Contents
from bluffscope.report.detector_findings import NAMES, curves, sweep_rows, sweep_title, titles
from bluffscope.report.labels import clean, effect, number
from bluffscope.report.marks import Spec
from bluffscope.report.panels import MOST_POINTS
from bluffscope.report.sides import Words, labels_of
from bluffscope.report.story import metric_columns, pair_columns, strongest_features
from bluffscope.report.timings import read_timings
from bluffscope.report.transfer_page import transfer_table, transfer_titles
from bluffscope.stats.sampling import SEED
from bluffscope.table.folder import plain
from bluffscope.table.metric_pairs import not_interpretable

MOST_PAIRS: Final = 10_000
"""Items that the page holds with their texts and numbers; of more a sample is drawn, and the page says so."""

_ESCAPED: Final = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def render_page(contents: Contents, total: Callable[[], float] | None = None) -> bytes:
    """The page as UTF-8.

    Args:
        contents: the run.
        total: asked once everything is ready: seconds that the run and this page took together.
    """
    environment = jinja2.Environment(
        loader=jinja2.BaseLoader(), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["named"] = _named
    scripts = [javascript(), _asset("report.js")]
    data = _embedded(page_data(contents))
    text = environment.from_string(_asset("report.html.j2")).render(
        contents=contents,
        words=contents.words,
        statements=contents.run.arrangement == STATEMENTS,
        labels=None if contents.words.paired else labels_of(contents.metrics),
        clean=clean,
        effect=effect,
        number=number,
        filled=_filled,
        doubtful=not_interpretable,
        held=min(MOST_PAIRS, contents.metrics.height),
        version=__version__,
        answer=answer(Results.of(contents)),
        doubts=sections.doubts(contents),
        verdicts=None if contents.withheld else sections.verdict_table(contents),
        features=sections.feature_tables(contents),
        timings=read_timings(contents.manifest, None if total is None else total()),
        repeat=sections.repeat(contents),
        detect=sections.statistics(contents, detectors=True),
        compared_with=sections.baselines(contents),
        carried=None if contents.carried is None else transfer_table(contents.carried),
        full_colour=charts.FULL_COLOUR,
        # These are the package's own or already escaped for where they stand.
        style=_asset("report.css"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        data=data,
    )
    # A lone surrogate, which UTF-8 cannot encode, becomes an escape instead of an error.
    return text.encode("utf-8", "backslashreplace")


def page_data(contents: Contents) -> dict[str, Any]:
    """What the page's script shows: items, metrics, statistics and the charts' specifications."""
    domains = contents.metrics["domain"].n_unique() if "domain" in contents.metrics.columns else 1
    words = contents.words
    held = _held(contents)
    return {
        "pairs": pair_columns(held),
        "metrics": metric_columns(held),
        "features": strongest_features(held),
        "neuronpedia": sections.feature_homes(contents),
        "stats": _rows(contents.stats),
        "scopes": contents.scopes,
        "first": sections.strongest(contents),
        "mostPoints": MOST_POINTS,
        "words": asdict(words) | {"items": words.items, "views": words.views, "paired": words.paired},
        "ladder": _rows(contents.ladder),
        "detectors": _rows(contents.detectors),
        "transfer": _rows(contents.transfer),
        "curves": {} if contents.curves is None else curves(contents.curves.with_columns(_four("x", "y"))),
        "titles": titles(contents.detectors),
        "names": NAMES,
        "sweep": {} if contents.sweep is None else _rows(sweep_rows(contents.sweep)),
        "sweepTitle": "" if contents.sweep is None else sweep_title(contents.sweep),
        "carried": _rows(contents.carried),
        "carriedTitles": {} if contents.carried is None else transfer_titles(contents.carried),
        "cell": detector_charts.CELL,
        "dose": _rows(contents.dose),
        "trajectory": _rows(contents.trajectory),
        "config": charts.CONFIG,
        "named": charts.NAMED,
        "specs": {
            "forest": charts.forest(words),
            "heat": charts.heat_map(words),
            "scatter": charts.scatter(charts.domain_keys("domain", domains)) if words.paired else charts.strip(),
            "dose": charts.dose(words),
            "trajectory": _trajectory(contents.trajectory, words),
            "ladder": charts.ladder(words),
            "auroc": detector_charts.detectors(words, "auroc"),
            "gain": detector_charts.detectors(words, "gain"),
            "reliability": detector_charts.reliability(words),
            "risk": detector_charts.risk(),
            "transfer": detector_charts.transfer(words),
            "sweep": detector_charts.by_layer(words),
            "carried": detector_charts.carried(),
        },
    }


def _trajectory(rows: pl.DataFrame, words: Words) -> Spec:
    """The charts of the logit lens, all with the same scale."""
    return (
        charts.trajectory(words, 0, 1)
        if rows.is_empty()
        else charts.trajectory(words, *rows.select(pl.min("lo"), pl.max("hi")).row(0))
    )


def _held(contents: Contents) -> Contents:
    """With no more items than a page can bear: a sample of single ones, always the same, in their order."""
    rows = contents.metrics.height
    if rows <= MOST_PAIRS:
        return contents
    drawn = np.sort(np.random.default_rng(SEED).choice(rows, MOST_PAIRS, replace=False))
    return replace(contents, metrics=contents.metrics[drawn], pairs=contents.pairs[drawn])


def _named(model: str) -> str:
    """A model's name: of a file or folder its last part; a Hub id as it is."""
    return Path(model).name if Path(model).is_absolute() else model


def _filled(table: pl.DataFrame | None) -> bool:
    return table is not None and not table.is_empty()


def _rows(table: pl.DataFrame | None) -> dict[str, list[Any]]:
    """Column by column, a third of the size of row by row; four significant digits."""
    if table is None:
        return {}
    floats = [name for name, kind in table.schema.items() if kind.is_float()]
    return table.with_columns(_four(*floats)).to_dict(as_series=False)


def _four(*names: str) -> list[pl.Expr]:
    """Columns of numbers with four significant digits."""
    return [pl.col(name).cast(pl.Float64).round_sig_figs(4) for name in names]


def _embedded(data: dict[str, Any]) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element or begin another."""
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPED)


def _hash(script: str) -> str:
    """What the page's security policy names: no script but these two can run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("bluffscope.report") / "templates" / name).read_text("utf-8")
