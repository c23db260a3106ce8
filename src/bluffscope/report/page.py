"""report.html: one page that needs nothing but a browser; it makes no request, and no text in it can act."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import jinja2
import numpy as np
import polars as pl

from bluffscope import __version__
from bluffscope.detectors.classifiers import NAMES
from bluffscope.records import STATEMENTS
from bluffscope.report import charts, detector_charts, first_screen, sections
from bluffscope.report.answer import Answer, answer
from bluffscope.report.bundle import javascript
from bluffscope.report.contents import Contents
from bluffscope.report.detector_findings import curves, positions_differ, sweep_rows, sweep_title, titles
from bluffscope.report.feature_cards import feature_cards, leading
from bluffscope.report.labels import clean, effect, ending, number, percent
from bluffscope.report.marks import Spec
from bluffscope.report.panels import MOST_POINTS
from bluffscope.report.results import Results
from bluffscope.report.sides import Words
from bluffscope.report.story import metric_columns, pair_columns, telling_features
from bluffscope.report.timings import read_timings
from bluffscope.report.transfer_page import transfer_table, transfer_titles
from bluffscope.stats.sampling import SEED
from bluffscope.table.folder import plain
from bluffscope.table.metric_pairs import not_interpretable

MOST_PAIRS: Final = 10_000
"""Items that the page holds with their texts and numbers; of more a sample is drawn, and the page says so."""

MOST_NUMBERS: Final = 1_000_000
"""Values of metrics that the page holds: a run of very many metrics has fewer items there."""

_SCRIPTS: Final = ("report.js", "stories.js", "items.js", "start.js")
"""The page's own script, one after the other."""
_TABLES: Final = ("stats", "ladder")
"""Tables in which names and reasons repeat thousands of times: their texts are shared."""


def render_page(contents: Contents, total: Callable[[], float] | None = None) -> bytes:
    """The page as UTF-8.

    Args:
        contents: the run.
        total: asked once everything is ready: seconds that the run and this page took together.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"named": _named, "clean": clean}
    own = "".join(map(_asset, _SCRIPTS))
    scripts = [javascript(), f'"use strict";\n(async () => {{\n{own}}})();\n']
    said = answer(Results.of(contents))
    data = page_data(contents, said)
    text = environment.get_template("report.html.j2").render(
        contents=contents,
        words=contents.words,
        statements=contents.run.arrangement == STATEMENTS,
        clean=clean,
        effect=effect,
        number=number,
        filled=_filled,
        doubtful=not_interpretable,
        held=_number_held(contents),
        percent=percent,
        version=__version__,
        answer=said,
        picture=bool(data["picture"]["panel"]),
        measured_in=data["pictured"],
        examples=first_screen.examples(_held(contents), said),
        beyond_length=first_screen.beyond_length(said),
        holds=first_screen.holds,
        cards=_opening(contents, data["cards"], said),
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
        data=_embedded(data),
    )
    # A lone surrogate, which UTF-8 cannot encode, becomes an escape instead of an error.
    return text.encode("utf-8", "backslashreplace")


def page_data(contents: Contents, said: Answer | None = None) -> dict[str, Any]:
    """What the page's script shows: items, metrics, statistics and the charts' specifications.

    Args:
        contents: the run.
        said: its answer, where it is known already.
    """
    said = answer(Results.of(contents)) if said is None else said
    domains = contents.metrics["domain"].n_unique() if "domain" in contents.metrics.columns else 1
    words = contents.words
    held = _held(contents)
    picture = first_screen.picture(contents, said)
    named = first_screen.metric_name(contents, said)
    limits = [min(picture["lo"]), max(picture["hi"])] if picture["lo"] else []
    return {
        "picture": picture,
        "pictured": named,
        "cards": feature_cards(held),
        "position": contents.run.positions[0],
        "pairs": pair_columns(held),
        "metrics": metric_columns(held),
        "features": telling_features(held),
        "neuronpedia": sections.feature_homes(contents),
        "stats": _rows(contents.stats),
        "scopes": contents.scopes,
        "first": sections.strongest(contents, said),
        "mostPoints": MOST_POINTS,
        "words": asdict(words) | {"items": words.items, "views": words.views, "paired": words.paired},
        "ladder": _rows(contents.ladder, dict.fromkeys(("dz", "lo", "hi"), 3)),
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
            "spread": charts.histogram(words, first_screen.axis_title(contents, said), "% of texts", limits),
            "fires": charts.histogram(words, "activation", words.items),
            "layers": charts.by_layer(words),
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
            "sweep": detector_charts.by_layer(words, several=positions_differ(contents.sweep)),
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


def _opening(contents: Contents, cards: list[dict[str, Any]], said: Answer) -> list[dict[str, Any]]:
    """The features that the page opens with, each with its shares in the scopes that the answer sets apart."""
    places = {scope: place for place, scope in enumerate(contents.scopes)}
    apart = [(part.short, places[part.scope]) for part in said.scopes if part.scope in places]
    items = _held(contents).pairs
    opening: list[dict[str, Any]] = []
    for card in [] if said.kind == "withheld" else leading(cards):
        shares = [(short, *card["scopes"][place][:2]) for short, place in apart]
        texts = [_fired(items, contents.words, item, side) for item, side, _ in card["texts"][:2]]
        opening.append(card | {"apart": [row for row in shares if None not in row], "fired": texts})
    return opening


def _fired(items: pl.DataFrame, words: Words, item: int, side: int) -> str:
    """A text in which a feature fires, on one line."""
    name = ("fact", "hallucination")[side] if words.paired else "completion"
    return ending(f"{items['prompt'][item] or ''} {items[name][item]}", 70)


def _number_held(contents: Contents) -> int:
    """Items that the page holds."""
    return min(MOST_PAIRS, MOST_NUMBERS // (2 * max(1, len(contents.measured))), contents.metrics.height)


def _held(contents: Contents) -> Contents:
    """With no more items than a page can bear: a sample of single ones, always the same, in their order."""
    rows, most = contents.metrics.height, _number_held(contents)
    if rows <= most:
        return contents
    drawn = np.sort(np.random.default_rng(SEED).choice(rows, most, replace=False))
    return replace(contents, metrics=contents.metrics[drawn], pairs=contents.pairs[drawn])


def _named(model: str) -> str:
    """A model's name: of a file or folder its last part; a Hub id as it is."""
    return Path(model).name if Path(model).is_absolute() else model


def _filled(table: pl.DataFrame | None) -> bool:
    return table is not None and not table.is_empty()


def _rows(table: pl.DataFrame | None, decimals: Mapping[str, int] = MappingProxyType({})) -> dict[str, list[Any]]:
    """Column by column, a third of the size of row by row; four significant digits, of p and q three.

    Args:
        table: the rows.
        decimals: of columns that are shown with so many and no more.
    """
    if table is None:
        return {}
    floats = [name for name, kind in table.schema.items() if kind.is_float() and name not in decimals]
    chances = [name for name in floats if {"p", "q"} & set(name.split("_"))]
    rounded = [
        *_four(*(name for name in floats if name not in chances)),
        *(pl.col(name).round_sig_figs(3) for name in chances),
        *(pl.col(name).round(places) for name, places in decimals.items()),
    ]
    return table.with_columns(rounded).to_dict(as_series=False)


def _shared(values: list[Any]) -> list[Any] | dict[str, list[Any]]:
    """A column of texts that repeat: each once, and its place in every row. Other columns as they are."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    if 2 * len(places) > len(values) or not all(value is None or isinstance(value, str) for value in places):
        return values
    return {"texts": list(places), "at": [places[value] for value in values]}


def _four(*names: str) -> list[pl.Expr]:
    """Columns of numbers with four significant digits."""
    return [pl.col(name).cast(pl.Float64).round_sig_figs(4) for name in names]


def _embedded(data: dict[str, Any]) -> str:
    """Deflated JSON as base64: a third of its size, and nothing in it can end the element or begin another."""
    tables = {table: {name: _shared(values) for name, values in data[table].items()} for table in _TABLES}
    text = json.dumps(plain({**data, **tables}), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate, which UTF-8 cannot encode, becomes an escape, which JSON has too.
    return base64.b64encode(zlib.compress(text.encode("utf-8", "backslashreplace"))).decode()


def _hash(script: str) -> str:
    """What the page's security policy names: no script but these two can run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("bluffscope.report") / "templates" / name).read_text("utf-8")
