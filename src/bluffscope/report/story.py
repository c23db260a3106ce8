"""Pairs or texts as the page's table and stories need them: columns of plain values, cut to what a browser can bear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.records import PAIRS, PROMPTED
from bluffscope.report.contents import Contents
from bluffscope.report.sides import IS_FACT, Words
from bluffscope.table.atomic import table_errors

TEXT_BUDGET: Final = 3_000_000
"""Characters of all texts together; longer ones are cut where they would not fit."""
LONGEST_TEXT: Final = 20_000
SHORTEST_CUT: Final = 200
FEATURE_BUDGET: Final = 200_000
"""Features of all stories together."""
MOST_FEATURES: Final = 8
"""Features of an item and layer in a story: of a pair those that differ most, of a text the strongest."""

_TOKENS: Final = tuple(f"{view}_{what}" for view in ("prompt", "fact", "hall") for what in ("tokens", "read_token"))
_TEXT_TOKENS: Final = ("prompt_tokens", "prompt_read_token", "text_tokens", "read_token")
_OWN: Final = ("domain", "complexity", "group")


def _sources(words: Words) -> tuple[str, ...]:
    """Columns of the texts themselves."""
    return (PAIRS if words.paired else PROMPTED).sources


def pair_columns(contents: Contents) -> dict[str, Any]:
    """The items, column by column; ``cut`` is the length that texts were cut to, or None.

    A pair has its texts, a labelled text its prompt, completion and label (whether it is true).

    Numbers have four significant digits: the exact ones are in metrics.parquet.
    """
    pairs, metrics, words = contents.pairs, contents.metrics, contents.words
    sources = _sources(words)
    limit = _text_limit(pairs, sources)
    texts = {name: pairs[name].cast(pl.String) for name in sources}
    longest = max((max(text.str.len_chars().fill_null(0).to_list(), default=0) for text in texts.values()), default=0)
    own = {words.key, *_OWN, *sources, *(() if words.paired else ("label",))}
    carried = [name for name in pairs.columns if name not in own and not pairs.schema[name].is_nested()]
    tokens = _TOKENS if words.paired else _TEXT_TOKENS
    return {
        "id": pairs[words.key].to_list(),
        **({} if words.paired else {"label": metrics[IS_FACT].to_list()}),
        "domain": pairs["domain"].cast(pl.String).to_list(),
        "complexity": pairs["complexity"].to_list() if "complexity" in pairs.columns else None,
        "group": pairs["group"].to_list(),
        **{name: text.str.head(limit).to_list() for name, text in texts.items()},
        "tokens": {name: metrics[name].to_list() for name in tokens if name in metrics.columns},
        "carried": {name: pairs[name].cast(pl.String).str.head(limit).to_list() for name in carried},
        "cut": limit if longest > limit else None,
    }


def metric_columns(contents: Contents) -> list[dict[str, Any]]:
    """Each numeric metric: name, layer, definition, unit, and the values of both sides to four significant digits."""
    return [
        {
            "name": pair.name,
            "layer": pair.layer,
            "metric": pair.metric,
            "called": _called(known.label, pair.layer),
            "doc": known.doc,
            "unit": known.unit,
            "fact": contents.metrics[pair.fact].cast(pl.Float64).round_sig_figs(4).to_list(),
            "hall": contents.metrics[pair.hall].cast(pl.Float64).round_sig_figs(4).to_list(),
        }
        for pair in contents.measured
        for known in [contents.definition(pair.metric)]
    ]


def _called(label: str, layer: int | None) -> str:
    """A metric's name as a reader would say it."""
    name = label.replace("_", " ")
    return name if layer is None else f"{name}, layer {layer}"


def telling_features(contents: Contents) -> dict[str, Any]:
    """The features of a pair that differ most between its two texts, and the strongest ones of a labelled text.

    ``layers``, ``most`` (features a list holds at the most), and ``pairs``: for each item and layer a list, the most
    telling first: [feature, in the fact, in the hallucination, feature, ...], or [feature, activation, ...] of a text.
    No layers where the run has no features.
    """
    run, words = contents.run, contents.words
    count = contents.pairs.height
    if not run.has_features or not count:
        return {"layers": [], "most": 0, "pairs": []}
    with table_errors(run.path / "features.parquet"):
        unique = run.features.select(pl.col("layer").unique(maintain_order=True))
        layers: list[int] = unique.collect()["layer"].to_list()
        most = max(1, min(MOST_FEATURES, FEATURE_BUDGET // (max(1, len(layers)) * count)))
        top = _top(contents, most)
    place = {name: index for index, name in enumerate(contents.pairs[words.key])}
    stories: list[list[list[float]]] = [[[] for _ in layers] for _ in range(count)]
    for name, layer, features, fact, hall in top.iter_rows():
        if name in place:
            columns = (features, fact, hall) if words.paired else (features, hall)
            flat = [value for entry in zip(*columns, strict=True) for value in entry]
            stories[place[name]][layers.index(layer)] = flat
    return {"layers": layers, "most": most, "pairs": stories}


def _top(contents: Contents, most: int) -> pl.DataFrame:
    """The item's key, layer, and lists of the most telling features and their activations in both sides."""
    name = contents.words.key
    key = [name, "layer"]
    in_fact = pl.col("view") == "fact"
    sides = {
        side: pl.col("activation").cast(pl.Float64).filter(of).sum()
        for side, of in (("fact", in_fact), ("hall", ~in_fact))
    }
    return (
        contents.run.features.filter(pl.col("view") != "prompt")
        .join(contents.pairs.lazy().select(name), on=name, how="semi", maintain_order="left")
        .group_by(*key, "feature")
        .agg(**sides)
        .filter(pl.col("fact") != pl.col("hall"))
        .sort((pl.col("hall") - pl.col("fact")).abs(), "feature", descending=[True, False])
        .group_by(key, maintain_order=True)
        .head(most)
        .with_columns(pl.col("fact", "hall").round_sig_figs(3))
        .group_by(key, maintain_order=True)
        .agg("feature", "fact", "hall")
        .select(*key, "feature", "fact", "hall")
        .collect()
    )


def _text_limit(pairs: pl.DataFrame, sources: Sequence[str]) -> int:
    """Characters a text may have so that all of them fit: long texts are cut, never short ones to serve them."""
    texts = pl.concat([pairs[name].cast(pl.String).str.len_chars().fill_null(0) for name in sources])
    lengths = texts.sort().to_numpy().astype(float)
    if lengths.clip(max=LONGEST_TEXT).sum() <= TEXT_BUDGET:
        return LONGEST_TEXT
    # What is left for each text once all shorter ones are whole; the first that is longer and all after it are cut.
    shares = (TEXT_BUDGET - np.cumsum(lengths) + lengths) / np.arange(len(lengths), 0, -1)
    return max(SHORTEST_CUT, math.floor(shares[np.argmax(lengths > shares)]))
