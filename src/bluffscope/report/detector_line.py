"""How well a detector judges single texts, in a line or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from bluffscope.detectors.classifiers import BASELINES, unmeasured
from bluffscope.host.terminal import interval
from bluffscope.report.labels import effect
from bluffscope.report.own_answers import INSIDE
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
    said = f"Detector ({INSIDE[name].removeprefix('the ')}): AUROC {', '.join(shown)}"
    rivals = fitted.filter(pl.col("detector").is_in(list(BASELINES)), scope=first["scope"])
    if rivals.is_empty():
        return f"{said}."
    best = rivals.sort("auroc", descending=True, maintain_order=True).row(0, named=True)
    better = first["gain_lo"] is not None and first["gain_lo"] > 0
    named = f"{BASELINES[best['detector']]} alone {best['auroc']:.2f}"
    lacking = "" if "logprob" in rivals["detector"] else " (log-probability was not measured)"
    return f"{said}; {'' if better else 'not shown to beat '}{named}{lacking}."


def _area(row: Mapping[str, Any]) -> str:
    if row["lo"] is None:
        return f"{row['auroc']:.2f}"
    return f"{row['auroc']:.2f} ({'chance' if row['lo'] <= 0.5 <= row['hi'] else interval(row)})"


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
    gain = f"Gain: {effect(row['gain'])} ({interval(row, 'gain_', '+.2f')})"
    return (
        f"A detector on SAE features reaches AUROC {row['auroc']:.2f} ({interval(row)}) for single texts; "
        f"{best}, {row['auroc'] - row['gain']:.2f}. {gain}{'' if row['gain_lo'] > 0 else ', not shown to be above 0'}."
        f"{f' {lacking[0].upper()}{lacking[1:]}.' if lacking else ''}"
    )
