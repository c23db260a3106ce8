"""Prompts that say nearly the same, and of which a completion is true for one and false for the other."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np

from bluffscope.linter.draft import short
from bluffscope.linter.findings import Finding
from bluffscope.linter.profile import Profile
from bluffscope.linter.words import negated, words
from bluffscope.pairs.readers import quoted
from bluffscope.records import LabelledText, Pair

MOST: Final = 20_000
"""Pairs whose prompts are compared; of more, the first."""
MOST_ALIKE: Final = 200
"""Prompts that may share even the rarest word of a prompt, which keeps the time linear: one of commoner words is made
by a template, and is not compared."""
LONGEST: Final = 60
"""Words of a prompt; longer ones are not compared."""
FEWEST: Final = 2
"""Words that prompts must have in common."""
MORE: Final = 2
"""Words that one prompt may have beyond the other's, and no more than half as many as they share."""
PASSED_OVER: Final = frozenset(
    {"a", "an", "the", "is", "are", "was", "were", "in", "of", "at", "on", "it", "that", "this", "do", "does", "did"}
)
_RANKED: Final = re.compile(r".*\d.*|.+est|first|second|third|fourth|fifth|most|least|only|un.+|non.*", re.DOTALL)
"""Words by which a prompt asks for something else, as a negation or a name does."""


class Claims(NamedTuple):
    """What is said of prompts, as hashes: what `near_contradictions` needs of a profile."""

    prompts: np.ndarray
    """(item,) uint64."""
    completions: np.ndarray
    """(item, 2) uint64: what is true and what is false; of a labelled text, one of the two is a hash of its own."""


def candidates(profile: Profile | Claims) -> np.ndarray:
    """(found,) positions of pairs that share a completion with another, true for one and false for the other."""
    true, false = profile.completions.T
    found = np.isin(true, false) | np.isin(false, true)
    return np.flatnonzero(found)[:MOST]


def near_contradictions(
    profile: Profile | Claims, named: Mapping[int, Pair] | Mapping[int, LabelledText]
) -> Iterator[Finding]:
    """A completion that is true for one prompt and false for another which has the same words but for one or two.

    Args:
        profile: what is known of the pairs.
        named: the `candidates`, by position.
    """
    content = {position: _content(pair.prompt) for position, pair in named.items()}
    holding: defaultdict[str, list[int]] = defaultdict(list)
    for position, found in content.items():
        for word in dict.fromkeys(found):
            holding[word.casefold()].append(position)
    for position, found in content.items():
        if len(found) < FEWEST:
            continue
        alike = min((holding[word.casefold()] for word in found), key=len)
        for other in alike if len(alike) <= MOST_ALIKE else ():
            # The shorter of two looks for the longer; of prompts that are as long the first for the second.
            longer = (len(found), position) < (len(content[other]), other)
            claim = _crossing(profile, position, other) if longer else 0
            if claim and _nearly_the_same(found, content[other]):
                yield _finding(named[position], named[other], claim == 1)


def _content(prompt: str) -> list[str]:
    if len(prompt) > 20 * LONGEST:
        return []
    found = [word for word in words(prompt, fold=False) if word.casefold() not in PASSED_OVER]
    return found if len(found) <= LONGEST else []


def _crossing(profile: Profile | Claims, one: int, other: int) -> int:
    """1: one's fact is the other's hallucination; 2: the reverse; 0: neither, or the prompts are the same."""
    if profile.prompts[one] == profile.prompts[other]:
        return 0
    (true, false), (true_there, false_there) = profile.completions[one], profile.completions[other]
    return 1 if true == false_there else 2 if false == true_there else 0


def _nearly_the_same(fewer: list[str], more: list[str]) -> bool:
    """Whether `more` is `fewer`, in its order, with a few words in between that make no other question of it."""
    if len(more) - len(fewer) > min(MORE, len(fewer) // 2):
        return False
    rest: list[tuple[int, str]] = []
    waiting = iter(fewer)
    next_word = next(waiting, None)
    for place, word in enumerate(more):
        if next_word is not None and word.casefold() == next_word.casefold():
            next_word = next(waiting, None)
        else:
            rest.append((place, word))
    if next_word is not None:
        return False
    return not any(
        negated(word) or _RANKED.fullmatch(word.casefold()) or (place > 0 and word[0].isupper()) for place, word in rest
    )


def _finding(one: Pair | LabelledText, other: Pair | LabelledText, true_first: bool) -> Finding:
    if isinstance(one, LabelledText):
        noun, claim = "text", one.completion
    else:
        noun, claim = "pair", one.fact if true_first else one.hallucination
    said, there = ("true", "false") if true_first else ("false", "true")
    message = (
        f"{short(claim)} is {said} in {noun} {quoted(one.id)} and {there} in {noun} {quoted(other.id)}, whose prompts "
        f"are nearly the same: {short(one.prompt)} and {short(other.prompt)}; keep the {noun} that is right, or say in "
        "the prompts what differs."
    )
    both = sorted((one, other), key=lambda pair: pair.index)
    return Finding("near-contradiction", message, tuple(pair.id for pair in both), tuple(pair.index for pair in both))
