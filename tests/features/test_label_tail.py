"""P values of labels that fall otherwise: against all deals, the hypergeometric law and sign flips; and their size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import hypergeom

from bluffscope.features.label_tail import drawn_labels, label_design
from bluffscope.stats.flips import flip_tail
from simulate_labels import KINDS, shares, tail


def by_all_deals(values, false, domains) -> float:
    """Twice the tail of the sum over the false texts, over every choice of as many in each domain."""
    parts = []
    for domain in np.unique(domains):
        own = values[domains == domain]
        chosen = itertools.combinations(range(len(own)), int(false[domains == domain].sum()))
        parts.append(np.array([own[list(one)].sum() for one in chosen]))
    sums = parts[0]
    for part in parts[1:]:
        sums = (sums[:, None] + part).ravel()
    found = values[false].sum()
    return min(1.0, 2 * float(((sums >= found - 1e-9) if found > sums.mean() else (sums <= found + 1e-9)).mean()))


@pytest.mark.parametrize("seed", range(6))
def test_of_few_texts_all_deals_within_domains_are_counted(seed):
    rng = np.random.default_rng(seed)
    domains = np.repeat([0, 1], [9, 7])
    false = np.zeros(16, dtype=bool)
    false[[0, 1, 2, 9, 10]] = True
    values = np.round(rng.gamma(1, 1, 16), 3) * (rng.random(16) < 0.5)
    values[false] += rng.random() * 2
    assert tail(values, false, domains=domains) == pytest.approx(by_all_deals(values, false, domains))


@pytest.mark.parametrize(("fires", "in_false"), [(10, 10), (40, 30), (100, 60), (500, 200), (950, 299), (1000, 300)])
def test_however_small_it_is_the_hypergeometric_law_where_a_feature_fires_or_not(fires, in_false):
    false = np.arange(1000) < 300
    values = np.zeros(1000)
    values[:in_false] = 2.5
    values[300 : 300 + fires - in_false] = 2.5
    expected = min(1.0, 2 * hypergeom(1000, 300, fires).sf(in_false - 1))
    assert tail(values, false) == pytest.approx(expected, rel=0.25)


def test_in_groups_of_one_true_and_one_false_text_it_is_the_sign_flips_of_pairs():
    rng = np.random.default_rng(0)
    groups, false = np.repeat(np.arange(60), 2), np.tile([False, True], 60)
    values = rng.gamma(1, 1, 120) + 0.5 * false
    expected = flip_tail(values[1::2] - values[::2], np.random.default_rng(0))
    assert tail(values, false, groups) == expected < 0.1


def test_one_group_that_holds_most_of_a_feature_is_one_group():
    # 30 false texts that fire, all of one group: its label could as well have been the other.
    groups = np.r_[np.zeros(30, dtype=np.int64), np.arange(1, 41)]
    false = np.r_[np.ones(30, dtype=bool), np.arange(40) < 20]
    values = np.r_[np.full(30, 5.0), np.zeros(40)]
    assert tail(values, false, groups) == pytest.approx(1.0, abs=0.05)
    assert tail(values, false) < 1e-5


def test_what_differs_between_domains_only_is_no_difference():
    rng = np.random.default_rng(1)
    domains = np.repeat([0, 1], 200)
    false = rng.random(400) < np.where(domains == 1, 0.8, 0.2)
    values = rng.gamma(2, 1, 400) + 3 * domains
    assert tail(values, false, domains=domains) > 0.05
    assert tail(values, false) < 1e-20


def test_labels_that_cannot_fall_otherwise_have_p_1():
    assert label_design(np.ones(6, dtype=bool), np.arange(6), np.zeros(6, dtype=np.int64), 0).least == 1.0
    assert tail(np.arange(6.0), np.arange(6) < 3, domains=(np.arange(6) < 3).astype(int)) == 1.0
    assert label_design(np.arange(6) < 3, np.arange(6), np.zeros(6, dtype=np.int64), 0).least == pytest.approx(0.1)


def test_labels_are_drawn_by_group_within_domains_with_partners_exchanged_together():
    groups = np.array([0, 0, 1, 1, 2, 3, 4, 4, 4, 4])
    false = np.array([1, 1, 0, 0, 1, 0, 1, 0, 1, 0], dtype=bool)
    domains = np.zeros(10, dtype=np.int64)
    design = label_design(false, groups, domains, 0)
    assert (design.mixed_groups, design.size.tolist(), design.number_false.tolist()) == (1, [4], [2])
    true = drawn_labels(design, false, 500, np.random.default_rng(0))
    assert (true[:, 0] == true[:, 1]).all()
    assert (true[:, 2] == true[:, 3]).all()
    assert (true[:, [0, 2, 4, 5]].sum(axis=1) == 2).all()
    flipped = true[:, 6:] == ~(~false[6:])[None]
    assert set(map(tuple, true[:, 6:])) == {(False, True, False, True), (True, False, True, False)}
    assert 0.4 < true[:, 0].mean() < 0.6
    assert 0.4 < flipped.all(axis=1).mean() < 0.6


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_without_an_effect_p_values_are_as_rare_as_they_say(kind):
    ours, welch = shares(kind, 60)
    assert ours[0] < 0.07
    assert ours[1] < 0.02
    if kind != "alone":
        assert welch[1] > 0.05  # texts of a group are no independent evidence
