"""The comparison with the reference notices each of the classic silent errors."""

from __future__ import annotations

import dataclasses
import importlib
import logging

import numpy as np
import pytest
import torch

import compare
import measuring
import tiny
from bluffscope.errors import InputError
from bluffscope.model import forward, hooks
from bluffscope.pipeline.plan import tries
from random_pairs import random_pairs

PAIRS = measuring.as_pairs(random_pairs(41, count=12))
STABILITY = importlib.import_module("bluffscope.metrics.stability")
GEOMETRY = importlib.import_module("bluffscope.metrics.geometry")
SPECTRUM = importlib.import_module("bluffscope.metrics.spectrum")
SENSITIVITY = importlib.import_module("bluffscope.metrics.sensitivity")


@pytest.fixture(scope="module")
def expected(tiny_model, tiny_saes):
    """The reference's table, in both precisions."""
    return {
        dtype: measuring.load_oracle(tiny_model, tiny_saes, dtype=dtype).rows(PAIRS, noise_draws=2)
        for dtype in ("float64", "float32")
    }


@pytest.fixture(params=["float64", "float32"])
def verdict(request, tiny_model, tiny_saes, expected):
    """Measures with a worker made before anything was planted, so that its self-check at load saw nothing."""
    worker = measuring.make_worker(tiny_model, tiny_saes, dtype=request.param, noise_draws=2)
    assert worker.reader.packs

    def judge(worker=worker, **changes):
        table = measuring.measure(dataclasses.replace(worker, **changes), PAIRS)
        assert table["_reason"].null_count() == len(PAIRS)
        return compare.compare(table, expected[request.param], request.param, draws=2)

    judge.worker = worker
    return judge


def batches(monkeypatch, change):
    """Every packed batch is changed by `change(batch)` before the forward."""
    pack = tries.pack

    def changed(*arguments):
        return dataclasses.replace(batch := pack(*arguments), **change(batch))

    monkeypatch.setattr("bluffscope.pipeline.shard.pack", changed)


def masks(monkeypatch, change):
    """Every attention pattern (row, query, key) is changed in place by `change(visible)`."""
    ancestors = importlib.import_module("bluffscope.model.masks").ancestors

    def changed(subtree_end):
        visible = ancestors(subtree_end).clone()
        change(visible)
        return visible

    monkeypatch.setattr("bluffscope.model.masks.ancestors", changed)


def test_nothing_planted_nothing_found(verdict):
    assert verdict().holds


def test_a_hole_in_the_mask(verdict, monkeypatch):
    def hole(visible):
        visible[:, 2:, 1] = False

    masks(monkeypatch, hole)
    assert not verdict().holds


def test_a_single_cell_of_the_mask(verdict, monkeypatch):
    def hole(visible):
        query, key = map(int, torch.nonzero(visible[0].tril(-1))[-1])  # the last slot that sees anything behind it
        visible[0, query, key] = False

    masks(monkeypatch, hole)
    assert not verdict().holds


def test_branches_that_see_each_other(verdict, monkeypatch):
    def causal(visible):
        visible |= torch.ones_like(visible).tril()

    masks(monkeypatch, causal)
    assert not verdict().holds


def test_positions_by_slot_and_not_by_depth(verdict, monkeypatch):
    def by_slot(batch):
        shape = batch.input_ids.shape
        return {"position_ids": np.broadcast_to(np.arange(shape[1]), shape).copy()}

    batches(monkeypatch, by_slot)
    assert not verdict().holds


def test_one_position_too_far_in_one_slot(verdict, monkeypatch):
    def shift(batch):
        positions = batch.position_ids.copy()
        positions[batch.read_row[-1], batch.read_slot[-1]] += 1
        return {"position_ids": positions}

    batches(monkeypatch, shift)
    assert not verdict().holds


def test_the_token_before_the_last_is_read(verdict, monkeypatch):
    batches(monkeypatch, lambda batch: {"read_slot": np.maximum(batch.read_slot - 1, 0)})
    assert not verdict().holds


def test_a_pad_is_read(verdict, monkeypatch):
    """Index -1 of a right-padded batch."""
    pad = tries.pad

    def padded(*arguments):
        batch = pad(*arguments)
        return dataclasses.replace(batch, read_slot=np.full_like(batch.read_slot, batch.input_ids.shape[1] - 1))

    monkeypatch.setattr("bluffscope.pipeline.shard.pad", padded)
    single = dataclasses.replace(verdict.worker.reader, style=None)
    assert not verdict(reader=single).holds


def test_two_views_are_swapped(verdict, monkeypatch):
    def swap(batch):
        order = np.arange(len(batch.read_slot))
        fact, hall = (np.flatnonzero((batch.read_view == view) & (batch.read_item == 0)) for view in (1, 2))
        order[fact], order[hall] = hall, fact
        return {"read_slot": batch.read_slot[order], "read_row": batch.read_row[order]}

    batches(monkeypatch, swap)
    assert not verdict().holds


def test_the_neighbouring_layer_is_read(verdict):
    points = dict(verdict.worker.reader.points)
    points[1] = hooks.HookPoint(2, "hook_resid_post")
    assert not verdict(reader=dataclasses.replace(verdict.worker.reader, points=points)).holds


def axes(monkeypatch, change):
    """Every principal axis (in the eigenbasis) is `change(values ascending, vectors)`."""
    decompose = SPECTRUM.eigenvalues_and_top

    def changed(tensor):
        return decompose(tensor)[0], change(*torch.linalg.eigh(tensor))

    monkeypatch.setattr(SPECTRUM, "eigenvalues_and_top", changed)


def test_the_second_axis_is_taken_for_the_first(verdict, monkeypatch):
    axes(monkeypatch, lambda values, vectors: vectors[..., -2])
    result = verdict()
    assert not result.holds
    assert result.worst.column.endswith(("misalignment_angle", "axis_twist_fact", "axis_twist_hall", "axis_twist_diff"))


def test_a_row_of_the_eigenvectors_is_taken_for_an_axis(verdict, monkeypatch):
    axes(monkeypatch, lambda values, vectors: vectors[:, -1, :])
    assert not verdict().holds


def test_the_sign_of_an_axis_means_nothing(verdict, monkeypatch):
    axes(monkeypatch, lambda values, vectors: -vectors[..., -1])
    assert verdict().holds


def test_the_centroid_is_not_subtracted(verdict, monkeypatch):
    cloud = GEOMETRY._cloud

    def uncentred(features, decoder, reads, width):
        centre, spread = cloud(features, decoder, reads, width)
        rows = [features.values[features.indptr[read] : features.indptr[read + 1]].double() for read in reads]
        weights = torch.nn.utils.rnn.pad_sequence([row / row.sum() for row in rows], batch_first=True)
        return centre, spread + weights.sqrt()[..., None] * centre[:, None]

    monkeypatch.setattr(GEOMETRY, "_cloud", uncentred)
    assert not verdict().holds


def test_the_decoder_s_bias_is_forgotten(verdict):
    coders = dict(verdict.worker.coders)
    coders[3].sae.b_dec.data.zero_()
    assert not verdict(coders=coders).holds


def test_another_seed(verdict):
    loaded = verdict.worker.loaded
    config = dataclasses.replace(loaded.config, measure=dataclasses.replace(loaded.config.measure, seed=1))
    result = verdict(loaded=dataclasses.replace(loaded, config=config))
    assert not result.holds or result.flips > 0
    assert result.worst.ratio <= 1 or result.worst.column.startswith("stability")


def test_noise_of_the_wrong_layer(verdict, monkeypatch):
    draw = STABILITY.unit_noise
    monkeypatch.setattr(
        STABILITY,
        "unit_noise",
        lambda seed, pair, view, layer, number, **shape: draw(seed, pair, view, layer + 1, number, **shape),
    )
    assert not verdict().holds


def test_a_gini_off_by_one_rank(verdict, monkeypatch):
    right = SENSITIVITY.gini
    monkeypatch.setattr(SENSITIVITY, "gini", lambda features: right(features) + 2 / features.counts)
    result = verdict()
    assert not result.holds
    assert result.worst.column.endswith("_gini")


def test_zero_in_the_place_of_null_and_null_in_the_place_of_zero(expected):
    rows = expected["float64"]
    column = "l0_fact_sphericity"
    for got, wanted in ((0.0, None), (None, 0.0), (float("nan"), 0.0)):
        left, right = ([{**row, column: value} for row in rows] for value in (got, wanted))
        result = compare.compare(left, right, "float64")
        assert (result.worst.column, result.worst.ratio) == (column, float("inf"))
        with pytest.raises(AssertionError, match=column):
            compare.assert_same(left, right, "float64")


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_each_single_column_is_compared(expected, precision):
    rows = expected[precision]
    for name, value in rows[0].items():
        if name == "pair_id":
            continue
        wrong = value + (1 if name.endswith(("tokens", "l0_norm")) else 0.1) if isinstance(value, int | float) else "?"
        result = compare.compare([{**rows[0], name: wrong}, *rows[1:]], rows, precision, draws=2)
        assert not result.holds or result.flips > 0, name


def test_another_set_of_pairs_is_no_match(expected):
    with pytest.raises(InputError, match="other pairs"):
        compare.compare(expected["float64"][1:], expected["float64"], "float64")


@pytest.mark.parametrize("plant", ["mask", "positions"])
def test_the_self_check_at_load_notices_what_is_planted_before_it(
    tiny_model, tiny_saes, monkeypatch, caplog, expected, plant
):
    if plant == "mask":
        masks(monkeypatch, lambda visible: visible[:, 8:, 0].fill_(False))
    else:
        right = forward.ResidualReader._inputs

        def by_slot(self, batch):
            inputs = right(self, batch)
            if "position_ids" in inputs:
                inputs["position_ids"] = torch.arange(batch.input_ids.shape[1])[None]
            return inputs

        monkeypatch.setattr(forward.ResidualReader, "_inputs", by_slot)
    with caplog.at_level(logging.WARNING, "bluffscope"):
        worker = measuring.make_worker(tiny_model, tiny_saes, noise_draws=2)
    assert not worker.reader.packs
    assert "ignores custom attention masks or positions" in caplog.text
    table = measuring.measure(worker, PAIRS)
    compare.assert_same(table, expected["float64"], "float64", draws=2)
    assert max(table["prompt_tokens"]) > tiny.WINDOW
