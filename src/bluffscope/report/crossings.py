"""Detectors by layer, and what they carry over from one data set to another: in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from rich.console import RenderableType, group
from rich.table import Table
from rich.text import Text

from bluffscope.detectors.classifiers import called
from bluffscope.detectors.sweep import Choice, Sweep
from bluffscope.host.terminal import Row, count, interval, table
from bluffscope.report.labels import auroc, capital, clean, listed

_OWN: Final = {
    "found": "found",
    "chance": "at chance",
    "unclear": "not better than chance",
    "reversed": "worse than chance",
}
"""Verdicts of a detector on the data set that it was trained on."""
_VERBS: Final = {
    "carries over": "carry over",
    "partly": "in part",
    "no better than text": "no better than text",
    "chance": "at chance",
    "reversed": "reversed",
    "unclear": "unclear",
    "nothing learnt": "from where nothing was learnt",
}
_FEW: Final = 3
"""Data sets up to which each is named."""
_NAME: Final = 28


@group()
def render_transfer(found: pl.DataFrame) -> Iterator[RenderableType]:
    """A sentence, then a table a detector, to be printed by a rich console of any width from 60 columns.

    Args:
        found: `bluffscope.detectors.transfer.CARRIED_SCHEMA`.
    """
    yield Text(sentence(found), style="bold")
    for (detector,), rows in found.group_by("detector", maintain_order=True):
        yield Text(f"\n{capital(called(str(detector)))}", style="bold")
        known = rows.filter(pl.col("auroc").is_not_null())
        heads = ["trained on", "tested on", "AUROC", "95 %", "own", "loss", "beyond text", ""]
        if not known.is_empty():
            yield table(heads, map(_row, known.to_dicts()), left=(0, 1, 7), gap=2)
        reasons = rows["reason"].drop_nulls().unique(maintain_order=True)
        yield from (Text(f"Not judged: {reason}.", style="dim") for reason in reasons)


@group()
def render_sweep(found: Sweep) -> Iterator[RenderableType]:
    """What is best and what the choice is worth, then a row a layer by read position, to be printed from 60 columns."""
    best = found.rows.sort("auroc", descending=True).row(0, named=True)
    several = found.rows["position"].n_unique() > 1

    def named(detector: str, position: str, layer: int) -> str:
        return f"{called(detector)} at layer {layer}{f', read at {position}' if several else ''}"

    choices = [named(*choice) for choice in found.choices]
    yield Text(
        f"Best: {named(*(best[name] for name in Choice._fields))}, AUROC {best['auroc']:.2f}. Chosen within the "
        f"training texts of each fold, as it has to be: {auroc(found.chosen)}.",
        style="bold",
    )
    yield Text(f"Chosen most often: {'; '.join(choices[:3]) if several else listed(choices, 3)}")
    for (position,), rows in found.rows.group_by("position", maintain_order=True):
        marked = best["layer"] if position == best["position"] else None
        yield _by_layer(rows, marked, f"Read at {position}" if several else None)
    yield Text("Intervals of layers are of each as if it were the only one looked at.", style="dim")
    yield from (Text(note, style="dim") for note in found.notes)


def _by_layer(rows: pl.DataFrame, marked: int | None, title: str | None) -> Table:
    """A row a layer of one read position, one of them in bold."""
    detectors = rows["detector"].unique(maintain_order=True).to_list()
    cells = {(row["detector"], row["layer"]): row for row in rows.iter_rows(named=True)}
    heads = ["layer", *(part for name in detectors for part in (called(name), "95 %"))]

    def shown(layer: int) -> Row:
        known = [cells.get((name, layer)) for name in detectors]
        parts = [("", "") if row is None else (f"{row['auroc']:.2f}", interval(row)) for row in known]
        return Row([str(layer), *(cell for part in parts for cell in part)], "bold" if layer == marked else "")

    return table(heads, map(shown, rows["layer"].unique().sort()), title=title, gap=2)


def sentence(found: pl.DataFrame) -> str:
    """What the detector that finds most finds in each data set, and what of it holds in the others.

    Args:
        found: `bluffscope.detectors.transfer.CARRIED_SCHEMA`.
    """
    inside = found.filter(pl.col("detector") != "text", pl.col("auroc").is_not_null())
    if inside.is_empty():
        return "Nothing could be carried over: see the reasons."
    ranks = {name: _found(rows) for (name,), rows in inside.group_by("detector", maintain_order=True)}
    name = max(ranks, key=lambda name: ranks[name])
    return f"{capital(called(str(name)))}: {clause(inside.filter(detector=name))}."


def clause(rows: pl.DataFrame) -> str:
    """The same of one detector's cells, without its name; of few data sets each is named."""
    cells = rows.filter(pl.col("auroc").is_not_null()).to_dicts()
    own = [cell for cell in cells if cell["train"] == cell["test"]]
    crossed = [cell for cell in cells if cell["train"] != cell["test"]]
    if rows["test"].n_unique() > _FEW:
        return "; ".join(_counted(own, crossed))
    parts = [f"{clean(cell['test'], _NAME)} {_OWN.get(cell['verdict'], cell['verdict'])}" for cell in own]
    learnt = [cell for cell in crossed if cell["verdict"] != "nothing learnt"]
    parts += [f"{_way(cell, own)}: {cell['verdict']}" for cell in learnt]
    areas = [f"{cell['auroc']:.2f}, {interval(cell)}" for cell in (*own, *learnt)]
    heads = ["AUROC ", *[""] * len(areas)]
    parts = [f"{part} ({head}{area})" for part, head, area in zip(parts, heads, areas, strict=False)]
    if crossed and not learnt:
        parts.append("nothing was learnt that could be carried over")
    return "; ".join(parts)


def _way(cell: dict[str, Any], own: Sequence[dict[str, Any]]) -> str:
    """Where a detector is from and what it is asked about; a saved one is named itself."""
    train, test = (clean(cell[side], _NAME) for side in ("train", "test"))
    return f"from {train} to {test}" if own else f"detector {train} on {test}"


def _found(rows: pl.DataFrame) -> tuple[int, float]:
    """How much a detector finds: data sets in which it does, and the mean AUROC over them all."""
    own = rows.filter(pl.col("train") == pl.col("test"))
    own = rows if own.is_empty() else own
    return int(own["verdict"].is_in(["found", "carries over"]).sum()), float(np.mean(own["auroc"].to_numpy()))


def _counted(own: Sequence[dict[str, Any]], crossed: Sequence[dict[str, Any]]) -> Iterator[str]:
    if own:
        yield f"found in {sum(cell['verdict'] == 'found' for cell in own)} of {count(len(own), 'data set')}"
    number = Counter(cell["verdict"] for cell in crossed)
    said = ", ".join(f"{number[name]} {verb}" for name, verb in _VERBS.items() if number[name])
    if said:
        yield f"of {count(len(crossed), 'crossing')} from one to another: {said}"


def _row(row: dict[str, Any]) -> Row:
    def number(name: str, style: str) -> str:
        return "" if row[name] is None else f"{row[name]:{style}}"

    names = (clean(row["train"], _NAME), clean(row["test"], _NAME))
    cells = [*names, f"{row['auroc']:.2f}", interval(row), number("own", ".2f"), number("loss", "+.2f")]
    own = row["train"] == row["test"]
    styles = {"carries over": "bold", "found": "bold", "chance": "dim", "nothing learnt": "dim"}
    said = f"itself: {row['verdict']}" if own else row["verdict"]
    return Row([*cells, number("gain", "+.2f"), said], styles.get(row["verdict"], ""))
