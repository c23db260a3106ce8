"""The rules of the verdicts, row by row: the first that holds; and verdicts again from the columns of a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from bluffscope.stats import Evidence, analyse_table, judge
from bluffscope.stats.verdicts import NAMES, barring
from studies import QUICK, closed_answers, random_table

FOUND = Evidence(
    n=200,
    mean_diff=1.0,
    dz=0.5,
    adj_mean_diff=0.9,
    adj_dz=0.45,
    q=0.004,
    raw_q=0.001,
    adj_q=0.004,
    skew_q=0.006,
    equivalence_q=0.9,
    mde80=0.2,
    n_equal_length=60,
    equal_length_dz=0.4,
)
NOTHING = {"raw_q": 0.3, "adj_q": 0.4, "q": 0.4, "skew_q": 0.5}
RAW_ALONE = {"adj_q": 0.2, "q": 0.2, "skew_q": 0.3}

RULES = [
    ("separates", "d_z +0.50 (q 0.001), at equal length +0.45 (q 0.004)", {}),
    ("separates", "d_z +0.50 (q 0.001), all lengths equal", {"held": "nothing"}),
    ("separates", "at equal wording +0.45", {"held": "the completion"}),
    ("separates", "at equal length and wording +0.45", {"held": "length and the completion"}),
    ("separates", "", {"q": 0.0499, "skew_q": 0.0499}),
    ("separates", "q < 0.001", {"mean_diff": -1.0, "adj_mean_diff": -0.9, "raw_q": 1e-9}),
    ("separates", "; but the 60 pairs of equal length point the other way (-0.10)", {"equal_length_dz": -0.1}),
    ("separates", "+0.45 (q 0.004)", {"equal_length_dz": -0.1, "n_equal_length": 9}),
    ("separates", "", {"equivalence_q": 0.05}),
    ("separates", "", {"equivalence_q": None}),
    ("equivalent", "real but negligible: within 0.2 sd of 0, raw and adjusted (q 0.010)", {"equivalence_q": 0.01}),
    ("equivalent", "real but negligible: within", {"equivalence_q": 0.049, "raw_q": 0.3}),
    ("equivalent", "real but negligible: within", {"equivalence_q": 0.049, "adj_q": 0.3}),
    ("equivalent", "within 0.2 sd of 0, raw and adjusted (q < 0.001): d_z +0.50", NOTHING | {"equivalence_q": 1e-7}),
    ("confounded", "length accounts for more than half of it: d_z", RAW_ALONE | {"adj_mean_diff": 0.499}),
    ("confounded", "", RAW_ALONE | {"adj_mean_diff": -0.4}),
    ("confounded", "the completion accounts", RAW_ALONE | {"adj_mean_diff": 0.1, "held": "the completion"}),
    ("inconclusive", "an effect that length neither accounts for nor leaves", RAW_ALONE | {"adj_mean_diff": 0.5}),
    ("inconclusive", "length and the completion neither", RAW_ALONE | {"held": "length and the completion"}),
    ("inconclusive", "the effect changes its sign when length is held constant", {"adj_mean_diff": -0.9}),
    ("inconclusive", "the effect changes its sign", {"adj_mean_diff": -0.9, "skew_q": 0.2}),
    ("inconclusive", "only if the differences are not skewed, which so few cannot show (q 0.050)", {"skew_q": 0.05}),
    ("inconclusive", "only if the differences are not skewed", {"skew_q": None}),
    ("inconclusive", "significant by either test, but not by both at once (q 0.060)", {"q": 0.06, "skew_q": 0.07}),
    ("inconclusive", "an effect only where length is held constant", {"raw_q": 0.05, "q": 0.05, "skew_q": 0.06}),
    ("inconclusive", "no effect shown; 200 independent pairs show d_z 0.20 with 80 % power: d_z", NOTHING),
    ("inconclusive", "and fewer than about 70 cannot show that there is none: d_z", NOTHING | {"n": 69}),
    ("inconclusive", "no effect shown: d_z", NOTHING | {"mde80": None}),
    ("inconclusive", "why it is barred", {"barred": "why it is barred", "mean_diff": None, "equivalence_q": 0.01}),
]


@pytest.mark.parametrize(("verdict", "reason", "changed"), RULES, ids=[f"{r[0]} {r[2]}" for r in RULES])
def test_the_first_rule_that_holds_gives_the_verdict_and_its_reason(verdict, reason, changed):
    found = judge(replace(FOUND, **changed))
    assert found.verdict == verdict
    assert reason in found.reason
    assert not found.reason.endswith(".")


def test_every_verdict_stands_in_the_table_above():
    assert {rule[0] for rule in RULES} == set(NAMES)


def test_the_first_bar_that_holds_is_named():
    bars = {"varies": True, "not_interpretable": "", "barred": None}
    assert barring(5, 10, **bars) is None
    assert barring(5, 10, **bars | {"barred": "lengths unknown"}) == "lengths unknown"
    assert barring(5, 9, **bars | {"barred": "lengths unknown"}).startswith("only 9 clusters of pairs that share no")
    assert barring(5, 1, **bars).startswith("only 1 cluster of pairs")
    assert barring(5, 9, **bars | {"varies": False}) == "all differences are equal (zero variance)"
    assert barring(4, 4, **bars | {"varies": False}) == "4 pairs with a value on both sides, fewer than 5"
    assert barring(1, 1, **bars).startswith("1 pair with a value")
    assert barring(0, 0, **bars | {"not_interpretable": "two axes"}) == "not interpretable: two axes"


def by_design(row: dict[str, float]) -> str:
    """The order of the rules, from the columns of a row and nothing else."""
    if row["q"] is None:
        return "inconclusive"
    if row["equivalence_q"] < 0.05:
        return "equivalent"
    if max(row["q"], row["skew_q"]) < 0.05 and np.sign(row["mean_diff"]) == np.sign(row["adj_mean_diff"]):
        return "separates"
    if row["raw_q"] < 0.05 <= row["adj_q"] and abs(row["adj_mean_diff"]) < abs(row["mean_diff"]) / 2:
        return "confounded"
    return "inconclusive"


def varied(seed: int, pairs: int) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Many metrics: from none to large effects of truth, and of length."""
    rng = np.random.default_rng(seed)
    table, texts = closed_answers(seed, pairs, kinds=("normal", "nulls"))
    longer = (table["hall_tokens"] - table["fact_tokens"]).to_numpy()
    for place, (truth, slope) in enumerate([(0, 0), (0, 0), (0.3, 0), (1, 0), (0, 0.5), (0, 2), (-0.5, 1), (-2, 0.2)]):
        hall = truth + slope * longer + rng.normal(size=pairs) * (0.2 if place == 1 else 1)
        table = table.with_columns(pl.Series(f"v{place}_fact", 0.0 * hall), pl.Series(f"v{place}_hall", hall))
    return table.with_columns(same_fact=0, same_hall=1), texts if seed % 2 else None


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([30, 90, 250]), st.sampled_from(["scope", "all"]))
def test_a_table_holds_everything_that_its_verdicts_rest_on(seed, pairs, family):
    rows = analyse_table(*varied(seed, pairs), family=family, resampling=QUICK).rows
    judged = rows.filter(pl.col("q").is_not_null())
    for part in judged.partition_by("scope") if family == "scope" else [judged]:
        both = part.select(pl.max_horizontal("p", "adj_p")).to_series()
        for q, p in (("q", both), ("raw_q", part["p"]), ("adj_q", part["adj_p"]), ("skew_q", part["skew_p"])):
            assert part[q].to_numpy() == pytest.approx(false_discovery_control(p), rel=1e-12)
        expected = false_discovery_control(part["equivalence_p"])
        assert part["equivalence_q"].to_numpy() == pytest.approx(expected, rel=1e-12)
    for row in rows.iter_rows(named=True):
        assert row["verdict"] == by_design(row), row
        corrected = [row[name] for name in ("raw_q", "adj_q", "skew_q", "equivalence_q")]
        assert corrected.count(None) == (4 if row["q"] is None else 0)
        if row["q"] is not None:
            assert row["skew_p"] >= max(row["p"], row["adj_p"])
            assert row["skew_q"] >= row["q"] - 1e-12 >= max(row["raw_q"], row["adj_q"]) - 2e-12
    assert set(rows.filter(metric="same")["verdict"]) == {"inconclusive"}


def test_all_verdicts_occur_in_tables_like_these():
    found = analyse_table(*varied(2, 1500), resampling=QUICK).rows
    assert set(found["verdict"]) == set(NAMES)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([20, 45, 120]))
def test_every_interval_of_a_table_and_its_ladder_agrees_with_its_p_and_with_the_other_table(seed, pairs):
    result = analyse_table(random_table(seed, pairs), resampling=QUICK)
    rows, ladder = result.rows, result.ladder
    seen = 0
    for table, columns in (
        (rows, ("dz_lo", "dz_hi", "p")),
        (rows, ("adj_lo", "adj_hi", "adj_p")),
        (ladder, ("lo", "hi", "p")),
    ):
        part = table.select(columns).drop_nulls()
        lo, hi, p = part.to_numpy().T
        clear = np.abs(p - 0.05) > 1e-6
        assert (((lo <= 0) & (hi >= 0)) == (p > 0.05))[clear].all()
        assert (lo < hi).all()
        seen += len(part)
    assert seen > 60
    joined = ladder.join(rows, on=["metric", "scope"], suffix="_of_row")
    for rung, form, names in (
        ("raw", "none", ("dz", "dz_lo", "dz_hi", "p_of_row")),
        ("length", "spline", ("adj_dz", "adj_lo", "adj_hi", "adj_p")),
        ("equal_length", "none", ("equal_length_dz", None, None, "equal_length_p")),
    ):
        part = joined.filter(rung=rung, form=form)
        for ours, theirs in zip(("dz", "lo", "hi", "p"), names, strict=True):
            if theirs is None:
                continue
            theirs = "dz_of_row" if theirs == "dz" else theirs
            # The ladder shows what is too wide to judge by, too.
            both = part.filter(pl.col(theirs).is_not_null())
            assert both.height > 0 or pairs < 120
            expected = both[theirs].to_numpy()
            assert both[ours].to_numpy().astype(float) == pytest.approx(expected, rel=1e-9, abs=1e-12), (rung, ours)
