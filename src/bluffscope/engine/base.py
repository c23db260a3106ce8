"""The contract of an engine: it takes workers and shards, and hands back each shard's table once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import polars as pl

from bluffscope.host.stopwatch import Tally
from bluffscope.records import Stretch

Commit = Callable[[Stretch[Any], pl.DataFrame], None]
"""Makes a shard's table durable; called once a shard, in the driver's process, from one thread at a time."""
Advance = Callable[[int], None]
"""Receives how many more pairs are done."""
Question = Callable[[Any], Any]
"""Put to what a worker holds, in the worker's process."""


class Worker(Protocol):
    """Holds model and SAEs, and measures shards in three steps, so that the outer two can overlap the middle one."""

    def prepare(self, shard: Stretch[Any]) -> Any:
        """What can be done without the model: token ids and batches."""

    def measure(self, prepared: Any, advance: Advance) -> Any:
        """The model's part."""

    def tabulate(self, measured: Any) -> pl.DataFrame:
        """The table of a shard."""
        ...


class Description(Protocol):
    """What a worker in another process says of itself; it travels between processes."""

    @property
    def fingerprint(self) -> Any:
        """Equal for workers that give the same numbers: which weights were loaded."""

    def rejected(self, shard: Stretch[Any], reason: str) -> pl.DataFrame:
        """The table of a shard whose pairs are all quarantined for this reason."""
        ...


class DistantWorker(Worker, Protocol):
    """A worker in another process: what the driver would otherwise see of it, it has to say."""

    def describe(self) -> Description:
        """What it loaded."""
        ...

    def tally(self) -> Tally:
        """What it has done so far."""
        ...

    def answer(self, question: Question) -> Any:
        """What there is to say to a question about what it holds."""


DistantFactory = Callable[[], DistantWorker]
"""Travels between processes too, so it can be pickled."""
