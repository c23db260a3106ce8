"""Which columns of a table hold one metric of the fact and of the hallucination: found by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import polars as pl

from bluffscope.metrics import ANALYSES, METRICS, ON_REQUEST

LOOKED_FOR: Final = "l{layer}_fact_{metric} with l{layer}_hall_{metric}, or {metric}_fact with {metric}_hall"
"""The names that `metric_pairs` knows, for messages."""

_DOUBTFUL: Final = {metric.name: metric.not_interpretable for metric in METRICS if metric.not_interpretable}
_WITHOUT_SAES: Final = [
    metric.name for analysis in (*ANALYSES, *ON_REQUEST) if not analysis.needs_sae for metric in analysis.metrics
]
_LAYER: Final = r"^l\d+_"
_LAYER_COLUMN: Final = re.compile(r"l(\d+)_fact_(.+)")
_PROMPT_COLUMN: Final = re.compile(r"(l\d+_)prompt_(.+)")


class MetricPair(NamedTuple):
    """Two columns of the result table that hold one metric of the fact and of the hallucination."""

    name: str
    """Name without its view: "l5_gini", "entropy"."""
    layer: int | None
    """None for metrics that belong to no single layer."""
    metric: str
    """Name without layer and view: "gini", "entropy"."""
    fact: str
    hall: str


def metric_pairs(columns: Sequence[str]) -> list[MetricPair]:
    """The metrics of a table, found by the names of its columns and in their order."""
    known = set(columns)
    found: list[MetricPair] = []
    for name in columns:
        if match := _LAYER_COLUMN.fullmatch(name):
            layer, metric = int(match[1]), match[2]
            pair = MetricPair(f"l{layer}_{metric}", layer, metric, name, f"l{match[1]}_hall_{metric}")
        elif name.endswith("_fact"):
            metric = name.removesuffix("_fact")
            pair = MetricPair(metric, None, metric, name, f"{metric}_hall")
        else:
            continue
        if pair.hall in known and pair.name:
            found.append(pair)
    return found


def text_metrics(columns: Sequence[str], measured: Collection[str] | None = None) -> list[str]:
    """The columns of labelled texts that may hold a metric of the text: all but its prompt's own.

    Args:
        columns: of the table.
        measured: those that hold metrics, where that is known (`bluffscope.table.reader.Run.measured`).
    """
    known = set(columns)
    kept = (name for name in columns if measured is None or name in measured)
    # A metric of the prompt is measured of the text as well; prompt_cosine, say, is the text's alone.
    return [name for name in kept if not ((of := _PROMPT_COLUMN.fullmatch(name)) and f"{of[1]}{of[2]}" in known)]


def layer_of(name: str) -> tuple[int | None, str]:
    """The layer of a metric (name without its view), or None, and its name without it."""
    found = re.match(_LAYER, name)
    return (int(found[0][1:-1]), name[found.end() :]) if found else (None, name)


def not_interpretable(name: str) -> str:
    """Why a metric (name without its view) is shown but neither tested together with others nor counted; else empty."""
    return _DOUBTFUL.get(layer_of(name)[1], "")


def needs_sae() -> pl.Expr:
    """Whether the column ``metric`` names one that is measured through SAEs; of a user's own it is assumed."""
    return ~pl.col("metric").str.replace(_LAYER, "").is_in(_WITHOUT_SAES)


def interpretable() -> pl.Expr:
    """Whether the column ``metric`` names one that is tested and counted."""
    return ~pl.col("metric").str.replace(_LAYER, "").is_in(list(_DOUBTFUL))
