"""A worker that needs no model: what happens to each pair is decided by the test."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field

import polars as pl

from bluffscope.engine.base import Tally
from bluffscope.errors import InputError
from bluffscope.records import Pair, Shard


def shards(number=8, size=4):
    pairs = [Pair(index, f"p{index}", "all", None, "p", "f", "h") for index in range(number * size)]
    return [Shard(at, tuple(pairs[at * size : at * size + size]), ("g",) * size) for at in range(number)]


@dataclass(frozen=True)
class Facts:
    fingerprint: str = "weights"

    def rejected(self, shard, reason):
        return frame(shard, reason)


def frame(shard, reason=None):
    return pl.DataFrame(
        {
            "_index": [pair.index for pair in shard.items],
            "id": [pair.id for pair in shard.items],
            "_reason": pl.Series([reason] * len(shard.items), dtype=pl.String),
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
        for pair in prepared.items:
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

    def answer(self, question):
        return question(self)

    def tally(self):
        return Tally({"load": 5.0, "forward": float(self.done)}, {"pairs": self.done}, os.getpid())


@dataclass(frozen=True)
class Factory:
    fates: dict = field(default_factory=dict)
    seconds: float = 0.0

    def __call__(self):
        return Worker(self.fates, self.seconds)
