"""Which SAE features fire more often in one of the two completions: shares, an exact paired test, correction."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from scipy.stats import binom

from bluffscope.stats.multiplicity import benjamini_hochberg

FEWEST_FIRED: Final = 10
"""Texts that a feature must fire in to be tested: with fewer no p value could be small. The labels play no part."""

FEATURE_SCHEMA: Final = pl.Schema(
    {
        "layer": pl.Int64,
        "feature": pl.Int64,
        "n": pl.Int64,
        "share_fact": pl.Float64,
        "share_hall": pl.Float64,
        "diff": pl.Float64,
        "p": pl.Float64,
        "q": pl.Float64,
    }
)
"""Layer and index of the feature, pairs, shares of the facts and hallucinations that it fires in, their difference
(hallucination - fact), p of the sign-flip test, q within the layer."""


def different_features(features: pl.LazyFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Tests every feature that fires in at least `FEWEST_FIRED` texts.

    The test flips the sign of whole groups of pairs, as that of the metrics does. How often a feature fires is a whole
    number, so the distribution under all flips is computed and not drawn: p is exact, two-sided.

    Args:
        features: `pair_id, view, layer, feature`, one row for each active feature of each text.
        groups: `pair_id, group`, one row for each pair that was measured.

    Returns:
        `FEATURE_SCHEMA`; in each layer the smallest p first, of equal ones the largest difference.
    """
    pairs = groups.height
    fired = (
        features.filter(pl.col("view").is_in(["fact", "hall"]))
        .group_by("pair_id", pl.col("layer").cast(pl.Int64), pl.col("feature").cast(pl.Int64))
        .agg(
            fact=(pl.col("view") == "fact").any().cast(pl.Int64),
            hall=(pl.col("view") == "hall").any().cast(pl.Int64),
        )
        .join(groups.select("pair_id", "group").lazy(), on="pair_id", how="inner")
        .collect()
    )
    key = ["layer", "feature"]
    counts = fired.group_by(key).agg(pl.col("fact").sum(), pl.col("hall").sum())
    counts = counts.filter(pl.col("fact") + pl.col("hall") >= FEWEST_FIRED)
    if counts.is_empty():
        return pl.DataFrame(schema=FEATURE_SCHEMA)
    sizes = (
        fired.join(counts.select(key), on=key, how="semi")
        .group_by([*key, "group"])
        .agg(size=(pl.col("hall") - pl.col("fact")).sum().abs())
        .filter(pl.col("size") > 0)
        .group_by([*key, "size"])
        .agg(times=pl.len().cast(pl.Int64))
        .sort("size")
        .group_by(key)
        .agg("size", "times")
    )
    counts = counts.join(sizes, on=key, how="left").sort(key)
    known: dict[tuple[object, ...], float] = {}
    found: list[float] = []
    for row in counts.iter_rows(named=True):
        # Most features share these few numbers with others.
        case = (abs(row["hall"] - row["fact"]), *(row["size"] or ()), -1, *(row["times"] or ()))
        if case not in known:
            known[case] = flip_p(case[0], row["size"] or (), row["times"] or ())
        found.append(known[case])
    table = counts.select(
        *key,
        n=pl.lit(pairs, pl.Int64),
        share_fact=pl.col("fact") / pairs,
        share_hall=pl.col("hall") / pairs,
        diff=(pl.col("hall") - pl.col("fact")) / pairs,
        p=pl.Series(found, dtype=pl.Float64),
    )
    layers = [_corrected(part) for _, part in table.group_by("layer", maintain_order=True)]
    return pl.concat(layers).select(pl.col(name).cast(kind) for name, kind in FEATURE_SCHEMA.items())


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    q = benjamini_hochberg(table["p"].to_numpy())
    return table.with_columns(q=pl.Series(q)).sort("p", -pl.col("diff").abs(), "feature")


def flip_p(total: int, sizes: list[int] | tuple[int, ...], times: list[int] | tuple[int, ...]) -> float:
    """P(|sum of +-g| >= total) with a fair sign for each group: 1 where no group has a difference.

    Args:
        total: |sum of g| of the data.
        sizes: the distinct |g| > 0 of the groups.
        times: how many groups have each.
    """
    distribution = np.ones(1)
    for size, number in zip(sizes, times, strict=True):
        # size * (2 k - number) for k of `number` heads: a distribution on a grid of step 2 * size around 0.
        grid = np.zeros(2 * size * number + 1)
        grid[:: 2 * size] = binom.pmf(np.arange(number + 1), number, 0.5)
        distribution = np.convolve(distribution, grid)
    middle = len(distribution) // 2
    distance = np.abs(np.arange(len(distribution)) - middle)
    return min(1.0, float(distribution[distance >= total].sum()))
