"""What is held constant, and when nothing can be said at equal length and wording: each reason by itself."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from bluffscope.stats import analyse_table
from bluffscope.stats.held_constant import completion_columns, one_sided
from studies import QUICK, closed_answers, one_metric

PAIRS = 200


def answered(fact, hall, seed: int = 0, effect: float = 0.0, c_yes: float = 0.0, **columns):
    """A table and its pairs: these answers to questions of their own; `c_yes` is what a yes adds to the metric."""
    fact, hall = np.asarray(fact), np.asarray(hall)
    rng = np.random.default_rng(seed)
    sides = [rng.normal(size=len(fact)) + c_yes * (side == "yes") for side in (fact, hall)]
    ids = [f"p{place}" for place in range(len(fact))]
    lengths = columns.pop("lengths", rng.integers(-2, 3, len(fact)))
    table = of_lengths(sides[0], sides[1] + effect, lengths, pair_id=ids, **columns)
    prompts = [f"question {place}" for place in range(len(fact))]
    return table, pl.DataFrame({"pair_id": ids, "prompt": prompts, "fact": fact, "hallucination": hall})


def of_lengths(fact, hall, lengths, **columns) -> pl.DataFrame:
    """`one_metric` with facts of 40 to 69 tokens; where all were equally long, few shapes of s could be told apart."""
    start = np.random.default_rng(9).integers(30, 60, len(lengths)) if np.any(lengths) else 0
    return one_metric(fact, hall, lengths, **columns).with_columns(pl.col("fact_tokens", "hall_tokens") + start)


def row_of(table, pairs=None, scope="pooled", metric="m", **options) -> dict[str, object]:
    rows = analyse_table(table, pairs, resampling=QUICK, **options).rows
    return rows.filter(scope=scope, metric=metric).row(0, named=True)


def tossed(share: float = 0.5, pairs: int = PAIRS, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Yes or no as facts, and the other as hallucinations; yes is right in this share."""
    right = np.arange(pairs) < share * pairs
    right = np.random.default_rng(seed).permutation(right)
    return np.where(right, "yes", "no"), np.where(right, "no", "yes")


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_what_the_word_yes_does_to_a_metric_changes_nothing_at_equal_wording(share):
    found = [row_of(*answered(*tossed(share), effect=0.6, c_yes=c_yes)) for c_yes in (0.0, 3.0, -40.0)]
    assert found[0]["verdict"] == "separates"
    assert found[0]["completion_df"] == 1
    assert found[0]["clusters"] == PAIRS
    for row in found[1:]:
        for name in ("adj_mean_diff", "adj_dz", "adj_lo", "adj_hi", "adj_p"):
            assert row[name] == pytest.approx(found[0][name], rel=1e-8), name
        assert abs(row["mean_diff"] - found[0]["mean_diff"]) == pytest.approx(
            abs((1 - 2 * share) * (3 if row is found[1] else 40))
        )


def test_answers_of_several_sets_have_effects_of_their_own():
    table, pairs = closed_answers(0, 400, effect=0.5, kinds=("normal",))
    changed = table
    for answer, effect in (("yes", 5.0), ("A", -9.0), ("C", 2.0)):
        on = [pl.lit(effect * (pairs[side] == answer).cast(pl.Float64)) for side in ("fact", "hallucination")]
        changed = changed.with_columns(
            normal1_fact=pl.col("normal1_fact") + on[0], normal1_hall=pl.col("normal1_hall") + on[1]
        )
    before, after = (row_of(frame, pairs, metric="normal1") for frame in (table, changed))
    assert (before["completion_df"], before["clusters"]) == (3, 200)
    for name in ("adj_mean_diff", "adj_dz", "adj_lo", "adj_hi", "adj_p"):
        assert after[name] == pytest.approx(before[name], rel=1e-8)
    assert before["p"] != pytest.approx(after["p"], rel=1e-3)


@pytest.mark.parametrize(("fact", "hall", "named"), [("yes", "no", "'no', 'yes'"), ("A", "B", "'A', 'B'")])
def test_an_answer_that_is_always_right_gives_the_label_away(fact, hall, named):
    row = row_of(*answered([fact] * 60, [hall] * 60, effect=2.0))
    assert (row["verdict"], row["q"], row["adj_p"]) == ("inconclusive", None, None)
    assert row["reason"] == (
        f"the completion gives the label away ({named}): its effect cannot be told from that of truth; "
        "balance which answer is right"
    )
    assert row["p"] < 1e-6


def test_four_answers_of_which_each_is_right_at_times_can_be_judged_and_two_that_are_always_wrong_cannot():
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(list("ABCD"))[:2] for _ in range(PAIRS)]
    row = row_of(*answered(*zip(*drawn, strict=True), effect=1.0))
    assert (row["verdict"], row["completion_df"]) == ("separates", 3)
    right, wrong = rng.choice(["A", "B"], PAIRS), rng.choice(["C", "D"], PAIRS)
    row = row_of(*answered(right, wrong, effect=1.0))
    assert re.match(r"the completion gives the label away \('[A-D]', '[A-D]', '[A-D]', '[A-D]'\): its", row["reason"])


def test_an_answer_that_is_hardly_ever_right_is_measured_by_the_few_or_not_at_all():
    fact, hall = tossed(0.97)
    row = row_of(*answered(fact, hall, effect=0.5, lengths=np.zeros(PAIRS, dtype=int)))
    # Six pairs of 200 tell the answer from truth.
    assert row["adj_hi"] - row["adj_lo"] > 1.5 * (row["dz_hi"] - row["dz_lo"])
    fact, hall = tossed(0.99)
    row = row_of(*answered(fact, hall, effect=0.5, lengths=np.zeros(PAIRS, dtype=int)))
    assert (row["verdict"], row["adj_p"], row["q"]) == ("inconclusive", None, None)
    assert row["reason"].startswith("not adjustable for the completion: the standard error would be ")
    assert row["reason"].endswith(" times the raw one")


def test_one_pair_that_alone_tells_an_answer_from_truth_says_nothing():
    fact, hall = np.array(["yes"] * 59 + ["no"]), np.array(["no"] * 59 + ["yes"])
    row = row_of(*answered(fact, hall, effect=0.5, lengths=np.zeros(60, dtype=int)))
    assert row["reason"] == "one cluster alone tells the effect from that of the completion"


def test_a_completion_in_fewer_than_ten_pairs_has_no_coefficient():
    closed = np.full((40, 2), -1)
    closed[:10, 0], closed[10:19, 1], closed[5:12, 1] = 0, 1, 2
    columns, used = completion_columns(closed)
    assert used.tolist() == [0]
    assert columns[:, 0].tolist() == [-1.0] * 10 + [0.0] * 30
    assert completion_columns(np.full((40, 2), -1))[0].shape == (40, 0)
    both = np.zeros((12, 2), dtype=int)
    assert not completion_columns(both)[0].any()  # fact and hallucination alike: nothing to tell apart


def test_a_closed_answer_of_the_table_that_is_rare_in_a_domain_is_held_constant_only_where_it_is_not():
    fact, hall = tossed()
    open_words = np.array([f"word {place}" for place in range(PAIRS)])
    domain = np.where(np.arange(PAIRS) < 100, "a", "b")
    answered_here = (domain == "a") | (np.arange(PAIRS) >= 192)
    table, pairs = answered(
        np.where(answered_here, fact, open_words), np.where(answered_here, hall, "not " + open_words)
    )
    table = table.with_columns(domain=pl.Series(domain))
    assert [row_of(table, pairs, scope)["completion_df"] for scope in ("a", "b", "pooled")] == [1, 0, 1]


@pytest.mark.parametrize(
    ("lengths", "sided"),
    [
        ([0] * 10 + [1] * 30, False),
        ([0] * 9 + [1] * 31, True),
        ([-1] * 30 + [0] * 10, False),
        ([-1] * 31 + [0] * 9, True),
        ([-2] * 10 + [2] * 30, False),
        ([-2] * 9 + [2] * 31, True),
        ([1] * 40, True),
        ([0] * 40, False),
    ],
)
def test_length_is_held_constant_only_with_ten_pairs_on_each_side(lengths, sided):
    assert one_sided(np.array(lengths)) == sided
    row = row_of(of_lengths(np.zeros(40), noise(40), lengths))
    why = (
        "not adjustable for length: fewer than 10 pairs have a hallucination no longer than the fact, or fewer than 10 "
        "one no shorter"
    )
    assert (row["reason"] == why) == sided
    assert (row["q"] is None) == sided
    assert row["p"] is not None


def noise(pairs: int, seed: int = 0, mean: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, pairs)


def test_unknown_lengths_bar():
    table = one_metric(np.zeros(40), noise(40), [0] * 40).with_columns(
        hall_tokens=pl.when(pl.int_range(pl.len()) != 3).then("hall_tokens")
    )
    for frame in (table, table.drop("fact_tokens")):
        row = row_of(frame)
        assert row["reason"] == "lengths unknown, so that length cannot be ruled out"
        assert (row["adj_p"], row["q"], row["linear_p"], row["n_equal_length"]) == (None,) * 4


@pytest.mark.parametrize("clusters", [1, 2, 9, 10])
def test_fewer_than_ten_clusters_bar(clusters):
    row = row_of(one_metric(np.zeros(60), noise(60), [0] * 60, group=np.arange(60) % clusters))
    assert row["clusters"] == clusters
    assert (row["q"] is None) == (clusters < 10)
    if clusters < 10:
        plural = "s" * (clusters > 1)
        assert row["reason"] == f"only {clusters} cluster{plural} of pairs that share no text, fewer than 10"
        assert row["verdict"] == "inconclusive"


def test_length_that_explains_every_difference_bars():
    lengths = np.arange(40) % 5 - 2
    row = row_of(one_metric(np.zeros(40), 0.3 * lengths, lengths))
    assert row["reason"] == "length explains every difference"
    assert (row["adj_dz"], row["adj_p"], row["q"]) == (None, None, None)


def test_lengths_that_leave_too_wide_an_error_bar():
    # Ten pairs of 400 are of equal length, which says nearly all of what there is to say at equal length.
    lengths = np.where(np.arange(400) < 10, 0, 8 + np.arange(400) % 3)
    row = row_of(of_lengths(np.zeros(400), noise(400), lengths))
    assert re.fullmatch(r"not adjustable for length: the standard error would be \d+ times the raw one", row["reason"])
    assert (row["adj_mean_diff"], row["adj_dz"], row["adj_lo"], row["adj_p"], row["q"]) == (None,) * 5
    assert row["p"] < 1e-6
    assert row_of(of_lengths(np.zeros(100), noise(100), lengths[:100]))["adj_p"] is not None


def test_facts_that_are_all_equally_long_may_leave_nothing_to_tell_length_from_truth():
    row = row_of(one_metric(np.zeros(40), noise(40), [-2] * 10 + [2] * 30))
    assert row["reason"] == "length gives the label away: its effect cannot be told from that of truth"


def test_one_cluster_that_holds_all_pairs_of_another_length_bars():
    lengths = np.where(np.arange(200) < 180, 5, -5)
    groups = np.where(np.arange(200) < 180, np.arange(200), 180)
    row = row_of(of_lengths(np.zeros(200), noise(200), lengths, group=groups))
    assert row["reason"] == "one cluster alone tells the effect from that of length"
    assert (row["adj_p"], row["q"], row["verdict"]) == (None, None, "inconclusive")
    spread = row_of(of_lengths(np.zeros(200), noise(200), lengths))
    assert spread["adj_p"] is not None


def test_clusters_that_all_cancel_bar():
    half = noise(60, mean=0)
    row = row_of(one_metric(np.zeros(120), np.concatenate([half, -half]), [0] * 120, group=list(range(60)) * 2))
    assert row["reason"] == "the differences of every cluster have the same mean (zero variance between clusters)"
    assert (row["p"], row["dz_lo"], row["q"]) == (None, None, None)


def test_what_cannot_be_judged_is_in_no_family():
    table = one_metric(np.zeros(40), noise(40), [0] * 40).with_columns(
        few_fact=pl.lit(0.0),
        few_hall=pl.when(pl.int_range(pl.len()) < 4).then(pl.Series(noise(40, 1))),
        same_fact=pl.lit(0.0),
        same_hall=pl.lit(1.0),
    )
    row = row_of(table)
    assert row["q"] == max(row["p"], row["adj_p"])  # a family of one
    assert [row_of(table, metric=name)["q"] for name in ("few", "same")] == [None, None]
