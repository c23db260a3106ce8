"""A run in a few lines of HTML, for a notebook of any theme: its colours are those of the text around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import polars as pl

from bluffscope.host import notebook
from bluffscope.host.terminal import count
from bluffscope.report.labels import clean, effect, listed
from bluffscope.report.sides import sided_statistics, words_of
from bluffscope.report.summary import POOLED, summarize
from bluffscope.table.metric_pairs import interpretable
from bluffscope.table.reader import Run

SHOWN: Final = 5
"""Effects."""


def run_html(run: Run, stats: pl.DataFrame | None) -> str:
    """What ran, whether it is sound, and the metrics with the largest effects over all pairs.

    Args:
        run: a finished one.
        stats: its verdicts; None where none were made yet.
    """
    parts = [notebook.line(_sound(run.manifest)), *_effects(run, stats)]
    return notebook.block(run.path.name, _what(run), parts)


def _what(run: Run) -> Iterable[str]:
    manifest = run.manifest
    counts: dict[str, Any] = manifest.get("counts") or {}
    layers = ", ".join(map(str, (run.config.get("model") or {}).get("layers") or ()))
    yield str((manifest.get("model") or {}).get("name"))
    if layers:
        yield f"layers {layers}"
    measured = count(counts.get("measured", 0), run.arrangement.table.removesuffix("s"))
    yield f"{measured} of {(manifest.get('data') or {}).get('name')}"
    if quarantined := counts.get("quarantined"):
        yield f"{quarantined} in quarantine"
    yield f"{manifest.get('dtype')} on {manifest.get('device')}"


def _sound(manifest: dict[str, Any]) -> str:
    """The health gate in a line."""
    health: dict[str, Any] = manifest.get("health") or {}
    found = [item for item in health.get("findings") or () if item.get("severity") in ("error", "warning")]
    named = f": {listed((str(item.get('message', '')).rstrip('.') for item in found), 2)}" if found else ""
    return f"Health: {health.get('status') or 'not checked'}{named}"


def _effects(run: Run, stats: pl.DataFrame | None) -> Iterable[str]:
    """The table of effects."""
    tested = stats is not None
    words = words_of(run.metrics)
    rows = summarize(run.metrics, run.measured).filter("pooled") if stats is None else sided_statistics(stats)
    rows = rows if stats is None else rows.filter(scope=POOLED)
    rows = rows.filter(interpretable()).drop_nulls("dz").sort(pl.col("dz").abs(), descending=True, maintain_order=True)
    if rows.is_empty():
        yield notebook.line("No metric has an effect size.")
        return
    heads = ["metric", "n", words.symbol, *([f"{words.symbol} at equal lengths", "q", "verdict"] if tested else [])]
    yield notebook.table(heads, (_row(row, tested) for row in rows.head(SHOWN).iter_rows(named=True)))
    what = f"largest effects over all {words.items}, {words.difference}"
    note = f"The {what}; run.stats has all." if tested else f"The {what}, not tested yet: run.stats does that."
    yield notebook.line(note, faint=True)


def _row(row: dict[str, Any], tested: bool) -> list[str]:
    cells = [clean(row["metric"], 60), str(row["n"]), effect(row["dz"])]
    if tested:
        cells += [effect(row["adj_dz"]), "-" if row["q"] is None else f"{row['q']:.2g}", row["verdict"]]
    return cells
