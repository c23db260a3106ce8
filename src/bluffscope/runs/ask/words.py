"""Words as the judge compares them: without case, accents and punctuation, numerals as digits; and where they stand."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_WORD: Final = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+(?:['\u2019][^\W_]+)*"
)
_LETTERS: Final = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "ı": "i"})
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa"})
_SLAVIC: Final = re.compile(r"(?<=..sk)(?:iy|ij|yj|ii|yi|i)$")


def listed_words(text: str) -> list[str]:
    """The words of a text between spaces, in order."""
    return text.split()


def word_set(text: str) -> frozenset[str]:
    """The words of a text between spaces."""
    return frozenset(listed_words(text))


ARTICLES: Final = frozenset({"the", "a", "an"})
FOREIGN_ARTICLES: Final = word_set("le la les el los las der die das il lo gli un une ein eine het")
TITLES: Final = word_set(
    "sir dr doctor mr mrs ms miss madame prof professor president king queen prince princess emperor empress lord lady "
    "pope captain general senator saint dame chancellor"
)
FUNCTION: Final = word_set(
    "the a an of in on at to for from by with as and or is are was were be been being it its it's this that these "
    "those there he she they who whom whose which what when where why how many much do does did has have had i you we "
    "his her their name called located known also"
)
_SHORT: Final = {"st": "saint", "mt": "mount", "ft": "fort", "jr": "junior", "sr": "senior", "&": "and"} | {
    name[:size]: name
    for name in listed_words("january february april august september october november december")
    for size in (3, 4)
    if size == 3 or name == "september"
}
ROMAN: Final = {
    tens + ones: str(10 * many + one)
    for many, tens in enumerate(("", "X", "XX", "XXX"))
    for one, ones in enumerate(("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"))
    if tens + ones
}
"""Roman numerals up to thirty-nine, as digits."""
_SMALL: Final = listed_words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_ORDINALS: Final = listed_words(
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
NUMERALS: Final = {word: str(number) for number, word in enumerate(_SMALL)} | {
    word: str(number) for number, word in enumerate(_ORDINALS)
}
"""Number words and ordinals up to twenty, as digits."""
_IRREGULAR: Final = {
    **{"mice": "mouse", "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth"},
    **{"geese": "goose", "wolves": "wolf", "leaves": "leaf", "knives": "knife", "lives": "life", "people": "person"},
}
_PAST: Final = {
    **{"fell": "fall", "began": "begin", "won": "win", "wrote": "write", "written": "write", "came": "come"},
    **{"built": "build", "became": "become", "took": "take", "sank": "sink", "made": "make", "broke": "break"},
    **{"sold": "sell", "led": "lead", "lost": "lose", "spoke": "speak", "flew": "fly", "gave": "give", "left": "leave"},
    **{"ate": "eat", "sang": "sing", "met": "meet", "held": "hold", "found": "find", "death": "die", "birth": "born"},
}
_LOOKALIKES: Final = word_set("us it who am is in or no so he me as at do")
"""Abbreviations in capitals (US, IT, WHO) that are other words in small letters."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text."""

    raw: str
    """As the text has it."""
    norm: str
    """As it is compared."""
    umlaut: str
    """The same with ae, oe, ue for umlauts."""
    start: int
    """Position of its first character."""
    end: int
    """Position after its last character."""

    @property
    def capital(self) -> bool:
        """Whether it begins with a capital or a digit."""
        return self.raw[0].isupper() or self.raw[0].isdigit()


def folded(text: str) -> str:
    """Without case, accents and special letters; combining marks of other scripts are kept."""
    if text.isascii():
        return text.casefold()
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS))
    kept: list[str] = []
    base = ""
    for character in plain:
        if not unicodedata.combining(character):
            base = character
        elif base < "\u0400":
            continue
        kept.append(character)
    return unicodedata.normalize("NFC", "".join(kept))


def words(text: str) -> list[Word]:
    """The words of a text, in order; "&" counts as one."""
    return list(_read(text))


@lru_cache(maxsize=1024)
def _read(text: str) -> tuple[Word, ...]:
    return tuple(_word(match[0], match.start()) for match in re.finditer(rf"{_WORD.pattern}|&", text))


def _word(raw: str, start: int) -> Word:
    norm, umlaut = _normal(raw)
    return Word(raw, norm, umlaut, start, start + len(raw))


@lru_cache(maxsize=4096)
def _normal(raw: str) -> tuple[str, str]:
    bare = re.sub(r"['\u2019]s$", "", raw)
    if len(bare) > 1 and bare in ROMAN:
        return ROMAN[bare], ROMAN[bare]
    return _spelt(folded(bare)), _spelt(folded(bare.casefold().translate(_UMLAUTS)))


def _spelt(word: str) -> str:
    word = re.sub(r"['\u2019]", "", word)
    word = re.sub(r"^(\d+)(?:st|nd|rd|th)$", r"\1", word)
    word = _SHORT.get(word, NUMERALS.get(word, word))
    return _SLAVIC.sub("y", word).replace("oye", "oe") if len(word) > 5 else word


def lean(items: list[Word]) -> list[Word]:
    """Without articles (a capital A that stands inside a text may be a name)."""
    return [
        word
        for place, word in enumerate(items)
        if word.norm not in ARTICLES or (word.raw == "A" and (place > 0 or len(items) == 1))
    ]


def singular(norm: str) -> str:
    """The singular of an English noun, by its ending; the word itself where it has none."""
    if norm in _IRREGULAR:
        return _IRREGULAR[norm]
    if len(norm) < 4 or not norm.endswith("s") or norm.endswith(("ss", "us", "is")):
        return norm
    if norm.endswith("ies") and len(norm) > 4:
        return norm[:-3] + "y"
    if norm.endswith("oes") and len(norm) > 5:
        return norm[:-2]
    return norm[:-2] if norm.endswith(("ses", "xes", "zes", "ches", "shes")) else norm[:-1]


def same(left: list[Word], right: list[Word], *, plural: bool = False) -> bool:
    """Whether words say the same, however they are joined (Spider-Man, Spiderman).

    Args:
        left: words of a gold answer.
        right: words of an answer.
        plural: whether singular and plural of the last word are one.
    """
    if len(left) == 1 and left[0].raw.isupper() and left[0].norm in _LOOKALIKES and not right[0].raw.isupper():
        return False
    sides = [{_joined(items, "norm", plural), _joined(items, "umlaut", plural)} for items in (left, right)]
    return bool(sides[0] & sides[1])


def _joined(items: list[Word], form: str, plural: bool) -> str:
    forms = [str(getattr(word, form)) for word in items]
    if plural:
        forms[-1] = singular(forms[-1])
    return "".join(forms)


def content(items: list[Word]) -> set[str]:
    """The words that say something, in their singular."""
    return {singular(word.norm) for word in items if word.norm not in FUNCTION}


def stems(items: list[Word]) -> set[str]:
    """The words that say something, without the endings of verbs."""
    return {re.sub(r"(?<=\w{3})(?:ed|ing|e|d)$", "", _PAST.get(norm, norm)) for norm in content(items)}
