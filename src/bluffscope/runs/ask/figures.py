"""Where a sentence gives a gold answer that is a number, a date, or the two ends of a range."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from bluffscope.runs.ask import dates, numbers
from bluffscope.runs.ask.units import unit_asked
from bluffscope.runs.ask.words import stems, words

_TURN: Final = re.compile(
    r"\b(?:but|however|actually|now|so|total|therefore|to|not|makes?|equals?|gives?)\b|[=\u2248(;]"
)
_REASON: Final = re.compile(r"\b(?:since|because|as|check|where)\b|\(", re.IGNORECASE)
_RATIO: Final = re.compile(
    r"(?:\s+(?:chances?|times?|people))?\s+(?:in|out of|to)\s+(?:every\s+)?|\s?:\s?", re.IGNORECASE
)
_NONE: Final = re.compile(r"\b(?:none|nil|nought|(?:has|have|had|are|is|with) no)\b", re.IGNORECASE)
_HUNDREDS: Final = re.compile(r"\b(\d{1,2})00s\b")


class Figure(NamedTuple):
    """Where a number or date stands that says what the gold answer says."""

    start: int
    end: int


def is_figure(gold: str, question: str) -> bool:
    """Whether a gold answer is compared as a number or a date."""
    return (
        numbers.whole(gold) is not None or dates.whole(gold, question) is not None or _ends(gold, question) is not None
    )


def figures(part: str, gold: str, question: str) -> Iterator[Figure]:
    """Where a sentence gives the number, the date or the range that a gold answer is."""
    if (ends := _ends(gold, question)) is not None:
        yield from _ranges(part, *ends, question)
    if (date := dates.whole(gold, question)) is not None:
        yield from (Figure(one.start, one.end) for one in _leading_dates(part, question) if dates.agree(date, one))
    number = numbers.whole(gold)
    if number is not None and (date is None or date.month is None):
        yield from _numbers(part, number, question)
        yield from _in_other_words(part, number, gold)


def _ends(gold: str, question: str) -> tuple[str, str] | None:
    """The two ends of a gold answer that is a range ("1914-1918", "from 6 to 8")."""
    bare = re.sub(r"(?i)^\W*(?:from|between)\s", "", gold)
    for separator in (r"\s?[-\u2013\u2014]\s?", r"\s(?:to|through|until|till|and)\s"):
        ends = re.split(separator, bare)
        if len(ends) == 2 and all(
            end[:1].isalnum() and (numbers.whole(end) or dates.whole(end, question)) for end in ends
        ):
            return ends[0], ends[1]
    return None


def _ranges(part: str, first: str, last: str, question: str) -> Iterator[Figure]:
    """The first two dates, or numbers, where they are the ends of a range in this order."""
    part = re.sub(r"\b(\d\d)(\d\d\s?[-\u2013/]\s?)(\d\d)(?!\d)", r"\1\2\1\3", part)
    wanted = [dates.whole(end, "when") for end in (first, last)]
    said = dates.dates(part)[:2]
    if wanted[0] is not None and wanted[1] is not None:
        pairs = list(zip(wanted, said, strict=False))
        if len(said) == 2 and all(gold is not None and dates.has_parts(gold, one) for gold, one in pairs):
            yield Figure(said[0].start, said[1].end)
        return
    ends = [numbers.whole(end) for end in (first, last)]
    given = numbers.quantities(part)[:2]
    asked = unit_asked(question)
    if len(given) == 2 and all(
        gold is not None and numbers.near(gold, one, asked) for gold, one in zip(ends, given, strict=True)
    ):
        yield Figure(given[0].start, given[1].end)


def _leading_dates(part: str, question: str) -> list[dates.Date]:
    """The dates of a sentence that may be its answer: the first that is no range, and those after a contrast.

    Where the words before one of them are the question's ("born in 1756, he died in 1791"), it is that one.
    """
    asked = {str(one) for one in dates.dates(question)}
    found = [one for one in dates.dates(part) if str(one) not in asked and not one.open]
    verbs = stems([word for word in words(question)[1:] if not word.capital])
    about = [
        len(verbs & stems(words(part[start : one.start])))
        for start, one in zip([0, *(one.end for one in found)], found, strict=False)
    ]
    if found and max(about) > about[0]:
        return [found[about.index(max(about))]]
    return [
        one for number, one in enumerate(found) if number == 0 or _TURN.search(part[found[number - 1].end : one.start])
    ]


def _numbers(part: str, gold: numbers.Quantity, question: str) -> Iterator[Figure]:
    """The first number of a sentence that is no number of the question, the last result, and those after a contrast."""
    asked = unit_asked(question)
    own = {(one.value, one.unit) for one in numbers.quantities(question)}
    spans = [(one.start, one.end) for one in dates.dates(part) if one.month is not None or (one.year or 0) < 0]
    every = [
        one
        for one in numbers.quantities(part)
        if not any(start <= one.start < end for start, end in spans)
        and not (_is_year(part, one) and not 1000 <= gold.value <= 2100)
    ]
    found = [one for one in every if (one.value, one.unit) not in own] or every
    result = _result(part, found)
    previous: numbers.Quantity | None = None
    for one in found:
        if one.start < result:
            continue
        if numbers.agree(gold, one, asked) and (
            previous is None or _TURN.search(part[previous.end : one.start]) is not None
        ):
            yield Figure(one.start, one.end)
        other = gold.unit is not None and one.unit is not None and gold.unit.kind != one.unit.kind
        if not one.open and not other:
            previous = one


def _result(part: str, found: list[numbers.Quantity]) -> int:
    """Where the right side of a sentence's last equation begins; 0 where it has none before its reasons."""
    reason = next(
        (one.start() for one in _REASON.finditer(part) if any(q.end <= one.start() for q in found)), len(part)
    )
    at = max(part.rfind(sign, 0, reason) for sign in "=\u2248")
    return at if at >= 0 and any(at < one.start < reason for one in found) else 0


def _is_year(part: str, one: numbers.Quantity) -> bool:
    """Whether a number is the year of something."""
    said = re.search(r"\b(?:in|since|by|from|until|of|year)\s$", part[: one.start], re.IGNORECASE)
    return said is not None and one.unit is None and 1000 <= one.value <= 2100 and one.value == int(one.value)


def _in_other_words(part: str, gold: numbers.Quantity, text: str) -> Iterator[Figure]:
    """None for 0, one in six for 1/6, a year for its decade, the 1800s for the 19th century."""
    if gold.value == 0 and gold.unit is None:
        yield from (Figure(*found.span()) for found in _NONE.finditer(part))
    if 0 < gold.value < 1 or (gold.unit is not None and gold.unit.kind == "share"):
        yield from _ratios(part, gold)
    if re.search(r"\d0s$", text.strip()) or "decade" in text:
        yield from (
            Figure(one.start, one.end)
            for one in dates.dates(part)[:1]
            if one.year is not None and one.year // 10 * 10 == gold.value
        )
    if "century" in text and gold.value > 2:
        yield from (Figure(*found.span()) for found in _HUNDREDS.finditer(part) if int(found[1]) + 1 == gold.value)


def _ratios(part: str, gold: numbers.Quantity) -> Iterator[Figure]:
    found = numbers.quantities(part)
    for above, below in zip(found, found[1:], strict=False):
        if below.value and _RATIO.fullmatch(part[above.end : below.start]):
            share = numbers.Quantity(above.value / below.value, None, above.start, below.end, 0.0)
            if numbers.agree(gold, share, None):
                yield Figure(share.start, share.end)


def agree_anywhere(text: str, gold: str) -> bool:
    """Whether a text has a number that says what a gold answer says."""
    number = numbers.whole(gold)
    return number is not None and any(numbers.agree(number, one, None) for one in numbers.quantities(text))
