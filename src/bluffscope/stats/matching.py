"""Which pair each row of a table was measured from."""

from __future__ import annotations

from typing import Final

import polars as pl

from bluffscope.errors import InputError
from bluffscope.table.metric_pairs import metric_pairs

ID_COLUMNS: Final = ("pair_id", "id")
"""Columns of a table that are taken for the ids of its pairs before any other column that holds them."""

_NO_IDS: Final = ("domain", "complexity", "group", "prompt_tokens", "fact_tokens", "hall_tokens")
"""Columns of a run's table that may hold the same values as ids and are none."""
_NEEDED: Final = ("pair_id", "fact", "hallucination")


def matched_pairs(
    table: pl.DataFrame, pairs: pl.DataFrame, *, by_order: bool = False
) -> tuple[pl.DataFrame, str | None]:
    """The pairs in the order of the table's rows, and a sentence where no column of `ID_COLUMNS` decided.

    Args:
        table: with the id of each row's pair in some column; integers and texts may stand for each other.
        pairs: columns `pair_id, fact, hallucination` and any others.
        by_order: the k-th row is the k-th pair's; only for a table without ids.

    Raises:
        InputError: ids that the pairs lack, or that either side has twice; no column of ids, or several; with
            `by_order` a column of ids, or another number of rows; a row and its pair of different domains.
    """
    if lacking := [name for name in _NEEDED if name not in pairs.columns]:
        raise InputError(f"the pairs have no column {lacking[0]!r}: expected {', '.join(_NEEDED)}")
    ids = pairs["pair_id"].cast(pl.String)
    if (twice := ids.filter(ids.is_duplicated())).len():
        raise InputError(f"the pairs have the id {twice[0]!r} twice: give each an id of its own")
    found = {name: _places(table[name], ids) for name in _candidates(table)}
    whole = [name for name, places in found.items() if not places.null_count() and places.is_unique().all()]
    if _numbered(ids):
        # Pairs without ids of their own are numbered: a column that numbers the rows says no more than their order.
        whole = [
            name for name in whole if name in ID_COLUMNS or not (found[name].diff(null_behavior="drop") == 1).all()
        ]
    key = next(iter(whole), None)
    if by_order:
        if key is not None:
            raise InputError(f"the column {key!r} holds the ids of the pairs: leave out --by-order")
        if table.height != pairs.height:
            raise InputError(f"--by-order: the table has {table.height} rows, but there are {pairs.height} pairs")
        places, note = pl.Series(range(pairs.height)), "Pairs were matched to rows by their order."
    elif key is None:
        raise InputError(_nothing_matches(table, ids, found))
    elif key != "pair_id" and (others := [name for name in whole if not found[name].equals(found[key])]):
        raise InputError(f"the columns {key!r} and {others[0]!r} both hold ids of pairs: call the right one pair_id")
    else:
        places = found[key]
        note = None if key in ID_COLUMNS else f"Pairs were matched to rows by the column {key!r}."
    matched = pairs.with_columns(ids)[places]
    _check_domains(table, matched)
    return matched, note


def _candidates(table: pl.DataFrame) -> list[str]:
    """Columns that may hold ids, those of `ID_COLUMNS` first: no metrics, no fractions."""
    known = {name for pair in metric_pairs(table.columns) for name in (pair.fact, pair.hall)}
    others = [name for name in table.columns if name not in (*known, *ID_COLUMNS, *_NO_IDS)]
    named = [name for name in ID_COLUMNS if name in table.columns]
    return [name for name in (*named, *others) if not table.schema[name].is_nested()]


def _places(column: pl.Series, ids: pl.Series) -> pl.Series:
    """(row,) place of the pair whose id stands there, null where none has it."""
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        column = whole.set(whole.cast(pl.Float64) != column, None)
    known = ids
    if column.dtype.is_integer():
        numbers = ids.cast(pl.Int64, strict=False)
        # A reader of CSV makes 7 of 007.
        if not numbers.drop_nulls().is_duplicated().any():
            known, column = numbers, column.cast(pl.Int64, strict=False)
    pairs = pl.DataFrame({"id": known, "place": range(len(ids))}, schema_overrides={"place": pl.Int64}).drop_nulls()
    rows = pl.DataFrame({"id": column.cast(known.dtype, strict=False)})
    return rows.join(pairs, on="id", how="left", maintain_order="left")["place"]


def _numbered(ids: pl.Series) -> bool:
    return ids.to_list() == [str(place) for place in range(len(ids))]


def _nothing_matches(table: pl.DataFrame, ids: pl.Series, found: dict[str, pl.Series]) -> str:
    """Why no column decides: what is wrong with the one that is meant, or that there is none."""
    known = {name: len(places) - places.null_count() for name, places in found.items()}
    likely = [name for name in found if name in ID_COLUMNS]
    if not _numbered(ids):
        likely += [name for name in sorted(found, key=lambda name: -known[name]) if 2 * known[name] >= table.height]
    # Where a column of that name has nothing to do with the pairs, another may.
    for name in sorted(likely, key=lambda name: known[name] == 0):
        places, column = found[name], table[name]
        if missing := places.null_count():
            first = column.filter(places.is_null())[0]
            return (
                f"{missing} of the table's {table.height} rows have an id that the pairs lack "
                f"({name} {first!r} first): give the pairs that the table was measured from"
            )
        if (twice := column.filter(places.is_duplicated())).len():
            shared = f"{len(twice)} of the table's {table.height} rows share an id ({name} {twice[0]!r} first)"
            return f"{shared}: use one row per pair"
    return (
        f"no column of the table holds the ids of the pairs (such as {ids[0]!r}): add them as pair_id, "
        "or match rows and pairs by their order with --by-order"
    )


def _check_domains(table: pl.DataFrame, matched: pl.DataFrame) -> None:
    """Refuse a table whose rows are of other domains than their pairs; pairs without domains have the domain all."""
    if "domain" not in table.columns or "domain" not in matched.columns:
        return
    here, there = (frame["domain"].cast(pl.String) for frame in (table, matched))
    if (there == "all").all():
        return
    apart = (here != there).fill_null(value=False)
    if apart.any():
        row = apart.arg_true()[0]
        raise InputError(
            f"{apart.sum()} of the table's {table.height} rows are of another domain than their pairs (pair "
            f"{matched['pair_id'][row]!r}: {here[row]!r} in the table, {there[row]!r} in the pairs): "
            "give the pairs that the table was measured from"
        )
