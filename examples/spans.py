"""Labelled texts with spans, for a detector of tokens: both sides of the bundled pairs as sentences.

`python examples/spans.py > spans.jsonl` prints them; the span of a false sentence is its hallucinated completion.
docs/detect.md trains on them.
"""

from __future__ import annotations

import json

from bluffscope.config import DataOptions
from bluffscope.pairs import open_source
from bluffscope.records import joined


def main() -> None:
    """Print a line for each sentence."""
    source = open_source(DataOptions(data="bluff200"))
    for pair, group in zip(source.pairs(), source.scan().groups, strict=True):
        for side, completion in (("fact", pair.fact), ("hall", pair.hallucination)):
            text = joined(pair.prompt, completion, "auto")
            line: dict[str, object] = {
                "id": f"{pair.id}/{side}",
                "text": text + ".",
                "label": side == "fact",
                "group": str(group),
            }
            if side == "hall":
                line["spans"] = [[len(text) - len(completion.lstrip()), len(text)]]
            print(json.dumps(line | {"known": pair.extra["known"]}))


if __name__ == "__main__":
    main()
