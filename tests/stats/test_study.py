"""What is taken from a table: metrics by name, lengths, groups, scopes; and what is done with the undefined."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bluffscope.errors import InputError
from bluffscope.report.verdicts import headline
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
    "metric, scope, n, clusters, mean_fact, mean_hall, mean_diff, sd_diff, dz, dz_lo, dz_hi, p, adj_mean_diff, adj_dz, "
    "adj_lo, adj_hi, adj_p, q, raw_q, adj_q, skew_p, skew_q, equivalence_p, equivalence_q, length_df, completion_df, "
    "hedges_g, p_wilcoxon, p_signflip, linear_mean_diff, linear_dz, linear_p, auroc, auroc_lo, auroc_hi, p_paired, "
    "cv_auroc_gain, n_equal_length, equal_length_dz, equal_length_p, mde80, verdict, reason"
)


def only_row(table: pl.DataFrame, **options) -> dict[str, object]:
    """The only row."""
    return analyse_table(table, resampling=QUICK, **options).rows.row(0, named=True)


def test_the_columns_are_those_declared_in_their_order():
    rows = analyse_table(one_metric([1.0] * 6, [2.0, 3, 4, 5, 6, 7]), resampling=QUICK).rows
    assert rows.schema == STATS_SCHEMA
    assert rows.columns == SPEC.split(", ")


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


def test_clusters_come_from_the_table_else_from_the_pairs_or_their_texts_else_each_pair_is_its_own():
    table = one_metric([1, 2, 3], [1, 2, 4], pair_id=["c", "a", "b"])
    assert build_study(table, PAIRS).groups.tolist() == [0, 0, 1]
    assert build_study(table, PAIRS, cluster_by="both").groups.tolist() == [0, 1, 2]
    assert build_study(table, PAIRS.drop("group")).groups.tolist() == [0, 1, 2]
    linked = PAIRS.drop("group").with_columns(fact=pl.Series(["Paris", "on", "paris "]))
    assert build_study(table, linked).groups.tolist() == [0, 0, 1]
    study = build_study(table)
    assert len(set(study.groups.tolist())) == 3
    assert any("each row is its own cluster" in note for note in study.notes)
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
    for name in ("p", "p_wilcoxon", "p_signflip", "q", "dz_lo", "adj_p", "adj_q", "cv_auroc_gain", "linear_p"):
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
    for name in ("dz", "hedges_g", "dz_lo", "p", "p_wilcoxon", "p_signflip", "q", "adj_dz", "adj_p", "equal_length_p"):
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
        ("adj_p", "p"),
        ("adj_q", "raw_q"),
        ("equal_length_dz", "dz"),
        ("equal_length_p", "p"),
        ("linear_dz", "dz"),
    ):
        assert row[raw] is not None
        assert row[adjusted] == pytest.approx(row[raw], rel=1e-12)
    assert row["n_equal_length"] == 40


def test_one_group_gives_no_interval_and_a_sign_flip_of_one_half():
    row = only_row(one_metric(np.zeros(30), noise(30), [0] * 30, group=["g"] * 30))
    for name in ("dz_lo", "p", "adj_p", "auroc_hi", "cv_auroc_gain", "q"):
        assert row[name] is None
    assert row["p_signflip"] == 1.0
    assert row["reason"] == "only 1 cluster of pairs that share no text, fewer than 10"


def test_metrics_with_nulls_of_their_own_keep_their_own_pairs():
    first, second = noise(40, 1), noise(40, 2)
    second[:7] = np.nan
    table = one_metric(np.zeros(40), first, [0] * 40).with_columns(
        o_fact=pl.Series(np.zeros(40)), o_hall=pl.Series(second)
    )
    rows = analyse_table(table, resampling=QUICK).rows
    assert rows["n"].to_list() == [40, 33]
    assert rows["mean_diff"].to_list() == pytest.approx([first.mean(), second[7:].mean()])


def carried(**columns) -> tuple[list[str], str]:
    """Names of the scopes of 60 pairs with such columns, and what is said of them."""
    pairs = 60
    table = one_metric(noise(pairs), noise(pairs, 1), [0] * pairs).with_columns(
        **{name: pl.Series([values[place % len(values)] for place in range(pairs)]) for name, values in columns.items()}
    )
    study = build_study(table)
    return [scope.name for scope in study.scopes], " ".join(study.notes)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([True, False], ["true", "false"]),
        (["x", "y", "z"], ["x", "y", "z"]),
        ([3, 1, 2, 3], ["3", "1", "2"]),
        (["x", None], ["x", "null"]),
        ([1, 2, 3, 4, 5, 6], ["1", "2", "3", "4", "5", "6"]),
    ],
)
def test_a_carried_column_of_two_to_six_values_makes_scopes_and_that_is_said(values, names):
    scopes, said = carried(known=values)
    assert scopes == ["pooled", *(f"known={name}" for name in names)]
    assert "Columns with 2 to 6 values are scopes too: known." in said


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("known", [True]),
        ("known", [1, 2, 3, 4, 5, 6, 7]),
        ("known", [0.5, 1.0]),
        ("complexity", [1, 2]),
        ("group", ["a", "b"]),
        ("id", ["a", "b"]),
        ("index", [0, 1]),
        ("prompt_tokens", [7, 8]),
        ("noise_fact", [0, 1]),
        ("l5_prompt_count", [0, 1]),
        ("m_diff", [0, 1]),
        ("known", ["rare", *["most"] * 59]),
    ],
)
def test_other_columns_make_no_scopes_unless_they_are_asked_for(name, values):
    scopes, said = carried(**{name: values})
    assert scopes == ["pooled"]
    assert "scopes too" not in said


def test_a_column_that_is_asked_for_is_no_scope_twice_and_that_of_the_pairs_counts_too():
    ids = [str(place) for place in range(60)]
    pairs = pl.DataFrame({"pair_id": ids, "fact": ids, "hallucination": [f"not {name}" for name in ids]})
    pairs = pairs.with_columns(known=pl.Series([True, False] * 30), kind=pl.Series(["x", "y", "z"] * 20))
    study = build_study(one_metric(noise(60), noise(60, 1), pair_id=ids), pairs, ["known"])
    names = [scope.name for scope in study.scopes]
    assert names == ["pooled", "known=true", "known=false", "kind=x", "kind=y", "kind=z"]
    assert "Columns with 2 to 6 values are scopes too: kind." in study.notes
    bare = build_study(one_metric(noise(60), noise(60), pair_id=ids), pairs, carried=False)
    assert [scope.name for scope in bare.scopes] == ["pooled"]


TEXTS = pl.DataFrame(
    {
        "pair_id": list("abcdef"),
        "prompt": ["one", "one", "two", "three", "four", "five"],
        "fact": ["x", "y", "z", "x", "v", "w"],
        "hallucination": ["p", "q", "r", "s", "t", "u"],
        "source": ["i", "j", "i", "j", None, None],
    }
)


@pytest.mark.parametrize(
    ("by", "clusters"),
    [
        ("prompt", [0, 0, 1, 2, 3, 4]),
        ("completion", [0, 1, 2, 0, 3, 4]),
        ("both", [0, 0, 1, 0, 2, 3]),
        (None, [0, 0, 1, 0, 2, 3]),
        ("source", [0, 1, 0, 1, 2, 3]),
    ],
)
def test_clusters_are_made_by_what_is_named(by, clusters):
    table = one_metric(range(6), [0] * 6, pair_id=list("abcdef"))
    study = build_study(table, TEXTS, cluster_by=by)
    assert study.cluster_by == (by or "both")
    assert len(set(zip(study.groups.tolist(), clusters, strict=True))) == len(set(clusters)) == len(set(study.groups))
    grouped = table.with_columns(group=pl.Series(["g", "g", "g", "h", "h", "i"]))
    study = build_study(grouped, TEXTS, cluster_by=by)
    if by is None:
        assert study.cluster_by == "group"
        assert len(set(study.groups.tolist())) == 3
    else:
        assert len(set(study.groups.tolist())) == len(set(clusters))


def test_clusters_that_cannot_be_made_are_refused_in_one_line():
    table = one_metric(range(60), [0] * 60, kind=["x", "y"] * 30)
    with pytest.raises(
        InputError, match="^--cluster-by prompt: requires the texts of the pairs; give them with --pairs$"
    ):
        build_study(table, cluster_by="prompt")
    with pytest.raises(InputError, match="^--cluster-by mood: no such column; use both, prompt, .* out of 'kind'$"):
        build_study(table, cluster_by="mood")
    assert len(set(build_study(table, cluster_by="kind").groups)) == 2


def test_clusters_of_the_run_that_link_nearly_everything_are_said_where_texts_would_make_more():
    ids = [f"p{place}" for place in range(40)]
    answers = ["yes", "no"] * 20
    pairs = pl.DataFrame({"pair_id": ids, "prompt": ids, "fact": answers, "hallucination": ["no", "yes"] * 20})
    table = one_metric(noise(40), noise(40, 1), [0] * 40, pair_id=ids, group=["all"] * 40)
    study = build_study(table, pairs)
    assert any("as earlier versions linked closed answers; --cluster-by both makes 40." in note for note in study.notes)
    assert study.closed_names == ("no", "yes")
    assert any("Closed answers ('no', 'yes') link no pairs and have effects of their own." in n for n in study.notes)
    assert len(set(build_study(table, pairs, cluster_by="both").groups)) == 40


def test_of_many_columns_with_few_values_the_first_make_scopes_and_the_others_are_named(monkeypatch):
    columns = {f"c{number}": ["x", "y"] * 30 for number in range(13)}
    table = one_metric(range(60), [0] * 60, **columns)
    study = build_study(table, by=["c12"])
    made = list(dict.fromkeys(scope.column for scope in study.scopes if scope.column))
    assert made == ["c12", *(f"c{number}" for number in range(10))]
    assert "2 more such columns make none (c10, c11): name them with --by." in study.notes
    monkeypatch.setattr("bluffscope.stats.scopes.MOST_ROWS", 130)
    assert {scope.column for scope in build_study(table).scopes} == {"", "c0", "c1"}


def test_pairs_chosen_by_their_log_probability_say_nothing_of_it():
    table = one_metric(noise(80), noise(80, 1)).with_columns(
        knows=pl.Series([True, False] * 40),
        fact_tokens=pl.Series([2, 3, 4, 5] * 20),
        hall_tokens=pl.Series([2, 3, 4, 5, 3] * 16),
        logprob_fact=pl.Series([-1.0, -3.0] * 40) + 0.1 * pl.Series(noise(80, 2)),
        logprob_hall=pl.Series([-3.0, -1.0] * 40) + 0.1 * pl.Series(noise(80, 3)),
    )
    rows = analyse_table(table).rows
    chosen = rows.filter(pl.col("scope").str.starts_with("knows="), metric="logprob")
    assert chosen["verdict"].to_list() == ["inconclusive"] * 2
    assert chosen["reason"].str.contains("chosen by their log-probability").all()
    assert chosen["q"].null_count() == 2  # in no family
    others = rows.filter(pl.col("scope").str.starts_with("knows="), pl.col("metric") != "logprob")
    assert others["q"].null_count() == 0
    assert rows.filter(scope="pooled", metric="logprob")["q"].null_count() == 0


def test_an_unfit_sae_withholds_no_verdict_on_what_needs_none():
    table = one_metric(noise(80), noise(80, 1), fact_tokens=[2, 3, 4, 5] * 20, hall_tokens=[2, 3, 4, 5, 3] * 16)
    table = table.with_columns(
        logprob_fact=pl.Series(noise(80, 2)), logprob_hall=pl.Series(noise(80, 3)) - 3, l4_fact_gini=pl.lit(0.1)
    ).with_columns(l4_hall_gini=pl.col("l4_fact_gini") + 1)
    assert set(analyse_table(table, withheld=["L0"]).rows["verdict"]) == {"withheld"}
    rows = analyse_table(table, withheld=["L0"], of_saes=True).rows.filter(scope="pooled")
    verdicts = dict(rows["metric", "verdict"].iter_rows())
    assert (verdicts["logprob"], verdicts["l4_gini"]) == ("separates", "withheld")
    assert headline(rows).startswith("Without 2 metrics of SAEs that failed the health gate: 1 of 1 metric separate")
