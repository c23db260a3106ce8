"""Every number of one scope but those that need the other metrics: the columns of the result before q and verdict."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from bluffscope.stats.auroc import auroc, paired_share
from bluffscope.stats.effects import dz, hedges_factor, minimum_detectable_dz, varies
from bluffscope.stats.heldout import heldout_gain
from bluffscope.stats.length_control import LengthState, held_constant, length_state
from bluffscope.stats.resampling import bootstrap_intervals, sign_flip_p, units
from bluffscope.stats.signed_rank import signed_ranks, wilcoxon
from bluffscope.stats.study import Block, Scope, Study
from bluffscope.stats.verdicts import MIN_PAIRS

CORRECTED: Final = {"q": "p_wilcoxon", "q_grouped": "p_grouped", "adj_q": "adj_p", "adj_q_grouped": "adj_p_grouped"}
"""Each q value and the p value that it corrects."""

_FLOAT: Final = pl.Float64()
STATS_SCHEMA: Final = pl.Schema(
    {
        **dict.fromkeys(("metric", "scope"), pl.String()),
        "n": pl.Int64(),
        **dict.fromkeys(("mean_fact", "mean_hall", "mean_diff", "sd_diff", "dz", "hedges_g", "dz_lo", "dz_hi"), _FLOAT),
        **dict.fromkeys(("p_wilcoxon", "p_signflip", "q", "auroc", "auroc_lo", "auroc_hi", "p_paired"), _FLOAT),
        **dict.fromkeys(("adj_mean_diff", "adj_dz", "adj_lo", "adj_hi", "adj_p", "adj_q"), _FLOAT),
        "n_equal_length": pl.Int64(),
        **dict.fromkeys(("equal_length_dz", "equal_length_p", "mde80"), _FLOAT),
        **dict.fromkeys(("verdict", "reason"), pl.String()),
        **dict.fromkeys(("cv_auroc_gain", "p_grouped", "q_grouped", "adj_p_grouped", "adj_q_grouped"), _FLOAT),
    }
)
"""Columns of the result, one row a metric and scope; docs/statistics.md says what each is."""

MEASURED: Final = (
    *(name for name, kind in STATS_SCHEMA.items() if kind.is_numeric() and name not in CORRECTED),
    "equivalence_p",
)
"""What `measure_scope` fills; equivalence_p is for the verdict only."""

_WITHOUT_SPREAD: Final = (
    *("n", "mean_fact", "mean_hall", "mean_diff", "sd_diff", "auroc", "auroc_lo", "auroc_hi", "p_paired"),
    *("n_equal_length", "mde80", "cv_auroc_gain"),
)
"""What is given where the differences have no spread; nothing else is, and no test of it counts in a family."""


@dataclass(frozen=True)
class Resampling:
    """How much chance goes into intervals and the permutation test, and from which seed."""

    resamples: int = 2000
    """Bootstrap resamples."""
    flips: int = 9999
    """Sign flips of the permutation test."""
    seed: int = 0

    def generator(self, scope: Scope, stream: int) -> np.random.Generator:
        """Depends on the seed, the scope's name and the use alone: never on the table's other columns or scopes."""
        return np.random.default_rng([self.seed, zlib.crc32(scope.name.encode()), stream])


@dataclass(frozen=True)
class ScopeCells:
    """One scope's numbers, metric by metric."""

    scope: Scope
    values: dict[str, np.ndarray]
    """(metric,) by the names of `MEASURED`; NaN where undefined."""
    varies: np.ndarray
    """(metric,) whether the differences have any spread."""
    lengths: list[LengthState]
    """Whether length can be held constant, for each metric."""


def measure_scope(study: Study, scope: Scope, resampling: Resampling) -> ScopeCells:
    """All metrics in one scope."""
    metrics = len(study.metrics)
    values = {name: np.full(metrics, np.nan) for name in MEASURED}
    spread = np.zeros(metrics, dtype=bool)
    lengths: list[LengthState] = ["unknown"] * metrics
    for block in study.blocks(scope):
        spread[block.metrics] = varies(block.fact, block.hall)
        state = length_state(block.length_differences)
        for metric in block.metrics:
            lengths[metric] = state
        for name, found in _measured(block, scope, state, resampling).items():
            values[name][block.metrics] = found
    for name in values.keys() - set(_WITHOUT_SPREAD):
        values[name][~spread] = np.nan
    return ScopeCells(scope, values, spread, lengths)


def _measured(block: Block, scope: Scope, state: LengthState, resampling: Resampling) -> dict[str, np.ndarray]:
    pairs, metrics = block.fact.shape
    found = {"n": np.full(metrics, float(pairs))}
    known = state != "unknown"
    if known:
        found["n_equal_length"] = np.full(metrics, float((block.length_differences == 0).sum()))
    if pairs == 0:
        return found
    found |= _described(block)
    if pairs < MIN_PAIRS:
        return found
    differences = block.differences
    ranks, unflipped = signed_ranks(differences), np.ones(pairs)
    found["p_wilcoxon"] = ranks.p_values(unflipped)
    found["p_grouped"] = ranks.grouped_p_value(unflipped, block.groups)
    flips = resampling.generator(scope, 1)
    resampled = replace(block, groups=units(block.groups))
    found["p_signflip"] = sign_flip_p(differences, resampled.groups, resampling.flips, flips)
    intervals = bootstrap_intervals(
        resampled, resampling.resamples, resampling.generator(scope, 0), adjustable=state == "adjustable"
    )
    found["dz_lo"], found["dz_hi"] = intervals.dz
    found["auroc_lo"], found["auroc_hi"] = intervals.auroc
    lengths = block.length_differences
    adjusted = held_constant(differences, lengths, block.groups, found["p_wilcoxon"], found["p_grouped"])
    if adjusted is not None:
        found["adj_lo"], found["adj_hi"] = intervals.adj_dz if state == "adjustable" else intervals.dz
        *effect, found["equivalence_p"] = adjusted
        found |= dict(zip(("adj_mean_diff", "adj_dz", "adj_p", "adj_p_grouped"), effect, strict=True))
    if known:
        found |= _equal_length(block)
    found["cv_auroc_gain"] = heldout_gain(block, resampling.generator(scope, 2))
    return found


def _described(block: Block) -> dict[str, np.ndarray]:
    """What needs no test."""
    pairs, metrics = block.fact.shape
    differences = block.differences
    effect = dz(differences)
    return {
        "mean_fact": block.fact.mean(axis=0),
        "mean_hall": block.hall.mean(axis=0),
        "mean_diff": differences.mean(axis=0),
        "sd_diff": differences.std(axis=0, ddof=1) if pairs > 1 else np.full(metrics, np.nan),
        "dz": effect,
        "hedges_g": effect * hedges_factor(pairs),
        "auroc": auroc(block.fact, block.hall),
        "p_paired": paired_share(differences),
        "mde80": np.full(metrics, minimum_detectable_dz(pairs)),
    }


def _equal_length(block: Block) -> dict[str, np.ndarray]:
    """The pairs whose texts are equally long; nothing where they are too few."""
    equal = block.length_differences == 0
    if equal.sum() < MIN_PAIRS:
        return {}
    differences = block.differences[equal]
    spread = varies(block.fact[equal], block.hall[equal])
    found = {"equal_length_dz": dz(differences), "equal_length_p": wilcoxon(differences)}
    return {name: np.where(spread, values, np.nan) for name, values in found.items()}
