"""Countries and states that may follow a place's name, and whether they put it elsewhere than the question does."""

from __future__ import annotations

import re
from typing import Final

from bluffscope.runs.ask.words import word_set, words

PLACES: Final = word_set(
    "usa us uk united states kingdom england scotland wales ireland france germany italy spain portugal poland russia "
    "china japan india canada australia mexico brazil europe asia africa america austria switzerland sweden norway "
    "denmark finland netherlands belgium greece turkey egypt texas california"
)
"""Last parts of an address, which make no list of alternatives."""
_STATE: Final = re.compile(
    r"^, (?:(?:the )?(?:US|U\.S\.) state of )?(Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|"
    r"Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|"
    r"Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New (?:Hampshire|Jersey|Mexico|"
    r"York)|(?:North|South) (?:Carolina|Dakota)|Ohio|Oklahoma|Oregon|Pennsylvania|Tennessee|Texas|Utah|Vermont|"
    r"(?:West )?Virginia|Washington|Wisconsin|Wyoming|Ontario|Alberta|Manitoba|Saskatchewan|Nova Scotia|"
    r"British Columbia)\b"
)
_ABROAD: Final = PLACES - word_set(
    "usa us united states texas california canada america kingdom asia europe africa"
) | word_set(
    "european african asian french german italian spanish portuguese polish russian chinese japanese indian british "
    "english scottish welsh irish austrian swiss swedish norwegian danish finnish dutch belgian greek turkish egyptian "
    "australian brazilian mexican kingdom britain"
)


def elsewhere(after: str, question: str) -> bool:
    """Whether a state of North America that follows a name puts it elsewhere than the question (Paris, Texas).

    The question has to say where: by a country or a nationality, or by what the place is the capital of.
    """
    state = _STATE.match(after)
    if state is None or state[1].lower() in question.lower():
        return False
    asked = {word.norm for word in words(question)}
    return bool(asked & _ABROAD) or re.search(r"\bcapital(?: city)? of\b|\bas its capital\b", question) is not None
