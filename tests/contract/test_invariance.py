"""A pair's numbers do not depend on what is measured beside it, in which order, or in how large pieces."""

from __future__ import annotations

import dataclasses
import importlib
import random

import numpy as np
import polars as pl
import pytest

import bluffscope
import measuring
import tiny
from bluffscope.host.noise import unit_noise
from bluffscope.pipeline.plan import BatchLimits
from bluffscope.pipeline.shard import cut_shards
from bluffscope.reference import analyses as reference
from compare import assert_same
from random_pairs import random_pairs

STABILITY = importlib.import_module("bluffscope.metrics.stability")  # the package has a function of that name too
DRAWS = 3
HOW = {"position": "completion-mean", "draws": DRAWS}
RECORDS = random_pairs(31, count=15)
PAIRS = measuring.as_pairs(RECORDS)
SHUFFLED = random.Random(0).sample(RECORDS, len(RECORDS))
LARGE = BatchLimits(batch_size="auto", batch_tokens=10**6, row_tokens=10**6)
SMALL = BatchLimits(batch_size="auto", batch_tokens=40, row_tokens=8)


@pytest.fixture(scope="module", params=["float64", "float32"])
def measured(request, tiny_model, tiny_saes):
    """The precision, a worker, its table of all pairs in one forward, and the gaps of the axes."""
    options = {"noise_draws": DRAWS, "position": "completion-mean"}
    worker = measuring.make_worker(tiny_model, tiny_saes, dtype=request.param, **options)
    worker = dataclasses.replace(worker, limits=LARGE)
    gaps = measuring.load_oracle(tiny_model, tiny_saes).gaps(PAIRS, position="completion-mean")
    return request.param, worker, measuring.measure(worker, PAIRS), gaps


def the_same(measured, table):
    precision, _, expected, gaps = measured
    columns = [name for name in expected.columns if not name.startswith("_")]
    return assert_same(table, expected.select(columns), precision, gaps=gaps, **HOW)


class _Spy:
    """A reader that remembers the batches it was given."""

    def __init__(self, reader):
        self.packs, self._reader, self.batches = reader.packs, reader, []

    def read(self, batch):
        self.batches.append(batch)
        return self._reader.read(batch)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [1, 2, 7, "auto"])
def test_whatever_the_number_of_pairs_a_forward(measured, size):
    worker = dataclasses.replace(measured[1], limits=dataclasses.replace(LARGE, batch_size=size))
    spy = _Spy(worker.reader)
    the_same(measured, measuring.measure(dataclasses.replace(worker, reader=spy), PAIRS))
    assert len(spy.batches) == {1: 15, 2: 8, 7: 3, "auto": 1}[size]


@pytest.mark.parametrize(("limits", "rows"), [(SMALL, 10), (dataclasses.replace(LARGE, row_tokens=1), 4), (LARGE, 1)])
def test_whatever_the_length_of_rows_and_the_tokens_a_forward(measured, limits, rows):
    spy = _Spy(measured[1].reader)
    the_same(measured, measuring.measure(dataclasses.replace(measured[1], limits=limits, reader=spy), PAIRS))
    total = sum(len(batch.row_lengths) for batch in spy.batches)
    assert total == 1 if rows == 1 else total >= rows


@pytest.mark.parametrize("size", [1, 3, 15])
def test_whatever_the_number_of_pairs_a_shard(measured, size):
    shards = list(cut_shards(((pair, "g") for pair in PAIRS), size))
    assert len(shards) == -(-15 // size)
    the_same(measured, pl.concat([measured[1].run(shard) for shard in shards]))


@pytest.mark.parametrize("records", [RECORDS[::-1], SHUFFLED], ids=["reversed", "shuffled"])
def test_whatever_the_order_of_pairs(measured, records):
    table = measuring.measure(dataclasses.replace(measured[1], limits=SMALL), measuring.as_pairs(records))
    assert table["pair_id"].to_list() == [record["id"] for record in records]
    the_same(measured, table)


def test_whichever_pairs_are_left_out(measured):
    precision, worker, expected, gaps = measured
    few = expected.select([name for name in expected.columns if name[0] != "_"])[::4]
    records = [record for record in RECORDS if record["id"] in set(few["pair_id"])]
    table = measuring.measure(worker, measuring.as_pairs(records))
    assert_same(table, few, precision, gaps=gaps, **HOW)


def test_whether_texts_share_rows_or_each_has_a_padded_row_of_its_own(measured):
    worker = measured[1]
    padded = dataclasses.replace(worker, reader=dataclasses.replace(worker.reader, style=None))
    assert not padded.reader.packs
    the_same(measured, measuring.measure(padded, PAIRS))


def test_every_pair_s_sparse_features_are_the_same_whatever_the_batches(measured):
    precision, worker, expected, _ = measured
    other = measuring.measure(dataclasses.replace(worker, limits=SMALL), PAIRS)
    key = ["pair_id", "view", "layer", "feature"]
    one, two = (
        table.select("pair_id", "_features").explode("_features").unnest("_features").sort(key)
        for table in (expected, other)
    )
    assert one.height == two.height > 1000
    assert one.select(key).equals(two.select(key))
    tolerance = {"float64": 1e-6, "float32": 1e-4}[precision]
    np.testing.assert_allclose(one["activation"], two["activation"], atol=tolerance, rtol=tolerance)


def test_the_same_run_twice_is_the_same_bit_for_bit(measured):
    assert measuring.measure(measured[1], PAIRS).equals(measured[2])


def noise_of(monkeypatch, module, measure):
    """Noise by what it belongs to, as a module draws it while measuring."""
    drawn = {}

    def record(*name, tokens, d_model):
        assert name not in drawn, "drawn twice"
        drawn[name] = unit_noise(*name, tokens=tokens, d_model=d_model)
        return drawn[name]

    with monkeypatch.context() as patch:
        patch.setattr(module, "unit_noise", record)
        measure()
    return drawn


def test_the_noise_is_bit_equal_on_any_batch_and_order_and_in_the_reference(
    measured, monkeypatch, tiny_model, tiny_saes
):
    precision, worker, _, _ = measured
    small = dataclasses.replace(worker, limits=SMALL)
    shuffled = measuring.as_pairs(SHUFFLED)
    oracle = measuring.load_oracle(tiny_model, tiny_saes, dtype=precision)
    asked = {"noise_draws": DRAWS, "position": "completion-mean"}
    first = noise_of(monkeypatch, STABILITY, lambda: measuring.measure(worker, PAIRS))
    assert len(first) == 15 * 2 * DRAWS
    for again in (
        noise_of(monkeypatch, STABILITY, lambda: measuring.measure(small, shuffled)),
        noise_of(monkeypatch, reference, lambda: oracle.rows(PAIRS, **asked)),
    ):
        assert again.keys() == first.keys()
        assert all(np.array_equal(again[name], first[name]) for name in first)


def test_the_noise_is_a_function_of_seed_pair_view_layer_and_draw_only():
    name = (0, "p", "fact", 2, 1)
    noise = unit_noise(*name, tokens=2, d_model=5)
    assert np.array_equal(noise, unit_noise(*name, tokens=2, d_model=5))
    assert np.array_equal(noise[:1], unit_noise(*name, tokens=1, d_model=5))
    for other in [(1, *name[1:]), (0, "q", *name[2:]), (0, "p", "hall", 2, 1), (0, "p", "fact", 1, 1), (*name[:4], 0)]:
        assert not np.isclose(noise, unit_noise(*other, tokens=2, d_model=5)).any()
    # a change of these numbers changes every published stability: bump the metric's version
    np.testing.assert_allclose(noise[0, :3], [-0.22727662691398884, -2.5640850389561267, -0.37508815072220536])
    large = unit_noise(*name, tokens=100, d_model=1000)
    assert abs(large.mean()) < 0.01
    assert abs(large.std() - 1) < 0.01


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("order", "options"),
    [(1, {"batch_size": 2, "shard_pairs": 3}), (-1, {"row_tokens": 8}), (-1, {"batch_size": 7, "shard_pairs": 1})],
)
def test_a_whole_run_gives_the_same_table_and_groups(tiny_model, tiny_saes, order, options):
    asked = {"model": str(tiny_model), "sae": str(tiny_saes), "noise_draws": 2, "device": "cpu"}
    records = tiny.PAIRS + RECORDS[:6]
    whole = bluffscope.analyze(records, **asked)
    other = bluffscope.analyze(records[::order], **asked, **options)
    assert other["pair_id"].to_list() == [record["id"] for record in records[::order]]
    assert_same(other, whole, "float32", draws=2)
    groups = dict(zip(whole["pair_id"], whole["group"], strict=True))
    assert groups == dict(zip(other["pair_id"], other["group"], strict=True))
    assert groups["fr"] == groups["it"] == groups["s"] != groups["w"]
