"""Answers that decline to answer, and hedges that come before an answer all the same."""

from __future__ import annotations

import re
from typing import Final

from bluffscope.runs.ask.claims import FILLER
from bluffscope.runs.ask.words import FUNCTION, content, word_set, words

_NOT: Final = (
    r"(?:do\snot|don't|dont|did\snot|didn't|cannot|can\snot|can't|could\snot|couldn't|"
    r"(?:am|'m)\s(?:unable|not\sable)\sto)"
)
_REFUSAL: Final = re.compile(
    rf"""
    \b(?:i|we)\s(?:really\s|honestly\s|just\s|simply\s)?{_NOT}\s(?:really\s|actually\s|currently\s)?
      (?:know|recall|remember|have|say|tell|answer|help|determine|provide|find|give|confirm|identify|verify|
      access|assist|wish|want|be\ssure)
    |\bi(?:'m|\sam)\s(?:really\s|honestly\s)?(?:not|un)\s?(?:sure|certain|familiar|aware|able|comfortable)
    |\bi(?:'m|\sam)\s(?:un(?:sure|certain|able|aware|familiar))
    |\bi\shave\s(?:no|not\sgot)\s(?:idea|clue|information|knowledge|data|record|opinion|access|comment)
    |\bas\san?\s(?:ai|artificial|language\smodel|llm|assistant)\b
    |\b(?:it\sis|it's|is|are)\s(?:impossible|not\spossible|not\sknown|unknown|unclear)\b
    |\b(?:unable|impossible)\sto\s(?:say|tell|determine|answer|know|verify|identify)
    |\b(?:cannot|can't|can\snot|could\snot|couldn't)\s(?:be\s)?(?:determine|say|tell|know|answer|identif|verif)\w*
    |\bnot\ssomething\si\b|\bi\sdon't\sunderstand\b|(?:n't\senough|\bnot\senough|\bneed\smore)\s(?:information|context|data)|\binsufficient\s(?:information|context|data)
    |\bno\s(?:idea|clue|answer|information\sis\savailable)\b
    |^\W*(?:unknown|n/?a|none\sgiven|unsure|not\ssure|dunno|idk|no\scomment|not\savailable|i\srefuse|pass|nobody\sknows|
       no\sone\sknows|don't\sknow|do\snot\sknow|not\sknown|unclear|undetermined)\W*$
    |\bplease\s(?:provide|give|clarify|specify)\b|\b(?:could|can)\syou\s(?:please\s)?(?:give|provide|clarify|specify|rephrase)
    |^\W*(?:i'm\s|i\sam\s)?sorry,?\s(?:but\s)?i\b
    |\b(?:un|not\s)(?:known|available)\sto\s(?:me|us)\b|\btraining(?:\sdata)?\sdo(?:es)?(?:n't|\snot)\b|^\W*(?:(?:well|hmm|honestly|oh),?\s)*(?:it|that)\s(?:really\s|all\s)?depends\b
    |\b(?:there(?:'s|\sis|\sare)|have|has|got|find)\sno\s(?:\w+\s)?(?:information|data|records?|
       knowledge|answer|idea|clue|way\sof\sknowing)\b
    |\bi(?:'m|\sam)\s(?:just\s|only\s|merely\s)?an?\s(?:\w+\s){{0,2}}
       (?:language\smodel|ai|assistant|chatbot|bot|program)\b
    |\b(?:beyond|outside|not\s(?:in|within))\s(?:of\s|the\sscope\sof\s)?my\s(?:\w+\s)?
       (?:knowledge|expertise|scope|training|data|memory)\b
    |\b(?:rather|prefer)\snot\s(?:to\s)?(?:say|answer|guess|comment|speculate)\b
    |\b(?:hard|difficult|tough|tricky)\sto\s(?:say|tell|know|answer|determine)\b
    |\bi\s(?:have\snever\sheard|haven't\s(?:a|the|any|heard)|
       (?:forgot|forget)\s(?:the|his|her)\s(?:answer|name)|give\sup|lack|won't\s(?:answer|guess|be\sable))\b
    |\byour\sguess\sis\sas\sgood\sas\smine\b|\bbeats\sme\b|\bwho\sknows\b|\b(?:slips\smy\smind|escapes\sme|drawing\sa\sblank)\b
    |\bnobody\sknows\b|\bno\sone\sknows\b|\bi\s(?:must\s)?(?:decline|refuse)\b|\bi\shave\sno\scomment\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ANYWAY: Final = re.compile(
    r"\b(?:but|however|though|although|still|nevertheless|that said|my best guess|my guess|if i had to guess|"
    r"i(?:'d| would) guess|"
    r"i think|i believe|i suspect|i(?:'d| would) say|probably|maybe|perhaps|possibly)\b[,:]?\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_UNSURE: Final = re.compile(
    r"(?:not|n't|un)\s?(?:\w+\s)?(?:sure|certain|verify|confirm)|know\sfor\s(?:sure|certain)|be\s(?:sure|certain)",
    re.IGNORECASE,
)
_IDLE: Final = FILLER | word_set(
    "i i'm am sorry afraid unfortunately apologies apologize apologise my honestly frankly honest regarding concerning "
    "but although though while and me oh ah asking"
)
_HELP: Final = re.compile(
    r"^\W*(?:i|you|we|please|try|someone|an?|it)\b.{0,30}\b(?:help|answer|assist|do|provide|say|give|tell|find|look|search|check|"
    r"consult|try|ask|know)\b|^\W*try\b",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether a text declines somewhere."""
    return _REFUSAL.search(_plain(text)) is not None


def answered_anyway(text: str, question: str) -> str | None:
    """What a text that declines says nevertheless ("I'm not sure, but I think it is Rome"); None where nothing.

    What stands before the refusal is an answer only if it is a sentence of its own, or the text is merely unsure.
    """
    plain = _plain(text)
    first = _REFUSAL.search(plain)
    if first is None:
        return text
    before = text[: first.start()]
    if not _UNSURE.search(plain[first.start() : first.end() + 30]) or re.search(
        r"(?i)\b(?:if|whether|since|as)\W*$", before
    ):
        before = before[: max(before.rfind(end) for end in ".!?\n") + 1]
    if not _says_nothing(before, question):
        return before
    for found in _ANYWAY.finditer(plain, first.end()):
        rest = text[found.start("rest") :]
        if re.search(r"\w", rest) and not refuses(rest) and not _HELP.match(rest):
            return rest
    return None


def _says_nothing(text: str, question: str) -> bool:
    asked = content(words(question))
    return all(word.norm in _IDLE | FUNCTION or content([word]) <= asked for word in words(text))


def _plain(text: str) -> str:
    return text.replace("\u2019", "'")
