"""The pairs in a run over labelled texts: true and false texts of one group or prompt, laid out as a run over pairs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from bluffscope.records import PAIRS
from bluffscope.table.metric_pairs import text_metrics
from bluffscope.table.schema import Column

PairedBy = Literal["group", "prompt"]
_LAYER: Final = re.compile(r"(l\d+_)(.+)")
_SIDES: Final = {"fact": True, "hall": False}


def pairs_of(texts: pl.DataFrame, by: PairedBy) -> pl.DataFrame:
    """Which texts make pairs: the k-th true with the k-th false one of each group, the shorter side repeated.

    Args:
        texts: `text_id, label, group, prompt` of the texts that were measured, in the order of the table.
        by: what the two have in common; a text without a prompt has none in common with another.

    Returns:
        pair_id (both ids), fact_text_id, hall_text_id; groups in their order.
    """
    known = texts.filter(pl.col("prompt") != "") if by == "prompt" else texts
    sides = known.group_by(by, maintain_order=True).agg(
        pl.col("text_id").filter(pl.col("label") == label).alias(side) for side, label in _SIDES.items()
    )
    rows: list[tuple[str, str, str]] = []
    for _, facts, halls in sides.iter_rows():
        count = max(len(facts), len(halls)) if facts and halls else 0
        rows += [
            (f"{facts[k % len(facts)]}+{halls[k % len(halls)]}", facts[k % len(facts)], halls[k % len(halls)])
            for k in range(count)
        ]
    return pl.DataFrame(
        rows, schema=dict.fromkeys(("pair_id", "fact_text_id", "hall_text_id"), pl.String), orient="row"
    )


def paired_table(metrics: pl.LazyFrame, pairs: pl.DataFrame, columns: Sequence[Column]) -> pl.LazyFrame:
    """Metrics of pairs as in a run over pairs: `l5_fact_gini`, `entropy_fact`, `entropy_hall`, `entropy_diff`.

    Domain, group and the prompt's columns are those of the true text. What compares two texts of a pair beyond a
    difference, such as where they part, is not there.

    Args:
        metrics: of a run over labelled texts.
        pairs: as `pairs_of` makes them.
        columns: of that run.
    """
    measured = [column.name for column in columns if column.section not in ("pair", "carried")]
    own = text_metrics(measured)
    of_prompt = [name for name in measured if name not in own]
    there = {column.name for column in columns}
    once = [name for name in ("domain", "group", "prompt_tokens", "prompt_read_token") if name in there]
    fact = metrics.select("text_id", *once, *of_prompt, *_named(own, "fact"))
    hall = metrics.select("text_id", *_named(own, "hall"))
    joined = (
        pairs.lazy()
        .join(fact, left_on="fact_text_id", right_on="text_id", how="left", maintain_order="left")
        .join(hall, left_on="hall_text_id", right_on="text_id", how="left", maintain_order="left")
    )
    numbers = {column.name for column in columns if column.kind in ("int", "float")}
    parted = [name for name in own if not _LAYER.fullmatch(name) and name in numbers]
    knows = {"knows": pl.col("logprob_fact") > pl.col("logprob_hall")} if "logprob" in own else {}
    differences = [(pl.col(f"{name}_hall") - pl.col(f"{name}_fact")).alias(f"{name}_diff") for name in parted]
    return joined.with_columns(differences, **knows).select(*_ordered(once, measured, of_prompt, parted), *knows)


def _named(own: Iterable[str], side: str) -> list[pl.Expr]:
    """A text's columns under the names of one side."""
    lengths = [pl.col("text_tokens").alias(f"{side}_tokens"), pl.col("read_token").alias(f"{side}_read_token")]
    return [*lengths, *(pl.col(name).alias(_side(name, side)) for name in own)]


def _side(name: str, side: str) -> str:
    match = _LAYER.fullmatch(name)
    return f"{name}_{side}" if match is None else f"{match[1]}{side}_{match[2]}"


def _ordered(
    once: Sequence[str], measured: Sequence[str], of_prompt: Sequence[str], parted: Sequence[str]
) -> list[str]:
    """The columns in the order of a run over pairs."""

    def differing(metric: str) -> tuple[str, ...]:
        return (f"{metric}_diff",) if metric in parted else ()

    found = ["pair_id", "fact_text_id", "hall_text_id", *(name for name in once if not name.startswith("prompt_"))]
    found += [name for view in PAIRS.views for name in [f"{view}_tokens"] if view != "prompt" or name in once]
    found += [name for view in PAIRS.views for name in [f"{view}_read_token"] if view != "prompt" or name in once]
    for block, names in groupby(measured, key=lambda name: _block(name, of_prompt)):
        if block == "":
            found += [
                name for metric in names for name in (*(f"{metric}_{side}" for side in _SIDES), *differing(metric))
            ]
        else:
            of_layer = list(names)
            sides = ("",) if block == "prompt" else tuple(_SIDES)
            found += [_side(name, side) if side else name for side in sides for name in of_layer]
    return found


def _block(name: str, of_prompt: Sequence[str]) -> str:
    """What a column stands together with: those of its layer's texts, of prompts; nothing where it has no layer."""
    match = _LAYER.fullmatch(name)
    return "" if match is None else "prompt" if name in of_prompt else match[1]


def write_paired(folder: Path, file: Any, columns: Sequence[Column], by: PairedBy) -> int:
    """Write the paired table to an open file; returns its rows, and writes nothing where there are none."""
    texts = pl.read_parquet(folder / "texts.parquet", columns=["text_id", "label", "group", "prompt"], glob=False)
    metrics = pl.scan_parquet(folder / "metrics.parquet", glob=False)
    measured = metrics.select("text_id").collect()
    pairs = pairs_of(texts.join(measured, on="text_id", how="semi", maintain_order="left"), by)
    if len(pairs):
        paired_table(metrics, pairs, columns).collect().write_parquet(file, compression="zstd")
    return len(pairs)
