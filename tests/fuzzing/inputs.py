"""Files of pairs, files of options and command lines, with accidents."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bluffscope.config import RunConfig
from bluffscope.table.folder import plain
from fuzzing.values import HUGE, TEXTS, damage_bytes, dumped, mutate, value

FIELDS = ("id", "domain", "complexity", "prompt", "fact", "hallucination", "source", "group")


def pair_rows(rng: random.Random) -> list[dict[str, Any]]:
    """Pairs of which some fields hold whatever a field may hold."""
    rows: list[dict[str, Any]] = [
        {"id": f"p{i}", "domain": "ab"[i % 2], "prompt": f"The capital of place {i} is", "fact": "Paris"}
        | {"hallucination": "Rome", "complexity": i % 5 + 1, "source": "a book"}
        for i in range(rng.choice([1, 2, 8, 8, 40]))
    ]
    for _ in range(rng.choice([1, 1, 3, 10])):
        row, field = rng.choice(rows), rng.choice(FIELDS)
        row[field] = rng.choice(TEXTS) if rng.random() < 0.6 else value(rng, row.get(field))
    if rng.random() < 0.3:  # one accident in every row
        field, held = rng.choice(FIELDS), value(rng)
        for row in rows:
            row[field] = held
    if rng.random() < 0.2:
        for row in rows:
            row.pop(field := rng.choice(FIELDS), None)
            row[field.upper()] = "x"
    return rows


def pairs_file(rng: random.Random, folder: Path) -> tuple[Path, str]:
    """A file of pairs in one of the formats."""
    rows, suffix = pair_rows(rng), rng.choice([".json", ".jsonl", ".csv", ".parquet", ".tsv"])
    content = _WRITERS[suffix](rng, rows)
    if damaged := rng.random() < 0.4:
        content = damage_bytes(rng, content)
    file = folder / f"pairs{suffix}"
    file.write_bytes(content)
    return file, f"{file.name}{' damaged' if damaged else ''} {str(rows)[:80]}"


def _json(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    document: Any = rows if rng.random() < 0.6 else {rng.choice(["data", "rows", "x"]): rows}
    if rng.random() < 0.3:
        mutate(rng, document)
    return dumped(document).encode()


def _jsonl(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    return rng.choice(["\n", "\r\n", "\n\n"]).join(map(dumped, rows)).encode()


def _csv(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    made = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(made, names, delimiter=rng.choice([",", ",", ";", "\t"]))
    writer.writeheader()
    writer.writerows({name: "9" * 5_000 if held == HUGE else held for name, held in row.items()} for row in rows)
    return made.getvalue().encode(rng.choice(["utf-8", "utf-8", "utf-16", "utf-8-sig"]), "surrogatepass")


def _parquet(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    made = io.BytesIO()
    try:
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, made, compression=rng.choice(["snappy", "zstd", "none"]))
    except (pa.ArrowException, OverflowError, UnicodeError, ValueError):  # no type holds such a column
        names = list(rows[0])
        table = pa.table({name: [ascii(row.get(name))[:30_000] for row in rows] for name in names})
        pq.write_table(table, made)
    return made.getvalue()


_WRITERS = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet, ".tsv": _csv}

TAGGED = (
    '!!bool "x"',
    '!!int ""',
    '!!float ""',
    '!!timestamp "x"',
    "!!binary x",
    "!!set {a}",
    "!!omap [a: 1]",
    "&a [*a]",
)
NUMBERS = (
    "9" * 5_000,
    "0x" + "f" * 5_000,
    "0b" + "1" * 20_000,
    "1:" * 3_000 + "1",
    "1_" * 3_000,
    "2020-99-99",
    ".inf",
    "0o9",
)


def config_file(rng: random.Random, folder: Path, base: RunConfig) -> tuple[Path, str]:
    """A run's config.yaml after some accidents."""
    content = plain(base)
    said = ", ".join(mutate(rng, content[rng.choice(list(content))]) for _ in range(rng.choice([1, 1, 2, 4])))
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=False).replace(f"'{HUGE}'", rng.choice(NUMBERS))
    if rng.random() < 0.4:  # one line's value is something else
        lines = text.splitlines()
        places = [place for place, line in enumerate(lines) if ": " in line]
        place = rng.choice(places)
        lines[place] = f"{lines[place].partition(':')[0]}: {(put := rng.choice([*TAGGED, *NUMBERS, *TEXTS]))}"
        text, said = "\n".join(lines), f"{said}; {lines[place][:80]!r} {put[:20]!r}"
    encoded = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        encoded, said = damage_bytes(rng, encoded), "bytes"
    file = folder / "options.yaml"
    file.write_bytes(encoded)
    return file, f"config {said}"


WORDS = (*("0", "1", "-1", "2", "9" * 5_000, str(2**31), str(2**63), "1e3", "nan", "inf", "0x10"), *TEXTS[:30])
NOT_GIVEN = ("engine", "address", "workers", "out", "resume", "data", "model", "sae", "preset")
"""Options that the caller gives, or that start a cluster."""


def flags(rng: random.Random, options: type = RunConfig) -> list[str]:
    """Some options of a run with values that may be anything."""
    names = [
        item.name for part in fields(options) for item in fields(part.default_factory()) if item.name not in NOT_GIVEN
    ]
    words: list[str] = []
    for name in rng.sample(names, rng.choice([1, 1, 2, 3])):
        flag = f"--{name.replace('_', '-')}"
        given = [word.replace("\0", "") for word in rng.sample(WORDS, rng.choice([0, 1, 1, 1, 2]))]
        words += [f"{flag}={given[0]}"] if given and rng.random() < 0.3 else [flag, *given]
    if rng.random() < 0.2:
        words.insert(rng.randrange(len(words) + 1), rng.choice(["--", "-x", "--nope", "--help", "=", "@", "--lim"]))
    return [word.encode("utf-8", "replace").decode() for word in words]
