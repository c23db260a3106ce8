"""The pairs that the benchmark measures: the bundled ones, any number of them, with prompts that share more or less."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from bluffscope.config import DataOptions
from bluffscope.pairs import open_source

Sharing = Literal["bundled", "none", "short", "long"]
"""What prompts have in common: what the bundled ones do, nothing, an instruction of a sentence, or one of a page."""

LONG_WORDS: Final = 290
"""Words of the long instruction: about 300 tokens with the embedded model's tokenizer."""
LONG_WORDS_OF_THE_DEMO: Final = 180
"""As many as the embedded model's context of 256 tokens takes beside a pair."""
_SUBJECTS: Final = ("river", "house", "engine", "window", "garden", "teacher", "doctor", "bridge", "market", "forest")
_SENTENCE: Final = "Here is a claim from a list of claims that you are asked to read with care:"


def write_pairs(path: Path, count: int, sharing: Sharing = "bundled", long_words: int = LONG_WORDS) -> Path:
    """Write `count` pairs as JSON lines: the bundled ones in order, then again in new settings."""
    with path.open("w", encoding="utf-8") as file:
        for record in pairs(count, sharing, long_words):
            file.write(json.dumps(record) + "\n")
    return path


def pairs(count: int, sharing: Sharing = "bundled", long_words: int = LONG_WORDS) -> Iterator[dict[str, Any]]:
    """Pairs as mappings; from the second time round, each prompt begins with a setting of its own."""
    source = open_source(DataOptions())
    bundled = list(source.pairs())
    for index in range(count):
        pair, again = bundled[index % len(bundled)], index // len(bundled)
        prompt = pair.prompt
        if again:
            prompt = f"In the {_SUBJECTS[index % len(_SUBJECTS)]} {again}, {prompt}"
        yield {
            "id": f"{pair.id}-{index}",
            "domain": pair.domain,
            "prompt": _prefix(index, sharing, long_words) + prompt,
            "fact": pair.fact,
            "hallucination": pair.hallucination,
        }


def _prefix(index: int, sharing: Sharing, long_words: int) -> str:
    if sharing == "bundled":
        return ""
    if sharing == "none":  # a number of its own in front: nothing after BOS is shared
        return f"{index:05d} "[::-1].strip() + " "
    if sharing == "short":
        return _SENTENCE + " "
    words = (_SENTENCE.removesuffix(":") + " and a page of reasons for reading it so.").split()
    return " ".join(words[number % len(words)] for number in range(long_words)) + " "
