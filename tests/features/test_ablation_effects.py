"""What an ablation says: paired means by hand, and conclusions in both directions and in neither."""

from __future__ import annotations

import numpy as np
import pytest

from bluffscope.features.ablation_effects import Scored, ablation_effects

PAIRS = 60
GROUPS = np.arange(PAIRS) // 2


def effects(shift: float, *, groups=GROUPS, seed=0):
    rng = np.random.default_rng(seed)
    untouched = rng.normal(-5, 1, (PAIRS, 2))
    changed = untouched + rng.normal(0, 0.3, (4, PAIRS, 2))
    changed[0, :, 1] += shift
    flat = changed.transpose(0, 2, 1).reshape(4, -1)
    texts = Scored(untouched.T.ravel(), np.repeat([False, True], PAIRS), np.tile(groups, 2), paired=True)
    return untouched, changed, ablation_effects(texts, flat, [0.3, 0.1, 0.2, 0.3], np.random.default_rng(1))


def test_changes_are_paired_means_against_the_mean_of_the_random_sets():
    untouched, changed, found = effects(1.0)
    change = changed - untouched
    top, random = change[0], change[1:].mean(axis=0)
    for name, values in {"top": top, "random": random, "top - random": top - random, "random 2": change[2]}.items():
        row = found.of(name, "difference")
        assert row["mean"] == pytest.approx((values[:, 1] - values[:, 0]).mean())
        assert row["lo"] < row["mean"] < row["hi"]
        assert found.of(name, "fact")["mean"] == pytest.approx(values[:, 0].mean())
    sums = (top - random) @ [-1, 1]
    error = sums.reshape(-1, 2).sum(axis=1).std() * 2**-1 / np.sqrt(PAIRS / 2)
    row = found.of("top - random", "difference")
    assert row["hi"] - row["lo"] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert found.preferred[0] == (untouched[:, 0] > untouched[:, 1]).mean()
    assert found.removed == pytest.approx((0.3, 0.2))


@pytest.mark.parametrize(
    ("shift", "says"),
    [
        (1.0, "Causal for the preference: removing them raises log p(hallucination) - log p(fact) by +"),
        (-1.0, "Causal for the preference: removing them lowers log p(hallucination) - log p(fact) by -"),
        (0.0, "No causal effect on the preference is shown"),
    ],
)
def test_the_conclusion_is_what_the_interval_says(shift, says):
    assert effects(shift)[2].conclusion.startswith(says)


def test_one_group_concludes_nothing():
    found = effects(1.0, groups=np.zeros(PAIRS, dtype=np.int64))[2]
    assert found.of("top", "fact")["lo"] is None
    assert found.conclusion.startswith("Too few groups")


def test_texts_of_uneven_labels_and_groups_are_compared_by_the_means_of_each_label():
    rng = np.random.default_rng(2)
    false = rng.random(90) < 0.3
    groups = np.arange(90) // 3
    untouched = rng.normal(-4, 1, 90)
    changed = untouched + rng.normal(0, 0.1, (3, 90))
    changed[0] += np.where(false, -0.5, 0.25)
    found = ablation_effects(
        Scored(untouched, false, groups, paired=False), changed, [0.2] * 3, np.random.default_rng(1)
    )
    assert found.texts == ((~false).sum(), false.sum())
    change = changed[0] - untouched
    for side, mean in {"fact": change[~false].mean(), "hall": change[false].mean()}.items():
        assert found.of("top", side)["mean"] == pytest.approx(mean)
    row = found.of("top", "difference")
    assert row["mean"] == pytest.approx(change[false].mean() - change[~false].mean())
    assert row["lo"] < row["mean"] < row["hi"] < -0.6
    assert found.conclusion.startswith("Causal for the preference: removing them lowers log p(false) - log p(true)")
    wins = [[t > f for f in untouched[false]] for t in untouched[~false]]
    assert found.preferred[0] == pytest.approx(np.mean(wins))
    assert {"true", "false"} <= found.as_dict().keys()
