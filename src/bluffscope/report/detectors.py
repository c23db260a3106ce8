"""Detectors in a terminal: AUROC by scope, what each adds to the best baseline, and transfer between scopes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from rich.console import RenderableType, group
from rich.text import Text

from bluffscope.detectors.evaluate import Detection
from bluffscope.host.terminal import Row, table
from bluffscope.report.labels import areas, clean


@group()
def render_detection(detection: Detection) -> Iterator[RenderableType]:
    """The detectors, to be printed by a rich console of any width from 60 columns."""
    rows = detection.rows
    yield Text("\nDetectors: can a single text be recognised as hallucinated?", style="bold")
    yield Text("AUROC, cross-validated by group; gain over the best baseline without a model (length, text)", "dim")
    for (scope,), part in rows.filter(pl.col("auroc").is_not_null()).group_by("scope", maintain_order=True):
        heads = [f"{clean(str(scope), 24)}, n = {part['n'][0]}", "AUROC", "95 %", "ECE", "gain", "95 %"]
        yield table(heads, map(_row, part.to_dicts()), least=24, gap=2)
    yield from _barred(rows)
    yield from _transfer(detection.transfer)
    for note in detection.about["notes"]:
        yield Text(note)


def _row(row: dict[str, Any]) -> Row:
    auroc, ends, *gain = areas(row, "surface_gain")
    found = row["surface_gain_lo"] is not None and row["surface_gain_lo"] > 0
    return Row([row["detector"], auroc, ends, f"{row['ece']:.2f}", *gain], "bold green" if found else "")


def _barred(rows: pl.DataFrame) -> Iterator[Text]:
    """Scopes without any detector."""
    barred = rows.filter(pl.col("auroc").is_not_null().sum().over("scope") == 0)
    for scope, reason in barred.select("scope", "reason").unique("scope", maintain_order=True).iter_rows():
        yield Text(f"{clean(scope)}: no detectors ({reason})")


def _transfer(transfer: pl.DataFrame) -> Iterator[Text]:
    """For each column of scopes and each detector the mean AUROC where it was trained, and elsewhere.

    A detector that learnt nothing where it was trained points somewhere by chance, and far off from there it may well
    rank every text the wrong way round: it has no say elsewhere.
    """
    # Scopes of a further column are named COLUMN=VALUE; domains are named as they are.
    column = pl.col("train").str.extract("^([^=]*)=").fill_null("domain").alias("column")
    for (name,), rows in transfer.group_by(column, maintain_order=True):
        own, other = (rows.filter((pl.col("train") == pl.col("test")) == same) for same in (True, False))
        other = other.filter("learnt")
        texts: list[str] = []
        for detector in rows["detector"].unique(maintain_order=True):
            here, there = own.filter(detector=detector)["auroc"].mean(), other.filter(detector=detector)["auroc"].mean()
            if isinstance(here, float):
                texts.append(f"{detector} {here:.2f} -> {f'{there:.2f}' if isinstance(there, float) else '-'}")
        if texts:
            about = f"Transfer between values of {clean(str(name))} (mean AUROC where trained -> elsewhere, "
            yield Text(f"{about}from where it learnt something): {', '.join(texts)}")
