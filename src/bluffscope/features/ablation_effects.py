"""What removing features did to log-probabilities: paired changes against random features, intervals over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.stats.linear_model import by_group
from bluffscope.stats.resampling import drawn_counts, ends

CHANGE_SCHEMA: Final = pl.Schema(
    {"removed": pl.String, "of": pl.String, "mean": pl.Float64, "lo": pl.Float64, "hi": pl.Float64}
)
"""What was removed ("top", "random" for the mean of the sets, "random 1", ..., "top - random"), of what the change is
("fact", "hall", "difference": hall - fact), its mean over pairs in nats, its 95 % interval (groups are resampled)."""

_SIDES: Final = ("fact", "hall", "difference")
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class AblationEffects:
    """Changes of log-probability, and what they say."""

    rows: pl.DataFrame
    """`CHANGE_SCHEMA`."""
    pairs: int
    groups: int
    untouched: tuple[float, float]
    """Mean log-probability of facts and hallucinations with nothing removed."""
    preferred: tuple[float, float]
    """Share of pairs whose fact is the more probable: untouched, and without the top features."""
    removed: tuple[float, float]
    """Mean share of the residual's length that was removed: by the top features, by the random sets."""
    conclusion: str

    def of(self, removed: str, side: str) -> dict[str, Any]:
        """One row."""
        return self.rows.row(by_predicate=(pl.col("removed") == removed) & (pl.col("of") == side), named=True)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("pairs", "groups", "untouched", "preferred", "removed", "conclusion")
        return {name: getattr(self, name) for name in names} | {"changes": self.rows.to_dicts()}


def ablation_effects(
    untouched: np.ndarray, changed: np.ndarray, groups: np.ndarray, removed: Sequence[float], rng: np.random.Generator
) -> AblationEffects:
    """Compare the top features' removal with that of random ones, pair by pair.

    Args:
        untouched: (pair, 2) log-probability of fact and hallucination.
        changed: (set, pair, 2) without the top features (first), and without each random set.
        groups: (pair,) numbers from 0 without gaps.
        removed: (set,) share of the residual's length that each removed.
        rng: draws the resamples.
    """
    change = changed - untouched  # (set, pair, side)
    change = np.concatenate([change, change[:, :, 1:] - change[:, :, :1]], axis=2)
    top, random = change[0], change[1:]
    named = {"top": top, "random": random.mean(axis=0), "top - random": top - random.mean(axis=0)}
    named |= {f"random {number}": one for number, one in enumerate(random, start=1)}
    values = np.concatenate(list(named.values()), axis=1)  # (pair, what x side)
    lo, hi = _intervals(values, groups, rng)
    columns = {
        "removed": np.repeat(list(named), len(_SIDES)),
        "of": _SIDES * len(named),
        "mean": [float(column.mean()) for column in values.T],
        "lo": lo,
        "hi": hi,
    }
    table = pl.DataFrame(columns, schema=CHANGE_SCHEMA).with_columns(pl.col("lo", "hi").fill_nan(None))
    facts, halls = untouched.mean(axis=0)
    effects = AblationEffects(
        rows=table,
        pairs=len(untouched),
        groups=int(groups.max()) + 1,
        untouched=(float(facts), float(halls)),
        preferred=(_preferred(untouched), _preferred(changed[0])),
        removed=(float(removed[0]), float(np.mean(removed[1:]))),
        conclusion="",
    )
    return replace(effects, conclusion=_conclusion(effects))


def _preferred(logprobs: np.ndarray) -> float:
    """Share of pairs whose fact is the more probable."""
    return float((logprobs[:, 0] > logprobs[:, 1]).mean())


def _intervals(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2, column) 95 % percentile intervals of the means, whole groups resampled; NaN with fewer than two groups."""
    number = int(groups.max()) + 1
    if number < 2:
        return np.full((2, values.shape[1]), np.nan)
    counts = drawn_counts(number, _RESAMPLES, rng)  # (resample, group)
    sizes = np.bincount(groups, minlength=number)
    return ends(counts @ by_group(values, groups, number) / (counts @ sizes)[:, None])


def _conclusion(effects: AblationEffects) -> str:
    """What the comparison says, in a sentence; a negative result as plainly as a positive one."""
    if effects.removed == (0.0, 0.0) and not (effects.rows["mean"] != 0).any():
        return "Nothing was removed, and nothing changed."
    contrast = effects.of("top - random", "difference")
    mean, lo, hi = contrast["mean"], contrast["lo"], contrast["hi"]
    if lo is None:
        return "Too few groups of pairs for an interval: nothing is concluded."
    beyond = f"{mean:+.3f} nats (95 % {lo:+.3f} to {hi:+.3f}) beyond random active features"
    what = "log p(hallucination) - log p(fact)"
    if lo > 0:
        return f"Causal for the preference: removing them raises {what} by {beyond}."
    if hi < 0:
        return f"Causal for the preference: removing them lowers {what} by {beyond}."
    return f"No causal effect on the preference is shown: removing them moves {what} by {beyond}."
