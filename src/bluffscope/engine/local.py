"""Shards one after another, in this process; reading and writing overlap the model's work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bluffscope.engine.base import Commit, WorkerFactory
from bluffscope.engine.queues import ahead, behind
from bluffscope.records import Shard


@dataclass(frozen=True)
class LocalEngine:
    """The engine of a single machine: one worker, made once."""

    depth: int = 1
    """Shards prepared ahead of the model, and as many waiting to be written behind it; 0 does one thing at a time."""

    def run(
        self, shards: Iterable[Shard], make_worker: WorkerFactory, commit: Commit, advance: Callable[[int], None]
    ) -> None:
        """Measure every shard, in order; an error of any side ends the others and is raised."""
        worker = make_worker()

        def write(item: tuple[Shard, Any]) -> None:
            shard, measured = item
            commit(shard, worker.tabulate(measured))

        prepared = ahead(((shard, worker.prepare(shard)) for shard in shards), self.depth)
        try:
            with behind(write, self.depth) as hand_on:
                for shard, ready in prepared:
                    hand_on((shard, worker.measure(ready, advance)))
        finally:
            prepared.close()
