"""Do the verdicts of two runs agree? And a run over pairs against one over labelled texts, metric by metric."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import polars as pl

from bluffscope.compare.matching import Matched
from bluffscope.compare.text_runs import judged_texts
from bluffscope.records import PAIRS
from bluffscope.stats.analysis import analyse_table
from bluffscope.stats.cells import Resampling
from bluffscope.table.metric_pairs import metric_pairs

NEEDS_NO_CHANCE: Final = Resampling(flips=9)
"""Verdicts rest on no bootstrap and no permutation."""
_EFFECT: Final = ("effect", "effect_lo", "effect_hi", "adj_effect", "auroc", "auroc_lo", "auroc_hi")
_SIDES: Final = ("first", "other")
MIXED_SCHEMA: Final = pl.Schema(
    dict.fromkeys(("run", "metric", "metric_other", "scope"), pl.String())
    | {f"n_{side}": pl.Int64() for side in _SIDES}
    | {f"{name}_{side}": pl.Float64() for side in _SIDES for name in _EFFECT}
    | {f"verdict_{side}": pl.String() for side in _SIDES}
    | dict.fromkeys(("same_verdict", "same_sign", "agrees"), pl.Boolean())
)
"""Columns of compare.parquet where one run is over pairs and the other over labelled texts; docs/compare.md."""


def with_agreement(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the verdicts and mean differences of both runs, and whether these agree."""
    same_verdict = pl.col("verdict_first") == pl.col("verdict_other")
    same_sign = pl.col("mean_diff_first").sign() == pl.col("mean_diff_other").sign()
    # Where no effect is shown its sign is chance.
    shown = pl.col("verdict_first").is_in(["separates", "confounded"])
    agrees = same_verdict & (same_sign.fill_null(False) | ~shown)
    return rows.with_columns(same_verdict=same_verdict, same_sign=same_sign, agrees=agrees)


def only_metrics(table: pl.DataFrame, metrics: Collection[str]) -> pl.DataFrame:
    """A table of pairs without the metrics that are not compared."""
    others = [pair for pair in metric_pairs(table.columns) if pair.name not in metrics]
    return table.drop(name for pair in others for name in (pair.fact, pair.hall))


def mixed_rows(run: str, matched: Matched, columns: Sequence[tuple[str, str]], by: Sequence[str]) -> pl.DataFrame:
    """`MIXED_SCHEMA` of every metric in every scope that both runs have; each side's tests are one family.

    Args:
        run: the folder of the other run.
        matched: the items of both.
        columns: names of the metrics in the first run and in the other.
        by: further columns whose values are scopes.
    """
    sides: list[pl.DataFrame] = []
    for place, side in enumerate(_SIDES):
        table, items = matched.tables[place], matched.items[place]
        names = [both[place] for both in columns]
        if PAIRS.key in table.columns:
            rows = analyse_table(only_metrics(table, names), items, by=by, resampling=NEEDS_NO_CHANCE).rows
            called = {"dz": "effect", "dz_lo": "effect_lo", "dz_hi": "effect_hi", "adj_dz": "adj_effect"}
        else:
            rows = judged_texts(table, names, items, by)
            called = {"g": "effect", "g_lo": "effect_lo", "g_hi": "effect_hi", "adj_g": "adj_effect"}
        judged = rows.rename(called).select("metric", "scope", "n", *_EFFECT, "verdict", "mean_diff")
        sides.append(judged.rename({name: f"{name}_{side}" for name in judged.columns[2:]}))
    pairs = pl.DataFrame(columns, schema=["metric", "metric_other"], orient="row")
    found = (
        sides[0]
        .join(pairs, on="metric", how="inner", maintain_order="left")
        .join(
            sides[1].rename({"metric": "metric_other"}),
            on=["metric_other", "scope"],
            how="inner",
            maintain_order="left",
        )
        .with_columns(run=pl.lit(run))
    )
    return with_agreement(found).select(pl.col(name).cast(kind) for name, kind in MIXED_SCHEMA.items())


__all__ = ["MIXED_SCHEMA", "NEEDS_NO_CHANCE", "mixed_rows", "only_metrics", "with_agreement"]
