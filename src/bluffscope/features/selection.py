"""The pairs, or labelled texts, of a run that a question is about: those whose columns have given values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from bluffscope.errors import InputError
from bluffscope.table.reader import Run

_SHOWN: Final = 8


def named_values(column: pl.Series) -> pl.Series:
    """The values of a column as text, as scopes are named: true, false, null."""
    return column.cast(pl.String).fill_null("null")


def matching(pairs: pl.DataFrame, conditions: Sequence[str]) -> pl.Series:
    """Whether each pair, or labelled text, meets every condition; conditions on one column are alternatives.

    Args:
        pairs: a row a pair, or a row a text.
        conditions: COLUMN=VALUE each, such as known=true or domain=entity.

    Raises:
        InputError: a condition without "=", an unknown column, or a value that no row has.
    """
    item = "text" if "text_id" in pairs.columns else "pair"
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals or not column:
            raise InputError(f"--where {condition}: give COLUMN=VALUE, such as domain=entity")
        if column not in pairs.columns:
            raise InputError(f"--where {condition}: no such column; the {item}s have {_listed(pairs.columns)}")
        known = named_values(pairs[column])
        if value not in known:
            values = known.unique(maintain_order=True).to_list()
            raise InputError(f"--where {condition}: no {item} has it; {column} is one of {_listed(values)}")
        wanted.setdefault(column, []).append(value)
    met = pl.Series([True] * pairs.height, dtype=pl.Boolean)
    for column, values in wanted.items():
        met &= named_values(pairs[column]).is_in(values)
    return met


def pairs_of(metrics: pl.DataFrame, pairs: pl.DataFrame | None, key: str = "pair_id") -> pl.DataFrame:
    """A run's measured pairs in the order of its table: what identifies and describes them, and their texts.

    Args:
        metrics: the run's table.
        pairs: its pairs.parquet, or texts.parquet, where it is there.
        key: the column that names an item.
    """
    label = () if key == "pair_id" else ("label",)
    known = [name for name in (key, *label, "domain", "complexity", "group") if name in metrics.columns]
    frame = metrics.select(known)
    if pairs is not None:
        further = [name for name in pairs.columns if name not in known]
        frame = frame.join(pairs.select(key, *further), on=key, how="left", maintain_order="left")
    if "group" not in frame.columns:
        frame = frame.with_columns(group=pl.col(key))
    return frame


def items_of(run: Run) -> pl.DataFrame:
    """`pairs_of` a run's folder, of its pairs or labelled texts."""
    there = (run.path / f"{run.arrangement.table}.parquet").exists()
    return pairs_of(run.metrics, run.items if there else None, run.key)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
