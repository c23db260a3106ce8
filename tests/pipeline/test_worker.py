"""What every worker says of itself, and what becomes of a shard that none could measure."""

from __future__ import annotations

from dataclasses import replace

import pytest

import measuring
import tiny

PAIRS = measuring.as_pairs(tiny.PAIRS[:3])


@pytest.fixture(scope="module")
def worker(tiny_model, tiny_saes):
    return measuring.make_worker(tiny_model, tiny_saes)


def test_a_shard_that_no_worker_survived_is_quarantined_in_the_table_s_own_columns(worker):
    shard = measuring.shard_of(PAIRS)
    table, measured = worker.describe().rejected(shard, "the worker died"), worker.run(shard)
    assert table["_reason"].to_list() == ["the worker died"] * 3
    assert table["_index"].to_list() == measured["_index"].to_list()
    assert table.schema == measured.schema
    assert measured["_reason"].null_count() == 3


def test_workers_are_alike_where_weights_strategy_and_batch_plan_are(worker):
    loaded = worker.describe()
    assert loaded.fingerprint == replace(loaded, columns=()).fingerprint
    first = next(iter(loaded.sae_identities))
    others = (
        replace(loaded, identity=loaded.identity | {"weights": "0123"}),
        replace(loaded, sae_identities=loaded.sae_identities | {first: {"weights": "0123"}}),
        replace(loaded, strategy="batched"),
    )
    assert all(other.fingerprint != loaded.fingerprint for other in others)


def test_a_question_is_answered_and_the_work_is_counted(worker):
    before = worker.tally().work["reads"]
    worker.run(measuring.shard_of(PAIRS))
    assert worker.tally().work["reads"] - before == 9
    assert worker.answer(lambda asked: asked.loaded.strategy) == "packed"
