"""Effects of features: every number by hand and by scipy, ghosts against all label flips, and who is tested."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_rel

from bluffscope.errors import InputError
from bluffscope.features.cells import pair_cells
from bluffscope.features.effects import EFFECT_SCHEMA, feature_effects
from bluffscope.features.ghosts import GHOST_FIRES, ghost_summary
from bluffscope.features.study import FEWEST_FIRED
from bluffscope.stats.flips import flip_tail
from bluffscope.stats.multiplicity import benjamini_hochberg

PAIRS, FEATURES = 40, 12


def made(seed: int = 0, planted: float = 3.0) -> tuple[pl.LazyFrame, pl.DataFrame, np.ndarray]:
    """A table of features, its pairs, and the dense (side, layer, pair, feature) activations behind it."""
    rng = np.random.default_rng(seed)
    dense = rng.gamma(2, 1, (2, 2, PAIRS, FEATURES)) * (rng.random((2, 2, PAIRS, FEATURES)) < 0.4)
    dense[1, 1, :, 5] += planted  # at layer 7 feature 5 fires more in hallucinations
    dense[:, 0, :, 2] = 0
    dense[1, 0, :20, 2] = 1.5  # at layer 3 feature 2 fires in hallucinations only, in the first domain
    rows = [
        (f"p{pair}", ("fact", "hall")[side], (3, 7)[layer], feature, dense[side, layer, pair, feature])
        for side, layer, pair, feature in zip(*np.nonzero(dense), strict=True)
    ]
    rows += [("p0", "prompt", 3, 0, 99.0), ("quarantined", "fact", 3, 0, 99.0)]  # neither may count
    frame = pl.LazyFrame(rows, schema=["pair_id", "view", "layer", "feature", "activation"], orient="row")
    pairs = pl.DataFrame(
        {
            "pair_id": [f"p{pair}" for pair in range(PAIRS)],
            "group": [f"g{pair // 2}" for pair in range(PAIRS)],
            "domain": ["first"] * 20 + ["second"] * 20,
        }
    )
    return frame.cast({"layer": pl.Int32, "feature": pl.Int32, "activation": pl.Float32}), pairs, dense


def test_of_many_pairs_whole_groups_are_drawn_and_that_is_said():
    frame, pairs, _ = made()
    study = feature_effects(frame, pairs, most=11)
    assert study.about["notes"] == ["Of 40 pairs, 10 were looked at: whole groups drawn at random, seed 0."]
    assert (study.about["pairs"], study.about["groups"]) == (10, 5)
    assert set(study.rows["n"]) <= {10}
    assert feature_effects(frame, pairs, most=40).about["notes"] == []


def test_every_number_of_every_feature_is_that_of_the_dense_table():
    frame, pairs, dense = made()
    study = feature_effects(frame, pairs)
    assert study.rows.schema == EFFECT_SCHEMA
    assert set(study.rows["layer"]) == {3, 7}
    for row in study.rows.iter_rows(named=True):
        fact, hall = dense[:, (3, 7).index(row["layer"]), :, row["feature"]]
        assert (row["n"], row["fires_fact"], row["fires_hall"]) == (PAIRS, (fact > 0).sum(), (hall > 0).sum())
        assert row["share_hall"] == pytest.approx((hall > 0).mean())
        assert (row["mean_fact"], row["mean_hall"]) == pytest.approx((fact.mean(), hall.mean()), rel=1e-6)
        difference = hall - fact
        assert row["mean_diff"] == pytest.approx(difference.mean(), rel=1e-5)
        assert row["dz"] == pytest.approx(ttest_rel(hall, fact).statistic / np.sqrt(PAIRS), rel=1e-5)
        sums = difference.reshape(-1, 2).sum(axis=1)
        rng = np.random.default_rng([0, row["layer"], row["feature"]])
        assert row["p"] == pytest.approx(flip_tail(sums, rng), rel=1e-4)
        order = np.argsort(-difference * np.sign(difference.mean()), kind="stable")[:3]
        assert row["top_pairs"] == [f"p{pair}" for pair in order]
        assert row["top_diffs"] == pytest.approx(difference[order], rel=1e-6)


def test_the_planted_features_are_found_first_and_only_in_the_domain_where_they_are():
    frame, pairs, _ = made()
    study = feature_effects(frame, pairs)
    first = {row["layer"]: row for row in study.rows.group_by("layer", maintain_order=True).first().to_dicts()}
    assert (first[7]["feature"], first[7]["differs_in"]) == (5, ["first", "second"])
    assert (first[3]["feature"], first[3]["differs_in"]) == (2, ["first"])
    assert first[3]["ghost"]
    assert not first[7]["ghost"]
    assert study.ghosts.rows() == [(3, 2, 20, 10)]
    assert study.rows.filter(pl.col("q") >= 0.05)["differs_in"].is_null().all()


def test_q_is_corrected_within_a_layer_or_over_all():
    frame, pairs, _ = made(planted=0.6)
    alone, together = (feature_effects(frame, pairs, family=family) for family in ("layer", "all"))
    assert alone.rows["p"].to_list() == together.rows["p"].to_list()
    for _, layer in alone.rows.group_by("layer"):
        assert layer["q"].to_list() == pytest.approx(benjamini_hochberg(layer["p"].to_numpy()).tolist())
    every = benjamini_hochberg(together.rows["p"].to_numpy())
    assert together.rows["q"].to_list() == pytest.approx(every.tolist())
    assert together.about["tests"] == together.rows.height
    assert alone.about["tests"] == {3: alone.rows.filter(layer=3).height, 7: alone.rows.filter(layer=7).height}


def test_labels_flipped_at_random_find_features_no_more_often_than_the_level():
    found = 0
    for seed in range(60):
        frame, pairs, _ = made(seed, planted=0.0)
        found += int((feature_effects(frame, pairs, layers=(7,)).rows["q"] < 0.05).any())
    assert found <= 8  # 60 draws at 0.05: 3 expected, more than 8 in 1 of 250


def test_a_feature_is_tested_by_how_often_it_fires_whatever_the_labels():
    often = [(f"p{pair}", "fact", 1, 3, 1.0) for pair in range(FEWEST_FIRED)]
    seldom = [(f"p{pair}", "hall", 1, 4, 1.0) for pair in range(FEWEST_FIRED - 1)]
    frame = pl.LazyFrame(often + seldom, schema=["pair_id", "view", "layer", "feature", "activation"], orient="row")
    study = feature_effects(frame, made()[1])
    assert study.rows["feature"].to_list() == [3]
    assert study.layers.row(0, named=True)["active"] == 2
    assert study.ghosts["feature"].to_list() == [4]


def test_a_feature_of_every_hallucination_and_no_fact_is_found_though_one_group_holds_most_of_it():
    pairs = pl.DataFrame(
        {
            "pair_id": [f"p{pair}" for pair in range(41)],
            "group": ["large"] * 21 + [f"g{pair}" for pair in range(20)],
            "domain": ["only"] * 41,
        }
    )
    rows = [(name, "hall", 1, 3, 50.0 if place < 21 else 1.0) for place, name in enumerate(pairs["pair_id"])]
    frame = pl.LazyFrame(rows, schema=["pair_id", "view", "layer", "feature", "activation"], orient="row")
    assert feature_effects(frame, pairs).rows["q"].to_list() == pytest.approx([2.0**-20])


def test_layers_are_chosen_and_unknown_ones_refused():
    frame, pairs, _ = made()
    assert set(feature_effects(frame, pairs, layers=(7,)).rows["layer"]) == {7}
    with pytest.raises(InputError, match="--layer 4: the run has features of 3, 7"):
        feature_effects(frame, pairs, layers=(4,))
    with pytest.raises(InputError, match="--by nonsense: no such column"):
        feature_effects(frame, pairs, by="nonsense")
    with pytest.raises(InputError, match="no pairs are left"):
        feature_effects(frame, pairs.head(0))


def test_the_expected_number_of_ghosts_is_its_mean_over_all_flips_of_groups():
    rng = np.random.default_rng(4)
    fires = rng.random((2, 12, 60)) < 0.12  # (side, pair, feature): seldom enough for some to be ghosts by chance
    groups = np.arange(12) // 2
    rows = [(f"p{p}", ("fact", "hall")[s], 1, f, 1.0) for s, p, f in zip(*np.nonzero(fires), strict=True)]
    frame = pl.LazyFrame(rows, schema=["pair_id", "view", "layer", "feature", "activation"], orient="row")
    found = ghost_summary(
        pair_cells(frame, pl.Series([f"p{p}" for p in range(12)]), 1), groups, np.random.default_rng(0)
    )

    def ghosts(side):
        return int(((fires[1 - side].sum(axis=0) == 0) & (fires[side].sum(axis=0) >= GHOST_FIRES)).sum())

    assert (found["ghosts"], found["only_in_facts"]) == (ghosts(1), ghosts(0))
    counts = []
    for flip in itertools.product((False, True), repeat=6):
        swapped = np.array(flip)[groups][:, None]
        fact, hall = np.where(swapped, fires[::-1], fires)
        counts.append(((fact.sum(axis=0) == 0) & (hall.sum(axis=0) >= GHOST_FIRES)).sum())
    assert found["ghosts_expected"] == pytest.approx(np.mean(counts))
    assert found["ghosts_expected"] > 0
    assert found["ghosts_high"] == np.quantile(counts, 0.975, method="higher")
    assert found["ghosts_p"] == pytest.approx(np.mean(np.array(counts) >= found["ghosts"]), abs=0.06)
