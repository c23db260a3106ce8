"""Names that are one name in two spellings: a slip of the pen in a long name, a given name from another alphabet."""

from __future__ import annotations

import re
from typing import Final

from bluffscope.runs.ask.words import Word

_SLIP: Final = 7
"""Letters from which a word may lack one, have one too many, or have two neighbours swapped."""
_CHANGE: Final = 8
"""Letters from which one may be another: shorter names that differ so are often two names (Granada, Grenada)."""
_SOUNDS: Final = [
    (re.compile(pattern), letter)
    for pattern, letter in ((r"ph|w|f", "v"), (r"kh|ch|ck|c|q", "k"), (r"x", "ks"), (r"[jy]", "i"), (r"(.)\1+", r"\1"))
]


def misspelt(gold: list[Word], given: list[Word]) -> bool:
    """Whether words are those of a name but for one slip in one long word, not in its first letter nor its ending."""
    if len(gold) != len(given) or not gold[0].capital:
        return False
    differing = [
        (left, right) for left, right in zip(gold, given, strict=True) if not {left.norm, left.umlaut} & {right.norm}
    ]
    return len(differing) == 1 and differing[0][0].capital and _slip(differing[0][0].norm, differing[0][1].norm)


def _slip(left: str, right: str) -> bool:
    short, long = sorted((left, right), key=len)
    if len(left) < _SLIP or not (left + right).isalpha() or left[0] != right[0]:
        return False
    single = [re.sub(r"(.)\1+", r"\1", word) for word in (left, right)]
    if single[0] == single[1] or left == right + "e":
        return True
    at = next((place for place, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return left[-1] == right[-1] and short[at:] == long[at + 1 :]
    swapped = short[at : at + 2] == long[at : at + 2][::-1] and short[at + 2 :] == long[at + 2 :]
    return swapped or (len(left) >= _CHANGE and left[-1] == right[-1] and short[at + 1 :] == long[at + 1 :])


def same_given_name(left: str, right: str) -> bool:
    """Whether two given names are one in two transliterations (Pyotr, Piotr; Aleksandr, Alexander).

    Vowels may differ between three or more consonants, but not whether a vowel ends the name (Louis, Louise).
    """
    sounds = [_sounds(name) for name in (left, right)]
    if sounds[0] == sounds[1]:
        return True
    bones = [re.sub("[aeiou]", "", name) for name in sounds]
    ends = [name[-1] in "aeiou" for name in sounds]
    alike = bones[0] == bones[1] and len(bones[0]) > 2
    return alike and ends[0] == ends[1] and (sounds[0][0] in "aeiou") == (sounds[1][0] in "aeiou")


def _sounds(name: str) -> str:
    for pattern, letter in _SOUNDS:
        name = pattern.sub(letter, name)
    return re.sub("[aei]i$", "i", name)
