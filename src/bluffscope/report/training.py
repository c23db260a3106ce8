"""A trained detector in a terminal: it beside its baselines, on the pairs it was trained on and on the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import polars as pl
from rich.console import RenderableType, group
from rich.text import Text

from bluffscope.detectors.train import Trained, best_baseline
from bluffscope.host.terminal import Row, interval, table
from bluffscope.report.labels import areas, clean, effect

_SEES: Final = {"sae": "SAE features", "metrics": "metrics", "residual": "residuals"}


@group()
def render_trained(trained: Trained, where: Sequence[str]) -> Iterator[RenderableType]:
    """What training came to, to be printed by a rich console."""
    about, row = trained.about, trained.row
    named = f" with {' and '.join(clean(condition) for condition in where)}" if where else ""
    yield Text(
        f"Trained on {_SEES[trained.keys.on]} of {about['pairs']:,} pairs{named}, in {about['groups']:,} groups; "
        f"{about['folds']} folds that split no group."
    )
    heads = ["detector", "AUROC", "95 %", "gain over the best baseline", "95 %"]
    yield table(heads, _rows(trained), gap=2)
    yield Text(f"Held-out pairs of the training{named}: AUROC {_area(row)}.", style="bold")
    if trained.left_out is not None:
        yield Text(f"Other pairs of the run ({trained.left_out['n']:,}): {_elsewhere(trained.left_out)}", "bold")
    yield Text(
        f"Calibration error of held-out probabilities: {row['ece']:.3f} as fitted, {trained.ece:.3f} with Platt's "
        "curve (saved)."
    )
    yield Text(verdict(trained)[0].upper() + verdict(trained)[1:] + ".")
    for note in about["notes"]:
        yield Text(note, style="dim")


def _rows(trained: Trained) -> Iterator[Row]:
    shown = [*trained.baselines["detector"], trained.keys.on]
    for row in trained.rows.filter(pl.col("detector").is_in(shown)).iter_rows(named=True):
        yield Row([row["detector"], *areas(row)], "bold" if row["detector"] == trained.keys.on else "")


def verdict(trained: Trained) -> str:
    """Whether it does better than what needs no look inside the model, in a clause."""
    name, area = best_baseline(trained)
    row = trained.row
    against = f"the best baseline, {name} (AUROC {area:.2f})"
    gain = f"a gain of {effect(row['gain'])} ({interval(row, 'gain_', '+.2f')})"
    return f"it {'beats' if trained.beats else 'does not beat'} {against}: {gain}"


def _elsewhere(found: dict[str, Any]) -> str:
    if found["lo"] is None:
        return f"AUROC {found['auroc']:.2f}, of {found['groups']} groups: too few for an interval."
    judged = "also better than chance" if found["lo"] > 0.5 else "no better than chance: it does not generalise"
    return f"AUROC {_area(found)}, {judged}."


def _area(row: dict[str, Any]) -> str:
    return f"{row['auroc']:.2f} ({interval(row)})"
