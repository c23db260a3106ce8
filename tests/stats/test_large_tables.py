"""Large tables: what is drawn in place of everything gives the same answers, and says that it was drawn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bluffscope.stats import analyse_table, build_study, linear_model, resampling, study
from bluffscope.stats.linear_model import by_group, design
from bluffscope.stats.resampling import sign_flip_p, units
from bluffscope.stats.sampling import draw_groups, drawn_from, read_metrics
from studies import QUICK, random_table


def test_unions_of_groups_keep_groups_whole_and_their_sums_spread(monkeypatch):
    monkeypatch.setattr(resampling, "MOST_UNITS", 400)
    rng = np.random.default_rng(0)
    own = np.unique(np.sort(rng.integers(0, 6000, 12_000)), return_inverse=True)[1]
    joined = units(own)
    assert len(np.unique(joined)) == 400
    pairs = np.unique(np.stack([own, joined]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]  # each group lies in one union
    differences = rng.normal(size=(12_000, 2)) + 0.5 * rng.normal(size=(6000, 2))[own]
    centred = differences - differences.mean(axis=0)
    spread = [(by_group(centred, groups, int(groups.max()) + 1) ** 2).sum(axis=0) for groups in (own, joined)]
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


@pytest.mark.thorough
@pytest.mark.parametrize("together", [1, 300])
def test_metrics_that_are_looked_at_some_at_a_time_have_the_same_numbers(together, monkeypatch):
    table = random_table(1, 100)
    whole = analyse_table(table, resampling=QUICK)
    assert len(list(build_study(table).blocks(build_study(table).scopes[-1]))) < 9
    monkeypatch.setattr(study, "MOST_CELLS", together)
    blocks = list(build_study(table).blocks(build_study(table).scopes[-1]))
    assert max(len(block.metrics) for block in blocks) == max(1, together // 100)
    parts = analyse_table(table, resampling=QUICK)
    # Sums of fewer columns at once may round otherwise.
    assert_frame_equal(parts.rows, whole.rows, rel_tol=1e-9, abs_tol=1e-12)
    assert_frame_equal(parts.ladder, whole.ladder, rel_tol=1e-9, abs_tol=1e-12)


def test_clusters_that_are_looked_at_some_at_a_time_have_the_same_error(monkeypatch):
    rng = np.random.default_rng(0)
    clusters = np.unique(rng.integers(0, 60, 300), return_inverse=True)[1]
    held, values = np.linalg.qr(rng.normal(size=(300, 3)))[0], rng.normal(size=(300, 2))
    whole = design(np.ones(300), held, clusters).estimate(values)
    monkeypatch.setattr(linear_model, "_CELLS", 30)
    assert design(np.ones(300), held, clusters).estimate(values).error == pytest.approx(whole.error, rel=1e-12)


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
