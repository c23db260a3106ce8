"""Labelled texts without partners: does a metric differ between true and false ones, at equal length and wording?

The model is that of pairs (docs/statistics.md) with the label for a target: value = level + effect x (false) +
s(length) + completion + rest. Its functions of length are those of pairs, closed completions have levels of their own,
and so have domains.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.host.exclusive import exclusive
from bluffscope.stats.analysis import Control, StatsResult, declare, judge_cells, with_held
from bluffscope.stats.auroc import areas
from bluffscope.stats.cells import CORRECTED, ScopeCells, beside_raw
from bluffscope.stats.effects import hedges_factor, minimum_detectable_g
from bluffscope.stats.held_constant import Held, estimated, fit
from bluffscope.stats.held_texts import FEWEST_OF_A_LABEL, few_texts, hold_texts, nothing_held, texts_vary
from bluffscope.stats.label_controls import null_control, planted_control
from bluffscope.stats.label_ladder import label_ladder
from bluffscope.stats.multiplicity import Family
from bluffscope.stats.scopes import Scope
from bluffscope.stats.text_study import TextBlock, TextStudy, build_text_study
from bluffscope.stats.verdicts import barring
from bluffscope.table.metric_pairs import not_interpretable

_FLOAT: Final = pl.Float64()
LABELLED_SCHEMA: Final = pl.Schema(
    {
        **dict.fromkeys(("metric", "scope"), pl.String()),
        **dict.fromkeys(("n", "n_true", "n_false", "clusters"), pl.Int64()),
        **dict.fromkeys(("mean_true", "mean_false", "mean_diff", "g", "g_lo", "g_hi", "p"), _FLOAT),
        **dict.fromkeys(("adj_mean_diff", "adj_g", "adj_lo", "adj_hi", "adj_p"), _FLOAT),
        **dict.fromkeys(("q", "raw_q", "adj_q", "skew_p", "skew_q", "equivalence_p", "equivalence_q"), _FLOAT),
        **dict.fromkeys(("length_df", "completion_df"), pl.Int64()),
        **dict.fromkeys(("auroc", "auroc_lo", "auroc_hi", "mde80"), _FLOAT),
        **dict.fromkeys(("verdict", "reason"), pl.String()),
    }
)
"""One row a metric and scope. Differences are false - true; g is Hedges' g, mean_diff over the pooled sd."""
_MEASURED: Final = [name for name, kind in LABELLED_SCHEMA.items() if kind.is_numeric() and name not in CORRECTED]


@exclusive()
def analyse_labelled(
    table: pl.DataFrame,
    texts: pl.DataFrame | None = None,
    *,
    by: Sequence[str] = (),
    cluster_by: str | None = None,
    family: Family = "scope",
    control: Control = "none",
    seed: int = 0,
    measured: Collection[str] | None = None,
    withheld: Sequence[str] = (),
    of_saes: bool = False,
) -> StatsResult:
    """Test whether any metric of labelled texts separates true from false (docs/statistics.md).

    Args:
        table: one row a text: `label` (true or false; 1 or 0), numbers as `l{k}_X`, by the name of a metric, or in any
            further column of fractions; `text_tokens`, `prompt_tokens`, `completion`, `group`, `domain` where they are
            known.
        texts: what it was measured from, where the table lacks that: matched by `text_id`.
        by: further columns whose values are scopes, beside the domains, all texts pooled, and carried columns of 2 to 6
            values.
        cluster_by: what makes clusters: "prompt", "completion" or "both", of the texts; or a column. By default
            `group`, else both where the texts are known, else each text is its own.
        family: what is corrected together: the metrics of one scope, or every metric in every scope.
        control: also run the tool on the table with labels drawn at random ("null"), or with an effect "planted".
        seed: of the control.
        measured: the columns that hold metrics, where that is known: then no other is tested.
        withheld: why the numbers cannot be trusted: every verdict is "withheld" then.
        of_saes: withhold only those on metrics that are measured through SAEs.

    Returns:
        `StatsResult`, its rows of `LABELLED_SCHEMA`: scopes in order, in each the metrics in the table's order. Its
        cross tables have metric, scope, value, true, false; its ladder has g in place of dz.

    Raises:
        InputError: no rows, no label, no metric, an unknown column.
    """
    study = build_text_study(table, texts, by, cluster_by=cluster_by, measured=measured)
    rows, tests = judge_texts(study, family)
    controls = {"null": null_control, "planted": planted_control}
    found = None if control == "none" else controls[control](study, family, seed)
    about = declare(study, family, tests, "texts") | {
        "items": "texts",
        "true": int((~study.false).sum()),
        "false": int(study.false.sum()),
        "seed": seed,
        "notes": list(study.notes),
        "control": control,
        "withheld": list(withheld),
    }
    return StatsResult(with_held(rows, withheld, of_saes), study.cross_tables, found, label_ladder(study), about)


def judge_texts(study: TextStudy, family: Family) -> tuple[pl.DataFrame, list[int]]:
    """`LABELLED_SCHEMA` of every metric in every scope, and how many metrics were judged in each scope."""
    cells = [measure_texts(study, scope) for scope in study.scopes]
    return judge_cells(study.metrics, cells, family, LABELLED_SCHEMA, _evidence)


def measure_texts(study: TextStudy, scope: Scope) -> ScopeCells:
    """All metrics in one scope."""
    number = len(study.metrics)
    values = {name: np.full(number, np.nan) for name in _MEASURED}
    barred: list[str | None] = [None] * number
    words = ["nothing"] * number
    for block in study.blocks(scope):
        found, held, why = _measured(block, study.closed_names)
        for name, numbers in found.items():
            values[name][block.metrics] = numbers
        for place, metric in enumerate(block.metrics.tolist()):
            words[metric] = held.what
            doubt = not_interpretable(study.metrics[metric])
            barred[metric] = f"not interpretable: {doubt}" if doubt else why[place]
    return ScopeCells(scope, values, barred, words)


def _measured(block: TextBlock, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], Held, list[str | None]]:
    """Numbers by name, (metric,) each, what is held constant, and why each metric cannot be judged."""
    number, metrics = block.values.shape
    false, clusters = block.false, int(block.groups.max(initial=-1)) + 1
    sizes = {"n": number, "n_true": int((~false).sum()), "n_false": int(false.sum()), "clusters": clusters}
    found = {name: np.full(metrics, float(size)) for name, size in sizes.items()}
    few = min(sizes["n_true"], sizes["n_false"])
    if few < FEWEST_OF_A_LABEL:
        return found, Held(np.empty((number, 0))), [few_texts(few)] * metrics
    sides = block.values[~false], block.values[false]
    area = areas(*sides, block.groups[~false], block.groups[false])
    found |= {"mean_true": sides[0].mean(axis=0), "mean_false": sides[1].mean(axis=0)}
    found |= {"auroc": area.area, "auroc_lo": area.lo, "auroc_hi": area.hi}
    found["mde80"] = np.full(metrics, minimum_detectable_g(sizes["n_true"], sizes["n_false"]))
    target, factor = false.astype(float), hedges_factor(number - 2)
    raw = estimated(fit(target, nothing_held(number), block.groups), block.values)
    found |= {"mean_diff": raw.effect, "g": factor * raw.standardised, "p": raw.p}
    found["g_lo"], found["g_hi"] = factor * raw.interval()
    held = hold_texts(block, names)
    fitted = fit(target, held, block.groups)
    no_effect: list[str | None] = [fitted] * metrics if isinstance(fitted, str) else []
    if not isinstance(fitted, str):
        adjusted, columns, no_effect = beside_raw(fitted, block.values, raw, held)
        found |= columns | {"adj_g": factor * adjusted.standardised}
        found["adj_lo"], found["adj_hi"] = factor * adjusted.interval()
    spread = texts_vary(block.values)
    why = [
        barring(number, clusters, varies=bool(varying), not_interpretable="", barred=nothing, of="texts")
        for varying, nothing in zip(spread, no_effect, strict=True)
    ]
    return found, held, why


def _evidence(row: dict[str, Any]) -> dict[str, Any]:
    """What a row says, under the names of an `Evidence`."""
    same = ("n", "mean_diff", "adj_mean_diff", *CORRECTED, "mde80")
    return {"of": "texts", "dz": row["g"], "adj_dz": row["adj_g"]} | {name: row[name] for name in same}


__all__ = ["LABELLED_SCHEMA", "analyse_labelled", "judge_texts"]
