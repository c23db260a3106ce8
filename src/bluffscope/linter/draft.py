"""A finding before ids and texts are known: checks see numbers and hashes, and say which pairs to look up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from bluffscope.pairs.readers import quoted

QUOTED_PAIRS: Final = 3
"""Pairs of a finding whose texts its sentence may quote."""
QUOTED_CHARACTERS: Final = 40


class Excerpt(NamedTuple):
    """A pair as a sentence may quote it, each text in quotes and cut short."""

    id: str
    place: str
    prompt: str
    fact: str
    hallucination: str
    ending: str
    """The piece that the fact ends with."""


class TextExcerpt(NamedTuple):
    """A labelled text as a sentence may quote it, as `Excerpt`."""

    id: str
    place: str
    text: str
    """Its prompt and completion, `'a' + 'b'`; or its only text."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A finding whose pairs are known by position only."""

    code: str
    positions: np.ndarray
    """(found,) int64, those first that the sentence quotes."""
    sentence: str
    """A template: {0.id} is the id of the first pair, {1.fact} the fact of the second, {name} one of `details`; of
    labelled texts see `TextExcerpt`."""
    details: Mapping[str, object] = field(default_factory=dict[str, object])
    scope: str | None = None

    def say(self, found: Sequence[tuple[str, ...]]) -> str:
        """The sentence, given excerpts of the first `QUOTED_PAIRS` pairs."""
        return self.sentence.format(*found, **self.details)


def short(text: str) -> str:
    """A text in quotes, cut to a length at which a sentence stays one."""
    return quoted(text, QUOTED_CHARACTERS)


def percent(share: float) -> str:
    """A share of pairs in whole per cent."""
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def p_value(p: float) -> str:
    """`p = 0.003`, `p < 1e-12`."""
    return "p < 1e-12" if p < 1e-12 else f"p = {p:.1g}"


def where(scope: str) -> str:
    """` in domain 'x'`; nothing for all pairs."""
    return "" if scope == "pooled" else f" in domain {quoted(scope)}"
