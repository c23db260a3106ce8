"""Measures of a detector: scikit-learn's where it has the same, by hand where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from bluffscope.detectors.measures import (
    area,
    average_precision,
    brier,
    calibration_error,
    recall_at,
    reliability,
    risk_area,
    risk_coverage,
)


def scored(seed):
    """Probabilities with ties, and labels of both kinds."""
    rng = np.random.default_rng(seed)
    size = rng.integers(0, 60)
    labels = np.r_[0, 1, rng.integers(0, 2, size)]
    scores = np.where(rng.random(size + 2) < 0.6, rng.choice([0.0, 0.1, 0.3, 0.5, 0.77, 1.0], size + 2), rng.random())
    return scores, labels


@pytest.mark.parametrize("seed", range(60))
def test_measures_are_those_of_scikit_learn(seed):
    scores, labels = scored(seed)
    assert area(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert brier(scores, labels) == pytest.approx(brier_score_loss(labels, scores), abs=1e-9)
    alarms, recall, _ = roc_curve(labels, scores, drop_intermediate=False)
    for share in (0.05, 0.2, 0.5):
        expected = np.nan if (labels == 0).sum() * share < 1 else recall[alarms <= share].max()
        assert recall_at(share, scores, labels) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_risk_and_coverage_by_hand():
    scores, labels = np.array([0.9, 0.1, 0.8, 0.4]), np.array([1, 0, 0, 1])
    # The surest two are right, the third says hallucinated of a fact, the last a fact of a hallucination.
    assert risk_coverage(scores, labels) == pytest.approx([0, 0, 1 / 3, 2 / 4])
    assert risk_area(scores, labels) == pytest.approx((1 / 3 + 1 / 2) / 4)
    # Of three texts that it is equally sure of, one is wrong: in whatever order they come.
    tied = np.array([0.5, 0.5, 0.5])
    for order in ([1, 1, 0], [0, 1, 1], [1, 0, 1]):
        assert risk_coverage(tied, np.array(order)) == pytest.approx([1 / 3] * 3)


def test_reliability_counts_every_text_once_and_the_calibration_error_is_its_gap():
    rng = np.random.default_rng(0)
    scores = np.r_[0.0, 1.0, rng.random(200)]
    labels = (rng.random(202) < scores**2).astype(int)
    claimed, happened, texts = reliability(scores, labels)
    assert texts.sum() == 202
    assert calibration_error(scores, labels) == pytest.approx((np.abs(claimed - happened) * texts).sum() / 202)
    assert np.isnan(reliability(np.array([0.95]), np.array([1]))[0][0])
