"""Where memory runs out, batches are halved: nothing is lost, nothing comes twice, the numbers stay."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

import measuring
from bluffscope.model import ResidualReader
from compare import assert_same
from random_pairs import random_pairs

PAIRS = measuring.as_pairs(random_pairs(7, count=13))


class Short(ResidualReader):
    """A reader whose device has no memory at the forwards of the numbers given, or for more than so many pairs."""

    numbers: frozenset[int] = frozenset()
    most: int = 10_000
    error: Exception = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
    seen: list[int]

    def read(self, batch):
        pairs = len(set(batch.read_item.tolist()))
        self.seen.append(pairs)
        if len(self.seen) in self.numbers or pairs > self.most:
            raise self.error
        return super().read(batch)


@pytest.fixture
def worker(tiny_model, tiny_saes):
    return measuring.make_worker(tiny_model, tiny_saes, batch_size=5, noise_draws=2)


def short(worker, **how):
    reader = Short(worker.reader.model, worker.reader.points, worker.reader.style)
    for name, value in {"seen": [], **how}.items():
        object.__setattr__(reader, name, value)
    return dataclasses.replace(worker, reader=reader, ceiling=type(worker.ceiling)())


@pytest.mark.thorough
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        MemoryError(),
    ],
    ids=["cpu", "cuda", "mps", "python"],
)
def test_out_of_memory_at_every_forward_in_turn_gives_the_same_table(worker, error):
    expected = measuring.measure(worker, PAIRS)
    for number in range(1, 4):
        starved = short(worker, numbers=frozenset([number]), error=error)
        table = measuring.measure(starved, PAIRS)
        assert len(starved.reader.seen) > 3
        assert_same(table, expected, "float64", draws=2)
        assert table["pair_id"].to_list() == expected["pair_id"].to_list()
        assert table["_features"].list.len().to_list() == expected["_features"].list.len().to_list()
        assert table["_reason"].null_count() == len(PAIRS)


def test_later_batches_are_no_larger_than_what_was_found_to_fit(worker, caplog):
    starved = short(worker, most=2)
    with caplog.at_level(logging.WARNING, "bluffscope"):
        table = measuring.measure(starved, PAIRS)
    assert starved.reader.seen[0] == 5
    assert max(starved.reader.seen[1:]) == 2
    assert starved.ceiling.pairs == 2
    assert caplog.messages == ["out of memory with 5 pairs per forward pass: trying 2"]
    assert_same(table, measuring.measure(worker, PAIRS), "float64", draws=2)


def test_progress_counts_every_pair_once(worker):
    counted = []
    starved = short(worker, most=1)
    starved.measure(starved.prepare(measuring.shard_of(PAIRS)), counted.append)
    assert sum(counted) == len(PAIRS)


def test_a_pair_that_does_not_fit_alone_is_quarantined(worker):
    table = measuring.measure(short(worker, most=0), PAIRS)
    assert set(table["_reason"]) == {"out of memory even in a batch of its own"}


def test_any_other_error_is_not_taken_for_want_of_memory(worker):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        measuring.measure(short(worker, most=0, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied")), PAIRS)
