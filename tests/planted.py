"""A data set with every fault that the linter looks for, and the ids of the pairs that have it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

_FIRST = ("old", "new", "big", "red", "raw", "shy", "dry", "wet", "sad", "odd")
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


def clean_pairs(count: int, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Pairs without a fault: an adjective and a made-up word, facts and hallucinations drawn alike, no text twice."""
    rng = random.Random(seed)
    seen: set[str] = set()

    def word() -> str:
        while True:
            made = "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(4))
            if made not in seen:
                seen.add(made)
                return made

    def completion() -> str:
        return f"{rng.choice(_FIRST)} {word()}"

    return [
        {"id": f"{seed}-{i}", "prompt": f"The {word()} is", "fact": completion(), "hallucination": completion(), **more}
        for i in range(count)
    ]


def planted() -> tuple[list[dict[str, Any]], dict[str, set[str]]]:
    """Rows, and for each code the ids that must be named (all of them and no others)."""
    rows = clean_pairs(40, domain="clean")
    special = clean_pairs(20, seed=1, domain="clean")
    special[0]["id"] = special[1]["id"] = "twice"
    special[2] |= {"id": "yes", "prompt": "The capital of France is", "fact": "Paris", "hallucination": "Lille"}
    special[3] |= {"id": "no", "prompt": "the capital  of France is", "fact": "Lyon", "hallucination": "PARIS "}
    special[4] |= {"id": "same", "fact": "Bern", "hallucination": " bern"}
    special[5] |= {"id": "copy-1"}
    special[6] |= special[5] | {"id": "copy-2"}
    special[7] |= {"id": "shared-1"}
    special[8] |= {"id": "shared-2", "prompt": special[7]["prompt"]}
    special[9] |= {"id": "told", "prompt": "Oslo lies in Norway. Its capital is", "fact": "oslo"}
    special[10] |= {"id": "ending", "fact": "a red house", "hallucination": "a blue House"}
    special[11] |= {"id": "blank", "prompt": " "}
    del special[12]["fact"]
    special[12]["id"] = "missing"
    near = "Light in vacuum travels", "Light in a vacuum travels"
    special[13] |= {"id": "near-1", "prompt": near[0], "fact": special[14]["hallucination"]}
    special[14] |= {"id": "near-2", "prompt": near[1]}
    special[15] |= {"id": "doubled", "prompt": "The dusk is\n", "fact": f" {special[15]['fact']}"}
    special[16] |= {"id": "own-space", "hallucination": f" {special[16]['hallucination']}"}
    special[17] |= {"id": "forged", "prompt": f"<|im_end|> {special[17]['prompt']}"}
    longer = clean_pairs(30, seed=2, domain="longer")
    for pair in longer:
        pair["hallucination"] += "xyz"
    denying = clean_pairs(40, seed=3, domain="denying")
    for pair in denying[:30]:
        pair["hallucination"] = "not" + pair["hallucination"][3:]
    expected = {
        "duplicate-id": {"twice"},
        "contradiction": {"yes", "no"},
        "same-completions": {"same"},
        "near-contradiction": {"near-1", "near-2"},
        "conflicting-facts": {"shared-1", "shared-2"},
        "duplicate-pair": {"copy-1", "copy-2"},
        "duplicate-prompt": {"yes", "no", "shared-1", "shared-2"},
        "answer-in-prompt": {"told"},
        "same-last-word": {"ending", "same"},
        "special-token": {"forged"},
        "doubled-space": {"doubled"},
        "space-at-join": {"own-space", "same"},
        "unreadable-row": {"blank", "missing"},
        "length-imbalance": {pair["id"] for pair in longer},
        "negation-imbalance": {pair["id"] for pair in denying[:30]},
        "text-tells": set(),
    }
    return [*rows, *special, *longer, *denying], expected


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def clean_texts(count: int, seed: int = 0, *, prompts: bool = True, **more: Any) -> list[dict[str, Any]]:
    """Labelled texts without a fault: both completions of each of the first `clean_pairs`, or as many statements."""
    rows: list[dict[str, Any]] = []
    for pair in clean_pairs(count, seed, **more):
        for label, side in ((True, "fact"), (False, "hallucination")):
            said = {"prompt": pair["prompt"], "completion": pair[side]}
            text = said if prompts else {"text": f"{pair['prompt']} {pair[side]}"}
            rows.append({"id": f"{pair['id']}/{label}", "label": label, **text, **more})
    return rows


def planted_texts() -> tuple[list[dict[str, Any]], dict[str, set[str]]]:
    """Labelled texts, and for each code the ids that must be named (all of them and no others)."""
    rows = clean_texts(30, domain="clean")
    special = clean_texts(12, seed=1, domain="clean")
    special[0]["id"] = special[1]["id"] = "twice"
    special[2] |= {"id": "true", "prompt": "The capital of France is", "completion": "Paris"}
    special[3] |= {"id": "false", "prompt": "the capital  of France is", "completion": "PARIS "}
    special[4] |= {"id": "copy-1"}
    special[6] |= special[4] | {"id": "copy-2"}
    special[8] |= {"id": "blank", "completion": " "}
    special[10] |= {"id": "70", "label": "perhaps"}  # a row without a label is named by its number
    special[12] |= {"id": "near-1", "prompt": "Light in vacuum travels", "completion": "fast"}
    special[15] |= {"id": "near-2", "prompt": "Light in a vacuum travels", "completion": "Fast"}
    special[16] |= {"id": "doubled", "prompt": "The dusk is\n", "completion": f" {special[16]['completion']}"}
    special[18] |= {"id": "own-space", "completion": f" {special[18]['completion']}"}
    special[20] |= {"id": "forged", "prompt": f"<|im_end|> {special[20]['prompt']}"}
    longer = clean_texts(30, seed=2, domain="longer")
    for text in longer:
        text["completion"] += "" if text["label"] else "xyz"
    denying = clean_texts(40, seed=3, domain="denying")
    for text in denying[:60]:
        if not text["label"]:
            text["completion"] = "not" + text["completion"][3:]
    rare = [text for place, text in enumerate(clean_texts(70, seed=4, domain="rare")) if text["label"] or place < 24]
    few = [text for place, text in enumerate(clean_texts(20, seed=5, domain="few")) if text["label"] or place < 4]
    expected = {
        "unreadable-row": {"blank", "70"},
        "duplicate-id": {"twice"},
        "contradiction": {"true", "false"},
        "near-contradiction": {"near-1", "near-2"},
        "duplicate-text": {"copy-1", "copy-2"},
        "few-of-a-label": set[str](),
        "label-imbalance": set[str](),
        "domain-tells": set[str](),
        "special-token": {"forged"},
        "doubled-space": {"doubled"},
        "space-at-join": {"own-space"},
        "length-imbalance": {text["id"] for text in longer if not text["label"]},
        "negation-imbalance": {text["id"] for text in denying[:60] if not text["label"]},
        "text-tells": set[str](),
    }
    return [*rows, *special, *longer, *denying, *rare, *few], expected
