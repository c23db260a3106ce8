"""Shards one after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bluffscope.engine.base import Commit, WorkerFactory
from bluffscope.records import Shard


class LocalEngine:
    """The engine of a single machine: one worker, made once."""

    def run(
        self, shards: Iterable[Shard], make_worker: WorkerFactory, commit: Commit, advance: Callable[[int], None]
    ) -> None:
        """Measure every shard and commit its table before the next one starts."""
        worker = make_worker()
        for shard in shards:
            commit(shard, worker.run(shard, advance))
