"""Numbers in digits and in words, with their units; and whether one says what another says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Final

from bluffscope.runs.ask.units import BEFORE, Unit, unit_after
from bluffscope.runs.ask.words import NUMERALS, ROMAN, listed_words

_SPACES: Final = "\u00a0\u202f\u2009"
_DIGITS: Final = re.compile(
    rf"(?<![\w.,])(?P<minus>(?:minus |[-\u2212](?<!\w[-\u2212])))?(?:(?P<sign>US\$|[$\u20ac\u00a3\u00a5]) ?)?"
    rf"(?P<body>\d{{1,3}}(?:[,{_SPACES} ]\d{{3}})+(?:\.\d+)?(?!\d)|\d{{1,3}}(?:\.\d{{3}}){{2,}}(?:,\d+)?(?!\d)"
    r"|\d+(?:[.,]\d+)?|\.\d+)(?P<ordinal>st|nd|rd|th)?(?P<over> ?/ ?\d+)?(?P<glyph>[\u00bd\u00bc\u00be\u2153\u2154])?",
    re.IGNORECASE,
)
_GLYPHS: Final = {"\u00bd": 1 / 2, "\u00bc": 1 / 4, "\u00be": 3 / 4, "\u2153": 1 / 3, "\u2154": 2 / 3}
_SCALES: Final = {
    **{"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "dozen": 12.0},
    **{"k": 1e3, "bn": 1e9, "mn": 1e6, "mio": 1e6},
}
_SCALE: Final = re.compile(rf"[ -]?({'|'.join(_SCALES)}|m(?=\W|$)|b(?=\W|$))s?(?![\w/])", re.IGNORECASE)
_TENS: Final = dict(
    zip(listed_words("twenty thirty forty fifty sixty seventy eighty ninety"), range(20, 100, 10), strict=True)
)
_TENTHS: Final = {name[:-1] + "ieth": value for name, value in _TENS.items()}
_PARTS: Final = {
    **{"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4},
    **{"fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8, "tenth": 10, "tenths": 10},
}
_VALUES: Final = {word: int(value) for word, value in NUMERALS.items()} | _TENS | _TENTHS
_ORDINAL: Final = frozenset(word for word in NUMERALS if word.endswith(("th", "st", "nd", "rd"))) | set(_TENTHS)
_BIG: Final = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NUMBER_WORD: Final = "|".join(sorted({*_VALUES, *_BIG}, key=len, reverse=True))
_SPELT: Final = re.compile(
    rf"\b(?:(?P<minus>minus) )?(?P<one>an? (?=hundred|thousand|million|billion|trillion))?"
    rf"(?P<body>(?:{_NUMBER_WORD})(?:(?: and |[ -])(?:{_NUMBER_WORD}))*)\b",
    re.IGNORECASE,
)
_PART: Final = re.compile(
    rf"\b(?:(?P<one>an?|one|two|three|four|five|seven|nine) )?(?P<part>{'|'.join(_PARTS)})\b", re.IGNORECASE
)
_AND_HALF: Final = re.compile(r"\b(?:an?|one) (\w+) and a half\b", re.IGNORECASE)
_HALF_AN: Final = re.compile(r"\bhalf an? (hour|mile|minute|day|kilo\w*|pound|ton\w*)\b", re.IGNORECASE)
_DOZEN: Final = re.compile(rf"\b(?:(?P<half>half a )|(?:(?P<many>an?|{'|'.join(NUMERALS)}) ))dozen\b", re.IGNORECASE)
_CENTURY: Final = re.compile(r"\b(?P<roman>[IVX]+)(?:th|st|nd|rd)?(?= (?:century|c\.))")
_DECADE: Final = re.compile(
    rf"(?:\bthe |\b(?P<first>eighteen|nineteen)[ -])(?P<word>{'|'.join(name[:-1] + 'ies' for name in _TENS)})\b|"
    r"(?<!\d)(?:\bthe |['\u2019])['\u2019]?(?P<tens>[1-9]0)['\u2019]?s\b",
    re.IGNORECASE,
)
_BOUND: Final = re.compile(
    r"\b(?:(?:more|less|fewer|greater|larger|smaller|higher|lower) than|over|under|at least|at most|up to|"
    r"almost|nearly|above|below|"
    r"exceed\w*)\s(?:the |a |an )?$|[<>\u2264\u2265]\s?$",
    re.IGNORECASE,
)
_RANGE: Final = r"(?:\s?[-\u2013\u2014\u2212]\s?|\s(?:to|through|until|till)\s)"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in a text."""

    value: float
    """As written, in `unit`."""
    unit: Unit | None
    start: int
    end: int
    step: float
    """What its last digit stands for; 0 for a count, which is exact."""
    open: bool = False
    """Whether it is a bound or an end of a range ("more than 8", "7-9")."""

    @property
    def base(self) -> float:
        """In the base unit of its kind."""
        return self.value if self.unit is None else self.value * self.unit.factor + self.unit.offset

    def __str__(self) -> str:
        number = f"{self.base:.6g}" if self.unit is not None else f"{self.value:.12g}"
        return number if self.unit is None else f"{number} {self.unit.kind}"


def quantities(text: str) -> list[Quantity]:
    """The numbers of a text, in order; compound ones (1 hour 30 minutes) are one."""
    text = text.translate({ord(space): " " for space in _SPACES})
    found = _in_idioms(text)
    taken = [(one.start, one.end) for one in found]
    for one in (*_in_digits(text), *_in_parts(text), *_in_words(text)):
        if all(one.end <= start or one.start >= end for start, end in taken):
            found.append(one)
            taken.append((one.start, one.end))
    found.sort(key=lambda one: one.start)
    return _flagged(text, _compounds(text, found))


def whole(text: str) -> Quantity | None:
    """The number that a text as a whole is, but for a small-lettered noun that is counted; None where it is none."""
    found = quantities(text)
    if len(found) != 1 or found[0].open:
        return None
    left, right = text[: found[0].start].strip(), text[found[0].end :].strip(" .")
    lead = left == "" or left.lower() in (
        "about",
        "approximately",
        "around",
        "circa",
        "ca.",
        "c.",
        "~",
        "the",
        "roughly",
    )
    return found[0] if lead and re.fullmatch(r"[a-z]*(?: [a-z]+)?", right) else None


def agree(gold: Quantity, given: Quantity, asked: Unit | None) -> bool:
    """Whether a number says what the gold answer says, to within half of the gold answer's last digit.

    Args:
        gold: the right number.
        given: that of the answer.
        asked: the unit that the question wants, which a gold answer without one is in.
    """
    return not given.open and near(gold, given, asked)


def near(gold: Quantity, given: Quantity, asked: Unit | None) -> bool:
    """The same, where the number may be the end of a range."""
    if gold.unit is None and asked is not None:
        gold = replace(gold, unit=asked)
    if gold.unit is None or given.unit is None:
        share = next((one for one in (gold, given) if one.unit is not None and one.unit.kind == "share"), None)
        other = given if share is gold else gold
        if share is not None and _near(other.value, share.base, gold.step * 0.01 / 2):
            return True
        return (share is not given or given.value != gold.value) and _near(given.value, gold.value, gold.step / 2)
    if gold.unit.kind != given.unit.kind:
        return False
    return _near(given.base, gold.base, gold.step * gold.unit.factor / 2)


def _near(left: float, right: float, within: float) -> bool:
    return abs(left - right) <= within * (1 + 1e-9) + 1e-9 * max(abs(left), abs(right))


def _in_digits(text: str) -> list[Quantity]:
    made: list[Quantity] = []
    for found in _DIGITS.finditer(text):
        body = found["body"].replace(" ", "")
        value, decimals = _read(body)
        end, scale = found.end(), 1.0
        if found["over"] and (below := int(found["over"].strip(" /"))):
            value, decimals = value / below, 9
        elif found["glyph"]:
            value, decimals = value + _GLYPHS[found["glyph"]], 9
        sign = found["sign"] or ""
        more = _SCALE.match(text, end)
        if more and (sign or more[1].lower() not in ("m", "b")) and not more[0].startswith((" k", " K")):
            scale = {"m": 1e6, "b": 1e9}.get(more[1].lower()) or _SCALES[more[1].lower()]
            end = more.end()
        unit, end = (BEFORE[sign[-1]], end) if sign else unit_after(text, end)
        step = 10.0**-decimals * scale if decimals or scale > 1 or unit is not None else 0.0
        value = -value if found["minus"] else value
        made.append(Quantity(value * scale, unit, found.start(), end, step))
    made += [
        Quantity(_GLYPHS[g[0]], None, g.start(), g.end(), 0.0)
        for g in re.finditer("(?<!\\d)[\u00bd\u00bc\u00be\u2153\u2154]", text)
    ]
    return made


def _read(body: str) -> tuple[float, int]:
    """The value of digits with separators, and the number of decimals."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", body):
        body = body.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?", body):
        body = body.replace(".", "").replace(",", ".")
    body = body.replace(",", ".")
    return float(body), len(body.partition(".")[2])


def _in_idioms(text: str) -> list[Quantity]:
    """Dozens, centuries in Roman numerals, and decades of the last century but one or two."""
    made: list[Quantity] = []
    for found in _DOZEN.finditer(text):
        many = 0.5 if found["half"] else float(NUMERALS.get(found["many"].lower(), 1))
        made.append(Quantity(12 * many, None, found.start(), found.end(), 0.0))
    for found in _CENTURY.finditer(text):
        if (value := ROMAN.get(found["roman"])) is not None:
            made.append(Quantity(float(value), None, found.start(), found.end(), 0.0))
    for found in _DECADE.finditer(text):
        first = 1800 if (found["first"] or "").lower() == "eighteen" else 1900
        tens = int(found["tens"]) if found["tens"] else _TENS[found["word"].lower()[:-3] + "y"]
        made.append(Quantity(float(first + tens), None, found.start(), found.end(), 0.0))
    return made


def _in_parts(text: str) -> list[Quantity]:
    """Fractions in words."""
    made: list[Quantity] = []
    for pattern, value in ((_AND_HALF, 1.5), (_HALF_AN, 0.5)):
        for found in pattern.finditer(text):
            unit, _ = unit_after(found[1], 0)
            if unit is not None:
                made.append(Quantity(value, unit, found.start(), found.end(), 0.1))
    for found in _PART.finditer(text):
        if found["one"] is None and found["part"].lower() not in ("half", "quarter"):
            continue  # "third" alone is an ordinal
        above = 1 if (found["one"] or "a").lower() in ("a", "an", "one") else _VALUES[found["one"].lower()]
        unit, end = unit_after(text, found.end())
        made.append(Quantity(above / _PARTS[found["part"].lower()], unit, found.start(), end, 0.0))
    return made


def _in_words(text: str) -> list[Quantity]:
    made: list[Quantity] = []
    for found in _SPELT.finditer(text):
        if (value := _spelt(found["body"].lower())) is None:
            continue
        value = -value if found["minus"] else value
        unit, end = unit_after(text, found.end())
        scale = next(
            (big for name, big in reversed(_BIG.items()) if big > 100 and found["body"].lower().endswith(name)), 1
        )
        step = float(scale) if scale > 1 or unit is not None else 0.0
        made.append(Quantity(float(value), unit, found.start(), end, step))
    return made


def _spelt(body: str) -> int | None:
    """The value of number words; of a year as it is spoken too. None for words that make no number."""
    parts = [part for part in re.split(r"[ -]", body) if part != "and"]
    if parts and parts[-1] in _ORDINAL and len(parts) == 1:
        return _VALUES[parts[0]]
    if (year := _spoken_year(parts)) is not None:
        return year
    total = current = 0
    for part in parts:
        if part == "hundred":
            current = max(current, 1) * 100
        elif part in _BIG:
            total, current = total + max(current, 1) * _BIG[part], 0
        elif current % 100 and not (current % 100 >= 20 and current % 10 == 0 and _VALUES[part] < 10):
            return None
        else:
            current += _VALUES[part]
    return total + current


def _spoken_year(parts: list[str]) -> int | None:
    """Fourteen ninety-two, nineteen oh five is not read."""
    if len(parts) not in (2, 3) or any(part in _BIG for part in parts):
        return None
    first, rest = _VALUES[parts[0]], [_VALUES[part] for part in parts[1:]]
    spoken = rest[0] if len(rest) == 1 else rest[0] + rest[1] if rest[0] >= 20 and rest[1] < 10 else -1
    return first * 100 + spoken if (10 <= first <= 19 or first == 20) and 10 <= spoken <= 99 else None


def _compounds(text: str, found: list[Quantity]) -> list[Quantity]:
    """With 5 ft 10 in as one."""
    made: list[Quantity] = []
    for one in found:
        last = made[-1] if made else None
        if (
            last is not None
            and last.unit is not None
            and one.unit is not None
            and last.unit.kind == one.unit.kind in ("length", "time", "mass", "span")
            and last.unit.factor > one.unit.factor
            and re.fullmatch(r",? (?:and )?", text[last.end : one.start])
            and one.base < last.unit.factor
        ):
            value = last.value + one.base / last.unit.factor
            made[-1] = replace(last, value=value, end=one.end, step=one.step * one.unit.factor / last.unit.factor)
        else:
            made.append(one)
    return made


def _flagged(text: str, found: list[Quantity]) -> list[Quantity]:
    """With `open` where a number is a bound or the end of a range."""
    ends: set[int] = set()
    for left, right in zip(found, found[1:], strict=False):
        between = text[left.end : right.start]
        ranged = re.fullmatch(_RANGE, between) or (text[right.start] in "-\u2212" and between == "")
        pair = between == " and " and re.search(r"\b(?:between|from)\s$", text[: left.start], re.IGNORECASE)
        if ranged or pair:
            ends |= {left.start, right.start}
    return [
        replace(one, open=True)
        if one.start in ends or _BOUND.search(text[max(0, one.start - 30) : one.start]) or math.isinf(one.value)
        else one
        for one in found
    ]
