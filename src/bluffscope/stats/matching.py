"""Which pair each row of a table was measured from."""

from __future__ import annotations

from typing import Final

import polars as pl

from bluffscope.errors import InputError

ID_COLUMNS: Final = ("pair_id", "id")
"""Columns of a table that may hold the ids of its pairs, the first that is there."""

_NEEDED: Final = ("pair_id", "fact", "hallucination")


def matched_pairs(table: pl.DataFrame, pairs: pl.DataFrame) -> tuple[pl.DataFrame, str | None]:
    """The pairs in the order of the table's rows, and a sentence where they were matched by order alone.

    Args:
        table: with the ids of its pairs in one of `ID_COLUMNS`, or as many rows as there are pairs.
        pairs: columns `pair_id, fact, hallucination` and any others.

    Raises:
        InputError: ids that the pairs lack or have twice; without ids, another number of rows.
    """
    if lacking := [name for name in _NEEDED if name not in pairs.columns]:
        raise InputError(f"the pairs have no column {lacking[0]!r}: expected {', '.join(_NEEDED)}")
    key = next((name for name in ID_COLUMNS if name in table.columns), None)
    if key is None:
        if table.height != pairs.height:
            raise InputError(
                f"the table has {table.height} rows and no pair_id column, but there are {pairs.height} pairs: "
                "give the pairs that it was measured from, or add their ids to it"
            )
        return pairs, "Pairs were matched to rows by their order: the table has no pair_id."
    ids = table.select(pl.col(key).cast(pl.String).alias("pair_id"))
    pairs = pairs.with_columns(pl.col("pair_id").cast(pl.String))
    if pairs["pair_id"].is_duplicated().any():
        repeated = pairs.filter(pl.col("pair_id").is_duplicated())["pair_id"][0]
        raise InputError(f"the pairs have the id {repeated!r} twice: give each an id of its own")
    missing = ids.filter(~pl.col("pair_id").is_in(pairs["pair_id"].implode()).fill_null(value=False))
    if not missing.is_empty():
        first = missing["pair_id"][0]
        raise InputError(
            f"{missing.height} of the table's {table.height} rows have an id that the pairs lack "
            f"({key} {first!r} first): give the pairs that the table was measured from"
        )
    return ids.join(pairs, on="pair_id", how="left", maintain_order="left"), None
