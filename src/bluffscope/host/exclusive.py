"""One call at a time in a process: what a call changes for the whole process, no other call sees.

While models and SAEs load, Python's warning filter, other libraries' settings and `torch.load` are changed, and
transformers and scikit-learn change the first themselves. Two threads that did so at once would see each other's
settings and put back the wrong ones. And numpy's error state is as in a fresh process, whatever the caller has set.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock, Thread
from typing import Final

from bluffscope.errors import InputError

_SAID_AFTER_SECONDS: Final = 1.0
"""How long a call waits for another before it says so."""
_POLARS_SECONDS: Final = 10.0
"""How long polars may take for two sums before its threads count as lost."""

_log = logging.getLogger(__name__)
_locks: dict[int, Lock] = {}
"""By process: a fork copies a lock as it stands, and nobody would open it there."""
_polars_works: set[int] = set()
"""Processes in which polars has been tried."""
_running: object | None = None
"""The call that the process is at."""
_own: ContextVar[object | None] = ContextVar("own", default=None)
"""The call that this thread works for; the threads that a call starts run in a copy of its context."""


@contextmanager
def exclusive() -> Generator[None, None, None]:
    """Run the block alone in this process: another thread's call waits, and logs that it does. May be nested.

    Raises:
        InputError: this process was forked from one that had used polars.
    """
    global _running
    import numpy as np  # a tenth of a second that `import bluffscope` and --help should not take

    if _running is not None and _own.get() is _running:
        yield
        return
    refuse_after_fork()
    lock = _locks.setdefault(os.getpid(), Lock())
    if not lock.acquire(timeout=_SAID_AFTER_SECONDS):
        _log.warning("waiting for another call of bluffscope in this process: there is one at a time")
        lock.acquire()
    _running = object()
    before = _own.set(_running)
    try:
        with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
            yield
    finally:
        _own.reset(before)
        _running = None
        lock.release()


def refuse_after_fork() -> None:
    """Refuse a process in which polars would wait for ever: threads that it had before a fork are not in the child.

    Raises:
        InputError: this is such a process.
    """
    if os.getpid() in _polars_works or "polars" not in sys.modules:
        return
    trial = Thread(target=_use_polars, name="bluffscope-trial", daemon=True)
    trial.start()
    trial.join(_POLARS_SECONDS)
    if trial.is_alive():
        raise InputError(
            "this process was forked from one that had used polars, whose threads are lost in a fork; start processes "
            'with multiprocessing.get_context("spawn") or "forkserver"'
        )
    _polars_works.add(os.getpid())


def _use_polars() -> None:
    import polars as pl  # loaded already

    pl.DataFrame({"a": [1], "b": [2]}).select(pl.col("a").sum(), pl.col("b").sum())  # two columns: on its threads
