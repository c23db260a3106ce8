"""Where a worker lives in a process of its own: fed with shards, it works as the local engine does."""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from bluffscope.engine.base import Description, DistantFactory, DistantWorker, Question, Tally
from bluffscope.engine.queues import ahead, behind
from bluffscope.host.buffers import kept_heap
from bluffscope.records import Shard


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
    """A worker and the thread in which it works; its methods may be called from several threads at once."""

    def __init__(self, make_worker: DistantFactory) -> None:
        """Begin to make the worker.

        Args:
            make_worker: called in this process, once.
        """
        self._records = _Records()
        logging.getLogger("bluffscope").addHandler(self._records)
        self._made: Future[DistantWorker] = Future()
        self._lock = Lock()
        self._inbox: SimpleQueue[Shard | None] = SimpleQueue()
        self._outbox: deque[Future[pl.DataFrame]] = deque()
        self._failure: BaseException | None = None
        self._pairs = 0
        Thread(target=self._work, args=(make_worker,), name="bluffscope-station", daemon=True).start()

    def describe(self) -> tuple[int, Description, News]:
        """The process's id, what the worker loaded and what there was to say of it; waits until it is there."""
        return os.getpid(), self._made.result().describe(), self.news()

    def measure(self, shard: Shard) -> Measured:
        """The table of a shard, once its turn has come."""
        result: Future[pl.DataFrame] = Future()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._outbox.append(result)
            self._inbox.put(shard)
        packed = io.BytesIO()
        result.result().write_ipc(packed)
        return Measured(np.frombuffer(packed.getbuffer(), dtype=np.uint8), self.news())

    def news(self) -> News:
        """What has happened since it was last asked; answered while the worker is still being made, too."""
        made = self._made.done() and self._made.exception() is None
        return News(self._pairs, self._made.result().tally() if made else Tally(), self._records.taken())

    def answer(self, question: Question) -> Any:
        """What the worker answers; to be asked while it measures nothing."""
        return self._made.result().answer(question)

    def _work(self, make_worker: DistantFactory) -> None:
        try:
            worker = make_worker()
        except BaseException as error:  # raised again by who asks for the worker
            self._made.set_exception(error)
            return
        self._made.set_result(worker)
        prepared = ahead(self._prepared(worker), 1)
        try:
            with kept_heap(), behind(lambda measured: self._hand_out(worker.tabulate(measured)), 1) as hand_on:
                for ready in prepared:
                    hand_on(worker.measure(ready, self._advance))
        except BaseException as error:  # raised again by who waits for a shard
            with self._lock:
                self._failure = error
                for result in self._outbox:
                    result.set_exception(error)
        finally:
            self._inbox.put(None)  # or the thread that prepares would wait for ever, and `close` for it
            prepared.close()

    def _prepared(self, worker: DistantWorker) -> Iterator[Any]:
        while (shard := self._inbox.get()) is not None:
            yield worker.prepare(shard)

    def _hand_out(self, table: pl.DataFrame) -> None:
        self._outbox.popleft().set_result(table)  # tables come in the order of the shards

    def _advance(self, pairs: int) -> None:
        self._pairs += pairs


def unpacked(table: np.ndarray) -> pl.DataFrame:
    """The table that a station packed."""
    return pl.read_ipc(io.BytesIO(table.tobytes()))
