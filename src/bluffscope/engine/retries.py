"""What is still to be measured when workers may die: finite retries, and the pair that kills its worker found.

A worker that dies takes with it the shard it was measuring and perhaps one that waited behind it. Both are tried
again, each alone on a worker, so that a second death has one cause. A shard that was measured at two deaths is cut
into halves, and a half that kills its worker into halves again, down to the pair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import polars as pl

from bluffscope.records import Stretch

DEATHS: Final = 2
"""A shard that has killed so many workers is cut up."""


@dataclass
class _Whole:
    """A shard of the input, and the tables of its parts that are done."""

    shard: Stretch[Any]
    done: dict[int, pl.DataFrame] = field(default_factory=dict[int, pl.DataFrame])
    """By the position of their first pair in the input."""


@dataclass(frozen=True)
class Task:
    """A shard, or a part of one, for a worker."""

    part: Stretch[Any]
    whole: _Whole = field(repr=False)
    deaths: int = 0
    """Workers that died while they measured it, or what it was cut from."""
    alone: bool = False
    """Whether a worker must have nothing else meanwhile."""


class Backlog:
    """Hands out shards until each is done; takes them from their source only on request."""

    def __init__(self, shards: Iterable[Stretch[Any]]) -> None:
        self._source: Iterator[Stretch[Any]] = iter(shards)
        self._again: deque[Task] = deque()

    def take(self, *, idle: bool) -> Task | None:
        """The next task for a worker; None where there is none for it now.

        Args:
            idle: whether the worker has nothing else to do; others are given nothing that has to run alone.
        """
        if idle and self._again:
            return self._again.popleft()
        shard = next(self._source, None)
        return None if shard is None else Task(shard, _Whole(shard))

    def done(self, task: Task, table: pl.DataFrame) -> tuple[Stretch[Any], pl.DataFrame] | None:
        """A task's table has arrived; returns the whole shard and its table once all parts are there."""
        whole = task.whole
        whole.done[task.part.items[0].index] = table
        if sum(map(len, whole.done.values())) < len(whole.shard.items):
            return None
        return whole.shard, pl.concat(whole.done[first] for first in sorted(whole.done))

    def lost(self, tasks: Sequence[Task]) -> Task | None:
        """A worker died with these tasks, the one it was measuring first; returns a task to give up: one fatal pair."""
        waiting: list[Task] = []
        given_up: Task | None = None
        for position, task in enumerate(tasks):
            task = replace(task, alone=True, deaths=task.deaths + (position == 0))
            if task.deaths < DEATHS:
                waiting.append(task)
            elif len(task.part.items) > 1:
                # A half that kills its worker is cut at once.
                waiting += [replace(task, part=half, deaths=DEATHS - 1) for half in _halves(task.part)]
            else:
                given_up = task
        self._again.extendleft(reversed(waiting))
        return given_up


def _halves(shard: Stretch[Any]) -> list[Stretch[Any]]:
    middle = len(shard.items) // 2
    halves = (slice(middle), slice(middle, None))
    return [replace(shard, items=shard.items[half], groups=shard.groups[half]) for half in halves]
