"""A trained detector in a terminal: it beside its baselines, on the pairs it was trained on and on the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from bluffscope.detectors.train import Trained, best_baseline
from bluffscope.report.labels import clean

_PLAIN: Final[dict[str, Any]] = {"box": None, "padding": (0, 2, 0, 0), "pad_edge": False, "header_style": "underline"}
_SEES: Final = {"sae": "SAE features", "metrics": "metrics", "residual": "residuals"}


class TrainedView:
    """A rich renderable of what training came to."""

    def __init__(self, trained: Trained, where: Sequence[str]) -> None:
        self.trained = trained
        self.where = where

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        trained, about = self.trained, self.trained.about
        named = f" with {' and '.join(clean(condition) for condition in self.where)}" if self.where else ""
        yield Text(
            f"Trained on {_SEES[trained.keys.on]} of {about['pairs']:,} pairs{named}, in {about['groups']:,} groups; "
            f"{about['folds']} folds that split no group."
        )
        yield self._table()
        row = trained.row
        yield Text(f"Held-out pairs of the training{named}: AUROC {_area(row)}.", style="bold")
        if trained.left_out is not None:
            yield Text(f"Other pairs of the run ({trained.left_out['n']:,}): {_elsewhere(trained.left_out)}", "bold")
        yield Text(
            f"Calibration error of held-out probabilities: {row['ece']:.3f} as fitted, {trained.ece:.3f} with Platt's "
            "curve, which is kept."
        )
        yield Text(verdict(trained)[0].upper() + verdict(trained)[1:] + ".")
        for note in about["notes"]:
            yield Text(note, style="dim")

    def _table(self) -> Table:
        table = Table(title=None, **_PLAIN)
        for name in ("detector", "AUROC", "95 %", "gain over the best baseline", "95 %"):
            table.add_column(name, justify="left" if name == "detector" else "right")
        shown = [*self.trained.baselines["detector"], self.trained.keys.on]
        for row in self.trained.rows.filter(pl.col("detector").is_in(shown)).iter_rows(named=True):
            cells = [row["detector"], f"{row['auroc']:.2f}", _range(row, "", ".2f")]
            if row["gain"] is not None:
                cells += [f"{row['gain']:+.2f}", _range(row, "gain_", "+.2f")]
            table.add_row(*cells, style="bold" if row["detector"] == self.trained.keys.on else "")
        return table


def verdict(trained: Trained) -> str:
    """Whether it does better than what needs no look inside the model, in a clause."""
    name, area = best_baseline(trained)
    row = trained.row
    against = f"the best baseline, {name} (AUROC {area:.2f})"
    gain = f"a gain of {row['gain']:+.2f} ({_range(row, 'gain_', '+.2f')})"
    return f"it {'beats' if trained.beats else 'does not beat'} {against}: {gain}"


def _elsewhere(found: dict[str, Any]) -> str:
    if found["lo"] is None:
        return f"AUROC {found['auroc']:.2f}, of {found['groups']} groups: too few for an interval."
    if found["lo"] > 0.5:
        judged = "better than chance there too"
    else:
        judged = "no better than chance: what it learnt does not hold there"
    return f"AUROC {_area(found)}, {judged}."


def _area(row: dict[str, Any]) -> str:
    return f"{row['auroc']:.2f} ({_range(row, '', '.2f')})"


def _range(row: dict[str, Any], prefix: str, how: str) -> str:
    lo, hi = row[f"{prefix}lo"], row[f"{prefix}hi"]
    return "-" if lo is None or hi is None else f"{lo:{how}} to {hi:{how}}"
