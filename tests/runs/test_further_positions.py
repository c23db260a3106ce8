"""A run at several read positions: the first is the run as it was alone, of the others residuals are kept."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from polars.testing import assert_frame_equal

import bluffscope
import tiny
from bluffscope.api import config_from
from bluffscope.cli.main import main
from bluffscope.config import MeasureOptions
from bluffscope.detectors.data_sets import common_position, data_sets
from bluffscope.detectors.files import read_detector, write_detector
from bluffscope.detectors.score import Text, open_scorer
from bluffscope.detectors.train import train
from bluffscope.errors import InputError, RunStopped
from bluffscope.pipeline.batch_size import run_footprint
from bluffscope.pipeline.memory import GEMMA_2_2B, SaeShape
from bluffscope.runs.run import run
from bluffscope.table.reader import read_run
from random_pairs import random_pairs

FIRST = ("metrics", "pairs", "features", "residuals")
ORDER = ("pair_id", "view", "layer", "token")


@pytest.fixture(scope="module")
def options(tiny_model, tiny_saes, tmp_path_factory):
    data = tiny.write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", random_pairs(3, count=30))
    return {
        "data": str(data),
        "model": str(tiny_model),
        "sae": str(tiny_saes),
        "dtype": "float64",
        "noise_draws": 1,
        "batch_size": 4,
        "keep_residuals": True,
        "allow_unsound": True,
    }


def measured(folder, options, position, **more):
    return read_run(run(config_from(out=folder, position=position, **options | more)).path)


@pytest.fixture(scope="module")
def several(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "run"
    return measured(folder, options, ("last", "completion-mean", "first-completion"))


def of(lazy, views=("prompt", "fact", "hall")):
    return lazy.filter(pl.col("view").is_in(views)).sort(ORDER).collect()


def test_the_first_position_is_the_run_alone_and_each_other_has_the_residuals_of_its_own_run(
    several, options, tmp_path
):
    alone = measured(tmp_path / "last", options, "last")
    for name in FIRST:
        ours, theirs = (pl.read_parquet(one.path / f"{name}.parquet") for one in (several, alone))
        assert_frame_equal(ours, theirs, check_exact=True)
    assert several.positions == ("last", "completion-mean", "first-completion") and alone.positions == ("last",)
    assert several.metadata["position"] == "last completion-mean first-completion"
    assert not (alone.path / "further_residuals.parquet").exists()
    assert "further_residuals.parquet" in several.manifest["files"]
    for position in several.positions[1:]:
        own = measured(tmp_path / position, options, position)
        ours, theirs = of(several.residuals_at(position)), of(own.kept_residuals)
        if position == "completion-mean":  # the same texts, so the same batches
            assert_frame_equal(ours, theirs, check_exact=True)
        else:  # whose texts end at the first token
            assert ours.drop("values").equals(theirs.drop("values"))
            one, other = (frame["values"].explode().to_numpy() for frame in (ours, theirs))
            assert np.allclose(one, other, rtol=0, atol=1e-6)
    counts = several.manifest["counts"]
    assert counts["forwards"] == alone.manifest["counts"]["forwards"]


@pytest.mark.parametrize(
    "strategy", ["batched", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("sequential", "separate"))]
)
def test_every_strategy_keeps_the_same_residuals(several, options, tmp_path, strategy):
    other = measured(tmp_path / "run", options, several.positions, strategy=strategy)
    for position in several.positions:
        ours, theirs = of(other.residuals_at(position)), of(several.residuals_at(position))
        assert ours.drop("values").equals(theirs.drop("values"))
        one, two = (frame["values"].explode().to_numpy() for frame in (ours, theirs))
        assert np.allclose(one, two, rtol=0, atol=1e-6)


def test_residuals_are_given_by_position(several):
    found = bluffscope.read_run(several.path)
    mean, first = (found.residuals(1, "hall", position) for position in ("completion-mean", "first-completion"))
    assert mean.shape == first.shape == (found.rows, mean.shape[1]) and not torch.equal(mean, first)
    assert torch.equal(found.residuals(1, "hall"), found.residuals(1, "hall", "last"))
    assert torch.equal(found.residuals(1, "prompt", "completion-mean"), found.residuals(1, "prompt"))
    with pytest.raises(InputError, match="was not read at divergence, only at last, completion-mean, first-completion"):
        found.residuals(1, "hall", "divergence")


def test_one_position_in_a_list_is_a_run_as_ever(options):
    assert (
        config_from(**options, position=["last"]) == config_from(**options, position="last") == config_from(**options)
    )
    one = dataclasses.asdict(config_from(position=("completion-mean",)).measure)
    assert one["position"] == "completion-mean"


def test_a_stopped_run_goes_on_with_its_positions_and_no_others(several, options, tmp_path):
    asked = options | {"shard_pairs": 4}

    class Stopping:
        def start(self, total):
            pass

        def advance(self, pairs):
            raise RunStopped(2)

        def finish(self):
            pass

    folder = tmp_path / "run"
    with pytest.raises(RunStopped):
        run(config_from(out=folder, position=several.positions, **asked), progress=Stopping())
    assert yaml.safe_load((folder / "config.yaml").read_text())["measure"]["position"] == [*several.positions]
    with pytest.raises(InputError, match="--position: the run has last completion-mean first-completion, not 'last'"):
        bluffscope.run(resume=folder, position="last")
    whole = bluffscope.run(resume=folder)
    for position in several.positions:
        ours, theirs = of(whole.residuals_at(position)), of(several.residuals_at(position))
        assert ours.drop("values").equals(theirs.drop("values"))


def test_texts_that_cannot_be_read_at_one_position_are_in_quarantine_for_all(options, tmp_path):
    keys = ("prompt", "fact", "hallucination")
    pairs = [dict(zip(keys, said, strict=True)) for said in (("A is", "b", "c"), ("A is", "Paris", "Paris, Paris"))]
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", pairs)
    found = measured(tmp_path / "run", options | {"data": str(data)}, ("last", "divergence"))
    assert found.rows == 1 and "before fact and hallucination differ" in found.quarantine["reason"][0]
    assert of(found.residuals_at("divergence"), ("fact", "hall"))["pair_id"].n_unique() == 1


def test_a_detector_of_a_further_position_knows_it_and_scores_as_in_training(several, tmp_path):
    everything = pl.repeat(True, several.rows, eager=True)
    with pytest.raises(InputError, match="--on sae: metrics and SAE features are of last alone"):
        train(several, everything, "sae", 0, position="completion-mean")
    with pytest.raises(InputError, match="was not read at divergence"):
        train(several, everything, "residual", 0, position="divergence")
    trained = train(several, everything, "residual", 0, position="completion-mean")
    write_detector(tmp_path / "detector", trained, several, ())
    detector = read_detector(tmp_path / "detector")
    assert detector.position == "completion-mean"
    scorer = open_scorer(detector, device="cpu")
    assert scorer.worker.loaded.config.measure.further_positions == ()
    pair = several.pairs.row(0, named=True)
    (score,) = scorer.scores([Text(pair["pair_id"], pair["prompt"], pair["fact"])])
    opened = bluffscope.read_run(several.path)
    layers = [opened.residuals(layer, "fact", "completion-mean")[:1].numpy() for layer in (0, 1, 3)]
    assert score.logit == pytest.approx(detector.linear.scores(np.hstack(layers))[0], abs=1e-4)
    # Asked about a run that holds its position, it is asked there.
    at = common_position([detector], [several])
    (asked,) = data_sets([several], None, 0, least=1, position=at)
    expected = np.vstack([opened.residuals(0, view, at) for view in ("fact", "hall")])
    width = expected.shape[1]
    assert np.allclose(asked.inputs.matrices["residual"][:, :width], expected[asked.inputs.rows], atol=1e-5)


@pytest.mark.thorough
def test_the_command_trains_at_a_position_and_refuses_others(several, tmp_path, capsys):
    train_at = ["detect", "train", str(several.path), "--on", "residual", "--allow-weak", "--allow-unsound"]
    assert main([*train_at, "--position", "first-completion", "--out", str(tmp_path / "first")]) == 0
    assert "| reads | the first token of the completion |" in (tmp_path / "first" / "README.md").read_text()
    assert main([*train_at, "--position", "divergence", "--out", str(tmp_path / "no")]) == 2
    assert "was not read at divergence, only at last, completion-mean" in " ".join(capsys.readouterr().err.split())
    vectors = ["--activations", "a.safetensors", "--labels", "b.csv", "--position", "last"]
    assert main(["detect", "train", *vectors, "--out", str(tmp_path / "no")]) == 2
    assert "--position last: vectors that are given were read already" in capsys.readouterr().err


def test_memory_grows_with_what_is_kept():
    layers = 64  # without SAEs, so that reads outweigh the forward
    shape = dataclasses.replace(GEMMA_2_2B["float32"], saes=(SaeShape(d_sae=0, d_in=2304),) * layers)
    one, two = (
        run_footprint(shape, "cpu", MeasureOptions(position=position)).needed(1024, 64)
        for position in ("last", ("last", "completion-mean"))
    )
    assert two - one == 512 * 2304 * layers * (4 + 4)  # as read, and in float32


@pytest.mark.thorough
def test_on_the_demo_as_well(tmp_path):
    asked = {"limit": 24, "noise_draws": 1, "keep_residuals": True, "batch_size": 8}
    both = bluffscope.run(**asked, position=("last", "completion-mean"), out=tmp_path / "both")
    for position in both.positions:
        own = bluffscope.run(**asked, position=position, out=tmp_path / position)
        assert_frame_equal(of(both.residuals_at(position)), of(own.kept_residuals), check_exact=True)
    assert os.path.getsize(both.path / "further_residuals.parquet") > 0
