"""How well a detector judges single texts, in a line or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from bluffscope.detectors.classifiers import BASELINES, INSIDE, called, unmeasured
from bluffscope.report.detector_findings import best_baseline
from bluffscope.report.labels import auroc, capital, gain
from bluffscope.stats.scopes import POOLED

if TYPE_CHECKING:
    from bluffscope.report.results import ScopeAnswer


def better_detectors(detectors: pl.DataFrame | None) -> list[str]:
    """Those that look inside the model and beat all that needs no such look, over all items."""
    if detectors is None:
        return []
    better = detectors.filter(pl.col("gain_lo") > 0, scope=POOLED)["detector"].to_list()
    return [name for name in INSIDE if name in better]


def detector_line(detectors: pl.DataFrame | None, lead: ScopeAnswer, known: Sequence[ScopeAnswer]) -> str | None:
    """How well a detector judges single texts: of known and unknown ones apart, where that was asked."""
    if detectors is None:
        return None
    fitted = detectors.filter(pl.col("auroc").is_not_null())
    name = next((one for one in INSIDE if one in fitted["detector"]), None)
    if name is None:
        reasons = detectors["reason"].drop_nulls()
        return f"No detector was fitted: {reasons[0]}." if len(reasons) else None
    mine = {row["scope"]: row for row in fitted.filter(detector=name).iter_rows(named=True)}
    apart = [part for part in known if part.scope in mine]
    first = mine.get(lead.scope if apart else POOLED) or next(iter(mine.values()))
    shown = [f"{_area(mine[part.scope])} {part.short}" for part in apart] or [_area(first)]
    said = f"Detector ({called(name)}): AUROC {', '.join(shown)}"
    best = best_baseline(fitted.filter(scope=first["scope"]).to_dicts())
    if best is None:
        return f"{said}."
    better = first["gain_lo"] is not None and first["gain_lo"] > 0
    lacking = "" if "logprob" in fitted["detector"] else " (log-probability was not measured)"
    named = f"{called(best['detector'])} alone {best['auroc']:.2f}"
    return f"{said}; {'' if better else 'not shown to beat '}{named}{lacking}."


def _area(row: Mapping[str, Any]) -> str:
    chance = row["lo"] is not None and row["lo"] <= 0.5 <= row["hi"]
    return f"{row['auroc']:.2f} (chance)" if chance else auroc(row)


def alone(detectors: pl.DataFrame | None) -> str | None:
    """How well one text is judged without its partner by its SAE features, the one detector fixed beforehand."""
    if detectors is None:
        return None
    rows = detectors.filter(pl.col("auroc").is_not_null(), scope=POOLED)
    found = rows.filter(pl.col("gain_lo").is_not_null(), detector="sae")
    if found.is_empty():
        return None
    row = found.row(0, named=True)
    known = [BASELINES[name] for name in rows["detector"] if name in BASELINES]
    best = f"{' or '.join([', '.join(known[:-1])] * (len(known) > 1) + known[-1:])} alone" if known else "chance"
    lacking = unmeasured(rows["detector"].to_list())
    return (
        f"A detector on SAE features reaches AUROC {auroc(row)} for single texts; "
        f"{best}, {row['auroc'] - row['gain']:.2f}. Gain: {gain(row)}"
        f"{'' if row['gain_lo'] > 0 else ', not shown to be above 0'}.{lacking and f' {capital(lacking)}.'}"
    )
