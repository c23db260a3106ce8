"""The contract of an engine: it takes a worker factory and shards, and hands back each shard's table once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import polars as pl

from bluffscope.records import Shard

Commit = Callable[[Shard, pl.DataFrame], None]
"""Makes a shard's table durable; called once a shard, in the driver's process."""


class Worker(Protocol):
    """Holds model and SAEs, and measures shards one after another."""

    def run(self, shard: Shard, advance: Callable[[int], None]) -> pl.DataFrame:
        """The table of a shard; `advance` is told how many more pairs are done."""
        ...


WorkerFactory = Callable[[], Worker]


class Engine(Protocol):
    """Runs shards."""

    def run(
        self, shards: Iterable[Shard], make_worker: WorkerFactory, commit: Commit, advance: Callable[[int], None]
    ) -> None:
        """Measure every shard and commit its table."""
        ...
