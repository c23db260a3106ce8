"""AUROC and its intervals: brute force, DeLong, and the exact bound where all clusters agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from bluffscope.stats.auroc import Areas, areas, auroc, ordering, placements, weighted_auroc

seeds = st.integers(0, 2**32 - 1)


def sides(seed: int, pairs: int, shift: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Three metrics: plain, with ties, with a shared part in each pair."""
    rng = np.random.default_rng(seed)
    fact, hall = rng.normal(size=(2, pairs, 3))
    hall += shift
    shared = rng.normal(size=pairs)
    fact[:, 2] += shared
    hall[:, 2] += shared
    fact[:, 1], hall[:, 1] = fact[:, 1].round(), hall[:, 1].round()
    return fact, hall


def of_pairs(fact: np.ndarray, hall: np.ndarray, groups: np.ndarray) -> Areas:
    return areas(fact, hall, groups, groups)


def wins(fact: np.ndarray, hall: np.ndarray) -> np.ndarray:
    """(hall, fact) 1 where the hallucination is larger, a half where they tie."""
    return (hall[:, None] > fact[None]) + (hall[:, None] == fact[None]) / 2


@settings(deadline=None)
@given(seeds, st.integers(2, 40))
def test_areas_and_placements_are_counted_over_all_hallucinations_and_facts(seed, pairs):
    fact, hall = sides(seed, pairs)
    found = of_pairs(fact, hall, np.arange(pairs))
    for metric in range(3):
        won = wins(fact[:, metric], hall[:, metric])
        assert found.area[metric] == pytest.approx(won.mean(), rel=1e-12)
        under, above = placements(fact[:, metric], hall[:, metric])
        assert above == pytest.approx(won.mean(axis=1), rel=1e-12)
        assert under == pytest.approx(won.mean(axis=0), rel=1e-12, abs=1e-15)
    assert found.area == pytest.approx(auroc(fact, hall), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(8, 80), st.floats(-1, 1))
def test_the_interval_of_single_pairs_is_delongs_on_the_logit_scale(seed, pairs, shift):
    fact, hall = sides(seed, pairs, shift)
    found = of_pairs(fact, hall, np.arange(pairs))
    for metric in range(3):
        won = wins(fact[:, metric], hall[:, metric])
        area = won.mean()
        if not 0 < area < 1:
            continue
        # The two sides of a pair are measured together: their covariance counts (DeLong et al. 1988, equation 5).
        cov = np.cov(won.mean(axis=1), won.mean(axis=0))
        error = np.sqrt((cov[0, 0] + cov[1, 1] + 2 * cov[0, 1]) / pairs)
        reach = stats.t.isf(0.025, pairs - 1) * error / (area * (1 - area))
        assert logit(found.lo[metric]) == pytest.approx(logit(area) - reach, rel=1e-9, abs=1e-9)
        assert found.hi[metric] == pytest.approx(expit(logit(area) + reach), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(3, 12), st.integers(2, 6))
def test_the_interval_over_clusters_adds_up_what_their_pairs_share(seed, clusters, size):
    fact, hall = sides(seed, clusters * size)
    groups = np.random.default_rng(seed).permutation(np.arange(clusters * size) % clusters)
    found = of_pairs(fact, hall, groups)
    for metric in range(3):
        won = wins(fact[:, metric], hall[:, metric])
        shares = (won.mean(axis=1) + won.mean(axis=0) - 2 * won.mean()) / len(fact)
        sums = np.array([shares[groups == group].sum() for group in range(clusters)])
        error = np.sqrt(clusters / (clusters - 1) * (sums**2).sum())
        area = won.mean()
        if 0 < area < 1:
            reach = stats.t.isf(0.025, clusters - 1) * error / (area * (1 - area))
            assert found.lo[metric] == pytest.approx(expit(logit(area) - reach), rel=1e-9)
            assert found.hi[metric] == pytest.approx(expit(logit(area) + reach), rel=1e-9)


@pytest.mark.parametrize(("clusters", "size"), [(2, 10), (12, 1), (40, 3)])
def test_where_all_clusters_agree_the_bound_is_exact(clusters, size):
    rng = np.random.default_rng(0)
    fact = rng.uniform(0, 1, (clusters * size, 1))
    above = of_pairs(fact, fact + 1.5, np.arange(clusters * size) % clusters)
    assert (above.area[0], above.hi[0]) == (1.0, 1.0)
    # With this share of agreeing clusters, all of so many agree once in forty times.
    assert above.lo[0] ** clusters == pytest.approx(0.025, rel=1e-12)
    below = of_pairs(fact + 1.5, fact, np.arange(clusters * size) % clusters)
    assert (below.area[0], below.lo[0]) == (0.0, 0.0)
    assert below.hi[0] == pytest.approx(1 - above.lo[0], rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 30), st.integers(2, 30))
def test_classes_of_other_sizes_have_the_area_of_mann_and_whitney(seed, true, false):
    rng = np.random.default_rng(seed)
    lower, upper = rng.normal(size=(true, 1)).round(1), rng.normal(0.3, 1, (false, 1)).round(1)
    found = areas(lower, upper, np.arange(true), true + np.arange(false))
    expected = stats.mannwhitneyu(upper[:, 0], lower[:, 0]).statistic / (true * false)
    assert found.area[0] == pytest.approx(expected, rel=1e-12, abs=1e-15)
    if 0 < expected < 1:
        won = wins(lower[:, 0], upper[:, 0])
        variance = won.mean(axis=1).var() / false + won.mean(axis=0).var() / true
        number = true + false
        reach = stats.t.isf(0.025, number - 1) * np.sqrt(number / (number - 1) * variance)
        assert logit(found.hi[0]) == pytest.approx(logit(expected) + reach / (expected * (1 - expected)), rel=1e-9)


def test_one_cluster_has_an_area_and_no_interval():
    fact, hall = sides(0, 20)
    found = of_pairs(fact, hall, np.zeros(20, dtype=int))
    assert np.isfinite(found.area).all()
    assert np.isnan([found.lo, found.hi]).all()


def test_placements_are_the_derivative_of_auroc_by_a_pairs_weight():
    fact, hall = (side[:, 1] for side in sides(3, 60))  # with ties
    order, step = ordering(fact, hall), 1e-6
    weights = np.ones((60, 60)) + step * np.eye(60)
    slope = (weighted_auroc(order, weights) - weighted_auroc(order, np.ones((60, 1)))) / step * 60
    # A weight also makes all pairs count for more, which takes twice the area off.
    assert sum(placements(fact, hall)) - 2 * order.area == pytest.approx(slope, abs=1e-4)


@pytest.mark.thorough
def test_the_interval_covers_the_area_about_as_often_as_it_says():
    true, covered = stats.norm.cdf(0.8 / np.sqrt(2)), 0
    for seed in range(300):
        fact, hall = sides(seed, 40, 0.8)
        found = of_pairs(fact[:, :1], hall[:, :1], np.arange(40))
        covered += found.lo[0] < true < found.hi[0]
    # Fewer than 272 of 300 would come once in a thousand times at 95 %.
    assert covered >= 272
