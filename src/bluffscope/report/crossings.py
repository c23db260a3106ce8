"""Detectors by layer, and what they carry over from one data set to another: in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import polars as pl
from rich.console import RenderableType, group
from rich.text import Text

from bluffscope.detectors.sweep import Sweep
from bluffscope.host.terminal import Row, count, interval, table
from bluffscope.report.labels import clean, listed

_WORDS: Final = {
    "sae": "SAE features",
    "metrics": "Metrics",
    "residual": "Residuals",
    "mean_difference": "Difference of means of residuals",
    "text": "Completion text alone",
}
_SHORT: Final = {"sae": "SAE features", "residual": "residual", "mean_difference": "mean difference"}
_NAME: Final = 28


@group()
def render_transfer(found: pl.DataFrame) -> Iterator[RenderableType]:
    """A sentence, then a table a detector, to be printed by a rich console of any width from 60 columns.

    Args:
        found: `bluffscope.detectors.transfer.CARRIED_SCHEMA`.
    """
    yield Text(sentence(found), style="bold")
    for (detector,), rows in found.group_by("detector", maintain_order=True):
        yield Text(f"\n{_WORDS[str(detector)]}", style="bold")
        known = rows.filter(pl.col("auroc").is_not_null())
        heads = ["trained on", "tested on", "AUROC", "95 %", "own", "loss", "beyond text", ""]
        if not known.is_empty():
            yield table(heads, map(_row, known.to_dicts()), left=(0, 1, 7), gap=2)
        reasons = rows["reason"].drop_nulls().unique(maintain_order=True)
        yield from (Text(f"Not judged: {reason}.", style="dim") for reason in reasons)


@group()
def render_sweep(found: Sweep) -> Iterator[RenderableType]:
    """What is best and what the choice is worth, then a row a layer; to be printed from 60 columns."""
    best = found.rows.sort("auroc", descending=True).row(0, named=True)
    choices = [f"{_SHORT[choice.detector]} at layer {choice.layer}" for choice in found.choices]
    yield Text(
        f"Best: {_SHORT[best['detector']]} at layer {best['layer']}, AUROC {best['auroc']:.2f}. Chosen within the "
        f"training texts of each fold, as it has to be: {found.chosen['auroc']:.2f} ({interval(found.chosen)}).",
        style="bold",
    )
    yield Text(f"Chosen most often: {listed(choices, 3)}.")
    detectors = found.rows["detector"].unique(maintain_order=True).to_list()
    cells = {(row["detector"], row["layer"]): row for row in found.rows.iter_rows(named=True)}
    heads = ["layer", *(part for name in detectors for part in (_SHORT[name], "95 %"))]

    def shown(layer: int) -> Row:
        known = [cells.get((name, layer)) for name in detectors]
        parts = [("", "") if row is None else (f"{row['auroc']:.2f}", interval(row)) for row in known]
        return Row([str(layer), *(cell for part in parts for cell in part)], "bold" if layer == best["layer"] else "")

    yield table(heads, map(shown, found.rows["layer"].unique().sort()), gap=2)
    yield Text("Intervals of layers are of each as if it were the only one looked at.", style="dim")
    yield from (Text(note, style="dim") for note in found.notes)


def sentence(found: pl.DataFrame) -> str:
    """How many of the crossings carry over, over all detectors that look inside."""
    crossed = found.filter(
        pl.col("detector") != "text", pl.col("train") != pl.col("test"), pl.col("auroc").is_not_null()
    )
    if crossed.is_empty():
        return "Nothing could be carried over: see the reasons."
    number = Counter(crossed["verdict"].to_list())
    words = {
        "carries over": "carry over",
        "partly": "carry over in part",
        "no better than text": "do no better than text",
        "chance": "are at chance",
        "reversed": "are reversed",
        "unclear": "are unclear",
        "nothing learnt": "start from a data set in which nothing was learnt",
    }
    said = ", ".join(f"{number[name]} {verb}" for name, verb in words.items() if number[name])
    return f"{count(crossed.height, 'crossing')} from one data set to another: {said}."


def _row(row: dict[str, Any]) -> Row:
    def number(name: str, style: str) -> str:
        return "" if row[name] is None else f"{row[name]:{style}}"

    names = (clean(row["train"], _NAME), clean(row["test"], _NAME))
    cells = [*names, f"{row['auroc']:.2f}", interval(row), number("own", ".2f"), number("loss", "+.2f")]
    own = row["train"] == row["test"]
    styles = {"carries over": "bold", "found": "bold", "chance": "dim", "nothing learnt": "dim"}
    said = f"itself: {row['verdict']}" if own else row["verdict"]
    return Row([*cells, number("gain", "+.2f"), said], styles.get(row["verdict"], ""))
