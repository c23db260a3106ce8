"""Which items of two runs are compared: the same pairs or texts; or pairs and answers to the same questions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import polars as pl

from bluffscope.compare.tables import aligned
from bluffscope.errors import InputError
from bluffscope.records import PAIRS
from bluffscope.stats.sampling import draw_groups, drawn_from
from bluffscope.table.reader import Run

_ASKED: Final = re.compile(
    r"(?:^|\n)[ \t]*(?:Q|Question)[ \t]*:[ \t]*(.+?)\s*(?:\n[ \t]*(?:A|Answer)[ \t]*:?\s*)?$", re.S | re.I
)
"""The last question of a prompt that names it so."""


class Matched(NamedTuple):
    """Two runs over the items they share: row by row, but where one is over pairs and the other over texts."""

    tables: tuple[pl.DataFrame, pl.DataFrame]
    items: tuple[pl.DataFrame, pl.DataFrame]
    """What each table was measured from."""
    other_texts: int
    """Items whose id is in both and whose texts differ."""
    sample: str | None
    """What was drawn, where they share too many."""
    questions: int | None = None
    """Of pairs and texts: questions that are in both, 0 where whole runs are compared."""


def matched_items(first: Run, other: Run, by: Sequence[str], most: int) -> Matched:
    """The items that both measured, in the first run's order, with its domains and groups on both sides."""
    key, item = first.key, first.key.removesuffix("_id")
    texts = [key, *first.arrangement.sources, *([] if key == PAIRS.key else ["label"])]
    ids = first.metrics.select(key).join(other.metrics.select(key), on=key, how="semi")
    ours, theirs = (run.items.select(texts) for run in (first, other))
    equal = ours.join(theirs, on=texts, how="semi", nulls_equal=True)
    same = ids.join(equal, on=key, how="semi", maintain_order="left")
    if same.is_empty():
        why = f"the {ids.height} ids in common have other texts" if ids.height else f"no {item} id is in both"
        raise InputError(f"{first.path} and {other.path} share no {item} ({why}): compare runs over the same data")
    shared = same.height
    (of_first,) = aligned(same, first.metrics)
    same = same.filter(draw_groups(of_first["group"], most))
    ours, theirs, pairs = aligned(same, first.metrics, other.metrics, first.items)
    named = [name for name in ("domain", "group", *by) if name in ours.columns]
    theirs = theirs.with_columns(ours[name] for name in dict.fromkeys(named))
    return Matched(
        (ours, theirs),
        (pairs, pairs),
        ids.height - shared,
        drawn_from(same.height, shared, of="pairs" if key == PAIRS.key else "texts"),
    )


def matched_questions(first: Run, other: Run, most: int) -> Matched:
    """The pairs of one run and the texts of the other that ask the same questions; all of both where none is shared.

    Questions are the same where their texts are; or where their ids are (a pair's own, a text's group) and one text
    holds the other, as a prompt does that was composed of it.
    """
    pairs, texts = (first, other) if first.key == PAIRS.key else (other, first)
    asked = [
        run.items.join(run.metrics.select(run.key), on=run.key, how="semi", maintain_order="left").select(
            run.key,
            name=pl.col("pair_id" if run is pairs else "group").cast(pl.String),
            question=pl.col("prompt").map_elements(question_of, return_dtype=pl.String),
        )
        for run in (pairs, texts)
    ]
    both = (
        asked[0]
        .join(asked[1], on="name", suffix="_other")
        .filter(
            pl.col("question").str.contains(pl.col("question_other"), literal=True)
            | pl.col("question_other").str.contains(pl.col("question"), literal=True),
            pl.col("question") != "",
            pl.col("question_other") != "",
        )
    )
    names = both["name"].unique().to_list()
    said = [set(table["question"]) - {""} for table in asked]
    chosen = pl.col("name").is_in(names) | pl.col("question").is_in(list(said[0] & said[1]))
    kept = [table.filter(chosen) for table in asked]
    shared = kept[1]["name"].n_unique() if kept[1].height else 0
    found: dict[str, tuple[pl.DataFrame, pl.DataFrame]] = {}
    notes: list[str] = []
    for run, table in zip((pairs, texts), kept, strict=True):
        metrics = run.metrics.join(table, on=run.key, how="semi", maintain_order="left") if shared else run.metrics
        drawn = metrics.filter(draw_groups(metrics["group"], most))
        note = drawn_from(drawn.height, metrics.height, of="pairs" if run is pairs else "texts")
        notes += [] if note is None else [note]
        (items,) = aligned(drawn.select(run.key), run.items)
        found[run.key] = drawn, items
    ours, theirs = found[first.key], found[other.key]
    return Matched((ours[0], theirs[0]), (ours[1], theirs[1]), 0, " ".join(notes) or None, shared)


def question_of(prompt: str) -> str:
    r"""The question of a prompt, to be compared: what follows its last "Q:", or its last user turn; folded.

    >>> question_of("Q: Who wrote Emma?\nA: Austen\n\nQ: Who  wrote Persuasion?\nA:")
    'who wrote persuasion'
    """
    if prompt.lstrip().startswith("["):
        try:
            turns = cast("list[Any]", json.loads(prompt))
            prompt = str(next(turn["content"] for turn in reversed(turns) if turn["role"] == "user"))
        except (ValueError, LookupError, TypeError, StopIteration, RecursionError):
            pass
    last = re.split(r"\n\s*\n", prompt.rstrip())[-1]
    asked = _ASKED.search(last)
    return " ".join((asked[1] if asked else prompt).casefold().split()).strip(" ?.!:")


__all__ = ["Matched", "matched_items", "matched_questions", "question_of"]
