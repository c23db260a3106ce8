"""What an answer claims: the text without its wrapping, its sentences, and the one that answers the question."""

from __future__ import annotations

import re
from itertools import islice
from typing import Final, Literal

from bluffscope.runs.ask import numbers
from bluffscope.runs.ask.words import FUNCTION, TITLES, Word, content, stems, word_set, words

Kind = Literal["number", "name", "thing"]
"""What a gold answer is: a number or a date, a name (with a capital), or something else."""
_THINKING: Final = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_NEXT_QUESTION: Final = re.compile(r"\n\s*(?:Q(?:uestion)?\s*\d*\s*[:.)]|Human:|User:|###)", re.IGNORECASE)
_LABEL: Final = re.compile(
    r"^\W*(?:(?:the )?(?:final |correct |short )?answer(?: is)?\s*(?::|-)|a\s*:|assistant\s*:|response\s*:)\s*",
    re.IGNORECASE,
)
_QUESTION: Final = re.compile(r"^\W*(?:q(?:uestion)?\s*:)\s*", re.IGNORECASE)
_FINAL: Final = re.compile(
    r"\b(?:(?:the |my )?final answer(?: is)?|(?:the )?(?:correct |right )?answer is|(?:so|thus|therefore|"
    r"hence),? (?:the|my) answer is|(?:^|(?<=\n))\W*answer\s*(?=:))"
    r"\s*:?\s*",
    re.IGNORECASE,
)
_CORRECTION: Final = re.compile(
    r"(?:^|[.,;:!?\u2014\u2013-]\s*|\n)(?:no,? |hmm,? |oh,? |ah,? |well,? )*(?:wait|hold on|scratch that|strike that|"
    r"correction|oops|(?:(?<=\.\.\.)|(?<=\.\.\. )|(?<=[\u2014\u2026])|(?<=[\u2014\u2026] ))(?:no|actually)|"
    r"actually(?=,? (?:it's|it is|it was|that's|that is|that was|the answer)\b)|"
    r"sorry(?! (?:for|about|if|to|that|but|i )\b)|"
    r"my (?:mistake|bad)|i (?:meant?|misspoke|was wrong|take that back)|"
    r"on second thoughts?|or rather|make that|actually,? no|no,? actually|(?:that's|that is) (?:not right|wrong)|"
    r"let me (?:correct|recheck|redo|rethink|recalculate|rephrase|double[- ]check|try again|think again)"
    r"(?: that| this| it| myself)?)\b[,:.!]?\s*(?:no\b[,:.]?\s*|rather\b,?\s*)?"
    r"(?:(?:that's|that is|that was|those are|i)\b[^.!?]*[.!?]\s+(?=\w))?",
    re.IGNORECASE,
)
"""A correction, with a remark on what it corrects ("Oops, that's insects.")."""
_OPENING: Final = re.compile(
    r"^\W*(?:(?:sure|of course|certainly|absolutely|yes|ok(?:ay)?|ah|oh|ha|wow|hmm|well|alright|right)\b[^\w.!?]*)*"
    r"(?:(?:what an? |that's an? )?(?:\w+ ){0,2}(?:question|one|thing)|"
    r"(?:i'm |i'd be )?(?:happy|glad) to help(?: you)?|"
    r"thanks? (?:you )?for asking|no problem|here you go|fun fact|quick answer)\s*[.!,:\u2014]+\s+(?=\S)",
    re.IGNORECASE,
)
_ASIDE: Final = re.compile(
    r"[,;(\u2013\u2014]|\s-\s|\b(?:which|who|whose|where|while|whereas|although|though|because|since|but|and|than|"
    r"followed by|ahead of|before|after|then|so|with)\b",
    re.IGNORECASE,
)
"""What may end the claim of a sentence."""
_SUBORDINATE: Final = re.compile(
    r"(?:which|who|whose|where|while|whereas|although|though|because|since|than|followed by|ahead of|before|after|"
    r"then|with)$",
    re.IGNORECASE,
)
_DEPENDENT: Final = re.compile(
    r"^\W*(?:although|though|while|whereas|unlike|rather|instead|contrary|in|on|at|by|for|as|if|when|since|because|after|"
    r"before|compared|between|of|not|no|many|some|most|you|i|people|everyone|with|from|like|despite|besides)\b",
    re.IGNORECASE,
)
_NOT: Final = re.compile(r"\b(?:not|never|neither|nor)\b(?! (?:only|just|merely|surprisingly)\b)|n't\b", re.IGNORECASE)
_WHAT_IS: Final = re.compile(r"^\W*(?:what|which|who) (?:is|are|was|were)\b", re.IGNORECASE)
_FORMER: Final = re.compile(r"\b(?:until|used to|formerly|previously)\b", re.IGNORECASE)
_HEADER: Final = re.compile(r"^\s*\|.*\|[ \t]*\n\s*\|[-:| ]+\|[ \t]*$", re.MULTILINE)
"""The header of a table."""
_REOPENS: Final = re.compile(
    r"\b(?:called|named|known|namely|i\.e\.|or|aka|also|actually|rather|correct|right|real|meaning|answer)\b|[=:]|"
    r"\b(?:it|this|that|he|she|they)(?:'s| is| was| are| were)\s+(?:the |an? )?$|^\s*\((?:the |an? )?$",
    re.IGNORECASE,
)
"""What leads to an answer after the claim of a sentence."""
_TAIL: Final = re.compile(
    r"^([^,]*\w[^,]*),\s*(?:even )?(?:though|although|whereas|while)\b([^,;]*)$", re.IGNORECASE | re.DOTALL
)
_ASKS_OTHER: Final = re.compile(
    r"\b(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|or)\b", re.IGNORECASE
)
_LINK: Final = re.compile(
    r"[:;=\u2013\u2014]|\b(?:is|are|was|were|be|been|by|called|named|who|which|that|it's|that's|but|so)\b",
    re.IGNORECASE,
)
_APPOSED: Final = re.compile(r"^,\s*(?:(?:in|at|on|by)\s+)?(?:the )?(?:\w+ of )?$", re.IGNORECASE)
_RESULT: Final = re.compile(r"^\W*(?:so|thus|therefore|hence|in total|altogether)\b", re.IGNORECASE)
_SENTENCE: Final = re.compile(r"(?:(?<=[.!?\u3002;])|(?<=[.!?][\"'\u201d)]))\s+|\n+|(?<=\u3002)")
_ABBREVIATED: Final = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|St|Mt|Ft|Sr|Jr|Prof|Gen|Capt|Col|Rev|Gov|Sen|vs|ca|approx|No|Apr|Aug|Sept?|"
    r"Oct|Nov|Dec|Jan|Feb))\.$|^\W*\d+\.$"
)
FILLER: Final = word_set(
    "sure okay ok yes no well so hello hi certainly great good question absolutely of course thanks here answer "
    "interesting hmm let's let me think see step by solution explanation calculation working result options candidates"
)
_VERBS: Final = word_set(
    "is are was were be been has have had do does did think know can could will would want find consider need lies lie "
    "said say wrote made became won"
)
_LEAD: Final = re.compile(
    r"^\W*(?:(?:so|well|sure|okay|ok|yes|hmm|now|actually|certainly|probably|perhaps|maybe|possibly)\b[,.!:]?\s+"
    r"|i (?:think|believe|guess|suspect|would say|'d say|am sure|am certain)(?: that)?\s+|i(?:'d|"
    r" would) (?:say|guess)\s+"
    r"|(?:as far as i know|if i had to guess|in my opinion|to my knowledge),?\s+|\d+[.)]\s+|[-*\u2022]\s+)",
    re.IGNORECASE,
)
_IS: Final = word_set(
    "is are was were be been it's that's called named by in at on of to as from it the a an has had there this "
    "that he she they written painted composed directed invented discovered founded created built sung made designed "
    "also known who which"
)


def cleaned(answer: str, question: str) -> str:
    """The answer without thoughts, mark-up, labels, a repeated question, and questions that the model goes on with."""
    text = _HEADER.sub("", _THINKING.sub(" ", answer)).replace("\u2019", "'")
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\*\*|__|`|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)", "", text).strip()
    text = _OPENING.sub("", _unasked(text, question))
    if (more := _NEXT_QUESTION.search(text)) is not None and re.search(r"\w", text[: more.start()]):
        text = text[: more.start()]
    return _LABEL.sub("", text).strip()


def _unasked(text: str, question: str) -> str:
    """Without the question at its beginning."""
    bare = _QUESTION.sub("", text)
    asked, given = words(question), words(bare)
    if asked and [word.norm for word in given[: len(asked)]] == [word.norm for word in asked]:
        rest = bare[given[len(asked) - 1].end :]
        if len(given) > len(asked) or "?" in rest:
            return re.sub(r"^[\s?.!:\"']+", "", rest)
    return text


def sentences(text: str) -> list[str]:
    """The sentences of a text; lines end one, abbreviations do not."""
    made: list[str] = []
    start = 0
    for found in _SENTENCE.finditer(text):
        part = text[start : found.start()]
        if "\n" not in found[0] and _ABBREVIATED.search(part):
            continue
        made.append(part.strip())
        start = found.end()
    made.append(text[start:].strip())
    return [part for part in made if re.search(r"\w", part)]


def last_word(text: str) -> str:
    """What a text comes to: after its last correction or "the answer is"; the whole where it has neither."""
    for pattern in (_CORRECTION, _FINAL):
        for found in reversed(list(pattern.finditer(text))):
            rest = text[found.end() :]
            first = sentences(rest)
            if first and re.search(r"\w", text[: found.start()] if pattern is _CORRECTION else "x"):
                return rest
    return text


def committed(parts: list[str], question: str, kind: Kind, *, alone: bool = True) -> int | None:
    """The number of the first sentence that answers the question; None where none does on its face.

    Of equations the last one answers, or what follows from them.

    Args:
        parts: the sentences.
        question: the question.
        kind: what the gold answer is.
        alone: whether an answer without words of the question is one.
    """
    found = [
        number
        for number, part in enumerate(parts)
        if not part.endswith("?")
        and not denies(part)
        and (not _FORMER.search(part) or _FORMER.search(question))
        and (kind == "number" or not part.endswith(":"))  # "There are 7 continents:"
        and _answers(part, question, kind, alone=alone and not part.endswith(":"))
    ]
    if kind == "number" and found and "=" in parts[found[0]]:
        return next(n for n in reversed(found) if n == found[0] or "=" in parts[n] or _RESULT.match(parts[n]))
    return found[0] if found else None


def denies(part: str) -> bool:
    """Whether a sentence says only what the answer is not."""
    return _NOT.search(part) is not None and re.search(r"[,;:\u2014]|\bbut\b", part) is None


def _answers(part: str, question: str, kind: Kind, *, alone: bool = True) -> bool:
    """Whether a sentence is an answer alone, or has most of the question's words and others of the kind asked for."""
    asked, given = content(words(question)), words(part)
    novel = [word for word in given if word.norm not in FILLER | FUNCTION and not content([word]) <= asked]
    if kind == "number":
        novel = novel if _numbers(part) - _numbers(question) else []
    if not novel:
        return False
    verb = given[0].norm in ("i", "we", "you") or any(word.raw.lower() in _VERBS for word in given)
    if alone and not verb and len(given) <= 6:
        return True
    head = next((word for word in words(question) if content([word])), None)
    wanted = stems(words(question))
    said = wanted & stems(given)
    part_of = verb and _WHAT_IS.match(question) and head and stems([head]) <= said
    most = len(said) >= (0.5 if part_of else 0.6) * len(wanted)
    return bool(asked and most) and (kind != "name" or part.islower() or any(word.capital for word in novel))


def _numbers(text: str) -> set[str]:
    return {str(one) for one in numbers.quantities(text)}


def _after_subject(before: str, question: str) -> bool:
    """Whether a question about a subject ("Which organ pumps blood?") has another one ("The lungs pump blood to")."""
    if _ASKS_OTHER.search(question) or _DEPENDENT.match(before) or _LINK.search(before):
        return False
    given, asked = words(before), stems(words(question))
    first = next((place for place, word in enumerate(given) if stems([word]) & asked), 0)
    said = asked & stems(given)
    return bool(content(given[:first])) and len(said) >= max(2, 0.6 * len(asked))


def beside_claim(sentence: str, start: int, question: str, kind: Kind) -> bool:
    """Whether what stands at `start` comes after the claim of a sentence ("It is Lyon, which is larger than Paris")."""
    if kind == "number":
        return False
    conceded = _TAIL.match(sentence[:start])
    if conceded and not _NOT.search(conceded[1]) and not _REOPENS.search(conceded[2]):
        return True
    if _after_subject(sentence[:start], question):
        return True
    for found in islice(_ASIDE.finditer(sentence[:start]), 8):
        claim = sentence[: found.start()].strip()
        fragment = not any(word.raw.lower() in _VERBS for word in words(claim))
        fragment = fragment and not stems(words(claim)) & stems(words(question))
        if fragment and kind == "name" and not any(w.capital and w.norm not in FUNCTION for w in words(claim)):
            continue
        if not claim or _DEPENDENT.match(claim) or denies(claim) or (fragment and not _SUBORDINATE.match(found[0])):
            continue
        if _answers(claim, question, kind, alone=fragment):
            between = sentence[found.start() : start]
            asked, more = stems(words(question)), stems(words(between))
            if more & (asked - stems(words(claim))) or 2 * len(more & asked) >= len(asked):
                return False  # the rest answers, too ("A cooper is a craftsman who makes barrels")
            described = re.search(r"\b(?:an?|the|one of)\b[\w\s'-]*$", claim, re.IGNORECASE) is not None
            if re.fullmatch(r",\s*an? (?:\w+ ){1,3}in (?:the )?", between):
                return False  # "Agra, a city in India"
            return not _REOPENS.search(between) and not (described and _APPOSED.search(between))
    return False


def core(sentence: str, question: str) -> str:
    """The answer alone: a sentence without what leads to it and what repeats the question, at either end."""
    text = sentence.strip()
    while (lead := _LEAD.match(text)) is not None and re.search(r"\w", text[lead.end() :]):
        text = text[lead.end() :]
    if (final := _FINAL.match(text)) is not None and re.search(r"\w", text[final.end() :]):
        text = text[final.end() :]
    asked = {word.norm for word in words(question)} | content(words(question))
    given = words(text)
    start = _prefix(given, asked)
    end = _suffix(given, start, asked)
    if not given or start >= end:
        return text.strip(" .,!?;:\"'()\u00ab\u00bb\u3002")
    return text[given[start].start : given[end - 1].end + _closing(text, given[end - 1].end)]


def _closing(text: str, end: int) -> int:
    return 1 if text[end : end + 1] in ("%", ")", "\u00b0") else 0


def _prefix(given: list[Word], asked: set[str]) -> int:
    """How many words at the beginning lead to the answer."""
    place = 0
    while place < len(given) and _leads(given[place], asked):
        place += 1
    if place == len(given):
        return 0
    while place and given[place - 1].norm in TITLES:
        place -= 1
    ends = [number for number in range(place) if given[number].raw.lower() in _IS or given[number].norm in FUNCTION]
    return ends[-1] + 1 if ends else 0


def _suffix(given: list[Word], start: int, asked: set[str]) -> int:
    """Where the answer ends: before a verb after which everything repeats the question."""
    for place in range(start + 1, len(given)):
        said = given[place].raw.lower() in _VERBS or given[place].norm in asked - FUNCTION
        if said and all(_leads(word, asked) or word.raw.lower() in _VERBS for word in given[place:]):
            return place
    return len(given)


def _leads(word: Word, asked: set[str]) -> bool:
    return word.norm in asked or word.norm in FUNCTION or word.raw.lower() in _IS or content([word]) <= asked
