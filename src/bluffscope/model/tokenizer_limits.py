"""Tokenizers that make much of little are refused: a few rules, each doubling a text, fill any memory."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from bluffscope.errors import InputError
from bluffscope.model.names import read_if_there

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_GROWTH: Final = 64
"""Times its length that a text may become in the worst case; published tokenizers stay below 10."""
MOST_RULES: Final = 256
"""Of a tokenizer; published ones have up to 30."""
UNICODE_BYTES: Final = 64
"""More than any character becomes by the rules of Unicode (U+FDFA: 33), which change nothing a second time."""
_PARTS: Final = ("normalizers", "pretokenizers", "decoders", "processors")
_FREE: Final = frozenset(
    ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents", "Lowercase")
    + ("Split", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "BertPreTokenizer")
    + ("UnicodeScripts", "CharDelimiterSplit", "FixedLength")
)
"""Rules that lengthen no text, but by what Unicode says."""
_FACTORS: Final = {"ByteLevel": 2.0, "Metaspace": 2.0, "BertNormalizer": 3.0}
_NOT_EMPTY: Final = re.compile(r"(?: |\\s|\\n|\[[^\[\]]+\])(?:\+|\{[1-9]\d*,?\d*\})?")
"""Regular expressions that plainly match no empty text."""
_AFFIXES: Final = ("continuing_subword_prefix", "end_of_word_suffix", "unk_token")


def check_tokenizer(name: str, location: str, revision: str | None) -> None:
    """Refuse, before it is loaded, a tokenizer that is in other files than the usual, or that lengthens texts too much.

    Args:
        name: of the model, for messages.
        location: its folder, or hub id.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: saying which.
    """
    if "fast_tokenizer_files" in read_if_there(name, location, "tokenizer_config.json", revision):
        raise InputError(
            f"--model {name}: tokenizer_config.json names other tokenizer files (fast_tokenizer_files); remove that "
            "entry and keep tokenizer.json"
        )
    check_growth(name, read_if_there(name, location, "tokenizer.json", revision))


def check_converted(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """`check_growth` of a loaded tokenizer, which may have been made of a tokenizer.model.

    Raises:
        InputError: it lengthens texts too much.
    """
    normalizer: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if normalizer is not None:
        check_growth(name, {"normalizer": json.loads(normalizer.__getstate__())})


def check_growth(name: str, content: Mapping[str, Any]) -> None:
    """Refuse a tokenizer whose rules can make a text `MOST_GROWTH` times as long.

    Args:
        name: of the model, for messages.
        content: of its tokenizer.json.

    Raises:
        InputError: it can, or its rules cannot be read.
    """
    try:
        growing = (*_rules(content.get("normalizer")), *_rules(content.get("pre_tokenizer")))
        back, after = tuple(_rules(content.get("decoder"))), tuple(_rules(content.get("post_processor")))
        model: Mapping[str, Any] = content.get("model") or {}
        worst = max(
            _growth(growing),
            _growth([rule for rule in back if rule["type"] == "Replace"]),
            *(_template(rule) for rule in after),
            *(len(str(model.get(affix) or "")) for affix in _AFFIXES),
        )
        rules = len(growing) + len(back) + len(after)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"--model {name}: the rules of its tokenizer.json are damaged; copy it again") from error
    if worst > MOST_GROWTH or rules > MOST_RULES:
        raise InputError(
            f"--model {name}: its tokenizer can make a text more than {MOST_GROWTH} times as long, or has more than "
            f"{MOST_RULES} rules, and would fill the memory; copy tokenizer.json from where the model was published"
        )


def _rules(rule: Any) -> Iterator[dict[str, Any]]:
    """The rules of a part of a tokenizer in their order, sequences opened."""
    if rule is None:
        return
    inner = next((rule[part] for part in _PARTS if part in rule), None)
    if inner is None:
        yield rule
    for item in inner or ():
        yield from _rules(item)


def _growth(rules: list[dict[str, Any]] | tuple[dict[str, Any], ...]) -> float:
    """The factor by which rules, one after the other, can lengthen a text; what Unicode adds is left out."""
    growth, maps = 1.0, 0
    for rule in rules:
        kind = rule["type"]
        if kind == "Replace":
            growth *= _replacing(rule["pattern"], len(rule["content"]))
        elif kind == "Prepend":
            growth *= 1 + len(rule["prepend"])
        elif kind == "Precompiled":
            growth *= max(1.0, _longest(rule["precompiled_charsmap"]) / (1 if maps else UNICODE_BYTES))
            maps += 1
        elif kind not in _FREE:
            growth *= _FACTORS.get(kind, UNICODE_BYTES)
    return growth


def _replacing(pattern: Mapping[str, str], content: int) -> float:
    if text := pattern.get("String"):
        return max(1.0, content / len(text))
    # What can match nothing stands before, between and behind all characters.
    return max(1.0, content) if _NOT_EMPTY.fullmatch(pattern.get("Regex", "")) else 1.0 + 2 * content


def _longest(charsmap: str) -> int:
    """Bytes of the longest replacement in a SentencePiece map: the size of a trie, the trie, texts ended by NUL."""
    raw = base64.b64decode(charsmap)
    return max(map(len, raw[4 + int.from_bytes(raw[:4], "little") :].split(b"\0")), default=0)


def _template(rule: Mapping[str, Any]) -> int:
    """Copies of the text, and special tokens, that a template puts together."""
    tokens: Mapping[str, Any] = rule.get("special_tokens") or {}
    pieces: list[Mapping[str, Any]] = rule.get("single") or []
    return sum(len(tokens[piece["SpecialToken"]["id"]]["ids"]) if "SpecialToken" in piece else 1 for piece in pieces)
