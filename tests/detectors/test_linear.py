"""Detectors that are kept: their curve is Platt's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from bluffscope.detectors.linear import calibrate


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
