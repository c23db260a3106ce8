"""Columns that describe, rank and resample: against scipy and scikit-learn, on tables with ties, outliers and nulls."""

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

from bluffscope.stats import Resampling, analyse_table
from bluffscope.stats.auroc import ordering, weighted_auroc
from bluffscope.stats.cells import CORRECTED
from bluffscope.stats.heldout import grouped_folds, heldout_gain
from bluffscope.stats.resampling import sign_flip_p
from bluffscope.stats.signed_rank import wilcoxon
from bluffscope.stats.study import Block, build_study
from studies import QUICK, random_table, tables

EXACT = {"rel": 1e-9, "abs": 1e-12}


def both_sides(table: pl.DataFrame, metric: str, scope: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fact, hallucination and dL of the pairs that count."""
    part = table if scope == "pooled" else table.filter(domain=scope)
    fact, hall = part[f"{metric}_fact"].to_numpy(), part[f"{metric}_hall"].to_numpy()
    lengths = (part["hall_tokens"] - part["fact_tokens"]).to_numpy().astype(float)
    used = np.isfinite(fact) & np.isfinite(hall)
    return fact[used], hall[used], lengths[used]


@settings(max_examples=6, deadline=None)
@given(tables)
def test_raw_statistics_are_those_of_scipy(table):
    rows = analyse_table(table.drop("group"), resampling=QUICK).rows
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
        critical = stats.t.isf(0.025, n - 1)
        beyond = stats.nct.sf(critical, n - 1, row["mde80"] * np.sqrt(n))
        assert beyond == pytest.approx(0.8, abs=1e-4)  # hardly anything lies beyond the other end
        equal = d[lengths == 0]
        assert row["n_equal_length"] == len(equal)
        if len(equal) >= 5 and equal.std() > 0:
            assert row["equal_length_dz"] == pytest.approx(equal.mean() / equal.std(ddof=1), **EXACT)
            few = len(equal)  # HC3 of a mean is its usual error, n / (n - 1) times
            t = stats.ttest_1samp(equal, 0).statistic * np.sqrt((few - 1) / few)
            assert row["equal_length_p"] == pytest.approx(2 * stats.t.sf(abs(t), few - 1), **EXACT)


def gamma_ratio(freedom: int) -> float:
    return math.gamma(freedom / 2) / (math.sqrt(freedom / 2) * math.gamma((freedom - 1) / 2))


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


def test_what_is_said_of_a_metric_depends_on_the_seed_and_on_nothing_else_in_the_table():
    table = random_table(4, 60, kinds=("normal", "nulls"))
    alone = table.select("domain", "group", "fact_tokens", "hall_tokens", "normal1_fact", "normal1_hall")
    of_the_family = [*CORRECTED, "verdict", "reason"]
    whole = analyse_table(table, resampling=QUICK).rows.filter(metric="normal1").drop(of_the_family)
    # Sums of more columns at once may round otherwise.
    assert_frame_equal(whole, analyse_table(alone, resampling=QUICK).rows.drop(of_the_family), rel_tol=1e-12)
    other = analyse_table(alone, resampling=Resampling(flips=99, seed=1)).rows
    drawn = ["p_signflip", "cv_auroc_gain"]
    assert_frame_equal(whole.drop(drawn), other.drop(drawn, of_the_family), rel_tol=1e-12)
    assert other["p_signflip"].to_list() != whole["p_signflip"].to_list()


def block_of(table: pl.DataFrame) -> Block:
    study = build_study(table)
    return next(study.blocks(study.scopes[-1]))


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
