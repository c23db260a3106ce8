"""What the comparison of two tables tells beyond whether they agree: cells, metrics, flips, what it leaves out."""

from __future__ import annotations

import math

import polars as pl
import pytest

from bluffscope.compare.strategies import flips
from bluffscope.compare.tables import Name, aligned, compare
from bluffscope.errors import InputError

ROW = {
    "pair_id": "a",
    "fact_tokens": 3,
    "fact_read_token": "is",
    "l0_prompt_l0_norm": 100.0,
    "l0_fact_l0_norm": 1000.0,
    "l0_fact_gini": 0.5,
    "l0_fact_elongation": 0.5,
    "l0_fact_misalignment_angle": 30.0,
    "l1_fact_l0_norm": 900.0,
    "l1_fact_gini": 0.25,
    "entropy_fact": 2.0,
    "entropy_diff": 0.0,
}
OTHER = {**ROW, "pair_id": "b"}


def compared(precision, **changes):
    how = {name: changes.pop(name) for name in ("flips", "position", "gaps") if name in changes}
    return compare([{**ROW, **changes}, OTHER], [ROW, OTHER], precision, **how)


def test_equal_tables_have_every_cell_compared_and_no_difference():
    result = compared("float64")
    assert (result.columns, result.pairs, result.compared, result.left_out) == (len(ROW), 2, 2 * len(ROW), 0)
    assert result.holds
    assert result.beyond == []
    assert result.worst.ratio == 0
    assert result.active == 2 * (100 + 1000 + 900)


def test_every_cell_beyond_its_tolerance_is_kept_with_its_values():
    result = compared("float64", l0_fact_gini=0.5 + 3e-6, entropy_fact=2.0 - 0.9e-6, fact_read_token="was")
    assert [(cell.column, cell.pair) for cell in result.beyond] == [("fact_read_token", "a"), ("l0_fact_gini", "a")]
    text, gini = result.beyond
    assert (text.got, text.expected, text.difference, text.ratio) == ("was", "is", None, math.inf)
    assert gini.difference == pytest.approx(3e-6)
    assert gini.ratio == pytest.approx(3)
    assert result.largest["entropy"].ratio == pytest.approx(0.9)
    assert not result.holds


def test_what_is_not_a_number_agrees_with_nothing_and_null_with_null_alone():
    both = {"l0_fact_l0_norm": math.nan, "l0_fact_gini": math.nan}
    assert [cell.column for cell in compared("float64", **both).beyond] == list(both)
    rows = [{**ROW, "entropy_fact": None}, OTHER]
    assert compare(rows, rows, "float64").holds
    assert [cell.ratio for cell in compare(rows, [ROW, OTHER], "float64").beyond] == [math.inf]


def test_rows_are_aligned_by_pair_whatever_their_order():
    assert compare([OTHER, ROW], [ROW, OTHER], "float64").worst.ratio == 0
    ids = pl.DataFrame({"pair_id": ["b", "a"]})
    one, other = aligned(ids, pl.DataFrame([ROW, OTHER]), pl.DataFrame([OTHER, ROW]))
    assert one.equals(other)
    assert one["pair_id"].to_list() == ["b", "a"]


def test_the_largest_difference_of_a_metric_is_that_of_any_layer_and_view():
    result = compared("float64", l0_fact_gini=0.5 + 1e-7, l1_fact_gini=0.25 + 5e-7, entropy_diff=2e-7)
    assert result.holds
    assert result.largest["gini"].column == "l1_fact_gini"
    assert result.largest["entropy"].column == "entropy_diff"
    assert result.worst is result.largest["gini"]


@pytest.mark.parametrize(
    ("column", "metric"),
    [
        ("l12_hall_shape_class", "shape_class"),
        ("stability_s0.3_diff", "stability_s0.3"),
        ("cross_layer_alignment_fact", "cross_layer_alignment"),
        ("fact_tokens", "fact_tokens"),
        ("domain", "domain"),
    ],
)
def test_a_column_s_metric_is_its_name_without_layer_and_view(column, metric):
    assert Name.of(column).metric == metric


def test_angles_have_their_own_tolerance_wider_where_two_axes_are_nearly_equal():
    assert compared("float64", l0_fact_misalignment_angle=30 + 0.9e-4).holds
    assert not compared("float64", l0_fact_misalignment_angle=30 + 1.1e-4).holds
    nearly = {"l0_fact_elongation": math.sqrt(1 - 0.9e-3)}
    rows = [{**ROW, **nearly}]
    assert compare([{**rows[0], "l0_fact_misalignment_angle": 30.009}], rows, "float64").holds
    assert not compare([{**rows[0], "l0_fact_misalignment_angle": 30.011}], rows, "float64").holds


def test_a_feature_that_goes_while_another_comes_is_a_flip_though_their_number_stays():
    changed = {"l0_fact_gini": 0.6, "l0_fact_l0_norm": 1000.0}
    assert not compared("float32", **changed).holds
    result = compared("float32", **changed, flips={("a", 0, "fact"): 2})
    assert (result.flips, result.holds) == (2, True)
    assert result.left_out == 6  # l0_fact_* and the analyses of the first layer, of this pair
    assert result.compared == 2 * len(ROW) - 6


def test_more_flips_than_one_in_a_thousand_are_no_agreement():
    assert compared("float32", flips={("a", 0, "fact"): 4}).holds
    assert not compared("float32", flips={("a", 0, "fact"): 5}).holds


def test_in_float64_a_flip_excuses_nothing():
    result = compared("float64", l0_fact_gini=0.6, flips={("a", 0, "fact"): 1})
    assert result.left_out == 0
    assert [cell.column for cell in result.beyond] == ["l0_fact_gini"]


def test_in_reduced_precision_nothing_is_left_out_for_a_flip_and_differences_are_in_float32_s_tolerance():
    result = compared("reduced", l0_fact_l0_norm=990.0, l0_fact_gini=0.51, flips={("a", 0, "fact"): 12})
    assert (result.flips, result.left_out) == (12, 0)
    assert result.largest["gini"].ratio == pytest.approx(0.01 / 1e-4)  # of |value| 0.5 + median 0.5


def test_of_angles_averaged_over_reads_nothing_is_promised_in_float32_where_their_axes_are_unknown():
    asked = {"l0_fact_misalignment_angle": 31.0, "position": "completion-mean"}
    unknown = compared("float32", **asked)
    assert (unknown.holds, unknown.left_out) == (True, 2)
    assert not compared("float64", **asked).holds
    assert not compared("float32", **asked, gaps={("a", 0, "fact"): 0.5, ("b", 0, "fact"): 0.5}).holds
    alone = [{**ROW, "fact_tokens": 1}]
    moved = [{**alone[0], "l0_fact_misalignment_angle": 31.0}]
    assert not compare(moved, alone, "float32", position="completion-mean").holds


def test_tables_of_other_pairs_or_columns_are_refused():
    with pytest.raises(InputError, match=r"other pairs: \['b'\]"):
        compare([ROW], [ROW, OTHER], "float64")
    with pytest.raises(InputError, match="no column entropy_diff"):
        compare([{name: value for name, value in ROW.items() if name != "entropy_diff"}], [ROW], "float64")


def test_flips_are_counted_by_pair_layer_and_view_in_both_directions():
    def table(*rows):
        names = ("pair_id", "view", "layer", "feature", "activation")
        return pl.DataFrame([dict(zip(names, row, strict=True)) for row in rows])

    one = table(("a", "fact", 0, 7, 1.0), ("a", "fact", 0, 8, 1.0), ("a", "hall", 1, 7, 1.0), ("b", "fact", 0, 7, 1.0))
    two = table(("a", "fact", 0, 7, 2.0), ("a", "fact", 0, 9, 1.0), ("a", "hall", 1, 7, 1.0))
    expected = {("a", 0, "fact"): 2, ("b", 0, "fact"): 1}
    assert flips(one, two) == flips(two, one) == expected
    assert flips(one, one) == {}
