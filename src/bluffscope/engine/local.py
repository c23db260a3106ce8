"""Shards one after another, in this process; reading and writing overlap the model's work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bluffscope.engine.base import Advance, Commit, Worker
from bluffscope.engine.queues import ahead, behind
from bluffscope.records import Stretch


def run_here(shards: Iterable[Stretch[Any]], worker: Worker, commit: Commit, advance: Advance, depth: int = 1) -> None:
    """Measure every shard, in order; an error of any side ends the others and is raised.

    Args:
        shards: what is measured.
        worker: measures them.
        commit: receives each shard with its table.
        advance: receives how many more pairs are done.
        depth: shards prepared ahead of the model, and as many waiting to be written behind it; 0 does one thing at a
            time.
    """

    def write(item: tuple[Stretch[Any], Any]) -> None:
        shard, measured = item
        commit(shard, worker.tabulate(measured))

    prepared = ahead(((shard, worker.prepare(shard)) for shard in shards), depth)
    try:
        with behind(write, depth) as hand_on:
            for shard, ready in prepared:
                hand_on((shard, worker.measure(ready, advance)))
    finally:
        prepared.close()
