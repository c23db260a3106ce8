"""Ctrl-C and SIGTERM while a run is under way: it ends between two batches, and nothing that is done is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from bluffscope.errors import RunStopped

_STOPPING: Final = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""The signals, and the handlers that a process has for them unless somebody chose others: those are left alone."""

Check = Callable[[], None]
"""Raises `RunStopped` once a signal came."""


@contextmanager
def stoppable() -> Generator[Check, None, None]:
    """Within the block, a signal is only noted: the check that is yielded raises `RunStopped` at its next call.

    A second signal raises `KeyboardInterrupt` at once. Only Python's main thread hears signals: elsewhere nothing is
    changed, and the check never raises.
    """
    told: int | None = None

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told is not None:
            signal.default_int_handler(number, frame)
        told = number

    def check() -> None:
        if told is not None:
            raise RunStopped(told)

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    ours = [number for number, usual in _STOPPING.items() if signal.getsignal(number) == usual]
    for number in ours:
        signal.signal(number, hear)
    try:
        yield check
    finally:
        for number in ours:
            signal.signal(number, _STOPPING[number])
