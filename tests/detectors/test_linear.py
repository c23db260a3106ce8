"""Detectors that are kept: the numbers they come to are scikit-learn's, and their curve is Platt's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit

from bluffscope.detectors.classifiers import probabilities
from bluffscope.detectors.linear import calibrate, fit_linear

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1], 40)


def made(on):
    values = RNG.gamma(2, 1, (80, 12)) + 0.4 * LABELS[:, None] * (np.arange(12) < 3)
    if on == "sae":
        values *= RNG.random((80, 12)) < 0.5
        values[:, 11] = 0
        values[:2, 11] = 1  # too seldom active to be used
        return csr_matrix(values)
    if on == "metrics":
        values[RNG.random((80, 12)) < 0.1] = np.nan
        values[:, 4] = 1.0
        values[:70, 5] = np.nan
    return values


@pytest.mark.parametrize("on", ["sae", "metrics", "residual"])
def test_the_folded_weights_give_the_pipelines_own_probabilities(on):
    matrix = made(on)
    train, test = np.r_[0:30, 40:70], np.r_[30:40, 70:80]
    expected = probabilities(on, matrix[train], LABELS[train], matrix[test])
    linear = fit_linear(on, matrix[train], LABELS[train])
    assert expit(linear.scores(matrix[test])) == pytest.approx(expected, abs=1e-9)
    assert np.ptp(expected) > 0.05
    if on == "sae":
        assert linear.weights[11] == 0


def test_features_that_are_never_active_enough_say_nothing():
    linear = fit_linear("sae", csr_matrix((8, 3)), np.repeat([0, 1], 4))
    assert linear.scores(csr_matrix(np.ones((2, 3)))).tolist() == [0.0, 0.0]


def test_the_curve_finds_the_one_that_labels_were_drawn_from():
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < expit(0.5 * scores - 0.3)).astype(int)
    curve = calibrate(scores, labels)
    assert curve == pytest.approx((0.5, -0.3), abs=0.05)


def test_scores_that_separate_perfectly_keep_a_finite_curve_and_scores_that_mislead_get_none():
    scores = np.r_[np.full(50, -3.0), np.full(50, 3.0)]
    labels = np.repeat([0, 1], 50)
    # Platt's smoothed labels: 51/52 and 1/52.
    assert calibrate(scores, labels).probabilities(scores) == pytest.approx(np.repeat([1 / 52, 51 / 52], 50), abs=1e-4)
    misled = calibrate(-scores, labels)
    assert misled.slope == 0
    assert misled.probabilities(scores) == pytest.approx(np.full(100, 0.5), abs=1e-4)
