"""Detectors by layer: the layer with a signal is chosen, and where there is none the choice is worth nothing."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
import yaml
from rich.console import Console

from bluffscope.detectors.data_sets import data_sets
from bluffscope.detectors.sweep import CHOSEN, SWEEP_SCHEMA, sweep
from bluffscope.detectors.transfer import carried_over
from bluffscope.errors import InputError
from bluffscope.report.crossings import render_sweep
from bluffscope.report.detector_findings import positions_differ, sweep_rows, sweep_title
from bluffscope.stats import Resampling
from bluffscope.table.reader import read_run
from made_runs import make_run

ONCE = Resampling(repeats=1)


def with_residuals(path, seed, *, layers=(1, 4, 9), told=None, pairs=60, **more):
    """A run whose residuals of 6 dimensions know the label at one layer, or at none."""
    folder = make_run(path, pairs, **more)
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


def read_at(run, position, seed, told):
    """The run with a further read position, at which the residuals know the label at one layer."""
    rng = np.random.default_rng(seed)
    shift = pl.when(pl.col("view") == "hall", pl.col("layer") == told).then(3.0).otherwise(0.0)
    rows = run.kept_residuals.with_columns(position=pl.lit(position), shift=shift).collect()
    values = rng.normal(size=(rows.height, 6))
    values[:, 0] += rows["shift"].to_numpy()
    rows = rows.drop("shift").with_columns(values=pl.Series(values.tolist()))
    rows.write_parquet(run.path / "further_residuals.parquet")
    options = {"model": {"layers": [1, 4, 9]}, "measure": {"position": ["last", position]}}
    (run.path / "config.yaml").write_text(yaml.safe_dump(options))
    return read_run(run.path)


def test_the_position_that_knows_is_found_and_chosen(tmp_path):
    run = read_at(with_residuals(tmp_path / "run", 0, layers=(1, 9)), "completion-mean", 1, told=9)
    found = sweep(run, ONCE)
    assert found.rows.select("detector", "position").unique().height == 4
    assert found.rows.group_by("position").len()["len"].to_list() == [4, 4]  # two probes at two layers
    best = found.rows.sort("auroc").row(-1, named=True)
    assert (best["position"], best["layer"]) == ("completion-mean", 9) and best["auroc"] > 0.9
    assert {(choice.position, choice.layer) for choice in found.choices} == {("completion-mean", 9)}
    assert found.chosen["lo"] > 0.8
    last = found.rows.filter(position="last")
    alone = sweep(with_residuals(tmp_path / "alone", 0, layers=(1, 9)), ONCE)
    assert last.equals(alone.rows)  # the same folds
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_sweep(found))
    said = " ".join(console.export_text().split())
    assert "at layer 9, read at completion-mean, AUROC" in said and "Read at completion-mean layer" in said
    title = sweep_title(found.table)
    assert title.startswith("Best at layer 9, read at completion-mean: ")
    assert sweep_rows(found.table)["x"].drop_nulls().n_unique() == 8
    assert positions_differ(found.table) and not positions_differ(alone.table)


def test_a_direction_of_one_position_is_carried_to_another_or_not(tmp_path):
    said = tuple(f"word {number}" for number in range(97))  # no two texts alike
    run = with_residuals(tmp_path / "run", 0, layers=(4,), told=4, texts=said)
    run = read_at(run, "completion-mean", 1, told=4)
    sets = data_sets([run], "position", 0)
    assert [one.name for one in sets] == ["last", "completion-mean"]
    found = carried_over(sets, ["residual", "metrics"], ONCE)
    crossed = found.filter(detector="residual", train="last", test="completion-mean").row(0, named=True)
    assert crossed["auroc"] > 0.9 and crossed["verdict"] in ("carries over", "partly")
    why = found.filter(detector="metrics", train="completion-mean", test="last")["reason"].item()
    assert why == "kept at last alone, not at completion-mean"
    run = read_at(run, "completion-mean", 2, told=-1)
    found = carried_over(data_sets([run], "position", 0), ["residual"], ONCE)
    crossed = found.filter(detector="residual", train="last", test="completion-mean").row(0, named=True)
    assert crossed["verdict"] in ("chance", "unclear")
    with pytest.raises(InputError, match="--by position: .* was read at last alone; analyze with --position last"):
        data_sets([with_residuals(tmp_path / "alone", 0)], "position", 0)


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
