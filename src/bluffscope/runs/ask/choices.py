"""Questions that hold their answer ("Which is larger, X or Y?"): what they offer, and what a sentence picks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from bluffscope.runs.ask.words import word_set, words

_OFFER: Final = re.compile(r"([\w' -]+?)(?:,([\w' -]+))?,? or ([\w' -]+)")
_CONCLUSION: Final = re.compile(r"\b(?:so|therefore|thus|hence|which means|meaning)\b", re.IGNORECASE)
_BOTH: Final = re.compile(
    r"\b(?:of|between|comparing|compared (?:to|with)|unlike|in contrast to|whereas|while)\s[\w' -]+,", re.IGNORECASE
)
_MORE: Final = word_set(
    "larger bigger greater faster quicker older taller higher longer heavier hotter warmer more farther further deeper "
    "denser stronger wider later louder harder thicker brighter richer"
)
_LESS: Final = word_set(
    "smaller slower younger shorter lower lighter colder cooler less fewer nearer closer shallower weaker narrower "
    "earlier quieter softer thinner darker poorer"
)
_LESS_THAN: Final = re.compile(r"\b(?:not|n't) (?:as|so|quite as|nearly as) \w+ as\b|\bless \w+ than\b", re.IGNORECASE)


def offered(question: str) -> list[str]:
    """The choices of a question; empty where it has none."""
    found = _OFFER.search(question)
    return [] if found is None else [item.strip() for item in found.groups() if item]


def picked(sentence: str, question: str, starts: Callable[[str], Iterable[int]]) -> int | None:
    """Where the choice that a sentence picks begins; None where it names none.

    It is the first one of the conclusion, or the other one after the opposite comparison ("smaller than" where the
    question asks for the larger one).

    Args:
        sentence: the sentence.
        question: the question.
        starts: where a text, as long as the sentence, names a choice.
    """
    text = _BOTH.sub(lambda found: "_" * len(found[0]), sentence)
    for found in reversed(list(_CONCLUSION.finditer(text))):
        rest = "_" * found.end() + text[found.end() :]
        if any(True for _ in starts(rest)):
            text = rest
            break
    places = sorted(set(starts(text)))
    if not places:
        return None
    return places[1] if len(places) > 1 and _opposite(text[places[0] : places[1]], question) else places[0]


def _opposite(between: str, question: str) -> bool:
    said, asked = ({word.norm for word in words(text)} for text in (between, question))
    if _LESS_THAN.search(between):
        return True
    if re.search(r"\bthan\b", between) is None:
        return False
    return bool((said & _LESS and asked & _MORE) or (said & _MORE and asked & _LESS))
