"""A table of labelled texts as the statistics need it: arrays of values, labels, lengths, groups and scopes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.metrics import declared
from bluffscope.pairs.groups import LINKS, Clusters, cluster_pairs, unknown_column
from bluffscope.pairs.truth import KNOWN
from bluffscope.stats.scopes import MEASURED_NAME, Scope, carried_columns, find_scopes
from bluffscope.stats.study import (
    Items,
    LengthUnit,
    alike,
    cluster_numbers,
    is_number,
    label_numbers,
    numbered,
    values_of,
)
from bluffscope.table.metric_pairs import text_metrics

_KNOWN: Final = frozenset({"text_id", "id", "label", "group", "domain", "complexity", "index"})
_KNOWN_TEXTS: Final = frozenset({"text", "prompt", "completion", "prompt_tokens", "text_tokens"}) | {
    *("answer_entropy", "answer_logprob")  # of `bluffscope ask`: what it drew, and not what a run measured
}


@dataclass(frozen=True)
class TextBlock:
    """Metrics of a scope that are defined for the same texts, so that they are computed together."""

    metrics: np.ndarray
    """(metric,) their places in `TextStudy.metrics`."""
    rows: np.ndarray
    """(text,) rows of the table."""
    values: np.ndarray
    """(text, metric) finite."""
    false: np.ndarray
    """(text,) whether the text is false."""
    lengths: np.ndarray
    """(text, length) as in `TextStudy`."""
    groups: np.ndarray
    """(text,) group of each text, numbered from 0 without gaps."""
    domains: np.ndarray
    """(text,) domain of each text, numbered from 0."""
    closed: np.ndarray
    """(text,) number of the closed completion that it is; -1 for none."""


@dataclass(frozen=True)
class TextStudy(Items):
    """A table of labelled texts, ready to be tested."""

    values: np.ndarray
    """(row, metric) float64; NaN where undefined."""
    false: np.ndarray
    """(row,) whether the text is false."""

    def blocks(self, scope: Scope) -> Iterator[TextBlock]:
        """The metrics of a scope by the texts for which they are defined, of many texts some at a time."""
        for metrics, used in alike(np.isfinite(self.values[scope.rows])):
            rows = scope.rows[used]
            yield TextBlock(
                metrics,
                rows,
                self.values[np.ix_(rows, metrics)],
                self.false[rows],
                self.lengths[rows],
                numbered(self.groups[rows]),
                self.domains[rows],
                self.closed[rows],
            )


def build_text_study(
    table: pl.DataFrame,
    texts: pl.DataFrame | None = None,
    by: Sequence[str] = (),
    *,
    cluster_by: str | None = None,
    measured: Collection[str] | None = None,
    carried: bool = True,
) -> TextStudy:
    """Find metrics, labels, lengths, groups and scopes; see `bluffscope.stats.analyse_labelled`.

    Raises:
        InputError: no rows, no label, no metric, an unknown column.
    """
    false = which_are_false(table)
    notes: list[str] = []
    everything = table if texts is None else _with_texts(table, texts)
    numeric, classes = numbers_and_classes(everything, measured)
    if not numeric and not classes:
        raise InputError("no metric: expected numbers in columns l{layer}_{metric} or {metric}")
    lengths, unit = _lengths(everything, notes)
    groups, made_by, closed = _clusters(everything, cluster_by, notes)
    if carried:
        known = {*numeric, *classes, *(measured or ()), *_KNOWN, *_KNOWN_TEXTS}
        by = [*by, *carried_columns(everything, known, by, notes)]
    scopes = find_scopes(everything, by, notes, of="texts")
    domains = everything["domain"] if "domain" in everything.columns else pl.Series([""] * table.height)
    return TextStudy(
        metrics=tuple(numeric),
        values=values_of(everything, numeric),
        false=false,
        lengths=lengths,
        length_unit=unit,
        groups=groups,
        cluster_by=made_by,
        closed=np.full(table.height, -1) if closed is None else closed.closed[:, 0],
        closed_names=() if closed is None else closed.names,
        domains=label_numbers(domains),
        logprobs=values_of(everything, ["logprob"])[:, 0] if "logprob" in numeric else np.full(table.height, np.nan),
        scopes=scopes,
        cross_tables=_cross_tables(everything, false, classes, scopes),
        notes=tuple(notes),
    )


def _with_texts(table: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """The table with what only its texts have, matched by text_id."""
    further = [name for name in texts.columns if name not in table.columns]
    return table.join(texts.select("text_id", *further), on="text_id", how="left", maintain_order="left")


def which_are_false(table: pl.DataFrame) -> np.ndarray:
    """(row,) whether each text is false."""
    if table.is_empty():
        raise InputError("the table has no rows; give one with one row per text")
    if "label" not in table.columns:
        raise InputError("the table has no column label: true or false for each text")
    written = table["label"].cast(pl.String).str.strip_chars().str.to_lowercase()
    known = KNOWN | {"1.0": True, "0.0": False}
    if (other := written.filter(~written.is_in(list(known)).fill_null(value=False))).len():
        raise InputError(f"label {other[0]!r}: expected true or false, 1 or 0, correct or incorrect")
    return ~written.replace_strict(known, return_dtype=pl.Boolean).to_numpy()


def numbers_and_classes(table: pl.DataFrame, measured: Collection[str] | None) -> tuple[list[str], list[str]]:
    """The metrics that are numbers, and those that are classes."""
    names = text_metrics(table.columns, measured)
    if measured is None:
        names = [name for name in names if _may_be_metric(table[name])]
    numeric = [name for name in names if is_number(table[name]) and _category(name) is False]
    return numeric, [name for name in names if _category(name) and table[name].dtype == pl.String]


def _may_be_metric(column: pl.Series) -> bool:
    """Whether a column of a table of any origin is measured: by its name, or as a fraction."""
    if column.name in _KNOWN | _KNOWN_TEXTS or column.name.endswith("read_token") or column.dtype == pl.Null:
        return False
    in_layer = re.match(r"l\d+_.", column.name) is not None and column.dtype != pl.Boolean
    return in_layer or column.dtype.is_float() or declared(column.name) is not None


def _category(name: str) -> bool:
    """Whether a metric is one of classes."""
    layer, _, metric = name.partition("_")
    found = declared(metric if layer[1:].isdigit() else name)
    return found is not None and found.metric.kind == "category"


def _lengths(table: pl.DataFrame, notes: list[str]) -> tuple[np.ndarray, LengthUnit]:
    """(row, 1 or 2) tokens, else characters, of texts and prompts; NaN where unknown."""
    if "text_tokens" in table.columns:
        notes.append("Lengths are in tokens, from the table.")
        return _with_prompts(table.select(_named(table, "text_tokens", "prompt_tokens"))), "tokens"
    written = [name for name in ("completion", "text") if name in table.columns][:1]
    if written:
        written += ["prompt"] if "prompt" in table.columns else []
        notes.append("Lengths are in characters: the table has no text_tokens.")
        return _with_prompts(table.select(pl.col(written).cast(pl.String).str.len_chars())), "characters"
    notes.append("Lengths are unknown (no text_tokens, completion or text in the table): no verdict can be given.")
    return np.full((table.height, 1), np.nan), "unknown"


def _with_prompts(lengths: pl.DataFrame) -> np.ndarray:
    """(row, 1 or 2) lengths of texts and, if there is a second column, of prompts; no prompt has length 0."""
    return values_of(lengths.with_columns(pl.col(lengths.columns[1:]).fill_null(0)), lengths.columns)


def _clusters(table: pl.DataFrame, by: str | None, notes: list[str]) -> tuple[np.ndarray, str, Clusters | None]:
    """(row,) group numbers, what made them, and the closed completions where the texts are known."""
    completion = next((name for name in ("completion", "text") if name in table.columns), None)
    found = None
    if completion is not None:
        nothing = pl.lit(None, pl.String)
        texts = table.select(
            pl.col(completion).alias("fact"), nothing.alias("hallucination"), *_named(table, "prompt", "domain")
        )
        if "text_id" in table.columns:
            texts = texts.with_columns(table["text_id"].cast(pl.String).alias("pair_id"))
        found = cluster_pairs(texts, by if by in LINKS else "both")
    if by in LINKS and found is None:
        raise InputError(f"--cluster-by {by}: requires the texts: columns completion, and prompt if there is one")
    if by is not None and by not in LINKS and by not in table.columns:
        known = (name for name in table.columns if not MEASURED_NAME.search(name))
        raise unknown_column(by, [name for name in known if table[name].n_unique() < table.height])
    if by is None and "group" in table.columns:
        return cluster_numbers(table["group"]), "group", found
    if found is not None and (by is None or by in LINKS):
        notes.append(f"Clusters were computed from the texts (--cluster-by {by or 'both'}).")
        return cluster_numbers(found.labels), by or "both", found
    if by is not None:
        return cluster_numbers(table[by]), by, found
    notes.append("No groups are known: each text is its own cluster.")
    return np.arange(table.height), "rows", found


def _named(table: pl.DataFrame, *names: str) -> list[pl.Expr]:
    return [pl.col(name) for name in names if name in table.columns]


def _cross_tables(
    table: pl.DataFrame, false: np.ndarray, classes: Sequence[str], scopes: Sequence[Scope]
) -> pl.DataFrame:
    schema = pl.Schema(
        dict.fromkeys(("metric", "scope", "value"), pl.String()) | {"true": pl.Int64(), "false": pl.Int64()}
    )
    labelled = table.with_columns(_false=pl.Series(false, dtype=pl.Boolean))
    parts = [
        labelled[scope.rows]
        .group_by(pl.col(name).cast(pl.String).alias("value"))
        .agg(true=(~pl.col("_false")).sum().cast(pl.Int64), false=pl.col("_false").sum().cast(pl.Int64))
        .sort("value", nulls_last=True)
        .select(pl.lit(name).alias("metric"), pl.lit(scope.name).alias("scope"), "value", "true", "false")
        for name in classes
        for scope in scopes
    ]
    return pl.concat([pl.DataFrame(schema=schema), *parts])


__all__ = ["TextBlock", "TextStudy", "build_text_study"]
