"""What the effect on labelled texts is measured at: domains, closed answers, and lengths of text and prompt."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np

from bluffscope.pairs.groups import CLOSED_PAIRS
from bluffscope.stats.effects import NO_SPREAD
from bluffscope.stats.held_constant import MIN_EACH_SIDE, Held
from bluffscope.stats.length_functions import length_basis
from bluffscope.stats.linear_model import design, span
from bluffscope.stats.text_study import TextBlock

Form = Literal["spline", "linear", "log"]
FEWEST_OF_A_LABEL: Final = 10
"""Texts that each label needs."""
_MEASURED: Final = ("length", "the prompt's length")


class TextColumns(NamedTuple):
    """What is held constant, (text, column) each."""

    level: np.ndarray
    """Orthonormal: a level for each domain."""
    wording: np.ndarray
    """Ones where the text is a closed completion that at least `CLOSED_PAIRS` texts are."""
    length: np.ndarray
    """Functions of the lengths of text and prompt."""
    answers: np.ndarray
    """(completion,) numbers of the closed completions."""

    @property
    def together(self) -> np.ndarray:
        """(text, rank) orthonormal columns that span them all."""
        return span(np.column_stack([self.level, self.wording, self.length]))


def nothing_held(texts: int) -> Held:
    """Only the level that all texts share."""
    return Held(np.full((texts, 1), 1 / np.sqrt(texts)), of="texts")


def text_columns(block: TextBlock, form: Form = "spline") -> TextColumns:
    """The columns of a block; its lengths are finite, those of texts above 0 where the form is "log"."""
    answers, times = np.unique(block.closed[block.closed >= 0], return_counts=True)
    answers = answers[times >= CLOSED_PAIRS]
    level = span((block.domains[:, None] == np.unique(block.domains)).astype(float))
    lengths = block.lengths
    if form == "spline":
        lengths = np.column_stack([length_basis(column, block.domains) for column in lengths.T])
    elif form == "log":  # a prompt may have no token
        lengths = np.column_stack([np.log(lengths[:, 0]), np.log1p(lengths[:, 1:])])
    return TextColumns(level, (block.closed[:, None] == answers).astype(float), lengths, answers)


def hold_texts(
    block: TextBlock, names: tuple[str, ...] = (), form: Form = "spline", further: np.ndarray | None = None
) -> Held:
    """The columns that are held constant for the texts of a block, or why the effect cannot be told from theirs.

    Args:
        block: lengths, domains and closed completions of its texts.
        names: the closed completions by their numbers, for reasons.
        form: how length enters.
        further: (text,) one more column.
    """
    if not np.isfinite(block.lengths).all():
        return _barred("lengths unknown, so that length cannot be ruled out")
    if form == "log" and (block.lengths[:, 0] <= 0).any():
        return _barred("a text of length 0 has no logarithm")
    columns, target = text_columns(block, form), block.false.astype(float)
    alone = np.arange(len(target))
    if design(target, columns.level, alone) == "unidentified":
        return _barred("the domain gives the label away: none has true and false texts")
    worded = span(np.column_stack([columns.level, columns.wording]))
    if columns.answers.size and design(target, worded, alone) == "unidentified":
        texts = [repr(names[number]) for number in columns.answers[:4] if number < len(names)]
        shown = f" ({', '.join(texts)}{', ...' * (len(columns.answers) > 4)})" if texts else ""
        why = f"the completion gives the label away{shown}: its effect cannot be told from that of truth"
        return _barred(f"{why}; balance which answer is right")
    for lengths, what in zip(block.lengths.T, _MEASURED, strict=False):
        if _apart(lengths, block.false):
            few = f"fewer than {MIN_EACH_SIDE} true texts, or fewer than {MIN_EACH_SIDE} false ones, have"
            return _barred(f"not adjustable for {what}: {few} one between those of the other label")
    together = columns.together if further is None else span(np.column_stack([columns.together, further]))
    completion_df = worded.shape[1] - columns.level.shape[1]
    return Held(together, columns.together.shape[1] - worded.shape[1], completion_df, of="texts")


def texts_vary(values: np.ndarray) -> np.ndarray:
    """(metric,) whether (text, metric) values spread by more than rounding."""
    return values.std(axis=0) > NO_SPREAD * np.abs(values).max(axis=0)


def few_texts(number: int) -> str:
    """What is said of fewer texts of a label than can be tested."""
    return f"only {number} text{'s' * (number != 1)} of a label, fewer than {FEWEST_OF_A_LABEL}"


def _apart(lengths: np.ndarray, false: np.ndarray) -> bool:
    """Whether nearly all texts of a label are shorter, or longer, than all of the other: nothing compares them."""
    sides = lengths[~false], lengths[false]
    pairs = zip(sides, reversed(sides), strict=True)
    return any(((one >= other.min()) & (one <= other.max())).sum() < MIN_EACH_SIDE for one, other in pairs)


def _barred(why: str) -> Held:
    return Held(np.empty((0, 0)), barred=why, of="texts")
