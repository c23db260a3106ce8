"""What removing features did to log-probabilities, against removing random ones; intervals over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.stats.auroc import ordering
from bluffscope.stats.linear_model import by_group
from bluffscope.stats.resampling import drawn_counts
from bluffscope.stats.resampling import ends as percentiles

CHANGE_SCHEMA: Final = pl.Schema(
    {"removed": pl.String, "of": pl.String, "mean": pl.Float64, "lo": pl.Float64, "hi": pl.Float64}
)
"""What was removed ("top", "random" for the mean of the sets, "random 1", ..., "top - random"), of what the change is
("fact" or true texts, "hall" or false ones, "difference": hall - fact), its mean over texts in nats, its 95 % interval
(groups are resampled)."""

_SIDES: Final = ("fact", "hall", "difference")
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Scored:
    """Texts with their log-probabilities before anything is removed."""

    untouched: np.ndarray
    """(text,) nats; of pairs all facts first, then their hallucinations."""
    false: np.ndarray
    """(text,) whether it is hallucinated or false; some are, some are not."""
    groups: np.ndarray
    """(text,) numbers from 0 without gaps."""
    paired: bool
    """Whether the texts are the two sides of pairs."""

    def preferred(self, logprobs: np.ndarray) -> float:
        """Share of pairs whose fact is the more probable; of labelled texts, of all true with all false ones."""
        true, false = logprobs[~self.false], logprobs[self.false]
        return float((true > false).mean()) if self.paired else ordering(false, true).area


@dataclass(frozen=True)
class AblationEffects:
    """Changes of log-probability, and what they say."""

    rows: pl.DataFrame
    """`CHANGE_SCHEMA`."""
    paired: bool
    """Whether the texts are the sides of pairs."""
    texts: tuple[int, int]
    """Facts and hallucinations, or true and false texts."""
    groups: int
    untouched: tuple[float, float]
    """Mean log-probability of facts and hallucinations with nothing removed."""
    preferred: tuple[float, float]
    """`Scored.preferred`: untouched, and without the top features."""
    removed: tuple[float, float]
    """Mean share of the residual's length that was removed: by the top features, by the random sets."""
    conclusion: str

    def of(self, removed: str, side: str) -> dict[str, Any]:
        """One row."""
        return self.rows.row(by_predicate=(pl.col("removed") == removed) & (pl.col("of") == side), named=True)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        true, false = self.texts
        number = {"pairs": true} if self.paired else {"true": true, "false": false}
        names = ("groups", "untouched", "preferred", "removed", "conclusion")
        return {**number, **{name: getattr(self, name) for name in names}, "changes": self.rows.to_dicts()}


def ablation_effects(
    texts: Scored, changed: np.ndarray, removed: Sequence[float], rng: np.random.Generator
) -> AblationEffects:
    """Compare the top features' removal with that of random ones, text by text.

    Args:
        texts: untouched.
        changed: (set, text) log-probabilities without the top features (first), and without each random set.
        removed: (set,) share of the residual's length that each removed.
        rng: draws the resamples.
    """
    top, *random = changed - texts.untouched
    usual = np.mean(random, axis=0)
    named = {"top": top, "random": usual, "top - random": top - usual}
    named |= {f"random {number}": one for number, one in enumerate(random, start=1)}
    values = np.stack(list(named.values()), axis=1)  # (text, what)
    means, ends = _by_side(values, texts, rng)
    columns = {
        "removed": np.repeat(list(named), len(_SIDES)),
        "of": _SIDES * len(named),
        **dict(zip(("mean", "lo", "hi"), (part.ravel() for part in (means, *ends)), strict=True)),
    }
    facts, halls = (texts.untouched[side].mean() for side in (~texts.false, texts.false))
    effects = AblationEffects(
        rows=pl.DataFrame(columns, schema=CHANGE_SCHEMA).with_columns(pl.col("lo", "hi").fill_nan(None)),
        paired=texts.paired,
        texts=(int((~texts.false).sum()), int(texts.false.sum())),
        groups=int(texts.groups.max()) + 1,
        untouched=(float(facts), float(halls)),
        preferred=(texts.preferred(texts.untouched), texts.preferred(changed[0])),
        removed=(float(removed[0]), float(np.mean(removed[1:]))),
        conclusion="",
    )
    return replace(effects, conclusion=_conclusion(effects))


def _by_side(values: np.ndarray, texts: Scored, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(what, side) means of (text, what) values on each of `_SIDES`, and (2, what, side) 95 % percentile intervals.

    Whole groups are resampled; with fewer than two the intervals are NaN.
    """
    number = int(texts.groups.max()) + 1
    drawn = drawn_counts(number, _RESAMPLES, rng) if number > 1 else np.ones((1, 1))  # (resample, group)
    found: list[np.ndarray] = []
    for side in (~texts.false, texts.false):
        sums = by_group(values[side], texts.groups[side], number)
        sizes = np.bincount(texts.groups[side], minlength=number)
        counts = np.concatenate([np.ones((1, number)), drawn])
        with np.errstate(invalid="ignore"):  # a resample without a text of the side has no mean
            found.append(counts @ sums / (counts @ sizes)[:, None])
    every = np.stack([*found, found[1] - found[0]], axis=2)  # (whole, then resamples; what; side)
    shape = (2, *every.shape[1:])
    ends = percentiles(every[1:].reshape(len(drawn), -1)).reshape(shape) if number > 1 else np.full(shape, np.nan)
    return every[0], ends


def _conclusion(effects: AblationEffects) -> str:
    """What the comparison says, in a sentence; a negative result as plainly as a positive one."""
    if effects.removed == (0.0, 0.0) and not (effects.rows["mean"] != 0).any():
        return "Nothing was removed, and nothing changed."
    contrast = effects.of("top - random", "difference")
    mean, lo, hi = contrast["mean"], contrast["lo"], contrast["hi"]
    if lo is None:
        return f"Too few groups of {'pairs' if effects.paired else 'texts'} for an interval: nothing is concluded."
    beyond = f"{mean:+.3f} nats (95 % {lo:+.3f} to {hi:+.3f}) beyond random active features"
    what = "log p(hallucination) - log p(fact)" if effects.paired else "log p(false) - log p(true)"
    if lo > 0:
        return f"Causal for the preference: removing them raises {what} by {beyond}."
    if hi < 0:
        return f"Causal for the preference: removing them lowers {what} by {beyond}."
    return f"No causal effect on the preference is shown: removing them moves {what} by {beyond}."
