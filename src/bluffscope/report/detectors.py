"""Detectors in a terminal: AUROC by scope, what each adds to the best baseline, and transfer between scopes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import polars as pl
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from bluffscope.detectors.evaluate import Detection
from bluffscope.report.labels import clean

_PLAIN: Final[dict[str, Any]] = {"box": None, "padding": (0, 2, 0, 0), "pad_edge": False, "header_style": "underline"}


class DetectionView:
    """A rich renderable of the detectors, for any width from 60 columns."""

    def __init__(self, detection: Detection) -> None:
        self.detection = detection

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = self.detection.rows
        yield Text("\nDetectors: can a text that stands alone be told to be hallucinated?", style="bold")
        yield Text("AUROC, cross-validated by group; gains over the best of what needs no model (length, text)", "dim")
        for (scope,), part in rows.filter(pl.col("auroc").is_not_null()).group_by("scope", maintain_order=True):
            yield _scope(str(scope), part)
        yield from _barred(rows)
        yield from _transfer(self.detection.transfer)
        for note in self.detection.about["notes"]:
            yield Text(note)


def _scope(scope: str, rows: pl.DataFrame) -> Table:
    table = Table(title=None, **_PLAIN)
    table.add_column(f"{clean(scope, 24)}, n = {rows['n'][0]}", min_width=24)
    for name in ("AUROC", "95 %", "ECE", "gain", "95 %"):
        table.add_column(name, justify="right")
    for row in rows.iter_rows(named=True):
        found = row["surface_gain_lo"] is not None and row["surface_gain_lo"] > 0
        cells = [f"{row['auroc']:.2f}", _range(row, "", ".2f"), f"{row['ece']:.2f}"]
        if row["surface_gain"] is not None:
            cells += [f"{row['surface_gain']:+.2f}", _range(row, "surface_gain_", "+.2f")]
        table.add_row(row["detector"], *cells, style="bold green" if found else "")
    return table


def _range(row: dict[str, Any], prefix: str, how: str) -> str:
    lo, hi = row[f"{prefix}lo"], row[f"{prefix}hi"]
    return "-" if lo is None or hi is None else f"{lo:{how}} to {hi:{how}}"


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
