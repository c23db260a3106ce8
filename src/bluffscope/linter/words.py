"""What the linter sees in a text without a tokenizer: words, (English) negations, the piece it ends with."""

from __future__ import annotations

import re
from typing import Final, Literal

from bluffscope.pairs.wordbag import folded, pieces
from bluffscope.records import AUTO_JOIN

WhiteSpace = Literal["own", "doubled"] | None
_WORD: Final = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")
NEGATIONS: Final = frozenset({"not", "no", "never", "none", "without", "nobody", "nothing", "neither", "nor", "cannot"})
"""English words that deny; forms with n't are recognised too."""


def words(text: str, *, fold: bool = True) -> list[str]:
    """The words of a text, folded unless `fold` is False, without punctuation; contractions stay whole."""
    return _WORD.findall(folded(text) if fold else text)


def white_space(prompt: str, completion: str, join: str) -> WhiteSpace:
    """What prompt and completion bring along where they are joined.

    "own" where --join auto adds nothing because there is white space already, "doubled" where two pieces of white
    space meet.
    """
    if join == AUTO_JOIN and prompt.endswith(" ") and completion.startswith(" "):
        completion = completion[1:]
    before, after = prompt[-1:].isspace(), completion[:1].isspace()
    if join == AUTO_JOIN:
        return "doubled" if before and after else "own" if before or after else None
    met = (before and join[0].isspace()) or (after and join[-1].isspace()) if join else before and after
    return "doubled" if met else None


SPECIAL: Final = re.compile(
    r"<\|[\w.-]+\|>|</?s>|<(?:bos|eos|pad|unk|(?:start|end)_of_turn)>|\[/?(?:INST|SYSTEM_PROMPT)\]|<</?SYS>>"
    "|<\N{FULLWIDTH VERTICAL LINE}.{1,40}?\N{FULLWIDTH VERTICAL LINE}>"
)
"""Names of special tokens, as the chat templates of published models write them."""


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
