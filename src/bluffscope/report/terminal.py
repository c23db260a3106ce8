"""The summary that closes a run: every metric by domain, in a terminal of about 100 columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import polars as pl
from rich.columns import Columns
from rich.console import RenderableType, group
from rich.table import Table
from rich.text import Text

from bluffscope.host.terminal import Folded, table
from bluffscope.report.labels import by_analysis, clean, distinct, doubts, effect, evenly, largest, number
from bluffscope.report.sides import Words, labels_of, numeric_pairs, two_sided, words_of
from bluffscope.report.summary import shape_table, summarize
from bluffscope.table.metric_pairs import MetricPair, not_interpretable

NAME_WIDTH: Final = 18
"""Columns of the terminal for the name of a metric."""
CELL_WIDTH: Final = 15
"""Columns for a scope: two numbers of seven characters."""
MOST_DOMAINS: Final = 9
MOST_LAYERS: Final = 4

_CLASSES: Final = ("Spherical", "Oblate", "Triaxial", "Prolate")


class _Scope(NamedTuple):
    domain: str | None
    pooled: bool
    label: str
    n: int


@group()
def render_summary(metrics: pl.DataFrame, measured: Collection[str] = ()) -> Iterator[RenderableType]:
    """The summary of a result table: metrics by analysis, definitions, shape classes, to be printed by a rich console.

    It fits any width from 52 columns; 100 columns hold four domains and the pooled numbers side by side. A console
    that writes to a file or pipe has 80 columns unless it is made with ``Console(width=100)``.

    Args:
        metrics: a result table, see `summarize`.
        measured: the columns of metrics of a labelled table, where that is known.
    """
    metrics, words = two_sided(metrics, measured), words_of(metrics)
    summary, shapes = summarize(metrics), shape_table(metrics)
    if summary.is_empty():
        where = "in both texts of a pair" if words.paired else "in any text"
        yield Text(f"No metric was measured {where}: there is nothing to summarise.")
        return
    yield from _key(metrics, words)
    shown, left_out = _scopes(summary)
    measured = summary["layer"].drop_nulls().unique(maintain_order=True).to_list()
    layers = evenly(measured, MOST_LAYERS)
    pairs = [pair for pair in numeric_pairs(metrics) if pair.layer is None or pair.layer in layers]
    yield Folded(shown, (NAME_WIDTH, CELL_WIDTH), partial(_tables, summary, pairs))
    if not shapes.is_empty():
        sides = "fact in rows, hallucination in columns" if words.paired else "labels in rows, classes in columns"
        yield Text(f"\nShape classes: {sides}, {words.items} of all domains", style="bold")
        yield Columns([_crosstab(shapes, layer, paired=words.paired) for layer in layers], padding=(0, 4))
    yield from (Text(line, style="dim") for line in doubts(summary["metric"].unique(maintain_order=True)))
    if left_out:
        yield Text(f"Not shown: {left_out} smaller domains, counted in pooled; see metrics.parquet.", style="dim")
    if len(layers) < len(measured):
        names = ", ".join(str(layer) for layer in measured if layer not in layers)
        yield Text(f"Not shown: layers {names}; see metrics.parquet.", style="dim")


def _key(metrics: pl.DataFrame, words: Words) -> Iterator[Text]:
    both = "" if words.paired else " ({:,} true, {:,} false)".format(*labels_of(metrics))
    how = words.effect if words.paired else "g = diff / pooled sd, for small samples (Hedges)"
    yield Text(f"Summary of {words.count(metrics.height)}{both}", style="bold")
    yield Text(f"{'each cell:':<{NAME_WIDTH}} {words.fact:>7} {words.short:>7}   means over n {words.items}")
    line = Text(f"{'':<{NAME_WIDTH}} {'diff':>7} ")
    line.append(f"{words.symbol:>7}", style="bold")
    yield line.append(f"   {words.difference}; {how}")
    yield Text("n is shown below each domain, and in a cell if undefined values reduce it.", style="dim")


def _scopes(summary: pl.DataFrame) -> tuple[list[_Scope], int]:
    """The domains that are shown, the pooled scope last, and how many domains are not."""
    sizes = summary.group_by("domain", "pooled", maintain_order=True).agg(n=pl.col("n").max())
    domains: dict[str | None, int] = dict(sizes.filter(~pl.col("pooled")).select("domain", "n").iter_rows())
    kept = largest(domains, MOST_DOMAINS)
    labels = distinct([str(domain) for domain in kept], CELL_WIDTH)
    scopes = [_Scope(domain, False, labels[str(domain)], domains[domain]) for domain in kept]
    if len(domains) > 1:
        pooled = sizes.filter("pooled").row(0, named=True)
        scopes.append(_Scope(pooled["domain"], True, "all domains", pooled["n"]))
    return scopes, len(domains) - len(kept)


def _tables(summary: pl.DataFrame, pairs: Sequence[MetricPair], scopes: Sequence[_Scope]) -> Iterator[Table]:
    cells = {(row["metric"], row["domain"], row["pooled"]): row for row in summary.iter_rows(named=True)}
    heads = ["", *(f"{scope.label}\nn = {scope.n}" for scope in scopes)]
    widths = {place: CELL_WIDTH if place else NAME_WIDTH for place in range(len(heads))}
    for title, members in by_analysis(pairs).items():
        rows = [
            [
                _wrapped(pair.metric),
                *(_cell(cells[pair.name, scope.domain, scope.pooled], scope.n) for scope in scopes),
            ]
            for pair in members
        ]
        yield table(heads, rows, title=f"\n{title}", widths=widths)


def _cell(row: dict[str, Any], n: int) -> Text:
    text = Text(f"{number(row['mean_fact']):>7} {number(row['mean_hall']):>7}\n")
    text.append(f"{number(row['mean_diff'], signed=True):>7} ")
    text.append(f"{effect(row['dz']):>7}", style="bold")
    if row["n"] != n:
        text.append(f"\nn = {row['n']}", style="dim")
    return text


def _wrapped(metric: str) -> Text:
    """A metric's name, broken after underscores."""
    lines = [""]
    for part in clean(metric, 3 * NAME_WIDTH).replace("_", "_\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > NAME_WIDTH:
            lines.append("")
        lines[-1] += part
    return Text("\n".join(lines) + (" *" if not_interpretable(metric) else ""))


def _crosstab(shapes: pl.DataFrame, layer: int, *, paired: bool) -> Table:
    """Counts of a layer; where the rows are classes too, the same ones in the same order."""
    counts = {(fact, hall): n for _, fact, hall, n in shapes.filter(pl.col("layer") == layer).iter_rows()}
    rows, columns = dict.fromkeys(fact for fact, _ in counts), dict.fromkeys(hall for _, hall in counts)
    columns = _ordered({**rows, **columns} if paired else columns)
    # Three letters keep the tables of three layers side by side.
    heads = ["", *(clean(hall, 4)[:3] if hall else "null" for hall in columns)]
    cells = [
        [
            clean(fact) if fact else "null",
            *(Text(f"{counts.get((fact, hall), 0)}", style="bold" if fact == hall else "") for hall in columns),
        ]
        for fact in (columns if paired else rows)
    ]
    return table(heads, cells, title=f"layer {layer}")


def _ordered(present: Collection[str | None]) -> list[str | None]:
    classes: list[str | None] = [name for name in _CLASSES if name in present]
    classes += sorted(name for name in present if name is not None and name not in _CLASSES)
    return [*classes, *([None] if None in present else [])]
