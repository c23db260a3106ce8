"""Which pair a row was measured from: any column of ids, domains that agree, and the order only where it is said."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bluffscope.errors import InputError
from bluffscope.stats import analyse_table
from bluffscope.stats.matching import matched_pairs
from bluffscope.stats.study import build_study
from studies import QUICK, one_metric

PAIRS = pl.DataFrame(
    {
        "pair_id": ["a", "b", "c"],
        "fact": ["Paris", "on", "three"],
        "hallucination": ["Rome", "off", "four"],
        "domain": ["x", "y", "x"],
    }
)


def numbered(names) -> pl.DataFrame:
    return PAIRS.with_columns(pair_id=pl.Series(names))


def facts(table: pl.DataFrame, pairs: pl.DataFrame, **options) -> list[str]:
    return matched_pairs(table, pairs, **options)[0]["fact"].to_list()


@pytest.mark.parametrize("name", ["pair_id", "id", "question", "case number", ""])
def test_any_column_that_holds_the_ids_of_the_pairs_joins(name):
    table = one_metric([1, 2], [1, 2], **{name: ["c", "a"]})
    matched, note = matched_pairs(table, PAIRS)
    assert matched["fact"].to_list() == ["three", "Paris"]
    assert note == (None if name in ("pair_id", "id") else f"Pairs were matched to rows by the column {name!r}.")


@pytest.mark.parametrize(
    ("ids", "column"),
    [(["1", "2", "3"], [3, 1]), ([1, 2, 3], ["3", "1"]), (["1", "2", "3"], [3.0, 1.0]), (["007", "8", "9"], [9, 7])],
)
def test_integers_and_texts_stand_for_each_other(ids, column):
    assert facts(one_metric([1, 2], [1, 2], item=column), numbered(ids)) == ["three", "Paris"]


def test_an_id_column_of_another_numbering_does_not_stand_in_the_way():
    table = one_metric([1, 2], [1, 2], id=[101, 102], name=["b", "a"])
    assert facts(table, PAIRS) == ["on", "Paris"]


def test_a_row_number_is_no_id_of_pairs_that_have_none_of_their_own():
    pairs = numbered(["0", "1", "2"])
    table = one_metric([1, 2, 3], [1, 2, 4], index=[0, 1, 2])
    with pytest.raises(InputError, match="no column of the table holds the ids"):
        matched_pairs(table, pairs)
    assert facts(table.rename({"index": "pair_id"}), pairs) == ["Paris", "on", "three"]
    assert facts(table.with_columns(index=pl.Series([2, 0, 1])), pairs) == ["three", "Paris", "on"]


def test_the_order_decides_only_where_it_is_said_and_there_are_no_ids():
    table = one_metric([1, 2, 3], [1, 2, 4])
    study = build_study(table, PAIRS, by_order=True)
    assert study.lengths.tolist() == [[5, 4], [2, 3], [5, 4]]
    assert "Pairs were matched to rows by their order." in study.notes
    for wrong, says in (
        (table.with_columns(name=pl.Series(["a", "b", "c"])), "the column 'name' holds the ids of the pairs"),
        (table.head(2), "--by-order: the table has 2 rows, but there are 3 pairs"),
        (table.with_columns(domain=pl.Series(["x", "x", "y"])), "are of another domain"),
    ):
        with pytest.raises(InputError, match=says):
            matched_pairs(wrong, PAIRS, by_order=True)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({}, "no column of the table holds the ids of the pairs (such as 'a'): add them as pair_id, or match rows"),
        ({"name": ["a", "b", "z"]}, "1 of the table's 3 rows have an id that the pairs lack (name 'z' first)"),
        ({"name": ["a", "b", None]}, "1 of the table's 3 rows have an id that the pairs lack (name None first)"),
        (
            {"pair_id": ["a", "b", "a"]},
            "2 of the table's 3 rows share an id (pair_id 'a' first): use one row per pair",
        ),
        ({"one": ["a", "b", "c"], "two": ["b", "a", "c"]}, "the columns 'one' and 'two' both hold ids of pairs"),
        ({"id": ["a", "b", "c"], "two": ["b", "a", "c"]}, "the columns 'id' and 'two' both hold ids of pairs"),
        (
            {"name": ["a", "b", "c"], "domain": ["x", "x", "x"]},
            "1 of the table's 3 rows are of another domain than their pairs (pair 'b': 'x' in the table, 'y' in the",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(columns, says):
    with pytest.raises(InputError) as caught:
        matched_pairs(one_metric([1, 2, 3], [1, 2, 4], **columns), PAIRS)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_without_domains_contradict_none():
    table = one_metric([1, 2], [1, 2], pair_id=["c", "a"], domain=["p", "q"])
    assert facts(table, PAIRS.with_columns(domain=pl.lit("all"))) == ["three", "Paris"]
    assert facts(table, PAIRS.drop("domain")) == ["three", "Paris"]


def test_a_shuffled_table_gives_the_verdicts_of_the_one_in_order():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, (120, 2))
    pairs = pl.DataFrame(
        {
            "pair_id": [f"q{place}" for place in range(120)],
            "fact": ["f" * size for size in sizes[:, 0]],
            "hallucination": ["h" * size for size in sizes[:, 1]],
        }
    )
    table = one_metric(rng.normal(size=120), rng.normal(size=120) + sizes[:, 1] - sizes[:, 0])
    table = table.with_columns(question=pairs["pair_id"])
    ordered, shuffled = (
        analyse_table(rows, pairs, resampling=QUICK).rows.row(0, named=True)
        for rows in (table, table[rng.permutation(120)])
    )
    assert shuffled["verdict"] == ordered["verdict"]
    assert shuffled["adj_dz"] == pytest.approx(ordered["adj_dz"])
