"""Detectors by layer: the layer with a signal is chosen, and where there is none the choice is worth nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bluffscope.detectors.sweep import CHOSEN, SWEEP_SCHEMA, sweep
from bluffscope.errors import InputError
from bluffscope.stats import Resampling
from bluffscope.table.reader import read_run
from made_runs import make_run

ONCE = Resampling(repeats=1)


def with_residuals(path, seed, *, layers=(1, 4, 9), told=None, pairs=60):
    """A run whose residuals of 6 dimensions know the label at one layer, or at none."""
    folder = make_run(path, pairs)
    ids = read_run(folder).metrics["pair_id"]
    rng = np.random.default_rng(seed)
    rows = []
    for layer in layers:
        for view in ("fact", "hall"):
            values = rng.normal(size=(pairs, 6))
            values[:, 0] += 3.0 * (layer == told) * (view == "hall")
            rows += [(name, view, layer, 5, row.tolist()) for name, row in zip(ids, values, strict=True)]
    frame = pl.DataFrame(rows, schema=["pair_id", "view", "layer", "token", "values"], orient="row")
    frame.write_parquet(folder / "residuals.parquet")
    (folder / "features.parquet").unlink()
    return read_run(folder)


def test_the_layer_that_knows_is_found_and_chosen(tmp_path):
    found = sweep(with_residuals(tmp_path / "run", 0, told=4), ONCE)
    assert found.rows.schema == SWEEP_SCHEMA
    residual = {row["layer"]: row for row in found.rows.filter(detector="residual").to_dicts()}
    assert list(residual) == [1, 4, 9] and {row["n"] for row in residual.values()} == {60}
    assert residual[4]["auroc"] > 0.9 > 0.7 > max(residual[1]["auroc"], residual[9]["auroc"])
    assert {choice.layer for choice in found.choices} == {4} and sum(found.choices.values()) == 5
    assert found.chosen["auroc"] > 0.9 and found.chosen["lo"] > 0.8
    # As it is written: how often each was chosen, and what the choice is worth in a row of no layer.
    assert found.table["times"].sum() == 2 * 5
    last = found.table.row(-1, named=True)
    assert (last["detector"], last["layer"], last["auroc"]) == (CHOSEN, None, found.chosen["auroc"])
    assert found.table[:-1].drop("times").equals(found.rows)


@pytest.mark.soak
def test_the_best_of_many_layers_is_not_claimed_where_nothing_is_there(tmp_path):
    claimed, best, chosen = 0, [], []
    for seed in range(15):
        found = sweep(with_residuals(tmp_path / str(seed), seed, layers=range(8), pairs=40), ONCE)
        claimed += found.chosen["lo"] > 0.5
        best.append(found.rows["auroc"].max())
        chosen.append(found.chosen["auroc"])
    assert claimed <= 2
    assert np.mean(best) > 0.58  # the luck of the choice
    assert abs(np.mean(chosen) - 0.5) < 0.05


def test_without_anything_to_look_at_it_says_so(tmp_path):
    run = with_residuals(tmp_path / "run", 0)
    (tmp_path / "run" / "residuals.parquet").unlink()
    with pytest.raises(InputError, match=r"nothing to look at\. Without residual: no residuals: analyze with"):
        sweep(run, ONCE)
