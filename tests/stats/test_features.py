"""Which features differ: shares by hand, and an exact test against all sign flips and against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bluffscope.stats.features import FEATURE_SCHEMA, FEWEST_FIRED, different_features, flip_p
from bluffscope.stats.multiplicity import benjamini_hochberg


def fired(rows: list[tuple[str, str, int, int]]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema=["pair_id", "view", "layer", "feature"], orient="row")


def groups_of(names: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"pair_id": [f"p{i}" for i in range(len(names))], "group": names})


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_p_is_the_share_of_all_sign_flips_that_are_as_far_from_zero(sums):
    total = abs(sum(sums))
    signs = itertools.product((1, -1), repeat=len(sums))
    expected = np.mean([abs(np.dot(choice, sums)) >= total for choice in signs])
    sizes, times = np.unique([abs(value) for value in sums if value], return_counts=True)
    assert flip_p(total, sizes.tolist(), times.tolist()) == pytest.approx(expected, abs=1e-12)


def test_with_every_pair_its_own_group_it_is_the_exact_test_of_mcnemar():
    rows = [(f"p{i}", "hall", 2, 7) for i in range(14)] + [(f"p{i}", "fact", 2, 7) for i in range(11, 18)]
    found = different_features(fired(rows), groups_of([f"g{i}" for i in range(40)]))
    assert found.schema == FEATURE_SCHEMA
    row = found.row(0, named=True)
    assert (row["layer"], row["feature"], row["n"]) == (2, 7, 40)
    assert (row["share_fact"], row["share_hall"]) == (7 / 40, 14 / 40)
    assert row["diff"] == pytest.approx(7 / 40)
    assert row["p"] == pytest.approx(binomtest(11, 15).pvalue)


def test_pairs_of_a_group_flip_together_and_q_is_corrected_within_the_layer():
    rng = np.random.default_rng(0)
    rows = [
        (f"p{pair}", view, layer, feature)
        for pair in range(30)
        for layer in (0, 3)
        for feature in range(12)
        for view in ("prompt", "fact", "hall")
        if rng.random() < (0.9 if (feature, view) == (5, "hall") else 0.4)
    ]
    whole = different_features(fired(rows), groups_of([f"g{i // 2}" for i in range(30)]))
    alone = different_features(fired(rows), groups_of([f"g{i}" for i in range(30)]))
    assert whole["p"].to_list() != alone["p"].to_list()
    assert whole.group_by("layer", maintain_order=True).first()["feature"].to_list() == [5, 5]
    for _, layer in whole.group_by("layer"):
        assert layer["q"].to_list() == pytest.approx(benjamini_hochberg(layer["p"].to_numpy()).tolist())
        assert layer["p"].is_sorted()


def test_features_that_hardly_fire_are_not_tested_and_do_not_count_in_the_correction():
    often = [(f"p{i}", "fact", 1, 3) for i in range(FEWEST_FIRED)]
    seldom = [(f"p{i}", "hall", 1, 4) for i in range(FEWEST_FIRED - 1)]
    prompts = [(f"p{i}", "prompt", 1, 5) for i in range(20)]
    found = different_features(fired(often + seldom + prompts), groups_of([f"g{i}" for i in range(20)]))
    assert found["feature"].to_list() == [3]
    assert found["q"].item() == found["p"].item() == pytest.approx(2 / 2**FEWEST_FIRED)


def test_nothing_active_gives_no_rows():
    kinds = {"pair_id": pl.String, "view": pl.String, "layer": pl.Int32, "feature": pl.Int32}
    assert different_features(pl.LazyFrame(schema=kinds), groups_of(["a"])).is_empty()
