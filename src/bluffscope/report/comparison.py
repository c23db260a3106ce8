"""Runs compared, in a terminal: what differs in their options, which verdicts agree, how effects change, fidelity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import RenderableType, group
from rich.table import Table
from rich.text import Text

from bluffscope.compare.runs import RunComparison, RunPair
from bluffscope.host.terminal import Cell, count, interval, table
from bluffscope.report.fidelity import fidelity_parts
from bluffscope.report.labels import clean, listed, number
from bluffscope.report.sides import LABELLED, PAIRED, Words
from bluffscope.stats.scopes import POOLED
from bluffscope.table.metric_pairs import interpretable

MOST_NAMES: Final = 12
"""Most effects named per run where verdicts differ in other scopes."""
NAME_WIDTH: Final = 26
_JUDGED: Final = ("dz_first", "dz_other", "adj_dz_first", "adj_dz_other")
"""Defined where an effect was tested in both runs."""
_RENAMED: Final = {
    f"{adjusted}g_{end}": f"{adjusted}dz_{end}" for adjusted in ("", "adj_") for end in ("first", "other", "change")
}
"""Columns of runs over labelled texts under the names of those over pairs."""
_NO_MATTER: Final = ("engine", "output")
"""Parts of the options that change no number."""


@group()
def render_comparison(result: RunComparison) -> Iterator[RenderableType]:
    """Each further run: its options, agreement, effects over all pairs, fidelity; to be printed by a rich console."""
    if "effect_first" in result.rows.columns:
        yield from _mixed(result)
        return
    words = LABELLED if "g_change" in result.rows.columns else PAIRED
    compared = result.rows.rename(_RENAMED, strict=False)
    for other in result.others:
        rows = compared.filter(run=other.run)
        judged = rows.drop_nulls(_JUDGED).filter(interpretable())
        yield Text(f"{_name(other.run)} against {_name(result.first)}: {_shared(other, words)}", style="bold")
        yield from _about(other)
        yield Text(_agreement(judged.filter(scope=POOLED), words))
        yield _effects(rows.filter(scope=POOLED), words)
        yield from _elsewhere(judged.filter(pl.col("scope") != POOLED))
        if other.fidelity is not None:
            title = "the same model and SAEs, this run's numbers against the first run's"
            yield from fidelity_parts(other.fidelity, title, "the first run", "between the runs")
        yield Text("")
    of, symbol = words.difference, words.symbol
    yield Text(
        f"{symbol}: mean of {of} over its sd. change: mean change of {of} from the first "
        f"run to this one, in sd of the first run's. {symbol} of it, and q of the test over clusters that it is 0 "
        f"(Benjamini-Hochberg within a scope). r: correlation of the two over the {words.items}.",
        style="dim",
    )


def _mixed(result: RunComparison) -> Iterator[RenderableType]:
    """A run over pairs against runs over labelled texts, or one over texts against runs over pairs."""
    for other in result.others:
        rows = result.rows.filter(run=other.run)
        judged = rows.drop_nulls(("adj_effect_first", "adj_effect_other")).filter(interpretable())
        yield Text(_transferred(judged.filter(scope=POOLED), other), style="bold")
        yield Text(f"{_name(other.run)} against {_name(result.first)}: {_questions(other)}")
        yield from _about(other)
        yield _side_by_side(rows.filter(scope=POOLED), other)
        scopes = judged.filter(pl.col("scope") != POOLED).group_by("scope", maintain_order=True)
        counts = scopes.agg(agree=pl.col("agrees").sum(), all=pl.len()).iter_rows()
        if said := ", ".join(f"{clean(name)} {agree} of {total}" for name, agree, total in counts):
            yield Text(f"\nVerdicts agree by scope: {said}.")
        yield Text("")
    yield Text(
        "Effects: d_z of pairs (hallucination - fact), Hedges' g of texts (false - true), each with its 95 % interval. "
        "AUROC: chance that the false side is the larger.",
        style="dim",
    )


def _transferred(judged: pl.DataFrame, other: RunPair) -> str:
    """Whether what separates the pairs separates the texts, in a sentence."""
    texts = _texts(other)
    if judged.is_empty():
        return f"Whether what separates the pairs separates {texts} cannot be said: no metric was judged in both runs."
    of_pairs, of_texts = ("first", "other") if other.pairs_first else ("other", "first")
    found = judged.filter(pl.col(f"verdict_{of_pairs}") == "separates")
    also = found.filter(pl.col(f"verdict_{of_texts}") == "separates")
    new = judged.filter(pl.col(f"verdict_{of_pairs}") != "separates", pl.col(f"verdict_{of_texts}") == "separates")
    same = also.filter(same_sign=True).height
    if found.is_empty():
        return f"Nothing separates the pairs; {new.height} of {judged.height} metrics separate {texts}."
    ends = [f"{same} separate{'s' * (same == 1)} {texts} with the same sign"]
    if opposite := also.height - same:
        ends.append(f"{opposite} with the opposite sign")
    ends.append(f"{found.height - also.height} do{'es' * (found.height - also.height == 1)} not")
    more = f"; {new.height} more separate{'s' * (new.height == 1)} {texts} alone" if new.height else ""
    verb = "separates" if found.height == 1 else "separate"
    return f"Of {count(found.height, 'metric')} that {verb} the pairs, {', '.join(ends)}{more}."


def _texts(other: RunPair) -> str:
    return "the model's own answers" if other.own_answers else "the texts"


def _questions(other: RunPair) -> str:
    """What is compared with what, where one run is over pairs and the other over texts."""
    kinds = ("pair", "text") if other.pairs_first else ("text", "pair")
    numbers = " and ".join(count(n, kind) for n, kind in zip(other.compared or (), kinds, strict=True))
    every = f"of {other.pairs[0]:,} in the first run and {other.pairs[1]:,} in this one"
    if other.shared:
        return f"{numbers} to {count(other.shared, 'shared question')} ({every})"
    return f"no question is in both, so the whole runs are compared: {numbers}"


def _side_by_side(rows: pl.DataFrame, other: RunPair) -> Table:
    kinds = ("pairs", "texts") if other.pairs_first else ("texts", "pairs")
    symbols = [PAIRED.symbol if kind == "pairs" else LABELLED.symbol for kind in kinds]
    heads = ["\n", *(f"verdict\n{kind}" for kind in kinds)]
    for kind, symbol in zip(kinds, symbols, strict=True):
        heads += [f"{symbol}\n{kind}", "95 %\n", "AUROC\n"]
    title = "\nOver all pairs and texts"
    return table(heads, map(_both, rows.to_dicts()), title=title, left=range(3), widths={0: NAME_WIDTH})


def _both(row: dict[str, Any]) -> list[Cell]:
    name = row["metric"] if row["metric"] == row["metric_other"] else f"{row['metric']} / {row['metric_other']}"
    style = "dim" if row["agrees"] else "yellow"
    cells: list[Cell] = [clean(name, 3 * NAME_WIDTH), row["verdict_first"], Text(row["verdict_other"], style=style)]
    for side in ("first", "other"):
        ends = {end: row[f"effect_{end}_{side}"] for end in ("lo", "hi")}
        cells += [number(row[f"effect_{side}"], signed=True), interval(ends, "", "+.2f"), number(row[f"auroc_{side}"])]
    return cells


def _name(run: str) -> str:
    return clean(Path(run).name or run, 60)


def _shared(other: RunPair, words: Words) -> str:
    text = (
        f"{other.shared} shared {words.items} (of {other.pairs[0]} in the first run and {other.pairs[1]} in this one)"
    )
    if other.other_texts:
        text += f"; {other.other_texts} with the same id but other texts are left out"
    return text


def _about(other: RunPair) -> Iterator[Text]:
    """What differs between the runs, and what is compared with what."""
    shown = {name: values for name, values in other.differences.items() if name.split(".")[0] not in _NO_MATTER}
    if not shown:
        yield Text("Options: the same, as far as they change numbers.")
    for name, (first, here) in shown.items():
        yield Text(f"Options: {name} is {_value(here)} here, {_value(first)} in the first run.")
    if not other.same_model:
        yield Text("Other models: metrics in activation units or features have other scales; read verdicts and r.")
    if unequal := [f"{here} with {first}" for first, here in other.layers if first != here]:
        yield Text(f"Layers: {', '.join(unequal)} of the first run, matched by name and order.")
    if other.unmatched:
        some = listed(map(clean, other.unmatched), 6)
        yield Text(f"Not compared, in one run only: {len(other.unmatched)} metrics ({some}).")
    for note in other.notes:
        yield Text(clean(note, 300))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "empty"
    return "not set" if value is None else clean(repr(value) if isinstance(value, str) else str(value), 60)


def _agreement(rows: pl.DataFrame, words: Words) -> str:
    """How many verdicts over everything agree, those that show an effect counted apart."""
    if rows.is_empty():
        return f"Verdicts cannot be compared: over all {words.items} no metric could be judged in both runs."
    first, other = (pl.col(name) == "separates" for name in ("verdict_first", "verdict_other"))
    counts = {
        "separate in both with the same sign": rows.filter(first, other, same_sign=True).height,
        "separate in both with opposite signs": rows.filter(first, other, ~pl.col("same_sign").eq_missing(True)).height,
        "in the first run only": rows.filter(first, ~other).height,
        "in this one only": rows.filter(~first, other).height,
    }
    found = ", ".join(f"{number} {name}" for name, number in counts.items())
    agree = rows.filter(agrees=True).height
    return f"Verdicts agree in {agree} of {rows.height} metrics over all {words.items}: {found}."


def _effects(rows: pl.DataFrame, words: Words) -> Table:
    heads = ["\n", "verdict\nfirst run", "\nthis run"]
    heads += [f"{words.symbol}\nfirst", "\nthis", "change\nin sd", f"{words.symbol}\nof it", "\nq", "\nr"]
    title = f"\nOver all {words.items}"
    return table(heads, map(_effect, rows.to_dicts()), title=title, left=range(3), widths={0: NAME_WIDTH})


def _effect(row: dict[str, Any]) -> list[Cell]:
    name = row["metric"] if row["metric"] == row["metric_other"] else f"{row['metric']} / {row['metric_other']}"
    values = [number(row[key], signed=True) for key in ("dz_first", "dz_other", "change_in_sd", "dz_change")]
    return [
        clean(name, 3 * NAME_WIDTH),
        row["verdict_first"],
        Text("same" if row["agrees"] else _disagreement(row), style="dim" if row["agrees"] else "yellow"),
        *values,
        number(row["q"]),
        number(row["pearson"], signed=True),
    ]


def _disagreement(row: dict[str, Any]) -> str:
    return "opposite sign" if row["same_verdict"] else str(row["verdict_other"])


def _elsewhere(others: pl.DataFrame) -> Iterator[RenderableType]:
    """Agreement in the other scopes, and where there is none."""
    scopes = others.group_by("scope", maintain_order=True).agg(agree=pl.col("agrees").sum(), all=pl.len())
    if scopes.is_empty():
        return
    counts = ", ".join(f"{clean(name)} {agree} of {total}" for name, agree, total in scopes.iter_rows())
    yield Text(f"\nVerdicts agree by scope: {counts}.")
    apart = others.filter(agrees=False).sort(pl.col("dz_first").abs(), descending=True, maintain_order=True)
    for row in apart.head(MOST_NAMES).iter_rows(named=True):
        here = f"{_disagreement(row)} ({number(row['dz_other'], signed=True)})"
        before = f"{row['verdict_first']} ({number(row['dz_first'], signed=True)})"
        yield Text(f"  {clean(row['metric'])}, {clean(row['scope'])}: {before}, here {here}")
    if apart.height > MOST_NAMES:
        yield Text(f"  and {apart.height - MOST_NAMES} more")
