"""Pairs that try everything at once: scripts, lengths, shared prompts, merges, texts that look like special tokens."""

from __future__ import annotations

import random
from typing import Any

_WORDS = ["The", "capital", "of", "France", "Italy", "is", "Paris", "Rome", "Water", "boils", "at", "one", "hundred"]
_ODD = [
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}",
    "\N{SNOWFLAKE}",
    "مرحبا بالعالم",
    "שלום",
    "北京",
    "<bos>",
    "<eos>",
    "<pad>",
    "\n\t",
    "3.14159",
    "x" * 9,
]

# With --join "" the last piece of each of these prompts merges with the completion ("is", " France", " Paris").
_MERGING = [("The capital of Fr", "ance", "ancis"), ("Water i", "s", "sn't"), ("The capital is Par", "is", "k")]

_FIXED: list[tuple[str, str, str]] = [
    ("The capital of France is", "Paris", "Rome"),
    ("The capital of France is", "Paris, Paris", "boils"),
    ("The capital of", "France", "Italy is Rome"),
    ("The", "capital", "water \N{SNOWFLAKE}"),
    ("a", "b", "c"),
    ("<bos>", "<eos>", "<pad>"),
    ("قال: \N{RIGHT-TO-LEFT MARK}", "مرحبا", "hello \N{ROCKET}"),
    *_MERGING,
]


def random_pairs(seed: int, count: int = 14, longest: int = 60) -> list[dict[str, Any]]:
    """The fixed pairs and `count - 10` random ones; one prompt has `longest` letters that never merge."""
    rng = random.Random(seed)
    texts = list(_FIXED)
    texts.append(("zqjxkv"[rng.randrange(6)] * longest, _text(rng, 3), _text(rng, 1)))
    while len(texts) < count:
        shared = rng.random() < 0.4
        prompt = rng.choice(texts)[0] if shared else _text(rng, rng.randint(1, 6))
        texts.append((prompt, _text(rng, rng.randint(1, 4)), _text(rng, rng.randint(1, 4))))
    texts = texts[:count]
    rng.shuffle(texts)
    return [
        {"id": f"p{seed}/{i} é", "domain": "ab"[i % 2], "prompt": prompt, "fact": fact, "hallucination": hallucination}
        for i, (prompt, fact, hallucination) in enumerate(texts)
    ]


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(_WORDS if rng.random() < 0.7 else _ODD) for _ in range(words))
