"""Dates in many orders, and years: read from texts and compared part by part."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bluffscope.runs.ask.words import listed_words

_MONTHS: Final = listed_words("jan feb mar apr may jun jul aug sep oct nov dec")
_MONTH: Final = (
    r"(?P<{0}>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY: Final = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?\b"
_ERA: Final = r"(?:\s?(?P<era>b\.?\s?c\.?\s?e?\.?|a\.?d\.?|c\.?\s?e\.?)(?!\w))"
_YEAR: Final = rf"(?P<year>\d{{4}}(?!\d)|\d{{1,4}}(?={_ERA.replace('?P<era>', '')}))"
_NAMED: Final = _MONTH.format("month")
_PATTERNS: Final = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:the )?{_DAY} (?:of )?{_NAMED}(?:,?(?: in)? {_YEAR}{_ERA}?)?",
        rf"\b{_NAMED} (?:the )?{_DAY}(?!\d)(?:,? {_YEAR}{_ERA}?)?",
        rf"\b{_NAMED},?(?: of)? {_YEAR}{_ERA}?",
        r"(?<![\d.-])(?P<year>\d{4})[-/](?P<number>[01]?\d)[-/](?P<day>[0-3]?\d)(?![\d-])",
        r"(?<![\d.])(?P<one>[0-3]?\d)(?P<dot>[./-])(?P<two>[0-3]?\d)(?P=dot)(?P<year>\d{4})(?!\d)",
        r"(?<![\d./])(?P<number>0?[1-9]|1[0-2])/(?P<year>\d{4})(?!\d)",
        r"\b(?P<era>a\.?d\.?) ?(?P<year>\d{1,4})\b",
        rf"(?<![\w.,])(?P<year>\d{{1,4}}){_ERA}",
        r"(?<![\w.,/])(?P<year>1\d{3}|20\d\d)(?![\d,]\d|\w|/|\.\d| ?(?:%|km|kg|m|ft|miles)\b)",
    )
]


@dataclass(frozen=True, slots=True)
class Date:
    """A date, or a part of one."""

    year: int | None
    """Before Christ negative."""
    month: int | None
    day: int | None
    start: int
    end: int
    swapped: bool = False
    """Whether day and month could be the other way round (4/5/1912)."""
    open: bool = False
    """Whether it is the end of a range."""

    def __str__(self) -> str:
        return "-".join(f"{part:02d}" for part in (self.year, self.month, self.day) if part is not None)


def dates(text: str) -> list[Date]:
    """The dates of a text, in order, years alone among them."""
    found: list[Date] = []
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            if all(match.end() <= one.start or match.start() >= one.end for one in found):
                made = _made(match.groupdict(), match.start(), match.end())
                found += [] if made is None else [made]
    return _flagged(text, sorted(found, key=lambda one: one.start))


def whole(text: str, question: str) -> Date | None:
    """The date that a text is as a whole; a year alone only where the question asks for a time."""
    found = dates(text)
    around = "" if len(found) != 1 else text[: found[0].start] + text[found[0].end :]
    if len(found) != 1 or re.sub(
        r"(?i)\b(?:in|on|circa|c\.|the year|mon|tues|wednes|thurs|fri|satur|sun)(?:day)?\b", "", around
    ).strip(" .,"):
        return None
    if found[0].month is None and re.search(r"\b(?:when|years?|dates?|decade)\b", question, re.IGNORECASE) is None:
        return None if re.fullmatch(r"\d+", text.strip()) else found[0]
    return found[0]


def agree(gold: Date, given: Date) -> bool:
    """Whether a date has each part that the gold answer has."""
    return not given.open and has_parts(gold, given)


def has_parts(gold: Date, given: Date) -> bool:
    """The same, where the date may be the end of a range."""
    ways = [(given.month, given.day)] + ([(given.day, given.month)] if given.swapped else [])
    return gold.year in (None, given.year) and any(
        all(wanted is None or wanted == had for wanted, had in zip((gold.month, gold.day), way, strict=True))
        for way in ways
    )


def _made(parts: dict[str, str | None], start: int, end: int) -> Date | None:
    year = None if parts.get("year") is None else int(parts["year"] or 0)
    if year is not None and (parts.get("era") or "").lower().startswith("b"):
        year = -year
    if parts.get("one") is not None:
        one, two = int(parts["one"] or 0), int(parts["two"] or 0)
        day, month = (one, two) if two <= 12 else (two, one)
        swapped = one <= 12 and two <= 12 and parts["dot"] == "/"
    else:
        swapped = False
        day = None if parts.get("day") is None else int(parts["day"] or 0)
        named = parts.get("month")
        month = _MONTHS.index(named[:3].lower()) + 1 if named else None
        month = int(parts["number"] or 0) if parts.get("number") is not None else month
    sound = (month is None or 1 <= month <= 12) and (day is None or 1 <= day <= 31)
    return Date(year, month, day, start, end, swapped) if sound else None


def _flagged(text: str, found: list[Date]) -> list[Date]:
    """With `open` at the ends of a range, and without decades."""
    ends: set[int] = set()
    for left, right in zip(found, found[1:], strict=False):
        between = text[left.end : right.start]
        ranged = re.fullmatch(r"\s?[-\u2013\u2014]\s?|\s(?:to|through|until|till)\s", between)
        if ranged or (between == " and " and re.search(r"(?i)\b(?:between|from)\s$", text[: left.start])):
            ends |= {left.start, right.start}
    bounds = re.compile(r"(?i)\b(?:before|after|since|by|no later than|not before)\s(?:the )?$")
    return [
        Date(one.year, one.month, one.day, one.start, one.end, one.swapped, open=True)
        if one.start in ends or bounds.search(text[max(0, one.start - 30) : one.start])
        else one
        for one in found
    ]
