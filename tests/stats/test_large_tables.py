"""Large tables: what is drawn in place of everything gives the same answers, and says that it was drawn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bluffscope.stats import Resampling, analyse_table, resampling
from bluffscope.stats.auroc import group_kernel, ordering, placements, weighted_auroc
from bluffscope.stats.resampling import bootstrap_intervals, by_group, sign_flip_p, units
from bluffscope.stats.sampling import draw_groups, drawn_from, read_metrics
from bluffscope.stats.study import Block


def block(pairs: int, groups: int, seed: int = 0, shift: float = 0.05) -> Block:
    """Two metrics with a shared part in each group and a small effect."""
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(0, groups, pairs))
    group = np.unique(group, return_inverse=True)[1]
    shared = rng.normal(size=(groups, 2))[group]
    fact = rng.normal(size=(pairs, 2))
    hall = fact * 0.5 + rng.normal(size=(pairs, 2)) + shared * 0.5 + shift
    lengths = rng.integers(1, 9, (pairs, 2)).astype(float)
    return Block(np.arange(2), np.arange(pairs), fact, hall, lengths, group)


def test_the_kernel_of_groups_counts_what_the_pairs_count():
    found = block(300, 20)
    groups = int(found.groups.max()) + 1
    counts = np.random.default_rng(1).integers(0, 3, (6, groups)).astype(float)
    kernel = group_kernel(found.fact[:, 0], found.hall[:, 0], found.groups, groups)
    by_groups = ((counts @ kernel) * counts).sum(axis=1) / (counts @ np.bincount(found.groups)) ** 2
    by_pairs = weighted_auroc(ordering(found.fact[:, 0], found.hall[:, 0]), counts.T[found.groups])
    assert by_groups == pytest.approx(by_pairs, rel=1e-12)


def test_placements_are_the_derivative_of_auroc_by_a_pairs_weight():
    found = block(60, 60)
    fact, hall = found.fact[:, 0].round(1), found.hall[:, 0].round(1)  # with ties
    order, step = ordering(fact, hall), 1e-6
    weights = np.ones((60, 60)) + step * np.eye(60)
    slope = (weighted_auroc(order, weights) - weighted_auroc(order, np.ones((60, 1)))) / step * 60
    assert placements(fact, hall) == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("groups", [150, 3000])
def test_intervals_of_many_pairs_are_those_of_the_plain_bootstrap(groups, monkeypatch):
    found = block(5000, groups)
    fast = bootstrap_intervals(found, 1500, np.random.default_rng(0), adjustable=True)
    monkeypatch.setattr(resampling, "FEW_PAIRS", 10**9)
    plain = bootstrap_intervals(found, 1500, np.random.default_rng(0), adjustable=True)
    width = np.diff(plain.auroc, axis=0)
    assert (np.abs(fast.auroc - plain.auroc) < 0.06 * width).all()
    assert fast.dz == pytest.approx(plain.dz, rel=1e-9)


def test_unions_of_groups_keep_groups_whole_and_their_sums_spread(monkeypatch):
    monkeypatch.setattr(resampling, "MOST_UNITS", 400)
    found = block(12_000, 6000)
    joined = units(found.groups)
    assert len(np.unique(joined)) == 400
    pairs = np.unique(np.stack([found.groups, joined]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]  # each group lies in one union
    centred = found.differences - found.differences.mean(axis=0)
    spread = [(by_group(centred, groups, int(groups.max()) + 1) ** 2).sum(axis=0) for groups in (found.groups, joined)]
    assert spread[1] == pytest.approx(spread[0], rel=0.25)


def test_few_groups_are_their_own_units():
    groups = np.array([0, 1, 1, 2])
    assert units(groups) is groups


def test_flips_of_unions_find_nothing_where_there_is_nothing_and_something_where_there_is(monkeypatch):
    monkeypatch.setattr(resampling, "MOST_UNITS", 300)
    rng = np.random.default_rng(0)
    p = [sign_flip_p(rng.normal(size=(2000, 1)), units(np.arange(2000)), 399, rng)[0] for _ in range(60)]
    assert 0.3 < np.mean(p) < 0.7
    assert np.mean(np.array(p) < 0.1) < 0.25
    assert sign_flip_p(rng.normal(0.2, 1, (2000, 1)), units(np.arange(2000)), 399, rng)[0] < 0.01


def test_the_result_says_that_unions_were_resampled(monkeypatch):
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"entropy_fact": rng.normal(size=4100), "entropy_hall": rng.normal(size=4100)})
    result = analyse_table(table, resampling=Resampling(resamples=50, flips=99))
    assert "of 4,000 random unions" in result.about["bootstrap"]


def test_whole_groups_are_drawn_and_no_more_rows_than_asked_for():
    groups = pl.Series([f"g{i // 3}" for i in range(3000)])
    drawn = draw_groups(groups, 500)
    assert 490 < drawn.sum() <= 500
    sizes = pl.DataFrame({"group": groups, "drawn": drawn}).group_by("group").agg(pl.col("drawn").sum())
    assert set(sizes["drawn"]) == {0, 3}
    assert (draw_groups(groups, 500) == drawn).all()
    assert draw_groups(groups, 3000).all()


def test_rows_without_a_group_are_drawn_one_by_one():
    assert 40 < draw_groups(pl.Series([None] * 100, dtype=pl.String), 50).sum() <= 50


def test_one_enormous_group_is_still_something_to_look_at():
    assert draw_groups(pl.Series(["g"] * 100), 50).all()


def test_a_large_runs_table_is_read_in_part_and_in_order(tmp_path):
    table = pl.DataFrame({"pair_id": [f"p{i}" for i in range(900)], "group": [f"g{i // 2}" for i in range(900)]})
    table.write_parquet(tmp_path / "metrics.parquet")
    found, total = read_metrics(tmp_path, 100)
    assert (found.height, total) == (100, 900)
    assert found["pair_id"].to_list() == sorted(found["pair_id"], key=lambda name: int(name[1:]))
    assert read_metrics(tmp_path, 900)[0].equals(table)
    assert drawn_from(100, 900) == "Of 900 pairs, 100 were looked at: whole groups drawn at random, seed 0."
    assert drawn_from(900, 900) is None
