"""What the linter sees in a text without a tokenizer: words, (English) negations, the piece it ends with."""

from __future__ import annotations

import re
from typing import Final

from bluffscope.wordbag import pieces

_WORD: Final = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")
NEGATIONS: Final = frozenset({"not", "no", "never", "none", "without", "nobody", "nothing", "neither", "nor", "cannot"})
"""English words that deny; forms with n't are recognised besides."""


def words(text: str) -> list[str]:
    """The words of a text, casefolded, without punctuation; contractions stay whole."""
    return _WORD.findall(text.casefold())


def last_piece(text: str) -> str:
    """The last word, or the punctuation mark behind it: a stand-in for the last token where no tokenizer is known."""
    found = pieces(text)
    return found[-1] if found else text.strip()


def negated(text: str) -> bool:
    """Whether a text holds an English negation."""
    return any(word in NEGATIONS or word.endswith(("n't", "n\N{RIGHT SINGLE QUOTATION MARK}t")) for word in words(text))


def holds(text: str, part: str) -> bool:
    """Whether the words of `part` stand in `text` one after the other; a part without words is in nothing."""
    inner = words(part)
    return bool(inner) and f" {' '.join(inner)} " in f" {' '.join(words(text))} "
