"""A session: one stretch of work on a run, from its start to its end or its death."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bluffscope.config import RunConfig
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.pairs import Scan, Source
from bluffscope.pipeline.shard import cut_shards
from bluffscope.pipeline.worker import Loaded
from bluffscope.records import Shard
from bluffscope.runs.identity import Identity
from bluffscope.runs.workers import Crew


@dataclass(frozen=True)
class Clock:
    """When a session began, and how its time was spent."""

    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    start: float = field(default_factory=time.perf_counter)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat())


@dataclass(frozen=True)
class Session:
    """What a session does, and what is counted of it."""

    clock: Clock
    config: RunConfig
    source: Source
    scan: Scan
    crew: Crew
    identity: Identity
    left_out: tuple[str, ...] = ()
    """What is done by default and was not, each with its reason."""

    @property
    def loaded(self) -> Loaded:
        """What the workers loaded."""
        return self.crew.loaded

    def shards(self) -> Iterator[Shard]:
        """All shards of the input."""
        return cut_shards(self.source.grouped(), self.config.engine.shard_pairs, self.scan.arrangement)

    def said(self) -> dict[str, Any]:
        """What is known of it by now."""
        elapsed = time.perf_counter() - self.clock.start
        return {
            "started": self.clock.started,
            "elapsed": elapsed,
            "device": self.config.model.device,
            "timings": {**self.clock.stopwatch.seconds, "total": elapsed},
            "computed": dict(self.crew.tally().work),
        }

    def among(self, committed: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """All sessions that the shards know of, this one as it is now and last."""
        started = self.clock.started
        mine = next((session["pairs"] for session in committed if session["started"] == started), 0)
        earlier = [session for session in committed if session.get("started") not in (None, started)]
        return [*earlier, {**self.said(), "pairs": mine}]
