"""Where the time of a run goes."""

from __future__ import annotations

import threading
import time
import timeit
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")


class _Running(threading.local):
    """The stages that one thread is in, outermost first, and since when the innermost one's clock runs."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.since = 0.0


@dataclass
class Stopwatch:
    """Seconds by stage; a stage inside another stops the outer one's clock, so that a thread's stages add up.

    Several threads may use it at once: their seconds are summed, and can be more than the time that went by.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    entered: Callable[[str], None] | None = None
    """Called with each stage's name as the stage begins."""
    _running: _Running = field(default_factory=_Running)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def stage(self, name: str) -> Generator[None, None, None]:
        """Count the time inside the block towards the stage."""
        self._switch()
        self._running.stages.append(name)
        if self.entered is not None:
            self.entered(name)
        try:
            yield
        finally:
            self._switch()
            self._running.stages.pop()

    def each(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        """The items, the time it takes to make them counted towards the stage."""
        while True:
            with self.stage(name):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def _switch(self) -> None:
        now = time.perf_counter()
        running = self._running
        if running.stages:
            stage = running.stages[-1]
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + now - running.since
        running.since = now


def best_seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the shortest of some runs, after one that does not count."""
    run()
    return min(timeit.repeat(run, number=1, repeat=repeats))


@dataclass(frozen=True)
class Tally:
    """What a worker has done since it was made; sums over workers are of the same kind."""

    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """By stage."""
    work: Mapping[str, int] = field(default_factory=dict[str, int])
    """Forwards, tokens, ..."""
    peak_bytes: int = 0
    """The most memory held where the model is; of several workers, the largest."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            _summed(self.seconds, other.seconds), _summed(self.work, other.work), max(self.peak_bytes, other.peak_bytes)
        )


def _summed(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}
