"""A table as the statistics need it: arrays of both sides, lengths, groups, scopes, and what has to be said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.metrics import declared
from bluffscope.pairs.groups import LINKS, Clusters, cluster_pairs, unknown_column
from bluffscope.pairs.links import FEWEST_CLUSTERS
from bluffscope.stats.matching import matched_pairs
from bluffscope.stats.scopes import MEASURED_NAME, Scope, carried_columns, find_scopes
from bluffscope.table.metric_pairs import LOOKED_FOR, MetricPair, metric_pairs, not_interpretable

MOST_CELLS: Final = 4_000_000
"""Pairs x metrics that are looked at together."""
LengthUnit = Literal["tokens", "characters", "unknown"]


@dataclass(frozen=True)
class Block:
    """Metrics of a scope that are defined for the same pairs, so that they are computed together."""

    metrics: np.ndarray
    """(metric,) their places in `Study.metrics`."""
    rows: np.ndarray
    """(pair,) rows of the table."""
    fact: np.ndarray
    """(pair, metric) finite."""
    hall: np.ndarray
    """(pair, metric) finite."""
    lengths: np.ndarray
    """(pair, 2) length of the fact and of the hallucination; NaN where unknown."""
    groups: np.ndarray
    """(pair,) group of each pair, numbered from 0 without gaps."""
    domains: np.ndarray
    """(pair,) domain of each pair, numbered from 0."""
    closed: np.ndarray
    """(pair, 2) number of the closed completion that fact and hallucination is; -1 for none."""

    @property
    def differences(self) -> np.ndarray:
        """(pair, metric) hall - fact."""
        return self.hall - self.fact

    @property
    def length_differences(self) -> np.ndarray:
        """(pair,) dL; NaN where unknown."""
        return self.lengths[:, 1] - self.lengths[:, 0]


@dataclass(frozen=True)
class Items:
    """What a table says of its rows, pairs or labelled texts, beside the metrics' values."""

    metrics: tuple[str, ...]
    """Names without the view (of texts: of their columns), in the table's order."""
    lengths: np.ndarray
    """(row, 2) of a pair's completions; (row, 1 or 2) of a text, and of its prompt where that is known; NaN where
    unknown."""
    length_unit: LengthUnit
    groups: np.ndarray
    """(row,) number of each row's group: the clusters of every test."""
    cluster_by: str
    """What made them: "both" or another value of ``--cluster-by``, "group", or "rows"."""
    closed: np.ndarray
    """(row, 2) number of the closed completion that fact and hallucination is, (row,) that a text is; -1 for none."""
    closed_names: tuple[str, ...]
    """The closed completions, by their numbers."""
    domains: np.ndarray
    """(row,) number of each row's domain: all 0 where domains are unknown."""
    logprobs: np.ndarray
    """(row, 2) log-probabilities of fact and hallucination, (row,) of a text, given the prompt; nats, NaN where
    unknown."""
    scopes: tuple[Scope, ...]
    """Domains in order of appearance, pooled, then those of further columns."""
    cross_tables: pl.DataFrame
    """How often the classes of shape_class occur: metric, scope, and fact, hall, n for pairs; value, true, false for
    texts."""
    notes: tuple[str, ...]
    """What a reader must know of where lengths, groups and scopes come from: sentences."""

    @property
    def counted(self) -> np.ndarray:
        """(metric,) whether it is in families and counts: all but what is not interpretable."""
        return np.array([not not_interpretable(name) for name in self.metrics], dtype=bool)


@dataclass(frozen=True)
class Study(Items):
    """A table and its pairs, ready to be tested."""

    fact: np.ndarray
    """(row, metric) float64; NaN where undefined."""
    hall: np.ndarray
    """(row, metric) float64; NaN where undefined."""
    pairs: pl.DataFrame | None
    """(row) the pairs that they were measured from, where they are known."""

    def blocks(self, scope: Scope) -> Iterator[Block]:
        """The metrics of a scope by the pairs for which both their sides are defined, of many pairs some at a time."""
        defined = np.isfinite(self.fact[scope.rows]) & np.isfinite(self.hall[scope.rows])
        for metrics, used in alike(defined):
            rows = scope.rows[used]
            groups, domains = numbered(self.groups[rows]), self.domains[rows]
            fact, hall = (side[np.ix_(rows, metrics)] for side in (self.fact, self.hall))
            yield Block(metrics, rows, fact, hall, self.lengths[rows], groups, domains, self.closed[rows])


def alike(defined: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(metric,) places of metrics that are defined in the same rows, and (row,) in which; `MOST_CELLS` at a time.

    Args:
        defined: (row, metric).
    """
    same: dict[bytes, list[int]] = {}
    for metric, pattern in enumerate(np.packbits(defined, axis=0).T):
        same.setdefault(pattern.tobytes(), []).append(metric)
    for metrics in map(np.array, same.values()):
        used = defined[:, metrics[0]]
        step = max(1, MOST_CELLS // max(1, int(used.sum())))
        yield from ((metrics[start : start + step], used) for start in range(0, len(metrics), step))


def label_numbers(labels: pl.Series) -> np.ndarray:
    """(row,) labels numbered from 0 without gaps; rows without one share a number."""
    return labels.cast(pl.String).fill_null("").rank("dense").to_numpy().astype(np.int64) - 1


def numbered(groups: np.ndarray) -> np.ndarray:
    """(pair,) the same groups, numbered from 0 without gaps."""
    return np.unique(groups, return_inverse=True)[1].ravel()


def build_study(
    table: pl.DataFrame,
    pairs: pl.DataFrame | None = None,
    by: Sequence[str] = (),
    *,
    by_order: bool = False,
    cluster_by: str | None = None,
    carried: bool = True,
) -> Study:
    """Find metrics, lengths, groups and scopes.

    Args:
        table: columns of both sides by name (see `bluffscope.table.metric_pairs`), with `fact_tokens` and
            `hall_tokens`, `group`, `domain` and `pair_id` where they are known.
        pairs: what the table was measured from: `pair_id, fact, hallucination`, and `group`, `domain` and further
            columns where they are known; matched by the column of the table that holds their ids.
        by: further columns, of the table or of the pairs, whose values are scopes.
        by_order: the k-th row is the k-th pair's; only for a table without ids.
        cluster_by: what makes clusters of pairs: "prompt", "completion" or "both", of the pairs' texts; or a column of
            the table or of the pairs. By default the column `group` of the table, else of the pairs, else both, else
            each row is its own.
        carried: whether columns that were carried along and have 2 to 6 values make scopes too.

    Raises:
        InputError: no rows, no fact and hallucination columns, pairs that do not match, an unknown column.
    """
    if table.is_empty():
        raise InputError("the table has no rows; give one with one row per pair")
    found = metric_pairs(table.columns)
    numeric, classes, passed_over = _sorted_out(table, found)
    if not numeric and not classes:
        raise InputError(_nothing_found(table, passed_over))
    notes: list[str] = []
    if passed_over:
        notes.append(f"Text columns are not metrics and were skipped: {', '.join(passed_over)}.")
    matched, note = (None, None) if pairs is None else matched_pairs(table, pairs, by_order=by_order)
    notes += [note] if note else []
    lengths, unit = _lengths(table, matched, notes)
    further = [] if matched is None else [column for column in matched if column.name not in table.columns]
    everything = table.with_columns(further)
    groups, made_by, closed = _clusters(table, everything, cluster_by, notes)
    if carried:
        measured = {name for pair in found for name in (pair.fact, pair.hall, f"{pair.metric}_diff")}
        by = [*by, *carried_columns(everything, measured, by, notes)]
    scopes = find_scopes(everything, by, notes)
    logprobs = _both(table, ("logprob_fact", "logprob_hall"))
    domains = pl.Series([""] * table.height) if "domain" not in everything.columns else everything["domain"]
    return Study(
        metrics=tuple(pair.name for pair in numeric),
        fact=values_of(table, [pair.fact for pair in numeric]),
        hall=values_of(table, [pair.hall for pair in numeric]),
        lengths=lengths,
        length_unit=unit,
        groups=groups,
        cluster_by=made_by,
        closed=np.full((table.height, 2), -1) if closed is None else closed.closed,
        closed_names=() if closed is None else closed.names,
        domains=label_numbers(domains),
        logprobs=np.full((table.height, 2), np.nan) if logprobs is None else logprobs,
        scopes=scopes,
        cross_tables=_cross_tables(table, classes, scopes),
        pairs=matched,
        notes=tuple(notes),
    )


def _sorted_out(
    table: pl.DataFrame, found: Sequence[MetricPair]
) -> tuple[list[MetricPair], list[MetricPair], list[str]]:
    """The metrics that are numbers, those that are classes, and the columns that are neither."""
    if repeated := [name for name, times in Counter(pair.name for pair in found).items() if times > 1]:
        columns = [pair.fact for pair in found if pair.name == repeated[0]]
        raise InputError(f"columns {' and '.join(columns)} are both the metric {repeated[0]!r}; rename one")
    numeric: list[MetricPair] = []
    classes: list[MetricPair] = []
    passed_over: list[str] = []
    for pair in found:
        if all(is_number(table[name]) for name in (pair.fact, pair.hall)):
            numeric.append(pair)
        elif (known := declared(pair.metric)) and known.metric.kind == "category":
            classes.append(pair)
        else:
            passed_over.append(pair.fact)
    return numeric, classes, passed_over


def is_number(column: pl.Series) -> bool:
    """Whether a column holds numbers, as text where a CSV file had them beside empty cells."""
    kind = column.dtype
    if kind == pl.String:
        # In CSV a column without a value, or with NaN among its numbers, is read as text.
        return column.cast(pl.Float64, strict=False).null_count() == column.null_count()
    return kind.is_numeric() or kind == pl.Boolean or kind == pl.Null


def _nothing_found(table: pl.DataFrame, passed_over: Sequence[str]) -> str:
    names = ", ".join(map(_shortened, table.columns[:8])) + (", ..." if table.width > 8 else "")
    why = f"; {_shortened(passed_over[0])} and its like hold text" if passed_over else ""
    return f"no fact and hallucination columns: looked for numbers in {LOOKED_FOR}; the table has {names}{why}"


def _shortened(name: str, longest: int = 60) -> str:
    """The name of a column that may be any text."""
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def values_of(table: pl.DataFrame, names: Sequence[str]) -> np.ndarray:
    """(row, column) float64, NaN where a value is null, NaN or infinite."""
    values = np.empty((table.height, len(names)))
    for place, name in enumerate(names):
        values[:, place] = table[name].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    values[~np.isfinite(values)] = np.nan
    return values


def _both(table: pl.DataFrame, names: tuple[str, str]) -> np.ndarray | None:
    """(row, 2) values of two columns; None where one is not there or no number."""
    if all(name in table.columns and is_number(table[name]) for name in names):
        return values_of(table, names)
    return None


def _lengths(table: pl.DataFrame, pairs: pl.DataFrame | None, notes: list[str]) -> tuple[np.ndarray, LengthUnit]:
    tokens = _both(table, ("fact_tokens", "hall_tokens"))
    if tokens is not None:
        notes.append("Lengths are in tokens, from the table.")
        return tokens, "tokens"
    if pairs is not None:
        sizes = pairs.select(pl.col("fact", "hallucination").cast(pl.String).str.len_chars())
        notes.append("Lengths are in characters, from the pairs: the table has no fact_tokens and hall_tokens.")
        return values_of(sizes, sizes.columns), "characters"
    where = "no fact_tokens and hall_tokens in the table, no pairs given"
    notes.append(f"Lengths are unknown ({where}): no verdict can be given.")
    return np.full((table.height, 2), np.nan), "unknown"


def _clusters(
    table: pl.DataFrame, everything: pl.DataFrame, by: str | None, notes: list[str]
) -> tuple[np.ndarray, str, Clusters | None]:
    """(row,) group numbers, what made them, and the closed completions where the texts are known.

    Args:
        table: the metrics.
        everything: the same and the columns of its pairs.
        by: see `build_study`.
        notes: what a reader must know is added.
    """
    texts = all(name in everything.columns for name in ("fact", "hallucination"))
    found = cluster_pairs(everything, by if by in LINKS else "both") if texts else None
    if found is not None and found.names:
        names = ", ".join(map(repr, found.names[:6])) + (", ..." if len(found.names) > 6 else "")
        notes.append(f"Closed answers ({names}) link no pairs and have effects of their own.")
    if by in LINKS and found is None:
        raise InputError(f"--cluster-by {by}: requires the texts of the pairs; give them with --pairs")
    if by is not None and by not in LINKS and by not in everything.columns:
        known = (name for name in everything.columns if not MEASURED_NAME.search(name))
        raise unknown_column(by, [name for name in known if everything[name].n_unique() < table.height])
    if by is None and "group" in everything.columns:
        labels, made_by = everything["group"], "group"
        if "group" not in table.columns:
            notes.append("Groups come from the pairs.")
        own = cluster_numbers(labels)
        if found is not None and len(np.unique(own)) < FEWEST_CLUSTERS <= found.labels.n_unique():
            more = f"--cluster-by both makes {found.labels.n_unique()}"
            notes.append(
                f"The table's groups link nearly all pairs, as earlier versions linked closed answers; {more}."
            )
    elif found is not None and (by is None or by in LINKS):
        labels, made_by = found.labels, by or "both"
        notes.append(f"Clusters were computed from the texts of the pairs (--cluster-by {made_by}).")
    elif by is not None:
        labels, made_by = everything[by], by
    else:
        labels, made_by = pl.Series([None] * table.height, dtype=pl.String), "rows"
        notes.append("No groups are known: each row is its own cluster.")
    return cluster_numbers(labels), made_by, found


def cluster_numbers(labels: pl.Series) -> np.ndarray:
    """(row,) labels numbered from 0; a row without a label is a cluster of its own."""
    own = pl.Series([f"row {row}" for row in range(len(labels))])
    # The prefix keeps a label from meeting a row's stand-in.
    return label_numbers(("group " + labels.cast(pl.String)).zip_with(labels.is_not_null(), own))


def _cross_tables(table: pl.DataFrame, classes: Sequence[MetricPair], scopes: Sequence[Scope]) -> pl.DataFrame:
    schema = pl.Schema({"metric": pl.String, "scope": pl.String, "fact": pl.String, "hall": pl.String, "n": pl.Int64})
    parts = [
        table[scope.rows]
        .select(pl.col(pair.fact).cast(pl.String).alias("fact"), pl.col(pair.hall).cast(pl.String).alias("hall"))
        .group_by("fact", "hall")
        .agg(n=pl.len().cast(pl.Int64))
        .sort("fact", "hall", nulls_last=True)
        .select(pl.lit(pair.name).alias("metric"), pl.lit(scope.name).alias("scope"), "fact", "hall", "n")
        for pair in classes
        for scope in scopes
    ]
    return pl.concat([pl.DataFrame(schema=schema), *parts])
