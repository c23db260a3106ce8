"""Every number of one scope but those that need the other metrics: the columns of the result before q and verdict."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from bluffscope.stats.auroc import areas, paired_share
from bluffscope.stats.effects import dz, hedges_factor, minimum_detectable_dz, varies
from bluffscope.stats.held_constant import Held, estimated, fit, hold_constant, too_wide
from bluffscope.stats.heldout import heldout_gain
from bluffscope.stats.linear_model import Design, Estimate, design, span
from bluffscope.stats.resampling import sign_flip_p, units
from bluffscope.stats.scopes import Scope, chosen_by
from bluffscope.stats.signed_rank import wilcoxon
from bluffscope.stats.study import Block, Study, numbered
from bluffscope.stats.verdicts import EQUIVALENT_DZ, MIN_PAIRS, NO_VARIANCE_BETWEEN, barring, in_words_of
from bluffscope.table.metric_pairs import not_interpretable

CORRECTED: Final = {
    "q": ("p", "adj_p"),
    "raw_q": ("p",),
    "adj_q": ("adj_p",),
    "skew_q": ("skew_p",),
    "equivalence_q": ("equivalence_p",),
}
"""Each q value and the p values of which it corrects the larger."""

_FLOAT: Final = pl.Float64()
STATS_SCHEMA: Final = pl.Schema(
    {
        **dict.fromkeys(("metric", "scope"), pl.String()),
        **dict.fromkeys(("n", "clusters"), pl.Int64()),
        **dict.fromkeys(("mean_fact", "mean_hall", "mean_diff", "sd_diff", "dz", "dz_lo", "dz_hi", "p"), _FLOAT),
        **dict.fromkeys(("adj_mean_diff", "adj_dz", "adj_lo", "adj_hi", "adj_p"), _FLOAT),
        **dict.fromkeys(("q", "raw_q", "adj_q", "skew_p", "skew_q", "equivalence_p", "equivalence_q"), _FLOAT),
        **dict.fromkeys(("length_df", "completion_df"), pl.Int64()),
        **dict.fromkeys(("hedges_g", "p_wilcoxon", "p_signflip"), _FLOAT),
        **dict.fromkeys(("linear_mean_diff", "linear_dz", "linear_p"), _FLOAT),
        **dict.fromkeys(("auroc", "auroc_lo", "auroc_hi", "p_paired", "cv_auroc_gain"), _FLOAT),
        "n_equal_length": pl.Int64(),
        **dict.fromkeys(("equal_length_dz", "equal_length_p", "mde80"), _FLOAT),
        **dict.fromkeys(("verdict", "reason"), pl.String()),
    }
)
"""Columns of the result, one row a metric and scope; docs/statistics.md says what each is."""

MEASURED: Final = tuple(name for name, kind in STATS_SCHEMA.items() if kind.is_numeric() and name not in CORRECTED)
"""What `measure_scope` fills."""

_WITHOUT_SPREAD: Final = (
    *("n", "clusters", "mean_fact", "mean_hall", "mean_diff", "sd_diff", "auroc", "auroc_lo", "auroc_hi", "p_paired"),
    *("n_equal_length", "length_df", "completion_df", "mde80", "cv_auroc_gain"),
)
"""What is given where the differences have no spread; nothing else is, and no test of it counts in a family."""


@dataclass(frozen=True)
class Resampling:
    """How much chance goes into permutation tests and detectors' folds, and from which seed."""

    repeats: int = 5
    """How often a detector's folds are drawn."""
    flips: int = 9999
    """Sign flips of the permutation test; 0 leaves it out."""
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
    barred: list[str | None]
    """Why each metric cannot be judged; None where it can."""
    held: list[str]
    """What is held constant for each metric, in words."""

    @property
    def judged(self) -> np.ndarray:
        """(metric,) whether it can be judged: these make up the family."""
        return np.array([why is None for why in self.barred], dtype=bool)


def measure_scope(study: Study, scope: Scope, resampling: Resampling) -> ScopeCells:
    """All metrics in one scope."""
    metrics = len(study.metrics)
    values = {name: np.full(metrics, np.nan) for name in MEASURED}
    barred: list[str | None] = [None] * metrics
    words = ["nothing"] * metrics
    for block in study.blocks(scope):
        spread = varies(block.fact, block.hall)
        held = hold_constant(block, study.closed_names)
        found, why = _measured(block, scope, held, resampling)
        for name, numbers in found.items():
            values[name][block.metrics] = numbers if name in _WITHOUT_SPREAD else np.where(spread, numbers, np.nan)
        pairs, clusters = len(block.rows), _number(block.groups)
        for place, metric in enumerate(block.metrics.tolist()):
            name, words[metric] = study.metrics[metric], held.what
            doubt = not_interpretable(name) or chosen_by(scope, name)
            varying = bool(spread[place])
            barred[metric] = barring(pairs, clusters, varies=varying, not_interpretable=doubt, barred=why[place])
    return ScopeCells(scope, values, barred, words)


def _measured(
    block: Block, scope: Scope, held: Held, resampling: Resampling
) -> tuple[dict[str, np.ndarray], list[str | None]]:
    """Numbers by name, (metric,) each, and why each metric has no adjusted effect."""
    pairs, metrics = block.fact.shape
    known = bool(np.isfinite(block.lengths).all())
    counts = {"n": pairs, "clusters": _number(block.groups)}
    counts |= {"n_equal_length": int((block.length_differences == 0).sum())} if known and pairs else {}
    found = {name: np.full(metrics, float(number)) for name, number in counts.items()}
    if pairs == 0:
        return found, [None] * metrics
    found |= _described(block)
    if pairs < MIN_PAIRS:
        return found, [None] * metrics
    differences = block.differences
    nothing = np.empty((pairs, 0))
    raw = estimated(design(np.ones(pairs), nothing, block.groups), differences)
    found |= {"p": raw.p, "p_wilcoxon": wilcoxon(differences)}
    found["dz_lo"], found["dz_hi"] = raw.interval()
    if resampling.flips:
        flips = resampling.generator(scope, 1)
        found["p_signflip"] = sign_flip_p(differences, units(block.groups), resampling.flips, flips)
    if known:
        straight = span(block.length_differences[:, None])
        line = estimated(design(np.ones(pairs), straight, np.arange(pairs)), differences)
        found |= {"linear_mean_diff": line.effect, "linear_dz": line.standardised, "linear_p": line.p}
        found |= _equal_length(block)
    found["cv_auroc_gain"] = heldout_gain(block, resampling.generator(scope, 2))
    adjusted, why = _adjusted(block, held, raw)
    found |= adjusted
    return found, why


def _adjusted(block: Block, held: Held, raw: Estimate) -> tuple[dict[str, np.ndarray], list[str | None]]:
    fitted = fit(np.ones(len(block.rows)), held, block.groups)
    if isinstance(fitted, str):
        return {}, [fitted] * block.fact.shape[1]
    adjusted, found, why = beside_raw(fitted, block.differences, raw, held)
    found["adj_dz"] = adjusted.standardised
    found["adj_lo"], found["adj_hi"] = adjusted.interval()
    return found, why


def beside_raw(
    fitted: Design, values: np.ndarray, raw: Estimate, held: Held
) -> tuple[Estimate, dict[str, np.ndarray], list[str | None]]:
    """The adjusted effect, the columns that it makes with the raw one, and why each metric has none.

    Args:
        fitted: the design that holds constant what is held.
        values: (row, metric) finite.
        raw: the effect where nothing is held.
        held: what is held constant.
    """
    free = fitted.estimate(values)
    wide = too_wide(free, raw)
    adjusted = free.where(~wide)
    found = {
        "adj_mean_diff": adjusted.effect,
        "adj_p": adjusted.p,
        "skew_p": np.maximum(raw.skew_p, adjusted.skew_p),
        "equivalence_p": np.maximum(raw.equivalence_p(EQUIVALENT_DZ), adjusted.equivalence_p(EQUIVALENT_DZ)),
        "length_df": np.full(len(wide), float(held.length_df)),
        "completion_df": np.full(len(wide), float(held.completion_df)),
    }
    return adjusted, found, [_no_effect(held, free, raw, place) for place in range(len(wide))]


def _no_effect(held: Held, adjusted: Estimate, raw: Estimate, place: int) -> str | None:
    if not np.isfinite(raw.error[place]):
        return in_words_of(held.of, NO_VARIANCE_BETWEEN)
    if too_wide(adjusted, raw)[place]:
        times = adjusted.error[place] / raw.error[place]
        return f"not adjustable for {held.what}: the standard error would be {times:.0f} times the raw one"
    if not np.isfinite(adjusted.error[place]):
        return f"{held.what} explains every difference"
    return None


def _number(groups: np.ndarray) -> int:
    return int(groups.max(initial=-1)) + 1


def _described(block: Block) -> dict[str, np.ndarray]:
    """What needs no test."""
    pairs, metrics = block.fact.shape
    differences = block.differences
    effect = dz(differences)
    area, lo, hi = areas(block.fact, block.hall, block.groups, block.groups)
    return {
        "mean_fact": block.fact.mean(axis=0),
        "mean_hall": block.hall.mean(axis=0),
        "mean_diff": differences.mean(axis=0),
        "sd_diff": differences.std(axis=0, ddof=1) if pairs > 1 else np.full(metrics, np.nan),
        "dz": effect,
        "hedges_g": effect * hedges_factor(pairs - 1),
        "auroc": area,
        "auroc_lo": lo if pairs >= MIN_PAIRS else np.full(metrics, np.nan),
        "auroc_hi": hi if pairs >= MIN_PAIRS else np.full(metrics, np.nan),
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
    mean = design(np.ones(len(differences)), np.empty((len(differences), 0)), numbered(block.groups[equal]))
    found = {"equal_length_dz": dz(differences), "equal_length_p": estimated(mean, differences).p}
    return {name: np.where(spread, values, np.nan) for name, values in found.items()}
