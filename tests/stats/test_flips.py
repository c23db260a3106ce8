"""Sign flips of groups: against all flips, plain draws and exact binomials far in the tail."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bluffscope.stats.flips import ALL_FLIPS, flip_tail
from studies import share_of_flips

whole = st.lists(st.integers(-9, 9), min_size=1, max_size=120)
large = st.lists(st.integers(-400, 400), min_size=0, max_size=4)


def by_all_flips(sums):
    signs = itertools.product((1, -1), repeat=len(sums))
    bound = abs(np.sum(sums)) - 1e-9 * np.abs(sums).sum()
    return np.mean([abs(np.dot(choice, sums)) >= bound for choice in signs])


@given(st.lists(st.floats(-5, 5).filter(lambda value: value == 0 or abs(value) > 1e-3), min_size=1, max_size=9))
def test_few_groups_take_all_flips(sums):
    assert flip_tail(np.array(sums), np.random.default_rng(0)) == pytest.approx(by_all_flips(sums), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=10, max_size=14))
def test_all_flips_are_counted_half_by_half(sums):
    assert flip_tail(np.array(sums), np.random.default_rng(0)) == pytest.approx(by_all_flips(sums), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(whole, large, st.integers(0, 2**32), st.booleans())
def test_whatever_the_shape_p_comes_within_some_percent_of_all_flips(small, large, seed, one_sign):
    sums = np.array(small + large, dtype=float)
    sums = np.abs(sums) if one_sign else sums
    found = flip_tail(sums, np.random.default_rng(seed))
    within = 1e-9 if (sums != 0).sum() <= ALL_FLIPS else 0.4
    assert found == pytest.approx(share_of_flips(sums), rel=within)


@pytest.mark.parametrize("small", [20, 60, 1500])
def test_one_large_group_hides_no_small_ones_that_all_agree(small):
    sums = np.array([1000.0] + [1.0] * small)
    assert flip_tail(sums, np.random.default_rng(0)) == pytest.approx(2.0**-small, rel=0.05)


@pytest.mark.parametrize(("groups", "against"), [(30, 11), (100, 43), (1000, 480)])
def test_large_p_values_of_equal_groups_are_the_binomials(groups, against):
    sums = np.array([1.5] * (groups - against) + [-1.5] * against)
    expected = 2 * binom.cdf(against, groups, 0.5)
    assert flip_tail(sums, np.random.default_rng(0)) == pytest.approx(expected, rel=0.02)
    assert expected > 0.1


def test_sums_that_one_group_dominates_are_flipped_one_and_all():
    rng = np.random.default_rng(5)
    sums = np.concatenate([[200.0], rng.gamma(2, 1, 20)])  # all of one sign, far from normal
    assert flip_tail(sums, rng) == flip_tail(-sums, rng) == pytest.approx(2.0**-20)
    assert flip_tail(sums[:5], rng) == pytest.approx(2 / 32)


@pytest.mark.parametrize("seed", range(6))
def test_with_more_groups_draws_come_within_some_percent_of_all_flips(seed):
    rng = np.random.default_rng(seed)
    sums = rng.gamma(1, 1, 15) * np.where(rng.random(15) < 0.85, 1, -1)
    assert flip_tail(sums, rng) == pytest.approx(by_all_flips(sums), rel=0.2)


@pytest.mark.parametrize(("groups", "against"), [(40, 0), (40, 3), (200, 30), (3000, 1200)])
def test_far_in_the_tail_it_is_the_binomial_that_equal_groups_follow(groups, against):
    sums = np.array([2.5] * (groups - against) + [-2.5] * against)
    expected = 2 * binom.cdf(against, groups, 0.5)
    assert flip_tail(sums, np.random.default_rng(1)) == pytest.approx(expected, rel=0.25)
    assert expected < 1e-4


def test_groups_that_all_agree_have_the_smallest_p_there_is():
    sums = np.random.default_rng(2).gamma(1, 1, 60)
    assert flip_tail(sums, np.random.default_rng(0)) == pytest.approx(2.0**-59, rel=1e-6)


def test_without_any_effect_p_is_uniform():
    rng = np.random.default_rng(3)
    found = [flip_tail(rng.normal(0, 1, 30) * rng.integers(0, 2, 30), rng) for _ in range(2000)]
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2000))


def test_nothing_that_differs_gives_one():
    rng = np.random.default_rng(0)
    assert flip_tail(np.zeros(5), rng) == flip_tail(np.array([1.0, -1.0] * 20), rng) == 1.0
