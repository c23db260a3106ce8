"""Means over repeated folds and their intervals: by hand, at the ceiling, and against others on the same folds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from bluffscope.detectors.held_out import Splits
from bluffscope.detectors.measures import area
from bluffscope.stats.heldout import FOLDS

GROUPS = np.repeat(np.arange(40), 3)


def drawn(seed=0, repeats=3, groups=GROUPS):
    rng = np.random.default_rng(seed)
    labels = (rng.random(len(groups)) < 0.4).astype(int)
    return Splits.drawn(groups, labels, repeats, rng), labels


def test_every_text_is_scored_once_a_repeat_by_a_fit_that_saw_no_text_of_its_group():
    splits, _ = drawn()
    calls = []

    def fitted(train, test):
        assert not set(GROUPS[train]) & set(GROUPS[test])
        assert sorted([*train, *test]) == list(range(len(GROUPS)))
        calls.append(test)
        return test.astype(float)

    assert splits.scores(fitted).tolist() == [list(range(len(GROUPS)))] * 3
    assert len(calls) == 3 * FOLDS
    assert len({tuple(folds) for folds in splits.folds.tolist()}) == 3


def test_the_interval_is_nadeau_and_bengios_on_the_degrees_of_freedom_of_one_repeat():
    splits, labels = drawn(1)
    scores = np.random.default_rng(2).normal(size=splits.folds.shape) + labels
    by_fit = splits.by_fit(area, scores)
    expected = [
        roc_auc_score(labels[folds == fold], own[folds == fold])
        for folds, own in zip(splits.folds, scores, strict=True)
        for fold in range(FOLDS)
    ]
    assert by_fit == pytest.approx(expected, abs=1e-12)
    found = splits.estimated(by_fit)
    half = t.ppf(0.975, FOLDS - 1) * np.sqrt(np.var(expected, ddof=1) * (1 / 15 + 1 / 4))
    assert found == pytest.approx((np.mean(expected), np.mean(expected) - half, min(1, np.mean(expected) + half)))


def test_with_few_groups_and_with_variance_from_elsewhere_an_interval_is_another():
    def half(groups, elsewhere, share):
        splits, labels = drawn(1, groups=groups)
        by_fit = splits.by_fit(area, np.random.default_rng(2).normal(size=splits.folds.shape) + labels)
        found = splits.estimated(by_fit, elsewhere)
        variance = np.var(by_fit, ddof=1) * share + (elsewhere or 0)
        return found.value - found.lo, t.ppf(0.975, FOLDS - 1) * np.sqrt(variance)

    known, expected = half(GROUPS, 0.01, 1 / 5)
    assert known == pytest.approx(expected)
    known, expected = half(np.repeat(np.arange(20), 6), None, 1 / 15 + 1 / 4)
    assert known == pytest.approx(expected * np.sqrt(2))


def test_at_the_ceiling_the_interval_is_that_of_as_many_groups_that_all_agree():
    splits, labels = drawn()
    by_fit = splits.by_fit(area, np.tile(labels, (3, 1)).astype(float))
    assert splits.estimated(by_fit) == pytest.approx((1, 0.025 ** (1 / 40), 1))
    assert splits.estimated(1 - by_fit) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 40)))
    constant = np.full(15, 0.5)
    gain = splits.gained(by_fit, [constant])
    assert gain == pytest.approx((0.5, 0.025 ** (1 / 40) - 0.5, 0.5))


def test_a_gain_is_over_the_best_and_its_lower_end_the_least_over_all():
    splits, labels = drawn(3)
    rng = np.random.default_rng(4)
    own, near, far = (
        splits.by_fit(area, rng.normal(size=splits.folds.shape) + shift * labels) for shift in (2, 1.5, 0.2)
    )
    gain = splits.gained(own, [far, near])
    assert gain.value == pytest.approx((own - near).mean())
    assert gain.lo <= splits.gained(own, [near]).lo
    assert gain.lo <= splits.gained(own, [far]).lo
    # One that does worse than guessing is no easier to beat.
    assert splits.gained(far, [1 - own]).value == pytest.approx(far.mean() - 0.5)


def test_a_fold_without_texts_of_a_label_counts_for_nothing():
    groups = np.arange(12)
    labels = np.array([1, *[0] * 11])
    splits = Splits.drawn(groups, labels, 2, np.random.default_rng(0))
    by_fit = splits.by_fit(area, np.tile(labels, (2, 1)).astype(float))
    assert np.isnan(by_fit).sum() == 8
    assert splits.estimated(by_fit).value == 1.0
