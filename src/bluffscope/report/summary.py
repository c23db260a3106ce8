"""Descriptive numbers of a result table: means of both sides, their difference, d_z of pairs or g of labelled texts.

Tests, intervals and verdicts are in `bluffscope.stats`; nothing here says that a difference is real.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import polars as pl

from bluffscope.report.sides import IS_FACT, Words, numeric_pairs, two_sided, words_of
from bluffscope.table.metric_pairs import MetricPair, metric_pairs

POOLED: Final = "pooled"
"""Name of the scope that holds all pairs."""

SUMMARY_SCHEMA: Final = {
    "metric": pl.String,
    "layer": pl.Int64,
    "domain": pl.String,
    "pooled": pl.Boolean,
    "n": pl.Int64,
    "mean_fact": pl.Float64,
    "mean_hall": pl.Float64,
    "mean_diff": pl.Float64,
    "sd_diff": pl.Float64,
    "dz": pl.Float64,
}

# Rounding leaves a spread of this order, relative to the values, where all differences are equal.
_NO_SPREAD: Final = 1e-12


def summarize(metrics: pl.DataFrame, measured: Collection[str] = ()) -> pl.DataFrame:
    """Means of fact and hallucination, difference and effect size, for each metric and domain and pooled.

    Args:
        metrics: a result table: numeric columns ``l{k}_fact_X`` with ``l{k}_hall_X`` and ``X_fact`` with ``X_hall``
            (columns without a partner, and text, are passed over), and a ``domain`` (one domain "all" without it). Or
            a labelled one: ``text_id``, ``label`` and numeric columns ``l{k}_X`` and ``X``.
        measured: the columns of metrics of a labelled table, where that is known, see `two_sided`.

    Returns:
        `SUMMARY_SCHEMA`, metrics in the table's order, domains in order of appearance, the pooled row
        (``pooled`` true, domain "pooled") last. Pairs with a null or non-finite value on either side are left
        out: ``n`` counts the others. Differences are hallucination - fact, ``sd_diff`` has ddof 1,
        ``dz`` = mean_diff / sd_diff (Cohen's d_z of paired differences), null for n < 2 or where all differences
        are equal up to rounding. Of labelled texts, "fact" is the true side: ``sd_diff`` is the pooled standard
        deviation and ``dz`` Hedges' g.
    """
    metrics = two_sided(metrics, measured)
    if "domain" not in metrics.columns:
        metrics = metrics.with_columns(domain=pl.lit("all"))
    words = words_of(metrics)
    parts = [_scopes(metrics, pair, words) for pair in numeric_pairs(metrics)]
    if not parts:
        return pl.DataFrame(schema=SUMMARY_SCHEMA)
    return pl.concat(parts).select(pl.col(name).cast(dtype) for name, dtype in SUMMARY_SCHEMA.items())


def shape_table(metrics: pl.DataFrame, measured: Collection[str] = ()) -> pl.DataFrame:
    """How often each shape class of the fact goes with each of the hallucination, by layer.

    Args:
        metrics: a result table; `measured` as of `summarize`.
        measured: see there.

    Returns:
        Columns layer, fact, hall, n; null stands for an undefined class. Of labelled texts `fact` is "true" or "false"
        and `hall` the class. Empty where no classes were measured.
    """
    metrics = two_sided(metrics, measured)
    words = words_of(metrics)
    parts = [
        metrics.select(**_classes(pair, words))
        .group_by("fact", "hall")
        .agg(n=pl.len().cast(pl.Int64))
        .sort("fact", "hall", descending=[not words.paired, False], nulls_last=True)
        .select(pl.lit(pair.layer, pl.Int64).alias("layer"), "fact", "hall", "n")
        for pair in metric_pairs(metrics.columns)
        if pair.metric == "shape_class" and pair.layer is not None
    ]
    schema = pl.Schema({"layer": pl.Int64, "fact": pl.String, "hall": pl.String, "n": pl.Int64})
    return pl.concat([pl.DataFrame(schema=schema), *(part.cast(schema) for part in parts)])


def _classes(pair: MetricPair, words: Words) -> dict[str, pl.Expr]:
    if words.paired:
        return {"fact": pl.col(pair.fact), "hall": pl.col(pair.hall)}
    label = pl.when(IS_FACT).then(pl.lit(words.fact)).otherwise(pl.lit(words.hall))
    return {"fact": label, "hall": pl.coalesce(pair.fact, pair.hall)}


def _scopes(metrics: pl.DataFrame, pair: MetricPair, words: Words) -> pl.DataFrame:
    """One metric in every domain, then pooled."""
    fact, hall = (pl.col(name).cast(pl.Float64) for name in (pair.fact, pair.hall))
    used = words.used(fact, hall)
    both = metrics.select("domain", fact=pl.when(used).then(fact), hall=pl.when(used).then(hall))
    numbers = _paired() if words.paired else _two_samples()
    by_domain = both.group_by("domain", maintain_order=True).agg(pooled=pl.lit(False), **numbers)
    found = pl.concat([by_domain, both.select(domain=pl.lit(POOLED), pooled=pl.lit(True), **numbers)])
    spread = pl.col("sd_diff") > _NO_SPREAD * pl.max_horizontal(pl.col("mean_fact").abs(), pl.col("mean_hall").abs())
    return found.with_columns(
        dz=pl.when(spread & (pl.col("sd_diff") > 0)).then(pl.col("mean_diff") / pl.col("sd_diff") * _factor(found)),
        metric=pl.lit(pair.name),
        layer=pl.lit(pair.layer, pl.Int64),
    )


def _paired() -> dict[str, pl.Expr]:
    """Numbers of a scope's pairs."""
    difference = pl.col("hall") - pl.col("fact")
    return {
        "n": difference.count(),
        "mean_fact": pl.col("fact").mean(),
        "mean_hall": pl.col("hall").mean(),
        "mean_diff": difference.mean(),
        "sd_diff": difference.std(ddof=1),
    }


def _two_samples() -> dict[str, pl.Expr]:
    """Numbers of a scope's true and false texts."""
    sides = [pl.col(name) for name in ("fact", "hall")]
    squares = [(side.count() - 1) * side.var(ddof=1).fill_null(0) for side in sides]
    freedom = sides[0].count() + sides[1].count() - 2
    return {
        "n": sides[0].count() + sides[1].count(),
        "mean_fact": sides[0].mean(),
        "mean_hall": sides[1].mean(),
        "mean_diff": sides[1].mean() - sides[0].mean(),
        "sd_diff": pl.when(freedom > 0).then(((squares[0] + squares[1]) / freedom).sqrt()),
        "freedom": freedom,
    }


def _factor(found: pl.DataFrame) -> pl.Expr | float:
    """What makes a standardised difference of texts Hedges' g; null where there are too few."""
    if "freedom" not in found.columns:
        return 1.0
    from bluffscope.stats.effects import hedges_factor  # scipy: a summary of pairs does without

    factors = pl.Series([hedges_factor(freedom) for freedom in found["freedom"].to_list()], dtype=pl.Float64)
    return pl.lit(factors.fill_nan(None))
