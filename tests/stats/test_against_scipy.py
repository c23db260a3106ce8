"""Every statistic against scipy, statsmodels or scikit-learn on random tables with ties, outliers and nulls."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from statsmodels.api import OLS, add_constant
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from bluffscope.stats import Resampling, analyse_table
from bluffscope.stats.auroc import ordering, weighted_auroc
from bluffscope.stats.cells import CORRECTED
from bluffscope.stats.cluster_robust import grouped_error
from bluffscope.stats.effects import hedges_factor, minimum_detectable_dz
from bluffscope.stats.flips import ALL_FLIPS
from bluffscope.stats.heldout import grouped_folds, heldout_gain
from bluffscope.stats.length_control import adjust, unadjusted
from bluffscope.stats.multiplicity import benjamini_hochberg
from bluffscope.stats.resampling import bootstrap_intervals, sign_flip_p
from bluffscope.stats.signed_rank import FEW_GROUPS, signed_ranks, wilcoxon
from bluffscope.stats.study import Block, build_study
from studies import QUICK, random_table, share_of_flips, tables

EXACT = {"rel": 1e-9, "abs": 1e-12}


def both_sides(table: pl.DataFrame, metric: str, scope: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fact, hallucination and dL of the pairs that count."""
    part = table if scope == "pooled" else table.filter(domain=scope)
    fact, hall = part[f"{metric}_fact"].to_numpy(), part[f"{metric}_hall"].to_numpy()
    lengths = (part["hall_tokens"] - part["fact_tokens"]).to_numpy().astype(float)
    used = np.isfinite(fact) & np.isfinite(hall)
    return fact[used], hall[used], lengths[used]


@settings(max_examples=15, deadline=None)
@given(tables)
def test_raw_statistics_are_those_of_scipy(table):
    rows = analyse_table(table, resampling=QUICK).rows
    assert set(rows["scope"]) == {"a", "b", "pooled"}
    for row in rows.filter(~pl.col("metric").str.starts_with("constant")).iter_rows(named=True):
        fact, hall, lengths = both_sides(table, row["metric"], row["scope"])
        d = hall - fact
        n = len(d)
        assert row["n"] == n
        assert row["mean_fact"] == pytest.approx(fact.mean(), **EXACT)
        assert row["mean_hall"] == pytest.approx(hall.mean(), **EXACT)
        assert row["mean_diff"] == pytest.approx(d.mean(), **EXACT)
        assert row["sd_diff"] == pytest.approx(stats.tstd(d), **EXACT)
        assert row["dz"] == pytest.approx(stats.ttest_1samp(d, 0).statistic / np.sqrt(n), **EXACT)
        assert row["hedges_g"] == pytest.approx(row["dz"] * gamma_ratio(n - 1), **EXACT)
        tested = stats.wilcoxon(d, zero_method="wilcox", correction=False, method="asymptotic")
        assert row["p_wilcoxon"] == pytest.approx(tested.pvalue, **EXACT)
        assert row["auroc"] == pytest.approx(stats.mannwhitneyu(hall, fact).statistic / n**2, **EXACT)
        assert row["p_paired"] == pytest.approx(((d > 0).sum() + (d == 0).sum() / 2) / n, **EXACT)
        power = TTestPower().power(row["mde80"], n, 0.05, alternative="two-sided")
        assert power == pytest.approx(0.8, abs=1e-9)
        equal = d[lengths == 0]
        assert row["n_equal_length"] == len(equal)
        if len(equal) >= 5 and equal.std() > 0:
            assert row["equal_length_dz"] == pytest.approx(equal.mean() / equal.std(ddof=1), **EXACT)
            tested = stats.wilcoxon(equal, correction=False, method="asymptotic")
            assert row["equal_length_p"] == pytest.approx(tested.pvalue, **EXACT)


def gamma_ratio(freedom: int) -> float:
    return math.gamma(freedom / 2) / (math.sqrt(freedom / 2) * math.gamma((freedom - 1) / 2))


@pytest.mark.thorough
@settings(max_examples=15, deadline=None)
@given(tables, st.integers(1, 30))
def test_the_grouped_test_weighs_each_group_by_its_own_rank_sum(table, groups):
    table = table.with_columns(group=pl.int_range(pl.len()) % groups)
    rows = analyse_table(table, resampling=QUICK).rows.filter(pl.col("p_grouped").is_not_null())
    assert not rows.is_empty()
    for row in rows.iter_rows(named=True):
        part = table if row["scope"] == "pooled" else table.filter(domain=row["scope"])
        d = (part[f"{row['metric']}_hall"] - part[f"{row['metric']}_fact"]).to_numpy()
        label, d = part["group"].to_numpy()[np.isfinite(d)], d[np.isfinite(d)]
        label, d = label[d != 0], d[d != 0]
        ranks = np.sign(d) * stats.rankdata(np.abs(d))
        sums = np.array([ranks[label == group].sum() for group in np.unique(label)])
        expected = 2 * stats.norm.sf(abs(sums.sum() / np.sqrt((sums**2).sum())))
        if (sums**2).sum() ** 2 / (sums**4).sum() < FEW_GROUPS and len(part) > len(part["group"].unique()):
            exact = share_of_flips(2 * sums)  # mean ranks are halves
            assert row["p_grouped"] == pytest.approx(exact, rel=1e-9 if np.count_nonzero(sums) <= ALL_FLIPS else 0.3)
            continue
        assert row["p_grouped"] == pytest.approx(expected, **EXACT)


@pytest.mark.thorough
@settings(max_examples=15, deadline=None)
@given(tables)
def test_with_a_group_for_each_pair_the_grouped_test_is_wilcoxons(table):
    rows = analyse_table(table.drop("group"), resampling=QUICK).rows
    assert rows["p_grouped"].to_list() == rows["p_wilcoxon"].to_list()


@settings(max_examples=15, deadline=None)
@given(tables)
def test_length_control_is_that_of_statsmodels(table):
    rows = analyse_table(table, resampling=QUICK).rows
    adjusted = rows.filter(pl.col("adj_dz").is_not_null())
    assert not adjusted.is_empty()
    for row in adjusted.iter_rows(named=True):
        fact, hall, lengths = both_sides(table, row["metric"], row["scope"])
        fit = OLS(hall - fact, add_constant(lengths)).fit(cov_type="HC3", use_t=True)
        assert row["adj_mean_diff"] == pytest.approx(fit.params[0], rel=1e-9, abs=1e-11)
        assert row["adj_dz"] == pytest.approx(fit.params[0] / np.sqrt(fit.mse_resid), rel=1e-9, abs=1e-11)
        assert row["adj_p"] == pytest.approx(fit.pvalues[0], rel=1e-9, abs=1e-11)


@pytest.mark.thorough
@settings(max_examples=8, deadline=None)
@given(tables, st.integers(3, 25))
def test_the_grouped_error_is_that_of_fits_without_one_group_at_a_time(table, groups):
    table = table.with_columns(group=pl.int_range(pl.len()) % groups)
    rows = analyse_table(table, resampling=QUICK).rows.filter(pl.col("adj_p_grouped").is_not_null())
    assert not rows.is_empty()
    for row in rows.iter_rows(named=True):
        fact, hall, lengths = both_sides(table, row["metric"], row["scope"])
        part = table if row["scope"] == "pooled" else table.filter(domain=row["scope"])
        finite = part[f"{row['metric']}_fact"].is_finite() & part[f"{row['metric']}_hall"].is_finite()
        label = part.filter(finite)["group"].to_numpy()
        d, design = hall - fact, add_constant(lengths, has_constant="add")
        whole = OLS(d, design).fit().params[0]
        others = [OLS(d[label != one], design[label != one]).fit().params[0] for one in np.unique(label)]
        t = whole / np.sqrt(((np.array(others) - whole) ** 2).sum())
        expected = 2 * stats.t.sf(abs(t), len(others) - 2)
        assert row["adj_p_grouped"] == pytest.approx(expected, rel=1e-9, abs=1e-11)


@settings(max_examples=8, deadline=None)
@given(tables)
def test_with_a_group_for_each_pair_the_grouped_error_is_hc3(table):
    rows = analyse_table(table.drop("group"), resampling=QUICK).rows
    assert rows["adj_p_grouped"].to_list() == rows["adj_p"].to_list()
    d = (table["normal0_hall"] - table["normal0_fact"]).to_numpy()
    lengths = (table["hall_tokens"] - table["fact_tokens"]).to_numpy().astype(float)
    error = grouped_error(d[:, None], lengths[:, None], np.arange(len(d)))
    fit = OLS(d, add_constant(lengths)).fit(cov_type="HC3", use_t=True)
    assert error[0] == pytest.approx(fit.bse[0], **EXACT)


def test_one_group_that_alone_holds_the_differences_in_length_leaves_nothing_to_compare():
    d, groups = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) // 10
    lengths = np.where(groups == 1, np.arange(30.0) % 3, 0.0)[:, None]
    assert np.isnan(grouped_error(d, lengths, groups)).all()
    assert np.isnan(grouped_error(d, lengths, np.zeros(30, dtype=int))).all()
    assert np.isfinite(grouped_error(d, np.empty((30, 0)), groups)).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(10, 200), st.floats(-0.5, 0.5))
def test_the_equivalence_test_is_two_t_tests_of_the_intercept(seed, pairs, effect):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(-2, 4, pairs).astype(float)
    lengths[:2] = 0, 1
    d = effect + rng.normal(size=(pairs, 1))
    fit = OLS(d[:, 0], add_constant(lengths)).fit(cov_type="HC3", use_t=True)
    sd = np.sqrt(fit.mse_resid)
    one_sided = [fit.t_test(([1, 0], bound * sd)) for bound in (-0.2, 0.2)]
    above = stats.t.sf(one_sided[0].tvalue.item(), pairs - 2)
    below = stats.t.cdf(one_sided[1].tvalue.item(), pairs - 2)
    alone = np.arange(pairs)
    assert adjust(d, lengths, alone).equivalence_p[0] == pytest.approx(max(above, below), **EXACT)
    plain = unadjusted(d, alone, np.array([0.5]), np.array([0.5]))
    sd = d.std(ddof=1)
    above = stats.ttest_1samp(d[:, 0], -0.2 * sd, alternative="greater").pvalue
    below = stats.ttest_1samp(d[:, 0], 0.2 * sd, alternative="less").pvalue
    assert plain.equivalence_p[0] == pytest.approx(max(above, below), **EXACT)


def test_pairs_that_repeat_each_other_are_no_evidence_of_equivalence():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(20), 15)
    lengths = rng.integers(-2, 3, 300).astype(float)
    alone = np.arange(300)
    apart = {"pairs": 0, "groups": 0}
    for _ in range(100):
        # The effect of the groups drawn varies by 0.22 sd: 300 pairs of 20 groups cannot place it within 0.2.
        d = rng.normal(size=(20, 1))[groups] + 0.2 * rng.normal(size=(300, 1))
        none = np.array([0.5])
        apart["pairs"] += adjust(d, lengths, alone).equivalence_p[0] < 0.05
        apart["groups"] += adjust(d, lengths, groups).equivalence_p[0] < 0.05
        assert unadjusted(d, groups, none, none).equivalence_p[0] >= unadjusted(d, alone, none, none).equivalence_p[0]
    assert apart["groups"] == 0 < 20 < apart["pairs"]


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=30))
def test_q_values_are_those_of_statsmodels_and_scipy_and_a_test_that_was_not_made_counts_nothing(p_values):
    p = np.array(p_values)
    q = benjamini_hochberg(np.stack([p, p[::-1]]))
    made = np.isfinite(p)
    assert np.isnan(q[0, ~made]).all()
    if made.any():
        assert q[0, made] == pytest.approx(multipletests(p[made], method="fdr_bh")[1], **EXACT)
        assert q[1, ::-1][made] == pytest.approx(stats.false_discovery_control(p[made]), **EXACT)


@pytest.mark.parametrize("family", ["scope", "all"])
def test_q_and_adjusted_q_are_corrected_within_the_declared_family(family):
    result = analyse_table(random_table(3, 80), family=family, resampling=QUICK)
    scopes = [result.rows] if family == "all" else result.rows.partition_by("scope")
    assert len(scopes) == len(result.about["families"])
    for rows, declared in zip(scopes, result.about["families"], strict=True):
        for q, p in CORRECTED.items():
            tested = rows.filter(pl.col(p).is_not_null())
            assert len(tested) == declared["adjusted_tests" if q.startswith("adj") else "tests"] > 0
            assert tested[q].to_numpy() == pytest.approx(multipletests(tested[p], method="fdr_bh")[1], **EXACT)
            assert rows[q].null_count() == len(rows) - len(tested)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60))
def test_flipping_ranks_is_the_same_as_ranking_flipped_differences(seed, pairs):
    rng = np.random.default_rng(seed)
    d = rng.normal(0.3, 1, (pairs, 4)).round(1)
    d[:, 3] = 0
    flips = rng.choice([-1.0, 1.0], (6, pairs))
    found = signed_ranks(d).p_values(flips)
    expected = np.stack([wilcoxon(flip[:, None] * d) for flip in flips])
    assert found[:, :3] == pytest.approx(expected[:, :3], **EXACT)
    assert np.isnan(found[:, 3]).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.booleans())
def test_the_sign_flip_test_of_few_groups_takes_all_choices_of_signs(seed, groups, ties):
    rng = np.random.default_rng(seed)
    members = np.concatenate([np.arange(groups), rng.integers(0, groups, 7)])
    d = rng.normal(0.5, 1, (len(members), 3))
    d = d.round() if ties else d
    found = sign_flip_p(d, members, 9999, rng)
    totals = np.stack([d[members == group].sum(axis=0) for group in range(groups)])
    sums = np.array([np.array(signs) @ totals for signs in itertools.product((1, -1), repeat=groups)])
    expected = (np.abs(sums) >= np.abs(totals.sum(axis=0)) - 1e-9).mean(axis=0)
    assert found == pytest.approx(expected, **EXACT)


def test_the_sign_flip_test_of_many_groups_agrees_with_scipy():
    rng = np.random.default_rng(5)
    d = rng.normal(0.15, 1, (60, 4))
    found = sign_flip_p(d, np.arange(60), 9999, rng)
    for metric in range(4):
        test = stats.permutation_test(
            (d[:, metric],), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(6)
        )
        assert found[metric] == pytest.approx(test.pvalue, abs=0.02)


def test_the_sign_flip_test_is_honest_about_dependent_pairs():
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(30), 10)
    shared = rng.normal(size=(30, 200))[groups]  # no effect, but ten pairs that all say the same
    found = sign_flip_p(shared + 0.01 * rng.normal(size=shared.shape), groups, 999, rng)
    assert (found < 0.05).mean() < 0.12
    assert (wilcoxon(shared) < 0.05).mean() > 0.3


def block_of(table: pl.DataFrame) -> Block:
    study = build_study(table)
    return study.blocks(study.scopes[-1])[0]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["normal", "ties"])
def test_bootstrap_intervals_are_those_of_drawing_whole_groups_in_a_loop(kind):
    block = block_of(random_table(11, 220, kinds=(kind,)))
    found = bootstrap_intervals(block, 6000, np.random.default_rng(0), adjustable=True)
    rng = np.random.default_rng(1)
    members = [np.flatnonzero(block.groups == group) for group in range(block.groups.max() + 1)]
    drawn = []
    for _ in range(3000):
        rows = np.concatenate([members[group] for group in rng.integers(0, len(members), len(members))])
        d, x = block.differences[rows], block.length_differences[rows]
        design = np.stack([np.ones(len(x)), x], axis=1)
        fit, rest, *_ = np.linalg.lstsq(design, d)
        areas = [
            stats.mannwhitneyu(block.hall[rows, metric], block.fact[rows, metric]).statistic / len(rows) ** 2
            for metric in range(3)
        ]
        drawn.append([d.mean(axis=0) / d.std(axis=0, ddof=1), areas, fit[0] / np.sqrt(rest / (len(x) - 2))])
    expected = np.quantile(drawn, (0.025, 0.975), axis=0)  # (end, statistic, metric)
    for place, ends in enumerate(found):
        assert ends == pytest.approx(expected[:, place], abs=0.02)


def test_bootstrap_intervals_of_independent_pairs_are_those_of_scipy():
    rng = np.random.default_rng(2)
    fact = rng.normal(size=(200, 1))
    hall = fact + rng.normal(0.4, 1, (200, 1))
    block = Block(np.arange(1), np.arange(200), fact, hall, np.ones((200, 2)), np.arange(200))
    found = bootstrap_intervals(block, 4000, rng, adjustable=False)
    expected = stats.bootstrap(
        ((hall - fact)[:, 0],),
        lambda d, axis: d.mean(axis=axis) / d.std(axis=axis, ddof=1),
        n_resamples=4000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    assert found.dz[:, 0] == pytest.approx([expected.low, expected.high], abs=0.02)
    assert np.isnan(found.adj_dz).all()


def test_an_interval_depends_on_the_seed_and_on_nothing_else_in_the_table():
    table = random_table(4, 60, kinds=("normal", "nulls"))
    alone = table.select("domain", "group", "fact_tokens", "hall_tokens", "normal1_fact", "normal1_hall")
    of_the_family = [*CORRECTED, "verdict", "reason"]
    whole = analyse_table(table, resampling=QUICK).rows.filter(metric="normal1").drop(of_the_family)
    assert_frame_equal(whole, analyse_table(alone, resampling=QUICK).rows.drop(of_the_family))
    other = analyse_table(alone, resampling=Resampling(resamples=20, flips=99, seed=1)).rows
    assert other["dz_lo"].to_list() != whole["dz_lo"].to_list()


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(30, 60))
def test_the_heldout_gain_is_that_of_scikit_learn_on_the_same_folds(seed, pairs):
    block = block_of(random_table(seed, pairs, kinds=("normal", "ties")))
    folds = grouped_folds(block.groups, 5, np.random.default_rng(seed))
    for group in range(block.groups.max() + 1):
        assert len(set(folds[block.groups == group])) == 1
    found = heldout_gain(block, np.random.default_rng(seed))
    label = np.repeat([0, 1], pairs)
    length = block.lengths.T.reshape(-1, 1)
    for metric in range(block.fact.shape[1]):
        values = np.concatenate([block.fact[:, metric], block.hall[:, metric]])[:, None]
        gains = []
        for fold in range(5):
            train, test = np.tile(folds != fold, 2), np.tile(folds == fold, 2)
            areas = []
            for features in (np.hstack([length, values]), length):
                with np.errstate(invalid="ignore"):  # of a fold whose classes have the same mean length
                    model = LinearDiscriminantAnalysis().fit(features[train], label[train])
                # Rounded: equal texts have equal scores but for the order of sums.
                areas.append(roc_auc_score(label[test], model.decision_function(features[test]).round(9)))
            gains.append(areas[0] - areas[1])
        assert found[metric] == pytest.approx(np.mean(gains), abs=1e-9)


def test_the_smallest_effect_seen_is_that_of_the_power_function():
    for pairs in (5, 12, 50, 200, 10_000):
        expected = TTestPower().solve_power(nobs=pairs, alpha=0.05, power=0.8)
        assert minimum_detectable_dz(pairs) == pytest.approx(expected, rel=1e-5)
    assert minimum_detectable_dz(200) == pytest.approx(0.199, abs=0.001)
    assert math.isnan(minimum_detectable_dz(1))
    assert hedges_factor(10) == pytest.approx(1 - 3 / (4 * 9 - 1), abs=1e-3)
    assert math.isnan(hedges_factor(2))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=40))
@settings(deadline=None)
def test_the_weighted_auroc_is_that_of_the_repeated_pairs(rows):
    fact, hall, weights = (np.array(column) for column in zip(*rows, strict=True))
    if not weights.any():
        return
    repeated = np.repeat(np.arange(len(rows)), weights)
    labels = np.repeat([0, 1], len(repeated))
    expected = roc_auc_score(labels, np.concatenate([fact[repeated], hall[repeated]]))
    found = weighted_auroc(ordering(fact, hall), weights[:, None].astype(float))
    assert found[0] == pytest.approx(expected, abs=1e-12)
