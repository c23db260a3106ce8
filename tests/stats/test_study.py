"""What is taken from a table: metrics by name, lengths, groups, scopes; and what is done with the undefined."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bluffscope.errors import InputError
from bluffscope.stats import STATS_SCHEMA, analyse_table
from bluffscope.stats.study import build_study
from studies import QUICK, one_metric

PAIRS = pl.DataFrame(
    {
        "pair_id": ["a", "b", "c"],
        "fact": ["Paris", "on", "été"],
        "hallucination": ["Rome", "off", "hiver 🎿"],
        "group": ["g1", "g2", "g1"],
        "domain": ["x", "y", "x"],
        "known": [True, False, None],
    }
)
SPEC = (
    "metric, scope, n, mean_fact, mean_hall, mean_diff, sd_diff, dz, hedges_g, dz_lo, dz_hi, p_wilcoxon, p_signflip, "
    "q, auroc, auroc_lo, auroc_hi, p_paired, adj_mean_diff, adj_dz, adj_lo, adj_hi, adj_p, adj_q, n_equal_length, "
    "equal_length_dz, equal_length_p, mde80, verdict, reason"
)
MORE = ("cv_auroc_gain", "p_grouped", "q_grouped", "adj_p_grouped", "adj_q_grouped")


def only_row(table: pl.DataFrame, **options) -> dict[str, object]:
    """The only row."""
    return analyse_table(table, resampling=QUICK, **options).rows.row(0, named=True)


def test_the_columns_are_those_declared_in_their_order():
    rows = analyse_table(one_metric([1.0] * 6, [2.0, 3, 4, 5, 6, 7]), resampling=QUICK).rows
    assert rows.schema == STATS_SCHEMA
    assert rows.columns == [*SPEC.split(", "), *MORE]


def test_metrics_are_found_by_the_names_of_their_columns():
    table = pl.DataFrame(
        {
            "l5_fact_gini": [0.1],
            "l5_hall_gini": [0.2],
            "l5_prompt_gini": [0.2],
            "entropy_fact": [1],
            "entropy_hall": [2],
            "entropy_diff": [1],
            "alone_fact": [1],
            "fact_tokens": [1],
            "hall_tokens": [2],
            "l5_fact_shape_class": ["Oblate"],
            "l5_hall_shape_class": [None],
            "says_fact": ["yes"],
            "says_hall": ["no"],
            "right_fact": [True],
            "right_hall": [False],
        }
    )
    study = build_study(table)
    assert study.metrics == ("l5_gini", "entropy", "right")
    assert (study.fact[0].tolist(), study.hall[0].tolist()) == ([0.1, 1, 1], [0.2, 2, 0])
    assert study.cross_tables.rows() == [("l5_shape_class", "pooled", "Oblate", None, 1)]
    assert "Text columns are not metrics and were skipped: says_fact." in study.notes


def test_lengths_come_from_tokens_else_from_characters_else_are_unknown():
    table = one_metric([1, 2, 3], [1, 2, 4], pair_id=["c", "a", "b"])
    study = build_study(table, PAIRS)
    assert study.length_unit == "characters"
    assert study.lengths.tolist() == [[3, 7], [5, 4], [2, 3]]
    assert any("in characters" in note for note in study.notes)
    counted = table.with_columns(fact_tokens=pl.Series([1, 1, 1]), hall_tokens=pl.Series([2, 2, None]))
    study = build_study(counted, PAIRS)
    assert study.length_unit == "tokens"
    assert study.lengths[:2].tolist() == [[1, 2], [1, 2]]
    study = build_study(table)
    assert study.length_unit == "unknown"
    assert np.isnan(study.lengths).all()
    assert any("Lengths are unknown" in note for note in study.notes)


def test_groups_come_from_the_table_else_from_the_pairs_else_each_pair_is_its_own():
    table = one_metric([1, 2, 3], [1, 2, 4], pair_id=["c", "a", "b"])
    assert build_study(table, PAIRS).groups.tolist() == [0, 0, 1]
    study = build_study(table)
    assert len(set(study.groups.tolist())) == 3
    assert any("each pair is its own" in note for note in study.notes)
    grouped = table.with_columns(group=pl.Series(["z", None, "z"]))
    groups = build_study(grouped, PAIRS).groups
    assert groups[0] == groups[2] != groups[1]


def test_scopes_are_domains_pooled_and_the_values_of_further_columns():
    table = one_metric([1, 2, 3], [1, 2, 4], domain=["q", "p", "q"], pair_id=["c", "a", "b"], level=[3, 1, 3])
    study = build_study(table, PAIRS.drop("domain"), by=["level", "known"])
    rows = {scope.name: scope.rows.tolist() for scope in study.scopes}
    assert rows == {
        "q": [0, 2],
        "p": [1],
        "pooled": [0, 1, 2],
        "level=3": [0, 2],
        "level=1": [1],
        "known=null": [0],
        "known=true": [1],
        "known=false": [2],
    }
    assert list(rows)[:3] == ["q", "p", "pooled"]
    assert [scope.name for scope in build_study(table.drop("domain"), PAIRS).scopes] == ["x", "y", "pooled"]
    one = build_study(table.with_columns(domain=pl.lit("only")))
    assert [scope.name for scope in one.scopes] == ["pooled"]
    assert any("one domain (only)" in note for note in one.notes)
    taken = build_study(table.with_columns(domain=pl.Series(["pooled", "b", "b"])))
    assert [scope.name for scope in taken.scopes] == ["domain=pooled", "b", "pooled"]


@pytest.mark.parametrize(
    ("table", "pairs", "by", "says"),
    [
        (pl.DataFrame({"x_fact": [], "x_hall": []}), None, (), "the table has no rows"),
        (pl.DataFrame({"a": [1], "b_fact": [1]}), None, (), "looked for numbers in l{layer}_fact_{metric} with"),
        (pl.DataFrame({"x_fact": ["a"], "x_hall": ["b"]}), None, (), "x_fact and its like hold text"),
        (one_metric([1], [1], pair_id=["z"]), PAIRS, (), "1 of the table's 1 rows have an id that the pairs lack"),
        (one_metric([1], [1], pair_id=[None]), PAIRS, (), "rows have an id that the pairs lack"),
        (one_metric([1], [1]), PAIRS, (), "no column of the table holds the ids of the pairs (such as 'a')"),
        (one_metric([1], [1], pair_id=["a"]), pl.concat([PAIRS, PAIRS]), (), "have the id 'a' twice"),
        (one_metric([1], [1], pair_id=["a"]), PAIRS.drop("fact"), (), "no column 'fact'"),
        (one_metric([1], [1]), None, ("nope",), "--by nope: no such column"),
        (one_metric(range(60), range(60), k=range(60)), None, ("k",), "--by k: 60 different values are too many"),
        (
            pl.DataFrame({"l5_fact_g": [1], "l5_hall_g": [1], "l5_g_fact": [1], "l5_g_hall": [1]}),
            None,
            (),
            "columns l5_fact_g and l5_g_fact are both the metric 'l5_g'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(table, pairs, by, says):
    with pytest.raises(InputError) as caught:
        build_study(table, pairs, by)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_with_an_undefined_side_are_left_out_and_counted():
    hall = [2.0, 3.5, None, float("nan"), float("inf"), 4, 5, 7, 6]
    row = only_row(one_metric([1.0] * 9, [np.nan if value is None else value for value in hall]))
    assert row["n"] == 6
    assert row["mean_hall"] == pytest.approx(27.5 / 6)


def test_fewer_than_five_pairs_are_described_but_not_tested():
    row = only_row(one_metric([1, 2, 3, 4], [2, 4, 6, 9], [0, 0, 1, 1]))
    assert (row["n"], row["mean_diff"], row["n_equal_length"]) == (4, 2.75, 2)
    assert row["dz"] == pytest.approx(2.75 / np.std([1, 2, 3, 5], ddof=1))
    for name in ("p_wilcoxon", "p_signflip", "q", "dz_lo", "adj_p", "adj_q", "cv_auroc_gain"):
        assert row[name] is None
    assert (row["verdict"], row["reason"]) == ("inconclusive", "4 pairs with a value on both sides, fewer than 5")


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_tables_of_hardly_any_value_are_said_to_be_so(n):
    fact = [1.0] * n + [np.nan] * (6 - n)
    row = only_row(one_metric(fact, np.arange(6.0), [0] * 6))
    assert (row["n"], row["verdict"]) == (n, "inconclusive")
    assert row["reason"] == f"{n} pair{'s' * (n != 1)} with a value on both sides, fewer than 5"


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_equal_differences_have_no_variance_and_no_test(shift):
    fact = np.linspace(0, 7, 30)
    row = only_row(one_metric(fact, fact + shift, np.arange(30) % 3 - 1))
    assert row["mean_diff"] == pytest.approx(shift)
    for name in ("dz", "hedges_g", "dz_lo", "p_wilcoxon", "p_signflip", "q", "adj_dz", "adj_p", "equal_length_p"):
        assert row[name] is None
    assert (row["verdict"], row["reason"]) == ("inconclusive", "all differences are equal (zero variance)")
    assert row["auroc"] is not None


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 1, n)


def test_where_all_lengths_are_equal_adjusted_is_raw():
    row = only_row(one_metric(np.zeros(40), noise(40), [0] * 40))
    for adjusted, raw in (
        ("adj_mean_diff", "mean_diff"),
        ("adj_dz", "dz"),
        ("adj_lo", "dz_lo"),
        ("adj_hi", "dz_hi"),
        ("adj_p", "p_wilcoxon"),
        ("adj_q", "q"),
        ("equal_length_dz", "dz"),
        ("equal_length_p", "p_wilcoxon"),
    ):
        assert row[adjusted] == row[raw] is not None
    assert row["n_equal_length"] == 40


@pytest.mark.parametrize(
    ("lengths", "adjustable"),
    [
        ([0] * 10 + [1] * 30, True),
        ([0] * 9 + [1] * 31, False),
        ([-1] * 30 + [0] * 10, True),
        ([-1] * 31 + [0] * 9, False),
        ([-2] * 10 + [2] * 30, True),
        ([1] * 40, False),
    ],
)
def test_length_is_held_constant_only_with_ten_pairs_on_each_side(lengths, adjustable):
    row = only_row(one_metric(np.zeros(40), noise(40), lengths))
    assert (row["adj_dz"] is not None) == adjustable
    assert ("not adjustable for length: fewer than 10" in row["reason"]) != adjustable
    assert row["q"] is not None


def test_one_pair_that_sets_the_slope_alone_makes_no_adjustment():
    row = only_row(one_metric(np.zeros(40), noise(40), [0] * 39 + [7]))
    assert (row["adj_dz"], row["adj_p"], row["verdict"]) == (None, None, "inconclusive")
    assert "one pair alone sets the slope" in row["reason"]


def test_a_difference_that_is_length_times_a_constant_has_no_adjusted_test():
    lengths = np.arange(40) % 5 - 2
    row = only_row(one_metric(np.zeros(40), 0.3 * lengths, lengths))
    assert (row["adj_dz"], row["adj_p"], row["verdict"]) == (None, None, "inconclusive")


def test_an_unknown_length_is_never_taken_for_zero():
    table = one_metric(np.zeros(40), noise(40), [0] * 40).with_columns(
        hall_tokens=pl.when(pl.int_range(pl.len()) != 3).then("hall_tokens")
    )
    row = only_row(table)
    assert (row["adj_p"], row["n_equal_length"], row["cv_auroc_gain"]) == (None, None, None)
    assert "lengths unknown" in row["reason"]


def test_one_group_gives_no_interval_and_a_sign_flip_of_one_half():
    row = only_row(one_metric(np.zeros(30), noise(30), [0] * 30, group=["g"] * 30))
    assert (row["dz_lo"], row["auroc_hi"], row["cv_auroc_gain"]) == (None, None, None)
    assert row["p_signflip"] == 1.0


def test_metrics_with_nulls_of_their_own_keep_their_own_pairs():
    first, second = noise(40, 1), noise(40, 2)
    second[:7] = np.nan
    table = one_metric(np.zeros(40), first, [0] * 40).with_columns(
        o_fact=pl.Series(np.zeros(40)), o_hall=pl.Series(second)
    )
    rows = analyse_table(table, resampling=QUICK).rows
    assert rows["n"].to_list() == [40, 33]
    assert rows["mean_diff"].to_list() == pytest.approx([first.mean(), second[7:].mean()])
