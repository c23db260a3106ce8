"""Whether a sentence that holds the gold answer gives it: not negated, not one of several, not of something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from bluffscope.runs.ask.lands import PLACES
from bluffscope.runs.ask.words import word_set

_NEGATION: Final = re.compile(
    r"\b(?:not|never|neither|nor|no one|nobody|none|cannot|without|isn't|wasn't|aren't|weren't|doesn't|didn't|"
    r"don't|can't|"
    r"couldn't|wouldn't|won't|rather than|instead of|other than|except(?: for)?|unlike|apart from|as opposed to|"
    r"different from|mistake to|wrong to|incorrect to|false that|untrue that|confuse\w* with|mistaken for|"
    r"doubt|anything but|hardly|unlikely|claim that)\b",
    re.IGNORECASE,
)
_ONLY: Final = re.compile(
    r"\b(?:not only|not just|not merely|no doubt|not sure|not certain|can't be wrong|don't you|"
    r"without (?:a |any )?doubt|"
    r"^\W*(?:isn't|wasn't|aren't|weren't) (?:it|that|this|he|she|they))\b",
    re.IGNORECASE,
)
_TURN: Final = re.compile(
    r"\b(?:but|instead|rather,|however|actually)\b|[;:\u2014]|,\s*(?:it|he|she|this|that|they)(?:'s| is| was|"
    r" are| were)\b",
    re.IGNORECASE,
)
_AFTER: Final = re.compile(
    r"^[\"')\]]*\s*(?:,\s*[^,]{0,40},\s*)?(?:itself |however,? )?(?:(?:is|was|are|were|do|does|did|has|had|"
    r"would|could|can)(?:n't|\s+(?:not|never)\b)"
    r"(?!\s+(?:only|just|merely)\b)|(?:is|was|would be|are)\s+(?:\w+ )?(?:wrong|incorrect|false|a mistake|"
    r"mistaken|not)\b"
    r"(?! (?:only|just|merely)\b)|can't\b|never\b|is a common (?:mistake|misconception))",
    re.IGNORECASE,
)
_FALSE_CLAIM: Final = re.compile(
    r"\b(?:is|was) (?:false|wrong|incorrect|untrue|a myth|a misconception)\b", re.IGNORECASE
)
_BELIEF: Final = re.compile(
    r"\b(?:many|most|some|people|often|commonly|popular|widely|sometimes|everyone|everybody|"
    r"(?:you|one) (?:might|may|could|would)|i (?:used|once|first))\b.{0,40}\b(?:thinks?|believes?|says?|expect|"
    r"assumes?|guess|thought|believed|"
    r"said|assumed|answer)\b",
    re.IGNORECASE,
)
_CONCEDED: Final = re.compile(r"^\W*(?:although|though|even though|while|whereas|despite)\b[^,]*$", re.IGNORECASE)
_FORMERLY: Final = re.compile(r"^\s+(?:was|were|had been|served as)\b[^.;,]*\buntil\b", re.IGNORECASE)
_SAID: Final = re.compile(r"\((?:sometimes|some|many|people|often|others)\b[^)]*$", re.IGNORECASE)
_MAIN: Final = re.compile(r"^[^,]*,\s*(?!(?:it|he|she|they|this|that)\b)\w", re.IGNORECASE)
_CONTRAST: Final = re.compile(r"\b(?:but|however|actually|in fact|in reality|though)\b", re.IGNORECASE)
_BESIDE: Final = re.compile(
    r"\b(?:near|(?:north|south|east|west)(?:\w*) of|next to|close to|outside|bordering|beyond|opposite|"
    r"(?:friend|contemporary|colleague|father|mother|son|daughter|brother|sister|wife|husband|student|pupil|"
    r"teacher|rival|"
    r"relative|cousin|follower|disciple|nephew|niece|uncle|aunt|descendant|ancestor|successor|predecessor|"
    r"admirer|fan) of|"
    r"similar to|compared (?:to|with)|such as|based on|inspired by|like|"
    r"(?:hours?|minutes?|miles?|km|kilomet(?:er|re)s?|far|away|different|distinct) from|"
    r"below|above|beneath|behind|than|followed by|"
    r"ahead of|formerly|used to be|was once|(?:border|boundary) with|borders|adjacent to|across from|"
    r"(?:day|week|month|year|decade)s? (?:before|after))"
    r"\s+[\"'\u201c]?(?:the |a |an )?$",
    re.IGNORECASE,
)
_KIN: Final = re.compile(
    r"^(?:'s|')\s+(?:younger |older |elder |late |own |first |second )?(?:father|mother|son|daughter|brother|"
    r"sister|wife|husband|"
    r"friend|student|pupil|teacher|rival|cousin|nephew|niece|uncle|aunt|successor|predecessor|colleague|neighbou?r)\b",
    re.IGNORECASE,
)
_BEATEN: Final = re.compile(r"\b(?:beat|beats|beating|defeat\w*|against)\s+(?:the )?$", re.IGNORECASE)
_OF_SOMETHING: Final = re.compile(r"\b([A-Z]\w+) of (?:the )?$")
_OF_KIND: Final = word_set(
    "republic kingdom state city commonwealth isle island principality county province town village duke duchess earl "
    "king queen emperor prince princess pope lord land country region empire sultanate emirate university port"
)
_WATERS: Final = word_set("gulf sea bay strait straits bight")
_MINUS: Final = re.compile(r"(?:\bis|=)\s*[-\u2212]$")
_OTHER: Final = r"(?P<other>[^\W_][\w.'-]*(?:\s+[A-Z0-9][\w.'-]*)*)"
_MAYBE: Final = r"(?:maybe |perhaps |possibly |even |in |on |at |the |a |an |just )*"
_OR_AFTER: Final = re.compile(rf"^\s*(?:\([^)]*\))?\s*(?:,?\s*\b(?:or|and/or)\s+|/\s*){_MAYBE}{_OTHER}", re.IGNORECASE)
_OR_BEFORE: Final = re.compile(rf"{_OTHER}(?:\s*,?\s*\b(?:or|and/or)\s+|\s*/\s*){_MAYBE}$", re.IGNORECASE)
_AND_AFTER: Final = re.compile(r"^\s*,?\s*\b(?:and|&)\s+(?:the )?(?P<other>[A-Z][\w.'-]*(?:\s+[A-Z][\w.'-]*)*)")
_AND_BEFORE: Final = re.compile(r"(?P<other>[A-Z][\w.'-]*(?:\s+[A-Z][\w.'-]*)*)\s*,?\s*\b(?:and|&)\s+(?:the )?$")
_LIST_AFTER: Final = re.compile(
    r"^(?:,\s*(?:the )?[A-Z0-9][\w.'-]*(?:\s[A-Z0-9][\w.'-]*)*)+,?\s+(?:or|and)\s+(?:the )?[A-Z0-9]"
)
_ALSO: Final = re.compile(
    r"\b(?:could|might|may) (?:also be\b|be\b[^.]*\b(?:could|might|may) be\b)|\bor (?:maybe|perhaps|possibly)\b|"
    r"\balternatively\b|"
    r"(?:\bperhaps\b|\bmaybe\b|\bpossibly\b)[^.]*(?:\bperhaps\b|\bmaybe\b|\bpossibly\b)",
    re.IGNORECASE,
)
_NUMBERED: Final = re.compile(r"(?:^|[\s:])1[.)]\s(?![\w ]{1,20}:).*\s2[.)]\s", re.DOTALL)


def objection(
    sentence: str, start: int, end: int, known: Callable[[str], bool], asked: Callable[[str], bool]
) -> str | None:
    """Why a sentence does not give what stands in it; None where it does.

    Args:
        sentence: the sentence.
        start: where the gold answer begins in it.
        end: where it ends.
        known: whether a text is a gold answer, too.
        asked: whether a text stands in the question.
    """
    before, after = sentence[:start], sentence[end:]
    if _negated(before, after):
        return "negated"
    if (
        _BESIDE.search(before)
        or _KIN.search(sentence[end:])
        or (sentence[end - 2 : end] == "'s" and _KIN.search("'s" + after))
    ):
        return "named beside the answer"
    if _BEATEN.search(before) and not any(asked(word) for word in ("beat", "defeat", "against", "opponent")):
        return "named beside the answer"
    found = _OF_SOMETHING.search(before)
    if found is not None and found[1].lower() not in _OF_KIND and not asked(found[1]):
        located = asked("country") and found[1].lower() not in _WATERS  # "in the Andes of Peru"
        if not located:
            return "part of another name"
    if _listed(sentence, before, after, known):
        return "one of several"
    return None


def hedged(text: str, claim: str | None) -> bool:
    """Whether a text as a whole offers several answers; a list behind the claim only goes on from it."""
    numbered = _NUMBERED.search(text)
    listed = numbered is not None and (claim is None or text.find(claim) >= numbered.start())
    return listed or _ALSO.search(text) is not None


def _negated(before: str, after: str) -> bool:
    if _FORMERLY.search(after) or _SAID.search(before) or _MINUS.search(before):
        return True
    if _AFTER.search(after) or (_CONCEDED.search(before) and _MAIN.search(after)):
        return True
    if (belief := _BELIEF.search(before)) and _CONTRAST.search(after) and not _CONTRAST.search(before[belief.end() :]):
        return True
    bare = _ONLY.sub(lambda found: "_" * len(found[0]), before)
    negations = list(_NEGATION.finditer(bare))
    if not negations:
        return False
    last = negations[-1]
    if last[0].lower() == "claim that":
        return _FALSE_CLAIM.search(after) is not None
    between = bare[last.end() :]
    if _TURN.search(between):
        return False
    parenthesis = re.sub(r"^\s*,[^,]*,", "", between)  # not, as many believe, X
    return "," not in parenthesis or re.fullmatch(r"\s*(?:by |in |of |the )*", parenthesis) is not None


def _listed(sentence: str, before: str, after: str, known: Callable[[str], bool]) -> bool:
    items = [item.strip(" .") for item in re.split(r",\s|\band\b|\n", f"{before}\0{after}")]
    if (
        re.match(r"\s*,?\s*(?:(?:and )?not|along with|together with|as well as)\b", after)
        or len(items) > 1
        and all(known(item.replace("\0", "")) for item in items)
    ):
        return False
    if _LIST_AFTER.search(after):
        return True
    for pattern, text in ((_OR_AFTER, after), (_OR_BEFORE, before), (_AND_AFTER, after), (_AND_BEFORE, before)):
        found = pattern.search(text)
        if found is not None and not known(found["other"]):
            return True
    short = len(re.findall(r"\w+", sentence)) <= 4
    if short and (re.search(r"^\s+(?:and|&)\s", after) or re.search(r"\s(?:and|&)\s+$", before)):
        return True
    if len(items) < 3 or any(len(item.split()) > 3 for item in items):
        return False
    if re.search(r",(?:\s*(?:in|on|at|the|an?|and|or)\b)*\s*[a-z]+\s[^,]*$", before):
        return False  # "built in 1961, fell in 1989"
    last = items[-1].lower().split()
    return not (before.strip() == "" and last and all(word.strip(".") in PLACES for word in last))
