"""The contract of an engine: it takes a worker factory and shards, and hands back each shard's table once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import polars as pl

from bluffscope.records import Shard

Commit = Callable[[Shard, pl.DataFrame], None]
"""Makes a shard's table durable; called once a shard, in the driver's process, from one thread at a time."""


class Worker(Protocol):
    """Holds model and SAEs, and measures shards in three steps, so that the outer two can run beside the middle one."""

    def prepare(self, shard: Shard) -> Any:
        """What can be done without the model: token ids and batches."""
        ...

    def measure(self, prepared: Any, advance: Callable[[int], None]) -> Any:
        """The model's part; `advance` is told how many more pairs are done."""
        ...

    def tabulate(self, measured: Any) -> pl.DataFrame:
        """The table of a shard."""
        ...


WorkerFactory = Callable[[], Worker]


class Engine(Protocol):
    """Runs shards."""

    def run(
        self, shards: Iterable[Shard], make_worker: WorkerFactory, commit: Commit, advance: Callable[[int], None]
    ) -> None:
        """Measure every shard and commit its table."""
        ...
