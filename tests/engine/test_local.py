"""The local engine: shards in order, whatever stands beside the model, and a clean end when one side fails."""

from __future__ import annotations

import threading

import polars as pl
import pytest

from bluffscope.engine.local import run_here
from bluffscope.records import Pair, Shard

SHARDS = [Shard(number, (Pair(number, str(number), "all", None, "p", "f", "h"),), ("g",)) for number in range(6)]


class Worker:
    """Notes which thread does what."""

    def __init__(self, fail=None):
        self.fail = fail
        self.threads = {}

    def _note(self, step, shard):
        self.threads.setdefault(step, set()).add(threading.current_thread().name)
        if self.fail == (step, shard.number):
            raise OSError(f"{step} of {shard.number}")
        return shard

    def prepare(self, shard):
        return self._note("prepare", shard)

    def measure(self, prepared, advance):
        advance(1)
        return self._note("measure", prepared)

    def tabulate(self, measured):
        self._note("tabulate", measured)
        return pl.DataFrame({"number": [measured.number]})


def run(worker, depth, shards=SHARDS):
    committed, done = [], []
    run_here(iter(shards), worker, lambda shard, frame: committed.append((shard.number, frame)), done.append, depth)
    return committed, done


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_every_shard_is_committed_once_and_in_order(depth):
    committed, done = run(Worker(), depth)
    assert [number for number, _ in committed] == [0, 1, 2, 3, 4, 5]
    assert [frame["number"].item() for _, frame in committed] == [0, 1, 2, 3, 4, 5]
    assert sum(done) == 6


def test_the_model_stays_in_the_calling_thread_and_the_rest_goes_beside_it():
    worker, here = Worker(), threading.current_thread().name
    run(worker, 1)
    assert worker.threads["measure"] == {here}
    assert here not in worker.threads["prepare"] | worker.threads["tabulate"]
    worker = Worker()
    run(worker, 0)
    assert worker.threads == dict.fromkeys(("prepare", "measure", "tabulate"), {here})


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("step", ["prepare", "measure", "tabulate"])
def test_a_failure_of_any_side_ends_the_run_with_what_came_before_committed(step, depth):
    worker, committed = Worker(fail=(step, 3)), []
    with pytest.raises(OSError, match=f"{step} of 3"):
        run_here(iter(SHARDS), worker, lambda shard, frame: committed.append(shard.number), lambda pairs: None, depth)
    assert committed == list(range(len(committed)))
    assert 3 not in committed
    if depth == 0 or step == "tabulate":
        assert committed == [0, 1, 2]


@pytest.mark.parametrize("depth", [0, 1])
def test_a_source_that_fails_ends_the_run(depth):
    def shards():
        yield SHARDS[0]
        raise ValueError("the data changed")

    with pytest.raises(ValueError, match="the data changed"):
        run(Worker(), depth, shards())
