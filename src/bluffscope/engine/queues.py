"""Overlapping work: items are made ahead of use and handed on after it, through bounded queues."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from bluffscope.errors import RunStopped

Item = TypeVar("Item")
_POLL_SECONDS = 0.1
"""How often a thread that waits for room looks whether it is still wanted."""


@dataclass(frozen=True)
class _Ended:
    """What a thread says last."""

    error: BaseException | None


def _thread(work: Callable[[], None], name: str) -> threading.Thread:
    """A thread that works for the same call and run as this one: `exclusive` and the run's log know it."""
    return threading.Thread(target=copy_context().run, args=(work,), name=name, daemon=True)


def ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """The items in order, up to `depth` of them made beforehand by a thread of their own.

    An error while an item is made is raised where that item would have come. Who stops asking (an error, a
    `close`) ends the thread. With depth 0 there is no thread: each item is made on request.
    """
    if depth < 1:
        yield from items
        return
    made: queue.Queue[Item | _Ended] = queue.Queue(depth)
    unwanted = threading.Event()

    def put(item: Item | _Ended) -> None:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                made.put(item, timeout=_POLL_SECONDS)
                return

    def make() -> None:
        try:
            for item in items:
                put(item)
                if unwanted.is_set():
                    return
        except BaseException as error:  # raised again by who asks for the item
            put(_Ended(error))
        else:
            put(_Ended(None))

    thread = _thread(make, "bluffscope-ahead")
    thread.start()
    try:
        while not isinstance(item := made.get(), _Ended):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        thread.join()


class Behind(Generic[Item]):
    """Hands items to a function in a thread of its own, in order; made by `behind`."""

    def __init__(self, take: Callable[[Item], None], depth: int) -> None:
        self._take = take
        self._waiting: queue.Queue[Item | _Ended] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = _thread(self._work, "bluffscope-behind")
        self._thread.start()

    def put(self, item: Item) -> None:
        """Leave an item to the thread; waits while `depth` of them are waiting.

        Raises:
            Exception: what the function raised for an earlier item; nothing more is taken then.
        """
        self._raise_error()
        self._waiting.put(item)

    def finish(self, *, drain: bool) -> None:
        """Wait until everything is done, or with drain False until what is being done now is."""
        if not drain:
            self._error = self._error or InterruptedError()
        self._waiting.put(_Ended(None))
        self._thread.join()
        if drain:
            self._raise_error()

    def _work(self) -> None:
        while not isinstance(item := self._waiting.get(), _Ended):
            if self._error is None:
                try:
                    self._take(item)
                except BaseException as error:  # raised again by `put` or `finish`
                    self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


@contextmanager
def behind(take: Callable[[Item], None], depth: int) -> Generator[Callable[[Item], None], None, None]:
    """A function that hands items on to `take`, which runs in a thread behind, at most `depth` items late.

    Leaving the block waits for the last item and raises what `take` raised. If the block itself fails, the item in
    work is finished, those still waiting are dropped, and the block's error stands; but for a `RunStopped` they are
    done too, since nothing has gone wrong. With depth 0 there is no thread.
    """
    if depth < 1:
        yield take
        return
    worker = Behind(take, depth)
    try:
        yield worker.put
    except RunStopped:
        worker.finish(drain=True)
        raise
    except BaseException:
        worker.finish(drain=False)
        raise
    worker.finish(drain=True)
