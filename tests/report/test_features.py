"""Features in a terminal: sentences of a layer, and the table of an ablation."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from bluffscope.features.ablation import Ablation
from bluffscope.features.ablation_effects import Scored, ablation_effects
from bluffscope.report.features import chance, found_sentence, ghost_sentence, render_ablation

LAYER = {"tested": 40, "active": 300, "found": 3, "ghosts": 2, "ghosts_high": 4, "ghosts_expected": 1.5}


@pytest.mark.parametrize(
    ("layer", "groups", "says"),
    [
        ({"tested": 0}, 50, "cannot be judged: no feature fires often enough to be tested (300 fire at all)"),
        ({}, 3, "cannot be judged: with 3 groups of pairs no p is below 0.25"),
        ({"found": 0}, 50, "none of 40 tested features differs between fact and hallucination (q < 0.05)"),
        ({}, 50, "3 of 40 tested features differ (q < 0.05)"),
    ],
)
def test_a_layer_s_features_differ_or_it_is_said_why_that_cannot_be_judged(layer, groups, says):
    assert found_sentence(LAYER | layer, groups) == says


def test_ghosts_are_held_against_their_number_by_chance():
    layer = LAYER | {"only_in_facts": 7}
    assert "97.5 %: 4): no more than chance. 7 fire in facts only." in ghost_sentence(layer)
    assert "): more than chance. " in ghost_sentence(layer | {"ghosts": 5})


def test_small_chances_are_shown_by_their_power():
    assert [chance(value) for value in (None, 0.25, 0.001, 0.00012)] == ["-", "0.250", "0.001", "1e-04"]


def ablation(groups, skipped=0):
    """Removing the top features costs facts 1 nat and hallucinations 0.5; random ones next to nothing."""
    rng = np.random.default_rng(0)
    untouched = np.array([[-4.0, -3.0]] * 6 + [[-2.0, -3.0]] * 6)
    changed = np.stack([untouched - [1.0, 0.5], untouched + 0.25, untouched - 0.125])
    flat = changed.transpose(0, 2, 1).reshape(3, -1)
    texts = Scored(untouched.T.ravel(), np.repeat([False, True], 12), np.tile(np.arange(12) % groups, 2), paired=True)
    effects = ablation_effects(texts, flat, [0.4, 0.1, 0.2], rng)
    return Ablation(layer=2, features=(7, 3), random=((1, 2), (4, 5)), effects=effects, skipped=skipped)


def said(found):
    console = Console(width=100)
    with console.capture() as captured:
        console.print(render_ablation(found))
    return captured.get()


def test_an_ablation_shows_changes_shares_and_what_follows_of_them():
    text = said(ablation(4, skipped=2))
    assert "Layer 2 without its 2 strongest features (7, 3)" in text
    assert "12 pairs in 4 groups; log-probability untouched: fact -3.00, hallucination -3.00." in text
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert rows["top"].split()[1:] == ["-1.000", "-0.500", "+0.500", "40%"]
    assert rows["random (2 sets)"].split()[3:] == ["+0.062", "+0.062", "+0.000", "15%"]
    assert "The fact is the more probable in 50% of pairs, without the features in 50%." in text
    assert "Causal for the preference: removing them raises log p(hallucination) - log p(fact) by +0.500" in text
    assert "2 pairs left out: no log-probability." in text


def test_without_intervals_an_ablation_shows_means_alone_and_concludes_nothing():
    text = said(ablation(1))
    assert " to " not in text.partition("Change in nats")[2].partition("The fact is")[0]
    assert "Too few groups of pairs for an interval: nothing is concluded." in text
    assert "left out" not in text
