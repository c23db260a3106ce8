"""Two runs over the same labelled texts: how the difference between false and true ones changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.stats import rankdata

from bluffscope.stats.effects import hedges_factor
from bluffscope.stats.held_constant import estimated, fit
from bluffscope.stats.held_texts import FEWEST_OF_A_LABEL, nothing_held, texts_vary
from bluffscope.stats.labelled import judge_texts
from bluffscope.stats.study import numbered
from bluffscope.stats.text_study import TextStudy, build_text_study

TEXT_CHANGE: Final = (
    *("mean_first", "mean_other", "mean_change", "sd_change"),
    *("g_change", "g_change_lo", "g_change_hi", "change_in_sd", "p", "pearson", "spearman"),
)
TEXTS_JUDGED: Final = ("g", "adj_g", "verdict", "mean_diff")


def judged_texts(table: pl.DataFrame, metrics: Sequence[str], texts: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """The verdicts on these metrics alone: one family in both runs."""
    return judge_texts(build_text_study(table, texts, by, measured=metrics), "scope")[0]


def text_changes(studies: Sequence[TextStudy], names: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """metric, metric_other, scope, n and `TEXT_CHANGE` of every metric in every scope.

    Args:
        studies: of the first run and of the other, over the same texts in the same order.
        names: of the metrics in the first run, and in the other.
    """
    first, other = (
        study.values[:, [study.metrics.index(name) for name in names[side]]] for side, study in enumerate(studies)
    )
    ours = studies[0]
    return [
        {"metric": name, "metric_other": match, "scope": scope.name}
        | _change(first[scope.rows, place], other[scope.rows, place], ours.false[scope.rows], ours.groups[scope.rows])
        for scope in ours.scopes
        for place, (name, match) in enumerate(zip(*names, strict=True))
    ]


def _change(first: np.ndarray, other: np.ndarray, false: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """How the values (text,) of one metric change from one run to the other, more in false texts than in true ones."""
    defined = np.isfinite(first) & np.isfinite(other)
    first, other, false, groups = first[defined], other[defined], false[defined], numbered(groups[defined])
    row: dict[str, Any] = dict.fromkeys(TEXT_CHANGE, np.nan) | {"n": len(first)}
    if min(false.sum(), (~false).sum()) < 1:
        return row
    change = other - first
    gaps = {"first": first, "other": other, "change": change}
    row |= {f"mean_{name}": values[false].mean() - values[~false].mean() for name, values in gaps.items()}
    vary = [bool(texts_vary(values[:, None])[0]) for values in (first, other)]
    if len(first) > 2 and all(vary):
        row["pearson"] = _correlation(first, other)
        row["spearman"] = _correlation(rankdata(first), rankdata(other))
    if min(false.sum(), (~false).sum()) < FEWEST_OF_A_LABEL:
        return row
    fitted = fit(false.astype(float), nothing_held(len(first)), groups)
    before, found = (estimated(fitted, values[:, None]) for values in (first, change))
    factor = hedges_factor(len(first) - 2)
    row |= {"change_in_sd": row["mean_change"] / before.sd[0], "sd_change": found.sd[0], "p": found.p[0]}
    ends = factor * found.interval()[:, 0]
    return row | {"g_change": factor * found.standardised[0], "g_change_lo": ends[0], "g_change_hi": ends[1]}


def _correlation(first: np.ndarray, other: np.ndarray) -> float:
    return float(np.clip(np.corrcoef(first, other)[0, 1], -1, 1))


__all__ = ["TEXTS_JUDGED", "TEXT_CHANGE", "judged_texts", "text_changes"]
