"""What an answer claims: the text without its wrapping, its sentences, and the one that answers the question."""

from __future__ import annotations

import re
from typing import Final

from bluffscope.runs.ask.words import FUNCTION, TITLES, Word, content, word_set, words

_THINKING: Final = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_NEXT_QUESTION: Final = re.compile(r"\n\s*(?:Q(?:uestion)?\s*\d*\s*[:.)]|Human:|User:|###)", re.IGNORECASE)
_LABEL: Final = re.compile(
    r"^\W*(?:(?:the )?(?:final |correct |short )?answer(?: is)?\s*(?::|-)|a\s*:|assistant\s*:|response\s*:)\s*",
    re.IGNORECASE,
)
_QUESTION: Final = re.compile(r"^\W*(?:q(?:uestion)?\s*:)\s*", re.IGNORECASE)
_FINAL: Final = re.compile(
    r"\b(?:(?:the |my )?final answer(?: is)?|(?:the )?(?:correct |right )?answer is|(?:so|thus|therefore|"
    r"hence),? (?:the|my) answer is)"
    r"\s*:?\s*",
    re.IGNORECASE,
)
_CORRECTION: Final = re.compile(
    r"(?:^|[.,;!?\u2014-]\s*|\n)(?:no,? )?(?:wait|scratch that|correction|sorry|oops|i meant?|"
    r"let me correct(?: that| myself)?)\b"
    r"[,:.!]?\s*(?:no\b[,:.]?\s*)?",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r"(?:(?<=[.!?\u3002;])|(?<=[.!?][\"'\u201d)]))\s+|\n+|(?<=\u3002)")
_ABBREVIATED: Final = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|St|Mt|Ft|Sr|Jr|Prof|Gen|Capt|Col|Rev|Gov|Sen|vs|ca|approx|No|Apr|Aug|Sept?|"
    r"Oct|Nov|Dec|Jan|Feb))\.$|^\W*\d+\.$"
)
_FILLER: Final = word_set(
    "sure okay ok yes no well so hello hi certainly great good question absolutely of course thanks here answer "
    "interesting hmm let's let me think see step by"
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
    text = _THINKING.sub(" ", answer).replace("\u2019", "'")
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\*\*|__|`|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)", "", text).strip()
    text = _unasked(text, question)
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


def committed(parts: list[str], question: str) -> int | None:
    """The number of the first sentence that answers the question; None where none does on its face."""
    asked = content(words(question))
    for number, part in enumerate(parts):
        given = words(part)
        novel = [word for word in given if word.norm not in _FILLER | FUNCTION and not content([word]) <= asked]
        if not novel or part.endswith(("?", ":")):
            continue
        verb = any(word.raw.lower() in _VERBS for word in given)
        if not verb and len(given) <= 6:
            return number
        covered = len(asked & content(given)) / max(len(asked), 1)
        if covered >= 0.6 and asked and any(word.capital for word in novel):
            return number
    return None


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
