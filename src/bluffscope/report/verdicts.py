"""Verdicts in a terminal: the answer in a sentence, then every metric by scope, then what was corrected and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import polars as pl
from rich.console import RenderableType, group
from rich.table import Table
from rich.text import Text

from bluffscope.host.terminal import Folded, count, interval, table
from bluffscope.report.labels import clean, distinct, doubts, effect, listed
from bluffscope.report.sides import Words, sided_statistics, words_of_statistics
from bluffscope.stats import StatsResult
from bluffscope.stats.scopes import POOLED
from bluffscope.stats.verdicts import NAMES
from bluffscope.table.metric_pairs import interpretable, not_interpretable

NAME_WIDTH: Final = 26
CELL_WIDTH: Final = 13
MOST_REASONS: Final = 12
MOST_SCOPES: Final = 6
"""Further scopes in the headline."""

_STYLES: Final = {
    "separates": "bold green",
    "confounded": "yellow",
    "equivalent": "cyan",
    "inconclusive": "dim",
    "withheld": "bold red",
}


@group()
def render_verdicts(result: StatsResult) -> Iterator[RenderableType]:
    """The answer, verdicts, reasons, corrections, notes and the control, to be printed by a rich console.

    It fits any width from 60 columns.
    """
    rows, words = sided_statistics(result.rows), words_of_statistics(result.rows)
    if not rows.is_empty():
        yield Text(headline(rows), style="bold")
        symbol = words.symbol
        cells = f"the verdict; {symbol} of {words.difference}, and {symbol} at equal lengths"
        yield Text(f"each cell: {cells}", style="dim")
        scopes = rows["scope"].unique(maintain_order=True).to_list()
        yield Folded(scopes, (NAME_WIDTH, CELL_WIDTH), partial(_grid, rows, distinct(scopes, CELL_WIDTH)))
        yield from _reasons(rows, words)
    yield from (_cross_tables if words.paired else _label_tables)(result.cross_tables.filter(scope=POOLED))
    yield from _declared(result.about, words)
    if result.control is not None:
        yield render_control(result)


@group()
def render_control(result: StatsResult) -> Iterator[RenderableType]:
    """What the control found, where there is one, to be printed by a rich console."""
    if result.control is not None:
        words = words_of_statistics(result.rows)
        yield from _control(sided_statistics(result.control), result.about["control"], words)


def headline(rows: pl.DataFrame) -> str:
    """The answer over all pairs (or texts) in a sentence, and how many metrics separate in each further scope.

    Only metrics that were tested count, and the scopes, which share their pairs, are not added up.
    """
    rows, words = sided_statistics(rows), words_of_statistics(rows)
    rows = rows.filter(interpretable())
    withheld = rows["verdict"] == "withheld"
    if withheld.all() and rows.height:
        return f"No verdict: the run failed its health gate ({_metrics(rows['metric'].n_unique())} described)."
    number = rows.filter(withheld)["metric"].n_unique()
    rows = rows.filter(~withheld)
    without = [f"Without {_metrics(number)} of SAEs that failed the health gate:"] if number else []
    return " ".join(
        [*without, _over_all(rows.filter(scope=POOLED), words), *_by_scope(rows.filter(pl.col("scope") != POOLED))]
    )


def judged(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of metrics that could be judged."""
    return rows.filter(interpretable()).drop_nulls("q")


def ranked(rows: pl.DataFrame, by: str = "adj_dz") -> pl.DataFrame:
    """The rows with the largest effect first: by default at equal length and wording, raw where there is none."""
    ordered = rows.sort(pl.coalesce(by, "dz").abs(), descending=True, nulls_last=True, maintain_order=True)
    # The last layer's lens is the log-probability itself: one thing is named once, by its plain name, which comes last.
    return ordered.unique(pl.col("dz").round_sig_figs(9), keep="last", maintain_order=True)


def _over_all(rows: pl.DataFrame, words: Words) -> str:
    tested = judged(rows)
    if tested.is_empty():
        reasons = rows["reason"].value_counts(sort=True)["reason"]
        why = reasons[0] if len(reasons) else "there is no metric"
        return f"Whether anything separates {words.apart} cannot be judged: {why}."
    found = tested.filter(verdict="separates")
    counts = {name: tested.filter(verdict=name).height for name in NAMES[1:]}
    counts["not judged"] = rows.height - tested.height
    others = "".join(f"; {found} {name}" for name, found in counts.items() if found)
    if found.is_empty():
        number = _metrics(tested.height)
        nothing = f"Nothing separates {words.apart} at equal lengths"
        return f"{nothing}: {number} tested over all {words.items}{others}."
    named = ranked(found, by="dz")
    first, *names = map(clean, named["metric"])
    if not words.paired:
        first += f" ({words.symbol} {effect(named['dz'][0])}, 95 % {interval(named.row(0, named=True), 'dz_', '+.2f')})"
    share, strongest = f"{found.height} of {_metrics(tested.height)}", listed([first, *names], 4)
    where = f"{words.apart} at equal lengths; strongest over all {words.items}"
    return f"{share} separate {where}: {strongest}{others}."


def _by_scope(rows: pl.DataFrame) -> Iterator[str]:
    if judged(rows).is_empty():
        return
    parts: list[str] = []
    for (name,), scope in rows.group_by("scope", maintain_order=True):
        tested = judged(scope)
        found = f"{tested.filter(verdict='separates').height} of {tested.height}"
        parts.append(f"{clean(str(name))} {found if tested.height else 'cannot be judged'}")
    yield f"By scope: {listed(parts, MOST_SCOPES)}."


def _metrics(number: int) -> str:
    return count(number, "metric")


def _grid(rows: pl.DataFrame, labels: Mapping[str, str], scopes: Sequence[str]) -> Iterator[Table]:
    cells = {(row["metric"], row["scope"]): row for row in rows.iter_rows(named=True)}
    heads = ["\n", *(f"{labels[scope]}\nn = {rows.filter(scope=scope)['n'].max()}" for scope in scopes)]
    lines = [
        [
            clean(metric, 3 * NAME_WIDTH) + (" *" if not_interpretable(metric) else ""),
            *(_cell(cells[metric, scope]) for scope in scopes),
        ]
        for metric in rows["metric"].unique(maintain_order=True)
    ]
    yield table(heads, lines, widths={place: CELL_WIDTH if place else NAME_WIDTH for place in range(len(heads))})


def _cell(row: dict[str, Any]) -> Text:
    text = Text(row["verdict"], style=_STYLES[row["verdict"]])
    return text.append(f"\n{effect(row['dz'])} {effect(row['adj_dz'])}", style="not bold default")


def _reasons(rows: pl.DataFrame, words: Words) -> Iterator[Text]:
    """The reasons for verdicts over all items, strongest first; then why the others cannot be judged."""
    pooled = rows.filter((pl.col("scope") == "pooled") & pl.col("verdict").is_in(["separates", "confounded"]))
    strongest = pooled.sort(pl.col("dz").abs(), descending=True, maintain_order=True).rows(named=True)
    if strongest:
        yield Text(f"\nOver all {words.items}:", style="bold")
    for row in strongest[:MOST_REASONS]:
        yield Text(f"  {clean(row['metric'], 40)} {row['verdict']}: {row['reason']}")
    if len(strongest) > MOST_REASONS:
        yield Text(f"  and {len(strongest) - MOST_REASONS} more, see stats.json", style="dim")
    tested = judged(rows)
    barred = rows.filter(interpretable(), pl.col("verdict") == "inconclusive")
    barred = barred.join(tested, on=["metric", "scope"], how="anti", maintain_order="left")
    for scope, reason, times in barred.group_by("scope", "reason", maintain_order=True).len().iter_rows():
        where = f"all {words.items}" if scope == POOLED else clean(scope)
        yield Text(f"{times} of {_metrics(rows['metric'].n_unique())} cannot be judged over {where}: {reason}.")
    power = tested.filter(scope=POOLED)["mde80"].max()
    if power is not None:
        least = f"{words.symbol} {power:.2f} over all {words.items}"
        yield Text(f"Before correction, an effect of {least} is found with 80 % power.")
    yield from (Text(line, style="dim") for line in doubts(rows["metric"].unique(maintain_order=True)))


def _cross_tables(tables: pl.DataFrame) -> Iterator[Text]:
    for (metric,), counts in tables.group_by("metric", maintain_order=True):
        moved = counts.filter(pl.col("fact").ne_missing(pl.col("hall"))).sort("n", descending=True)
        total, differ = int(counts["n"].sum()), int(moved["n"].sum())
        rows = moved.select("fact", "hall", "n").head(3).iter_rows()
        changes = ", ".join(f"{clean(fact or 'null')} -> {clean(hall or 'null')} {n}" for fact, hall, n in rows)
        same = f"the same class in {total - differ} of {total} pairs"
        yield Text(f"{clean(str(metric))}: {same}{'; ' + changes if changes else ''}")


def _label_tables(tables: pl.DataFrame) -> Iterator[Text]:
    for (metric,), counts in tables.group_by("metric", maintain_order=True):
        yield Text(f"{clean(str(metric))}: {listed(_shares(counts), 4)}")


def _shares(counts: pl.DataFrame) -> Iterator[str]:
    """How many true and false texts are of each class, the most frequent first."""
    totals = [max(1, int(counts[side].sum())) for side in ("true", "false")]
    for row in counts.sort(pl.col("true") + pl.col("false"), descending=True, maintain_order=True).iter_rows():
        shares = (f"{100 * number / total:.0f} %" for number, total in zip(row[-2:], totals, strict=True))
        yield f"{clean(row[2] or 'null')} {' of true and '.join(shares)} of false texts"


def _declared(about: dict[str, Any], words: Words) -> Iterator[Text]:
    yield Text("")
    tests = listed((f"{clean(item['family'])} {item['tests']}" for item in about["families"]), 8)
    yield Text(f"Correction: {about['corrections']}. Tests in each family: {tests}.")
    number, clusters = words.count(about[words.items]), f"{about['groups']:,} clusters"
    sizes = f"largest {about['largest_group']}, by {clean(about['cluster_by'])}"
    yield Text(f"{number} in {clusters} ({sizes}); errors: {about['errors']}; seed {about['seed']}.")
    yield from map(Text, about["notes"])


def _control(control: pl.DataFrame, kind: str, words: Words) -> Iterator[Text | Table]:
    if kind == "null":
        title = f"labels {'flipped' if words.paired else 'drawn'} at random; share of draws with a false `separates`"
        heads = ["family", "flipped", "draws", "rate", "95 % bounds"]
        lines = [
            [clean(row["family"]), row["flipped"], str(row["draws"]), f"{row['rate']:.3f}", _bounds(row)]
            for row in control.iter_rows(named=True)
        ]
    else:
        title = "an effect planted in one metric at a time; share of draws that find it"
        heads = ["scope", f"planted {words.symbol}", "median metric", "worst metric", "its 95 % bounds"]
        lines: list[list[str]] = []
        for (scope, dz), rows in control.group_by("scope", "planted_dz", maintain_order=True):
            worst = rows.sort("rate", maintain_order=True).row(0, named=True)
            name = f"{worst['rate']:.2f} {clean(worst['metric'])}"
            lines.append([clean(str(scope)), f"{dz}", f"{rows['rate'].median():.2f}", name, _bounds(worst)])
    yield Text(f"\nControl: {title}", style="bold")
    yield table(heads, lines, left=range(5))


def _bounds(row: dict[str, Any]) -> str:
    return interval(row, "rate_", ".3f")
