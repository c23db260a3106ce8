"""Shards on Ray: each once, whatever dies; errors, warnings and progress as if it all happened here."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field

import polars as pl
import pytest

from bluffscope.engine.base import Tally
from bluffscope.engine.placement import Placement
from bluffscope.errors import InputError, WorkerLostError
from bluffscope.records import Pair, Shard
from bluffscope.timing import Stopwatch

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from bluffscope.engine.ray import RayEngine, cluster  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::Warning:ray")


def shards(number=8, size=4):
    pairs = [Pair(index, f"p{index}", "all", None, "p", "f", "h") for index in range(number * size)]
    return [
        Shard(at, tuple(pairs[at * size : at * size + size]), ("g",) * size) for at in range(number)
    ]


@dataclass(frozen=True)
class Facts:
    fingerprint: str = "weights"

    def rejected(self, shard, reason):
        return frame(shard, reason)


def frame(shard, reason=None):
    return pl.DataFrame(
        {
            "_index": [pair.index for pair in shard.pairs],
            "id": [pair.id for pair in shard.pairs],
            "_reason": pl.Series([reason] * len(shard.pairs), dtype=pl.String),
        }
    )


@dataclass
class Worker:
    """A worker of a test's own: what happens to a pair is decided by the names of `fates`."""

    fates: dict = field(default_factory=dict)
    seconds: float = 0.0
    fingerprint: str = "weights"
    done: int = 0

    def prepare(self, shard):
        return shard

    def measure(self, prepared, advance):
        for pair in prepared.pairs:
            time.sleep(self.seconds)
            match self.fates.get(pair.id):
                case "dies":
                    os._exit(1)
                case "raises":
                    raise InputError("the pair says no")
                case "warns":
                    logging.getLogger("bluffscope.model").warning("beware")
            self.done += 1
            advance(1)
        return prepared

    def tabulate(self, measured):
        return frame(measured)

    def describe(self):
        return Facts(self.fingerprint)

    def tally(self):
        return Tally({"load": 5.0, "forward": float(self.done)}, {"pairs": self.done}, os.getpid())


@dataclass(frozen=True)
class Factory:
    fates: dict = field(default_factory=dict)
    seconds: float = 0.0

    def __call__(self):
        return Worker(self.fates, self.seconds)


@pytest.fixture(scope="module")
def machine():
    """Ray on this machine, once for all tests: it takes seconds to start."""
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@dataclass
class Outcome:
    tables: dict
    told: list
    engine: RayEngine
    stopwatch: Stopwatch

    @property
    def table(self):
        return pl.concat(self.tables[number] for number in sorted(self.tables))


def run(make_worker, work, workers=2, meanwhile=None):
    tables, told, stopwatch = {}, [], Stopwatch()

    def commit(shard, table):
        assert shard.number not in tables
        tables[shard.number] = table

    with cluster(None) as nodes, RayEngine(Placement(workers, 1), stopwatch, (__name__,)) as engine:
        assert nodes
        engine.hire(make_worker)
        if meanwhile:
            threading.Thread(target=meanwhile, args=(engine,), daemon=True).start()
        engine.run(iter(work), make_worker, commit, told.append)
    return Outcome(tables, told, engine, stopwatch)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_shard_is_committed_once_whatever_the_number_of_workers(machine, workers):
    outcome = run(Factory(), shards(), workers)
    assert outcome.table.equals(pl.concat(map(frame, shards())))
    assert sum(outcome.told) == 32
