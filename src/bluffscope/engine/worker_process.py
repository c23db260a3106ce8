"""Where a worker lives in a process of its own: fed with shards, it works as the local engine does."""

from __future__ import annotations

import io
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from bluffscope.engine.base import Description, DistantFactory, DistantWorker, Question, Tally
from bluffscope.host.buffers import kept_heap
from bluffscope.records import Stretch


class Said(NamedTuple):
    """A line of a worker's log."""

    logger: str
    level: int
    message: str


@dataclass(frozen=True)
class News:
    """What a worker tells from time to time."""

    pairs: int
    """Pairs that it has done since it was made."""
    tally: Tally
    said: tuple[Said, ...]
    """Warnings and errors since it was last asked."""


@dataclass(frozen=True)
class Measured:
    """A shard's table on its way, and what else there is to tell."""

    table: np.ndarray
    """Arrow's file format, in bytes: Ray moves an array without copying it."""
    news: News


class _Records(logging.Handler):
    """Keeps warnings and errors until they are requested."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: list[Said] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(Said(record.name, record.levelno, record.getMessage()))

    def taken(self) -> tuple[Said, ...]:
        with self.lock or Lock():
            said, self._said = self._said, []
        return tuple(said)


class Station:
    """A worker and the threads in which it works; its methods may be called from several threads at once."""

    def __init__(self, make_worker: DistantFactory) -> None:
        """Begin to make the worker.

        Args:
            make_worker: called in this process, once.
        """
        self._records = _Records()
        logging.getLogger("bluffscope").addHandler(self._records)
        self._pairs = 0
        self._lock = Lock()
        self._heap = ExitStack()
        self._preparing, self._measuring, self._tabulating = (
            ThreadPoolExecutor(1, f"bluffscope-{step}") for step in ("prepare", "measure", "tabulate")
        )
        self._made = self._measuring.submit(self._make, make_worker)  # in the thread that measures

    def describe(self) -> tuple[int, Description, News]:
        """The process's id, what the worker loaded and its news; waits until it is there."""
        return os.getpid(), self._made.result().describe(), self.news()

    def measure(self, shard: Stretch[Any]) -> Measured:
        """The table of a shard, once its turn has come."""
        with self._lock:  # all three steps take shards in one order
            prepared = self._preparing.submit(lambda: self._made.result().prepare(shard))
            measured = self._measuring.submit(lambda: self._made.result().measure(prepared.result(), self._advance))
            table = self._tabulating.submit(lambda: self._made.result().tabulate(measured.result()))
        packed = io.BytesIO()
        table.result().write_ipc(packed)
        return Measured(np.frombuffer(packed.getbuffer(), dtype=np.uint8), self.news())

    def news(self) -> News:
        """What has happened since it was last asked; answered while the worker is still being made, too."""
        made = self._made.done() and self._made.exception() is None
        return News(self._pairs, self._made.result().tally() if made else Tally(), self._records.taken())

    def answer(self, question: Question) -> Any:
        """What the worker answers; to be asked while it measures nothing."""
        return self._made.result().answer(question)

    def _make(self, make_worker: DistantFactory) -> DistantWorker:
        worker = make_worker()
        self._heap.enter_context(kept_heap())  # as long as the process lives
        return worker

    def _advance(self, pairs: int) -> None:
        self._pairs += pairs


def unpacked(table: np.ndarray) -> pl.DataFrame:
    """The table that a station packed."""
    return pl.read_ipc(io.BytesIO(table.tobytes()))
