"""Columns of labels, such as yes and no or 0 and 1, where completions should stand."""

from __future__ import annotations

import re
from typing import Final, Literal

from bluffscope.pairs.readers import quoted
from bluffscope.pairs.wordbag import folded

Side = Literal["fact", "hallucination"]

LABELS: Final = frozenset(
    {
        *("yes", "no", "y", "n", "true", "false", "t", "f", "correct", "incorrect", "accurate", "inaccurate"),
        *("hallucinated", "hallucination", "not hallucinated", "no hallucination", "faithful", "unfaithful"),
        *("factual", "not factual", "non-factual", "nonfactual", "pass", "fail", "entailment", "contradiction"),
        *("neutral", "supported", "supports", "not supported", "unsupported", "refuted", "refutes", "not enough info"),
    }
)
"""What data sets call true and false, casefolded; numbers of one or two digits and fractions below 1 are labels, counts
or scores as well."""
LONGEST: Final = 24
EXAMPLES: Final = 2
_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,2}(\.0*)?|0?\.[0-9]+")
_NUMBERS: Final = frozenset(
    {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
    | {"none", "once", "twice"}
)
MAP_THEM: Final = (
    "map a column of true completions and one of false ones: --columns fact=NAME hallucination=NAME; "
    "for one labelled answer a prompt, map --columns completion=NAME label=NAME (and --labels true=... false=...)"
)
"""What to do about a column of labels."""


def labelled_side(fact: str, hallucination: str) -> Side | None:
    """Which of a pair's completions is a label while the other is none and does not answer like one.

    "No" and "Yes, it does", or 3 and "four", answer the same question: neither is a label.
    """
    if _is_label(hallucination) and not _answers_alike(fact):
        return "hallucination"
    return "fact" if _is_label(fact) and not _answers_alike(hallucination) else None


def _plain(text: str) -> str:
    return folded(text).strip(" \t\r\n.!'\"")


def _is_label(text: str) -> bool:
    return len(text) <= LONGEST and ((plain := _plain(text)) in LABELS or _NUMBER.fullmatch(plain) is not None)


def _answers_alike(text: str) -> bool:
    plain = _plain(text[: 4 * LONGEST])
    first = re.match(r"[\w'-]*", plain)
    word = first[0] if first else ""
    letter = len(plain) == 1  # F and H: multiple choice
    return letter or word in LABELS or word in _NUMBERS or plain[:1].isdigit() or plain[1:2].isdigit()


class LabelCount:
    """Counts the pairs one of whose completions is a label."""

    def __init__(self) -> None:
        self.pairs = 0
        self._labelled: dict[Side, int] = {"fact": 0, "hallucination": 0}
        self._examples: dict[Side, dict[str, None]] = {"fact": {}, "hallucination": {}}

    def add(self, fact: str, hallucination: str) -> Side | None:
        """Take in the next pair; returns its `labelled_side`."""
        self.pairs += 1
        side = labelled_side(fact, hallucination)
        if side is not None:
            self._labelled[side] += 1
            if len(seen := self._examples[side]) < EXAMPLES:
                seen[fact if side == "fact" else hallucination] = None
        return side

    def side(self) -> Side | None:
        """The column that holds labels: those of most pairs, and of more than one."""
        return next((side for side, number in self._labelled.items() if number > max(1, self.pairs / 2)), None)

    def said(self, side: Side) -> str:
        """What is wrong with that column, and what to do: a sentence without its subject and full stop."""
        examples = " and ".join(map(quoted, self._examples[side]))
        return (
            f"holds labels, not completions, in {self._labelled[side]:,} of {self.pairs:,} pairs (such as {examples}): "
            f"it seems to say whether another column is true; {MAP_THEM}"
        )
