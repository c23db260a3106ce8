"""Labelled texts without partners: the same model as for pairs, the label being what is asked for."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bluffscope.errors import InputError
from bluffscope.stats import LABELLED_SCHEMA, analyse_labelled
from bluffscope.stats.label_controls import null_control, planted_control
from bluffscope.stats.length_functions import length_basis
from bluffscope.stats.text_study import build_text_study

EXACT = {"rel": 1e-8, "abs": 1e-12}


def texts(seed: int = 0, number: int = 300, *, effect: float = 0.0, slope: float = 0.0, **columns) -> pl.DataFrame:
    """Two metrics of texts, of which the false ones are a little longer; only the first has the effect."""
    rng = np.random.default_rng(seed)
    label = rng.random(number) < 0.5
    length = 3 + rng.poisson(6, number) + 2 * ~label
    values = rng.normal(size=(number, 2)) + slope * (length[:, None] - 8.0) ** 2
    values[:, 0] += effect * ~label
    table = {"text_id": [f"t{place}" for place in range(number)], "label": label, "text_tokens": length}
    return pl.DataFrame(table | {"l3_gini": values[:, 0], "entropy": values[:, 1]} | columns)


def row(table: pl.DataFrame, metric: str = "l3_gini", scope: str = "pooled", **options) -> dict[str, object]:
    return analyse_labelled(table, **options).rows.filter(metric=metric, scope=scope).row(0, named=True)


def test_raw_and_adjusted_effects_are_those_of_ordinary_least_squares_with_hc3_errors():
    import statsmodels.api as sm  # seconds

    table = texts(effect=0.5, slope=0.01)
    found = row(table)
    false = ~table["label"].to_numpy()
    values, lengths = table["l3_gini"].to_numpy(), table["text_tokens"].to_numpy().astype(float)
    raw = sm.OLS(values, sm.add_constant(false.astype(float))).fit(cov_type="HC3", use_t=True)
    assert found["mean_diff"] == pytest.approx(values[false].mean() - values[~false].mean(), **EXACT)
    assert found["p"] == pytest.approx(raw.pvalues[1], **EXACT)
    basis = length_basis(lengths, np.zeros(len(lengths), dtype=int))
    assert found["length_df"] == basis.shape[1] == 4
    design = np.column_stack([false.astype(float), np.ones(len(lengths)), basis])
    adjusted = sm.OLS(values, design).fit(cov_type="HC3", use_t=True)
    assert found["adj_mean_diff"] == pytest.approx(adjusted.params[0], **EXACT)
    assert found["adj_p"] == pytest.approx(adjusted.pvalues[0], rel=1e-6)


def test_g_is_the_difference_over_the_pooled_spread_made_unbiased():
    table = texts(effect=0.5)
    found = row(table)
    sides = [table.filter(label=label)["l3_gini"] for label in (True, False)]
    pooled = np.sqrt(sum((len(side) - 1) * side.var() for side in sides) / (table.height - 2))
    d = (sides[1].mean() - sides[0].mean()) / pooled
    assert found["g"] == pytest.approx(d * (1 - 3 / (4 * (table.height - 2) - 1)), rel=1e-5)
    assert found["g_lo"] < found["g"] < found["g_hi"]
    assert (found["n"], found["n_true"] + found["n_false"], found["clusters"]) == (300, 300, 300)


def test_an_effect_separates_and_length_of_any_smooth_shape_does_not():
    rows = analyse_labelled(texts(number=600, effect=0.6, slope=0.05)).rows
    assert rows.schema == LABELLED_SCHEMA
    assert rows["metric"].to_list() == ["l3_gini", "entropy"]
    assert rows["verdict"].to_list() == ["separates", "confounded"]
    assert rows["reason"][0].startswith("g +")
    assert "length accounts for more than half of it" in rows["reason"][1]


def test_texts_of_a_cluster_are_no_independent_evidence():
    rng = np.random.default_rng(1)
    group = np.arange(400) // 20
    label = group % 2 == 0
    values = rng.normal(size=20)[group] + 0.3 * rng.normal(size=400)
    table = pl.DataFrame({"label": label, "text_tokens": rng.integers(3, 9, 400), "group": group, "l1_a": values})
    clustered, alone = row(table, "l1_a"), row(table.drop("group"), "l1_a")
    assert (clustered["clusters"], alone["clusters"]) == (20, 400)
    assert clustered["p"] > 0.05 > alone["p"]
    assert row(table.rename({"group": "question"}), "l1_a", cluster_by="question") == clustered
    few = row(table.with_columns(group=pl.col("group") // 4), "l1_a")
    assert (few["q"], few["verdict"]) == (None, "inconclusive")
    assert few["reason"].startswith("only 5 clusters")


def test_answers_of_a_closed_set_have_levels_of_their_own():
    rng = np.random.default_rng(2)
    answer = rng.choice(["Yes", "no"], 300)
    table = texts(2, effect=0.8, completion=answer)
    plain = row(table)
    assert plain["completion_df"] == 1
    louder = row(table.with_columns(l3_gini=pl.col("l3_gini") + 5.0 * (pl.col("completion") == "Yes")))
    for name in ("adj_mean_diff", "adj_g", "adj_p"):
        assert louder[name] == pytest.approx(plain[name], rel=1e-6)
    given = table.with_columns(completion=pl.when("label").then(pl.lit("yes")).otherwise(pl.lit("no")))
    away = row(given)
    assert (away["verdict"], away["q"]) == ("inconclusive", None)
    assert "gives the label away" in away["reason"]


def test_domains_have_levels_of_their_own_and_are_scopes():
    table = texts(3, number=400, domain=["a", "b"] * 200, known=[True, True, False, False] * 100)
    shifted = table.with_columns(l3_gini=pl.col("l3_gini") + 9 * (pl.col("domain") == "b"))
    rows = analyse_labelled(shifted).rows
    assert rows["scope"].unique(maintain_order=True).to_list() == ["a", "b", "pooled", "known=true", "known=false"]
    assert row(shifted)["adj_mean_diff"] == pytest.approx(row(table)["adj_mean_diff"], rel=1e-6)


def test_labels_are_read_as_they_are_written_and_texts_without_a_value_are_left_out():
    table = texts(4, effect=0.5)
    for written in (table["label"].cast(pl.Int64), table["label"].cast(pl.String), table["label"].cast(pl.Float64)):
        assert row(table.with_columns(label=written)) == row(table)
    holes = table.with_columns(l3_gini=pl.when(pl.int_range(pl.len()) % 3 > 0).then("l3_gini"))
    assert row(holes)["n"] == 200
    assert row(holes, "entropy")["n"] == 300
    few = row(table.head(300).with_columns(label=pl.int_range(pl.len()) > 5))
    assert few["reason"] == "only 6 texts of a label, fewer than 10"
    unknown = row(table.drop("text_tokens"))
    assert unknown["reason"] == "lengths unknown, so that length cannot be ruled out"


def test_a_metric_that_length_explains_whole_is_not_judged():
    table = texts(5).with_columns(l3_gini=3.0 * pl.col("text_tokens"))
    found = row(table)
    assert (found["verdict"], found["reason"]) == ("inconclusive", "length explains every difference")
    assert (found["q"], found["adj_p"]) == (None, None)


def test_texts_without_a_completion_share_no_answer():
    table = texts(6)
    some = pl.Series([None] * 150 + [f"answer {place}" for place in range(150)], dtype=pl.String)
    plain = row(table)
    assert row(table.with_columns(completion=some)) == {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for name, value in plain.items()
    }


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (texts().clear(), {}, "the table has no rows"),
        (texts().drop("label"), {}, "no column label"),
        (texts().with_columns(label=pl.lit("maybe")), {}, "label 'maybe': expected true or false, 1 or 0"),
        (texts().with_columns(label=pl.lit(None)), {}, "label None"),
        (texts().drop("l3_gini", "entropy"), {}, "no metric"),
        (
            texts(),
            {"cluster_by": "mood"},
            "--cluster-by mood: no such column; use both, prompt, completion or a column",
        ),
        (texts(), {"by": ["mood"]}, "--by mood"),
    ],
    ids=["empty", "no label", "odd label", "null label", "no metric", "no cluster", "no scope"],
)
def test_what_cannot_be_tested_is_refused_in_one_line(table, options, said):
    with pytest.raises(InputError, match=said) as refused:
        analyse_labelled(table, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("families", [25, pytest.param(400, marks=pytest.mark.soak)])
def test_without_an_effect_one_text_label_in_twenty_is_significant(families):
    rows = pl.concat(analyse_labelled(texts(seed, number=120)).rows for seed in range(100, 100 + 2 * families))
    for name in ("p", "adj_p"):
        # More would come once in ten thousand times at 5 %.
        assert (rows[name] < 0.05).mean() < 0.05 + 3.8 * np.sqrt(0.05 * 0.95 / len(rows))
    assert (rows["verdict"] == "separates").mean() < 0.05


def test_prompts_may_be_longer_before_false_texts():
    rng = np.random.default_rng(7)
    table = texts(7, number=400, effect=0.0)
    prompts = 5 + rng.poisson(4, 400) + 4 * ~table["label"].to_numpy()
    table = table.with_columns(prompt_tokens=prompts, l3_gini=pl.col("l3_gini") + 0.5 * pl.Series(prompts))
    assert row(table)["verdict"] == "confounded"
    assert row(table)["length_df"] == 8
    assert row(table.drop("prompt_tokens"))["verdict"] == "separates"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"domain": pl.when("label").then(pl.lit("a")).otherwise(pl.lit("b"))}, "the domain gives the label away"),
        (
            {"text_tokens": pl.when("label").then(5).otherwise(pl.int_range(20, 320))},
            "not adjustable for length: fewer",
        ),
        ({"prompt_tokens": pl.when("label").then(5).otherwise(9)}, "not adjustable for the prompt's length: fewer"),
        ({"l3_gini": pl.lit(2.5)}, "all values are equal (zero variance)"),
    ],
    ids=["domain", "length", "prompt", "constant"],
)
def test_what_true_and_false_texts_do_not_share_cannot_be_held_constant(columns, said):
    found = row(texts(8, effect=1.0).with_columns(**columns))
    assert (found["verdict"], found["q"]) == ("inconclusive", None)
    assert found["reason"].startswith(said)


def test_metrics_of_a_run_are_what_it_measured_of_the_texts():
    table = texts(9).with_columns(
        l3_prompt_gini=pl.col("entropy"), l3_prompt_cosine=pl.col("entropy"), score=pl.col("entropy")
    )
    by_name = ["l3_gini", "entropy", "l3_prompt_cosine", "score"]
    assert analyse_labelled(table).rows["metric"].unique(maintain_order=True).to_list() == by_name
    measured = ["l3_gini", "entropy", "l3_prompt_gini", "l3_prompt_cosine"]
    assert (
        analyse_labelled(table, measured=measured).rows["metric"].unique(maintain_order=True).to_list() == by_name[:3]
    )


def test_classes_are_counted_by_label_and_are_no_scopes():
    table = texts(10, l3_shape_class=["Oblate", "Prolate", None] * 100)
    result = analyse_labelled(table)
    assert result.rows["scope"].unique().to_list() == ["pooled"]
    counts = result.cross_tables.filter(metric="l3_shape_class")
    assert counts["value"].to_list() == ["Oblate", "Prolate", None]
    assert counts.select(pl.col("true").sum(), pl.col("false").sum()).row(0) == (
        table["label"].sum(),
        (~table["label"]).sum(),
    )


def test_texts_of_one_prompt_are_a_cluster_where_no_group_says_otherwise():
    prompts = [f"question {place // 3}" for place in range(300)]
    table = texts(11, completion=[f"answer {place}" for place in range(300)], prompt=prompts)
    assert (row(table)["clusters"], row(table, cluster_by="completion")["clusters"]) == (100, 300)
    parts = table.select("text_id", "label", "text_tokens", "l3_gini", "entropy"), table.drop("l3_gini", "entropy")
    joined = analyse_labelled(parts[0].reverse(), parts[1])
    assert joined.about["cluster_by"] == "both"
    assert joined.rows.filter(metric="l3_gini")["p"][0] == pytest.approx(row(table)["p"], rel=1e-9)


def test_verdicts_are_withheld_of_everything_or_of_saes_alone():
    why = {"withheld": ["the model is broken"]}
    result = analyse_labelled(texts(12, effect=1.0), **why)
    assert set(result.rows["verdict"]) == {"withheld"}
    table = texts(12, effect=1.0).rename({"entropy": "logprob"})
    of_saes = analyse_labelled(table, of_saes=True, **why).rows
    assert of_saes["verdict"].to_list() == ["withheld", "inconclusive"]


def test_the_ladder_begins_with_the_raw_effect_and_goes_on_to_the_adjusted_one():
    table = texts(13, number=400, effect=0.5, slope=0.01).with_columns(logprob=3 * pl.col("entropy"))
    result = analyse_labelled(table)
    stated = result.rows.filter(metric="l3_gini").row(0, named=True)
    rungs = {(rung["rung"], rung["form"]): rung for rung in result.ladder.filter(metric="l3_gini").to_dicts()}
    for key, g, p in ((("raw", "none"), "g", "p"), (("length", "spline"), "adj_g", "adj_p")):
        assert (rungs[key]["g"], rungs[key]["p"]) == pytest.approx((stated[g], stated[p]), rel=1e-9)
    assert rungs["length", "linear"]["g"] != pytest.approx(rungs["length", "spline"]["g"], rel=1e-6)
    of_itself = result.ladder.filter(metric="entropy", rung="length_logprob")
    assert set(of_itself["reason"]) == {"what is held constant explains every value"}
    without = analyse_labelled(table.drop("logprob")).ladder.filter(rung="length_logprob")
    assert without["g"].null_count() == without.height == 6


@pytest.mark.thorough
def test_controls_find_little_where_labels_are_drawn_and_much_where_an_effect_is_planted():
    rng = np.random.default_rng(14)
    table = texts(14, number=120, effect=3.0, group=rng.permutation(np.arange(120) // 3))
    study = build_text_study(table)
    null = null_control(study, "scope", 0, draws=100)
    assert null.select("family", "flipped", "draws").rows() == [("pooled", "text", 100), ("pooled", "group", 100)]
    assert null["found"].max() < 12  # more would come once in five hundred times at 5 %
    assert null_control(study, "scope", 0, draws=100).equals(null)
    planted = planted_control(study, "scope", 0, draws=50).filter(metric="entropy").sort("planted_g")
    assert planted["planted_g"].to_list() == [0.2, 0.5, 0.8]
    assert planted["rate"].is_sorted()
    assert planted["rate"][2] > 0.8


def test_a_carried_column_that_gives_the_label_away_is_no_scope():
    table = texts()
    judged = pl.when(pl.col("label")).then(pl.lit("right")).otherwise(pl.lit("wrong"))
    table = table.with_columns(verdict=judged, source=pl.Series(["a", "b"] * 150))
    scopes = set(analyse_labelled(table).rows["scope"])
    assert {"source=a", "source=b"} < scopes
    assert not {scope for scope in scopes if scope.startswith("verdict")}
