"""Overlapping work: items are made ahead of use and handed on after it, through bounded queues."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

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


@contextmanager
def behind(take: Callable[[Item], None], depth: int) -> Generator[Callable[[Item], None], None, None]:
    """A function that hands items on to `take`, which runs in a thread behind, at most `depth` items late.

    Handing on waits while `depth` items are waiting, and raises what `take` raised for an earlier item; nothing more is
    taken then. Leaving the block waits for the last item and raises what `take` raised. If the block itself fails, the
    item in work is finished, those still waiting are dropped, and the block's error stands; but for a `RunStopped` they
    are done too, since nothing has gone wrong. With depth 0 there is no thread.
    """
    if depth < 1:
        yield take
        return
    waiting: queue.Queue[Item | _Ended] = queue.Queue(depth)
    failed: list[BaseException] = []
    stopped: RunStopped | None = None

    def work() -> None:
        while not isinstance(item := waiting.get(), _Ended):
            if not failed:
                try:
                    take(item)
                except BaseException as error:  # raised again by who hands on or leaves the block
                    failed.append(error)

    def hand_on(item: Item) -> None:
        if failed:
            raise failed[0]
        waiting.put(item)

    thread = _thread(work, "bluffscope-behind")
    thread.start()
    try:
        yield hand_on
    except RunStopped as error:
        stopped = error
    except BaseException:
        failed.append(InterruptedError())
        raise
    finally:
        waiting.put(_Ended(None))
        thread.join()
    if failed:
        raise failed[0]
    if stopped is not None:
        raise stopped
