"""The statistics against statsmodels, from a single coefficient to the columns of a table."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bluffscope.stats import analyse_table
from bluffscope.stats.cells import CORRECTED
from bluffscope.stats.effects import hedges_factor, minimum_detectable_dz
from bluffscope.stats.length_functions import length_columns
from bluffscope.stats.linear_model import Design, Estimate, design, span
from bluffscope.stats.multiplicity import benjamini_hochberg
from bluffscope.stats.study import label_numbers
from studies import QUICK, closed_answers, jackknife, random_table, regression, tables

EXACT = {"rel": 1e-9, "abs": 1e-12}
seeds = st.integers(0, 2**32 - 1)


def hc3(values, columns):
    """The fit by ordinary least squares with HC3 errors and t tests."""
    from statsmodels.api import OLS  # takes seconds, which no other file should

    return OLS(values, columns).fit(cov_type="HC3", use_t=True)


def bh(p_values):
    from statsmodels.stats.multitest import multipletests  # as above

    return multipletests(p_values, method="fdr_bh")[1]


def estimated(values, columns, clusters, target) -> Estimate:
    found = design(target, span(columns), clusters)
    assert isinstance(found, Design), found
    return found.estimate(values)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(12, 80), st.integers(0, 6), st.booleans())
def test_the_coefficient_its_hc3_error_and_its_p_are_those_of_statsmodels(seed, rows, columns, repeated):
    values, held = regression(seed, rows, columns)
    given_twice = np.column_stack([held, held[:, :2] @ [[1, 2], [3, -1]][: held[:, :2].shape[1]], np.zeros(rows)])
    found = estimated(values, given_twice if repeated else held, np.arange(rows), np.ones(rows))
    assert found.freedom == rows - 1 - columns
    for metric in range(3):
        fit = hc3(values[:, metric], np.column_stack([np.ones(rows), held]))
        for ours, theirs in (
            (found.effect, fit.params[0]),
            (found.error, fit.bse[0]),
            (found.t, fit.tvalues[0]),
            (found.p, fit.pvalues[0]),
            (found.sd, np.sqrt(fit.mse_resid)),
            (found.standardised, fit.params[0] / np.sqrt(fit.mse_resid)),
        ):
            assert ours[metric] == pytest.approx(theirs, rel=1e-8, abs=1e-12)
        sd = np.sqrt(fit.mse_resid)
        above, below = (fit.t_test((np.eye(1 + columns)[0], bound * sd)).tvalue.item() for bound in (-0.2, 0.2))
        expected = max(stats.t.sf(above, fit.df_resid), stats.t.cdf(below, fit.df_resid))
        assert found.equivalence_p(0.2)[metric] == pytest.approx(expected, rel=1e-7, abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(20, 60))
def test_any_column_may_be_the_target_and_clusters_do_not_move_its_coefficient(seed, rows):
    values, columns = regression(seed, rows, 4)
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, rows).astype(float)
    label[:2] = 0, 1
    held = np.column_stack([np.ones(rows), columns])
    alone = estimated(values, held, np.arange(rows), label)
    groups = np.arange(rows) % 9
    together = estimated(values, held, groups, label)
    for metric in range(3):
        fit = hc3(values[:, metric], np.column_stack([label, held]))
        assert alone.effect[metric] == pytest.approx(fit.params[0], rel=1e-8, abs=1e-10)
        assert alone.error[metric] == pytest.approx(fit.bse[0], rel=1e-8)
        clustered = fit.get_robustcov_results("cluster", groups=groups)
        assert together.effect[metric] == pytest.approx(clustered.params[0], rel=1e-8, abs=1e-10)
    assert together.sd == pytest.approx(alone.sd)
    assert together.freedom == 8


@settings(max_examples=4, deadline=None)
@given(tables)
def test_raw_and_straight_line_columns_of_a_table(table):
    rows = analyse_table(table.drop("group"), resampling=QUICK).rows
    assert rows["clusters"].equals(rows["n"])
    seen = 0
    for row in rows.filter(pl.col("p").is_not_null()).iter_rows(named=True):
        part = table if row["scope"] == "pooled" else table.filter(domain=row["scope"])
        d = (part[f"{row['metric']}_hall"] - part[f"{row['metric']}_fact"]).to_numpy()
        lengths = (part["hall_tokens"] - part["fact_tokens"]).to_numpy().astype(float)
        used, ones = np.isfinite(d), np.ones(len(d))
        fit = hc3(d[used], ones[used])
        assert row["p"] == pytest.approx(fit.pvalues[0], rel=1e-8, abs=1e-12)
        fit = hc3(d[used], np.column_stack([ones, lengths])[used])
        assert row["linear_mean_diff"] == pytest.approx(fit.params[0], rel=1e-9, abs=1e-11)
        assert row["linear_dz"] == pytest.approx(fit.params[0] / np.sqrt(fit.mse_resid), rel=1e-9, abs=1e-11)
        assert row["linear_p"] == pytest.approx(fit.pvalues[0], rel=1e-8, abs=1e-12)
        seen += 1
    assert seen == 3 * 12


def held_by_hand(table: pl.DataFrame, texts: pl.DataFrame) -> tuple[np.ndarray, int]:
    """(pair, column) what is held constant in a `closed_answers` table, and how many columns are answers'."""
    lengths = table.select("fact_tokens", "hall_tokens").to_numpy().astype(float)
    answers = []
    for answer in ("yes", "no", "A", "B", "C"):
        hall, fact = ((texts[side] == answer).to_numpy() for side in ("hallucination", "fact"))
        if (hall | fact).sum() >= 10:
            answers.append(hall.astype(float) - fact)
    return np.column_stack([length_columns(lengths, label_numbers(table["domain"])), *answers]), len(answers)


@settings(max_examples=6, deadline=None)
@given(seeds, st.integers(70, 260), st.booleans())
def test_adjusted_columns_hold_length_and_closed_answers_constant(seed, pairs, clustered):
    table, texts = closed_answers(seed, pairs, effect=0.3)
    if not clustered:
        texts = texts.with_columns(prompt=pl.col("pair_id"))
    rows = analyse_table(table, texts, resampling=QUICK).rows
    adjusted = rows.filter(pl.col("adj_p").is_not_null())
    assert adjusted.height > 0.9 * rows.height
    for scope in ("a", "b", "pooled"):
        used = np.ones(pairs, dtype=bool) if scope == "pooled" else (table["domain"] == scope).to_numpy()
        check_adjusted(table.filter(used), texts.filter(used), adjusted.filter(scope=scope))


def check_adjusted(part: pl.DataFrame, own: pl.DataFrame, adjusted: pl.DataFrame) -> None:
    """The rows of one scope against fits to its pairs."""
    columns, answers = held_by_hand(part, own)
    clusters = own["prompt"].rank("dense").to_numpy().astype(int) - 1
    names = adjusted["metric"]
    differences = np.stack([(part[f"{name}_hall"] - part[f"{name}_fact"]).to_numpy() for name in names], axis=1)
    ones = np.ones(len(clusters))
    errors = jackknife(differences, span(columns), clusters, ones)[1]
    raw_errors = jackknife(differences, np.empty((len(clusters), 0)), clusters, ones)[1]
    for row, d, error, raw_error in zip(adjusted.iter_rows(named=True), differences.T, errors, raw_errors, strict=True):
        everything = np.column_stack([np.ones(len(d)), span(columns)])
        rank = np.linalg.matrix_rank(everything)
        assert row["length_df"] + row["completion_df"] == rank - 1
        # Each set of answers sums to zero over a pair: yes and no are one column, A to C two.
        assert answers < 5 or row["completion_df"] == 3
        fit = hc3(d, everything)
        sd = np.sqrt(fit.mse_resid)
        assert row["adj_mean_diff"] == pytest.approx(fit.params[0], rel=1e-8, abs=1e-10)
        assert row["adj_dz"] == pytest.approx(fit.params[0] / sd, rel=1e-8, abs=1e-10)
        freedom = fit.df_resid if row["clusters"] == len(d) else row["clusters"] - 1
        if row["clusters"] == len(d):
            assert error == pytest.approx(fit.bse[0], rel=1e-8)
            assert row["adj_p"] == pytest.approx(fit.pvalues[0], rel=1e-7, abs=1e-12)
        assert row["adj_p"] == pytest.approx(2 * stats.t.sf(abs(fit.params[0] / error), freedom), rel=1e-7, abs=1e-12)
        t = d.mean() / raw_error
        assert row["p"] == pytest.approx(2 * stats.t.sf(abs(t), row["clusters"] - 1), rel=1e-7, abs=1e-12)
        equivalent = [
            max(stats.t.sf((e + 0.2 * s) / se, df), stats.t.cdf((e - 0.2 * s) / se, df))
            for e, s, se, df in (
                (d.mean(), d.std(ddof=1), raw_error, row["clusters"] - 1),
                (fit.params[0], sd, error, freedom),
            )
        ]
        assert row["equivalence_p"] == pytest.approx(max(equivalent), rel=1e-7, abs=1e-12)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=30))
def test_q_values_are_those_of_statsmodels_and_scipy_and_a_test_that_was_not_made_counts_nothing(p_values):
    p = np.array(p_values)
    q = benjamini_hochberg(np.stack([p, p[::-1]]))
    made = np.isfinite(p)
    assert np.isnan(q[0, ~made]).all()
    if made.any():
        assert q[0, made] == pytest.approx(bh(p[made]), **EXACT)
        assert q[1, ::-1][made] == pytest.approx(stats.false_discovery_control(p[made]), **EXACT)


@pytest.mark.parametrize("family", ["scope", "all"])
def test_every_q_of_a_table_corrects_the_larger_p_of_what_can_be_judged_in_its_family(family):
    table = random_table(3, 120).with_columns(
        few_fact=pl.lit(1.0), few_hall=pl.when(pl.int_range(pl.len()) < 4).then(2.0)
    )
    result = analyse_table(table, family=family, resampling=QUICK)
    judged = pl.col("q").is_not_null()
    assert set(result.rows.filter(~judged)["metric"]) == {"constant0", "constant1", "constant2", "few"}
    scopes = [result.rows] if family == "all" else result.rows.partition_by("scope")
    assert len(scopes) == len(result.about["families"])
    for rows, declared in zip(scopes, result.about["families"], strict=True):
        tested = rows.filter(judged)
        assert len(tested) == declared["tests"] == 12 * (3 if family == "all" else 1)
        for q, p_values in CORRECTED.items():
            larger = tested.select(pl.max_horizontal(p_values)).to_series().to_numpy()
            assert tested[q].to_numpy() == pytest.approx(bh(larger), **EXACT)
            assert tested[q].to_numpy() == pytest.approx(stats.false_discovery_control(larger), **EXACT)
            assert rows[q].null_count() == len(rows) - len(tested)


def test_the_smallest_effect_seen_is_that_of_the_power_function():
    from statsmodels.stats.power import TTestPower  # as above

    for pairs in (5, 12, 50, 200, 10_000):
        expected = TTestPower().solve_power(nobs=pairs, alpha=0.05, power=0.8)
        assert minimum_detectable_dz(pairs) == pytest.approx(expected, rel=1e-5)
    assert minimum_detectable_dz(200) == pytest.approx(0.199, abs=0.001)
    assert math.isnan(minimum_detectable_dz(1))
    assert hedges_factor(9) == pytest.approx(1 - 3 / (4 * 9 - 1), abs=1e-3)
    assert math.isnan(hedges_factor(1))
