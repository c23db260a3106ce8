"""What the effect is measured at: texts of equal length, and of equal wording where answers come from a closed set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bluffscope.pairs.groups import CLOSED_PAIRS
from bluffscope.stats.length_functions import length_columns
from bluffscope.stats.linear_model import Design, Estimate, design, span
from bluffscope.stats.scopes import Of
from bluffscope.stats.study import Block

MIN_EACH_SIDE: Final = 10
"""Pairs that are needed at dL <= 0, and at dL >= 0: else the effect at equal lengths is an extrapolation."""
MOST_ERROR: Final = 4.0
"""An adjusted effect whose standard error is more than so many times the raw one's is no measurement."""


@dataclass(frozen=True)
class Held:
    """The columns that are held constant in a block, or why the effect cannot be told from theirs."""

    columns: np.ndarray
    """(pair, rank) orthonormal; no column where nothing needs holding."""
    length_df: int = 0
    """Degrees of freedom of length."""
    completion_df: int = 0
    """Further ones of closed completions."""
    barred: str | None = None
    """Why nothing can be said at equal length and wording; a sentence without its end."""
    of: Of = "pairs"
    """What the rows are."""

    @property
    def what(self) -> str:
        """In words: "length", "the completion", both, or nothing at all."""
        names = [name for name, used in (("length", self.length_df), ("the completion", self.completion_df)) if used]
        return " and ".join(names) or "nothing"


def hold_constant(block: Block, names: tuple[str, ...] = ()) -> Held:
    """The columns of length and of closed completions for the pairs of a block.

    Args:
        block: lengths, domains and closed completions of its pairs.
        names: the closed completions by their numbers, for reasons.
    """
    pairs = len(block.rows)
    nothing = np.empty((pairs, 0))
    wording, used = completion_columns(block.closed)
    completions = span(wording)
    ones = np.ones(pairs)
    if completions.shape[1] and design(ones, completions, np.arange(pairs)) == "unidentified":
        texts = ", ".join(repr(names[number]) for number in used[:4] if number < len(names))
        shown = f" ({texts}{', ...' if len(used) > 4 else ''})" if texts else ""
        why = f"the completion gives the label away{shown}: its effect cannot be told from that of truth"
        return Held(nothing, barred=f"{why}; balance which answer is right")
    if not np.isfinite(block.lengths).all():
        return Held(nothing, barred="lengths unknown, so that length cannot be ruled out")
    if one_sided(block.length_differences):
        return Held(
            nothing,
            barred=f"not adjustable for length: fewer than {MIN_EACH_SIDE} pairs have a hallucination no longer than "
            f"the fact, or fewer than {MIN_EACH_SIDE} one no shorter",
        )
    together = span(np.column_stack([length_columns(block.lengths, block.domains), wording]))
    return Held(together, together.shape[1] - completions.shape[1], completions.shape[1])


def one_sided(differences: np.ndarray) -> bool:
    """Whether zero lies at the edge of (pair,) differences that are not all 0, or beyond."""
    sides = (differences <= 0).sum(), (differences >= 0).sum()
    return bool(differences.any()) and min(sides) < MIN_EACH_SIDE


def completion_columns(closed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pair, completion) +1 where it is the hallucination, -1 where it is the fact; and (completion,) their numbers.

    Those that stand in at least `CLOSED_PAIRS` of the pairs: fewer cannot carry a coefficient of their own.

    Args:
        closed: (pair, 2) number of the closed completion that fact and hallucination is; -1 for none.
    """
    hall, fact = (closed[:, side, None] == np.arange(closed.max(initial=-1) + 1) for side in (1, 0))
    used = np.flatnonzero((hall | fact).sum(axis=0) >= CLOSED_PAIRS)
    return hall[:, used].astype(float) - fact[:, used], used


def fit(target: np.ndarray, held: Held, clusters: np.ndarray) -> Design | str:
    """The design that measures the target's coefficient with `held` constant, or why there is none."""
    if held.barred is not None:
        return held.barred
    found = design(target, held.columns, clusters)
    if found == "unidentified":
        return f"{held.what} gives the label away: its effect cannot be told from that of truth"
    if found == "one cluster":
        return f"one cluster alone tells the effect from that of {held.what}"
    if found == "no freedom":
        return f"too few {held.of} or clusters to hold {held.what} constant"
    return found


def estimated(fitted: Design | str, values: np.ndarray) -> Estimate:
    """The estimate for (row, metric) values; all undefined where there is no design."""
    if isinstance(fitted, str):
        nothing = np.full(values.shape[1], np.nan)
        return Estimate(nothing, nothing, nothing, nothing, 1, 1.0)
    return fitted.estimate(values)


def too_wide(adjusted: Estimate, raw: Estimate) -> np.ndarray:
    """(metric,) whether holding constant leaves too little to measure by."""
    return adjusted.error > MOST_ERROR * raw.error
