"""Answers that decline to answer, and hedges that come before an answer all the same."""

from __future__ import annotations

import re
from typing import Final

_NOT: Final = (
    r"(?:do\snot|don't|dont|did\snot|didn't|cannot|can\snot|can't|could\snot|couldn't|"
    r"(?:am|'m)\s(?:unable|not\sable)\sto)"
)
_REFUSAL: Final = re.compile(
    rf"""
    \bi\s(?:really\s|honestly\s|just\s|simply\s)?{_NOT}\s(?:really\s|actually\s|currently\s)?
      (?:know|recall|remember|have|say|tell|answer|help|determine|provide|find|give|confirm|identify|verify|access|assist|be\ssure)
    |\bi(?:'m|\sam)\s(?:really\s|honestly\s)?(?:not|un)\s?(?:sure|certain|familiar|aware|able|comfortable)
    |\bi(?:'m|\sam)\s(?:un(?:sure|certain|able|aware|familiar))
    |\bi\shave\s(?:no|not\sgot)\s(?:idea|clue|information|knowledge|data|record|opinion|access|comment)
    |\bas\san?\s(?:ai|artificial|language\smodel|llm|assistant)\b
    |\b(?:it\sis|it's|is|are)\s(?:impossible|not\spossible|not\sknown|unknown|unclear)\b
    |\b(?:unable|impossible)\sto\s(?:say|tell|determine|answer|know|verify|identify)
    |\b(?:cannot|can't|can\snot|could\snot|couldn't)\s(?:be\s)?(?:determine|say|tell|know|answer|identif|verif)\w*
    |\bnot\senough\s(?:information|context|data)|\binsufficient\s(?:information|context|data)
    |\bno\s(?:idea|clue|answer|information\sis\savailable)\b
    |^\W*(?:unknown|n/?a|none\sgiven|unsure|not\ssure|dunno|idk|no\scomment|not\savailable|i\srefuse|pass|nobody\sknows|
       no\sone\sknows|don't\sknow|do\snot\sknow|not\sknown|unclear|undetermined)\W*$
    |\bplease\s(?:provide|give|clarify|specify)\b|\b(?:could|can)\syou\s(?:please\s)?(?:give|provide|clarify|specify)
    |^\W*(?:i'm\s|i\sam\s)?sorry,?\s(?:but\s)?i\b
    |\bnobody\sknows\b|\bno\sone\sknows\b|\bi\s(?:must\s)?(?:decline|refuse)\b|\bi\shave\sno\scomment\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ANYWAY: Final = re.compile(
    r"\b(?:but|however|though|although|still|nevertheless|that said|my best guess|my guess|if i had to guess|"
    r"i(?:'d| would) guess|"
    r"i think|i believe|i suspect|i(?:'d| would) say|probably)\b[,:]?\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_HELP: Final = re.compile(r"^\W*i\b.{0,20}\b(?:help|answer|assist|do|provide|say|give|tell)\b", re.IGNORECASE)


def refuses(text: str) -> bool:
    """Whether a text declines somewhere."""
    return _REFUSAL.search(_plain(text)) is not None


def answered_anyway(text: str) -> str | None:
    """What a text that declines says nevertheless ("I'm not sure, but I think it is Rome"); None where nothing."""
    plain = _plain(text)
    first = _REFUSAL.search(plain)
    if first is None:
        return text
    # What stands before the refusal is an answer only if it is a sentence of its own.
    before = re.split(r"[.!?\n]", text[: first.start()])[:-1]
    if before and any(re.search(r"\w{2}", part) for part in before):
        return ". ".join(before)
    for found in _ANYWAY.finditer(plain, first.end()):
        rest = text[found.start("rest") :]
        if re.search(r"\w", rest) and not refuses(rest) and not _HELP.match(rest):
            return rest
    return None


def _plain(text: str) -> str:
    return text.replace("\u2019", "'")
