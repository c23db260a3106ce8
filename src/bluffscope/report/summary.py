"""Descriptive numbers of a result table: means of fact and hallucination, their difference, d_z.

Tests, intervals and verdicts are in `bluffscope.stats`; nothing here says that a difference is real.
"""

from __future__ import annotations

from typing import Final

import polars as pl

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


def summarize(metrics: pl.DataFrame) -> pl.DataFrame:
    """Means of fact and hallucination, difference and effect size, for each metric and domain and pooled.

    Args:
        metrics: a result table: numeric columns ``l{k}_fact_X`` with ``l{k}_hall_X`` and ``X_fact`` with ``X_hall``
            (columns without a partner, and text, are passed over), and a ``domain`` (one domain "all" without it).

    Returns:
        `SUMMARY_SCHEMA`, metrics in the table's order, domains in order of appearance, the pooled row
        (``pooled`` true, domain "pooled") last. Pairs with a null or non-finite value on either side are left
        out: ``n`` counts the others. Differences are hallucination - fact, ``sd_diff`` has ddof 1,
        ``dz`` = mean_diff / sd_diff (Cohen's d_z of paired differences), null for n < 2 or where all differences
        are equal up to rounding.
    """
    if "domain" not in metrics.columns:
        metrics = metrics.with_columns(domain=pl.lit("all"))
    parts = [_scopes(metrics, pair) for pair in numeric_pairs(metrics)]
    if not parts:
        return pl.DataFrame(schema=SUMMARY_SCHEMA)
    return pl.concat(parts).select(pl.col(name).cast(dtype) for name, dtype in SUMMARY_SCHEMA.items())


def numeric_pairs(metrics: pl.DataFrame) -> list[MetricPair]:
    """The metrics of a result table that are numbers."""
    kinds = metrics.schema
    return [
        pair
        for pair in metric_pairs(metrics.columns)
        if kinds[pair.fact].is_numeric() and kinds[pair.hall].is_numeric()
    ]


def shape_table(metrics: pl.DataFrame) -> pl.DataFrame:
    """How often each shape class of the fact goes with each of the hallucination, by layer.

    Returns:
        Columns layer, fact, hall, n; null stands for an undefined class. Empty where no classes were measured.
    """
    parts = [
        metrics.select(fact=pair.fact, hall=pair.hall)
        .group_by("fact", "hall")
        .agg(n=pl.len().cast(pl.Int64))
        .sort("fact", "hall", nulls_last=True)
        .select(pl.lit(pair.layer, pl.Int64).alias("layer"), "fact", "hall", "n")
        for pair in metric_pairs(metrics.columns)
        if pair.metric == "shape_class" and pair.layer is not None
    ]
    schema = pl.Schema({"layer": pl.Int64, "fact": pl.String, "hall": pl.String, "n": pl.Int64})
    return pl.concat([pl.DataFrame(schema=schema), *(part.cast(schema) for part in parts)])


def _scopes(metrics: pl.DataFrame, pair: MetricPair) -> pl.DataFrame:
    """One metric in every domain, then pooled."""
    fact, hall = (pl.col(name).cast(pl.Float64) for name in (pair.fact, pair.hall))
    used = (fact.is_finite() & hall.is_finite()).fill_null(False)
    both = metrics.select("domain", fact=pl.when(used).then(fact), hall=pl.when(used).then(hall))
    difference = pl.col("hall") - pl.col("fact")
    numbers = {
        "n": difference.count(),
        "mean_fact": pl.col("fact").mean(),
        "mean_hall": pl.col("hall").mean(),
        "mean_diff": difference.mean(),
        "sd_diff": difference.std(ddof=1),
    }
    by_domain = both.group_by("domain", maintain_order=True).agg(pooled=pl.lit(False), **numbers)
    spread = pl.col("sd_diff") > _NO_SPREAD * pl.max_horizontal(pl.col("mean_fact").abs(), pl.col("mean_hall").abs())
    return pl.concat([by_domain, both.select(domain=pl.lit(POOLED), pooled=pl.lit(True), **numbers)]).with_columns(
        dz=pl.when(spread & (pl.col("sd_diff") > 0)).then(pl.col("mean_diff") / pl.col("sd_diff")),
        metric=pl.lit(pair.name),
        layer=pl.lit(pair.layer, pl.Int64),
    )
