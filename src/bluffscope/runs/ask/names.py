"""Where a gold answer stands in a text: as words, as a person's name in its forms, and not inside another name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bluffscope.runs.ask.lands import elsewhere
from bluffscope.runs.ask.spelling import misspelt, same_given_name
from bluffscope.runs.ask.words import (
    ARTICLES,
    FOREIGN_ARTICLES,
    FUNCTION,
    TITLES,
    Word,
    content,
    lean,
    same,
    singular,
    word_set,
    words,
)

_PERSON: Final = re.compile(
    r"\bwho(?:m|se)?\b|\b(?:which|what)\b[\w\s'-]{0,40}\b(?:king|queen|president|author|writer|novelist|poet|"
    r"painter|artist|"
    r"composer|singer|musician|actor|actress|director|player|striker|footballer|scientist|physicist|chemist|inventor|"
    r"philosopher|emperor|pope|politician|minister|general|explorer|astronaut|architect|person|man|woman|driver)\b",
    re.IGNORECASE,
)
_APART: Final = word_set(
    "south north east west southern northern eastern western southeast southwest northeast northwest new upper lower "
    "equatorial greater papua anti non pseudo"
)
"""Words that make another name of the one that follows."""
_OTHER_KIND: Final = word_set(
    "red blue green black brown golden grey gray pink purple yellow sea mountain water prairie guinea polar killer "
    "sweet fool dwarf pygmy mock false dry heavy"
)
"""Words that make another kind of the thing that follows (sea lion, red panda)."""
_PARTICLES: Final = word_set("van von de da di del della der den du dos la le al el ibn bin ter ten")
"""Words that begin a surname (Van Gogh)."""
_MONTHS: Final = word_set("january february march april may june july august september october november december")
_KINDS: Final = word_set(
    "river lake ocean sea mountain mountains island islands desert museum magazine newspaper band company mission "
    "place tower bridge province county language planet element metal vitamin group team novel film movie song album"
)
"""Nouns that may follow a name without making another of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gold answer stands."""

    start: int
    end: int
    first: int
    """Number of its first word in the lean text."""
    last: int
    """One after the number of its last word."""


def asks_for_person(question: str) -> bool:
    """Whether the answer is a person's name."""
    return _PERSON.search(question) is not None


def forms(gold: str, others: Sequence[str], *, person: bool) -> list[list[Word]]:
    """The ways in which a gold answer may be written, as words.

    Args:
        gold: the answer or alias.
        others: the other ones.
        person: whether it is a person's name.
    """
    texts = [gold]
    if (outside := re.sub(r"\s*\([^)]*\)", "", gold).strip()) and outside != gold:
        texts.append(outside)
    made: list[list[Word]] = []
    for text in texts:
        items = lean(words(text))
        if not items:
            continue
        if person and len(items) == 1 and any(_ends_with(other, items[0]) for other in others):
            continue  # a surname alone, which `person_places` reads
        made.append(items)
        if person and len(items) > 1 and items[0].norm in TITLES:
            made.append(items[1:])
        elif len(items) in (2, 3) and person and all(word.capital for word in items):
            made.append([items[-1], *items[:-1]])
    return made


def _ends_with(other: str, word: Word) -> bool:
    items = lean(words(other))
    return len(items) > 1 and items[-1].norm == word.norm


def places(text: str, form: list[Word], question: str, *, person: bool, slips: bool = False) -> list[Place]:
    """Where a form stands as a name of its own; with `slips`, where it stands with one in a long name."""
    given = lean(words(text))
    plural = not person
    found: list[Place] = []
    for first in range(len(given)):
        for last in range(first + 1, min(first + len(form) + 3, len(given)) + 1):
            some = given[first:last]
            agrees = misspelt(form, some) if slips else same(form, some, plural=plural)
            if agrees and _alone(text, given, first, last, form, question):
                found.append(Place(given[first].start, given[last - 1].end, first, last))
    if form[0].norm in FOREIGN_ARTICLES and len(form) > 1 and not slips:
        found += _with_other_article(text, form, question)
    return found


def _with_other_article(text: str, form: list[Word], question: str) -> list[Place]:
    """A foreign article may be replaced by ours, or left out before what it is (Spiegel magazine)."""
    given = words(text)
    kept = lean(given)
    found: list[Place] = []
    for place in range(len(kept) - len(form) + 2):
        if not same(form[1:], kept[place : place + len(form) - 1] or kept[:1]):
            continue
        end = place + len(form) - 1
        at = given.index(kept[place])
        article = at > 0 and given[at - 1].norm in ARTICLES
        kind = end < len(kept) and kept[end].norm in _KINDS
        if (article or kind) and _alone(text, kept, place, end, form, question):
            found.append(Place(kept[place].start, kept[end - 1].end, place, end))
    return found


def _alone(text: str, given: list[Word], first: int, last: int, form: list[Word], question: str) -> bool:
    """Whether the words are not a part of a longer name (Paris Hilton, South Georgia, Guinea-Bissau)."""
    asked = content(words(question))
    if first and _joined(text, given[first - 1], given[first]):
        hyphen = text[given[first - 1].end] == "-"
        apart = _APART if form[0].capital else _APART | _OTHER_KIND
        if (given[first - 1].norm in apart and not content([given[first - 1]]) <= asked) or hyphen:
            return False
    if form[-1].capital and elsewhere(text[given[last - 1].end :], question):
        return False
    if last == len(given):
        return True
    after = given[last]
    if not _joined(text, given[last - 1], after) or after.norm in FUNCTION | _KINDS or content([after]) <= asked:
        return True
    if text[given[last - 1].end] == "-":
        return False
    if form[-1].norm in _MONTHS and after.norm.isdigit():
        return True
    if given[last - 1].raw.lower().endswith(("'s", "s'")):
        return True
    shouting = text.isupper() or text.islower()
    named = form[0].capital and after.capital and not shouting
    fragment = len(given) <= 4 and after.norm not in FUNCTION and not _verb(after)
    return not (named or (fragment and after.norm not in _KINDS and shouting))


def _verb(word: Word) -> bool:
    return word.norm.endswith(("ed", "es")) or word.norm in ("wrote", "won", "said", "made", "sang")


def _joined(text: str, left: Word, right: Word) -> bool:
    return re.fullmatch(r"[ \u00a0]+|-", text[left.end : right.start]) is not None


def person_places(text: str, gold: str, question: str) -> list[Place]:
    """Where a person is named: in full, with other middle names or initials, or by the surname alone.

    A surname counts only where no other first name stands before it, and the question does not hold it.
    """
    name = [word for word in lean(words(gold)) if word.norm not in TITLES]
    if len(name) < 2 or any(word.norm == "and" for word in name):
        return []
    if not name[-1].capital or name[-1].raw[0].isdigit() or name[-1].norm.isdigit():
        return []
    surname, given = name[-1], lean(words(text))
    lower = text.islower()
    found: list[Place] = []
    for place, word in enumerate(given):
        if not (same([surname], [word]) or misspelt([surname], [word])) or not _alone(
            text, given, place, place + 1, [surname], question
        ):
            continue
        first = place
        while first and place - first < 4 and _name_before(text, given[first - 1], given[first], lower=lower):
            first -= 1
        before = [item for item in given[first:place] if item.norm not in TITLES]
        while before and before[0].norm in _PARTICLES:
            before = before[1:]
        start = _full(before, name)
        if start is not None:
            begin = place - len(before) + start
            found.append(Place(given[begin].start, word.end, begin, place + 1))
        elif not before and content([surname]).isdisjoint(content(words(question))):
            found.append(Place(word.start, word.end, place, place + 1))
    return found


def _name_before(text: str, word: Word, following: Word, *, lower: bool) -> bool:
    near = re.fullmatch(r"\.?\s?|-", text[word.end : following.start]) is not None
    return near and word.norm not in FUNCTION and (word.raw[0].isupper() or lower or word.norm in TITLES)


def _full(before: list[Word], name: list[Word]) -> int | None:
    """Where the first name stands among the words before a surname, if these are the gold answer's."""
    wanted = [word.norm[0] for word in name[1:-1]]
    if before and [word.norm for word in before] == [word.norm for word in name[-1 - len(before) : -1]]:
        return 0
    for start, word in enumerate(before):
        if not _same_name(word, name[0]):
            continue
        middle = [item.norm[0] for item in before[start + 1 :]]
        spelt = [item for item in before[start + 1 :] if len(item.norm) > 1]
        agree = all(_same_name(item, other) for item, other in zip(before[start + 1 :], name[1:-1], strict=False))
        if not middle or not wanted or (middle == wanted and (agree or not spelt)):
            return start
    return None


def _same_name(left: Word, right: Word) -> bool:
    if 1 in (len(left.norm), len(right.norm)):
        return left.norm[:1] == right.norm[:1]
    return same([left], [right]) or same_given_name(left.norm, right.norm)


def normal_form(text: str) -> str:
    """Words in small letters without articles and titles at the beginning: what makes two answers one."""
    items = lean(words(text))
    while len(items) > 1 and items[0].norm in TITLES:
        items = items[1:]
    norms = [word.norm for word in items]
    return " ".join([*norms[:-1], singular(norms[-1])]) if norms else ""
