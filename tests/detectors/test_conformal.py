"""The threshold for alarms: its rank by hand, false alarms over many draws, one text a group, too few groups."""

from __future__ import annotations

import numpy as np
import pytest

from bluffscope.detectors.conformal import calibrated_alarm, calibration_part
from bluffscope.errors import InputError


def test_the_threshold_is_the_score_of_the_conformal_rank():
    scores = np.arange(99.0)
    alarm = calibrated_alarm(scores, np.arange(99), 0.05, np.random.default_rng(0))
    assert (alarm.threshold, alarm.clusters) == (94.0, 99)  # the 95th of 99: five of 100 places lie above it


def test_false_alarms_are_about_alpha_over_a_thousand_draws_of_200_groups():
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(1000):
        sizes = rng.integers(1, 4, 200)
        groups = np.repeat(np.arange(200), sizes)
        scores = rng.normal(size=200)[groups] + 0.3 * rng.normal(size=len(groups))
        alarm = calibrated_alarm(scores, groups, 0.05, rng)
        fresh = rng.normal(size=2000) + 0.3 * rng.normal(size=2000)
        shares.append((fresh > alarm.threshold).mean())
    assert 0.035 < np.mean(shares) < 0.055


def test_of_each_group_one_text_counts():
    scores = np.r_[np.zeros(40), np.full(1000, 9.0)]
    groups = np.r_[np.arange(40), np.full(1000, 40)]
    assert calibrated_alarm(scores, groups, 0.05, np.random.default_rng(0)).threshold == 0.0


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.01, 99)])
def test_too_few_groups_are_refused_and_the_fewest_that_do_are_not(alpha, needed):
    rng = np.random.default_rng(0)
    calibrated_alarm(np.arange(float(needed)), np.arange(needed), alpha, rng)
    with pytest.raises(InputError, match=rf"{needed - 1} groups of true texts .*at least {needed}"):
        calibrated_alarm(np.arange(needed - 1.0), np.arange(needed - 1), alpha, rng)


def test_half_of_the_groups_are_kept_apart_whole():
    groups = np.repeat(np.arange(21), 3)
    apart = calibration_part(groups, np.random.default_rng(0))
    assert len(np.unique(groups[apart])) == 10
    assert not set(groups[apart]) & set(groups[~apart])
