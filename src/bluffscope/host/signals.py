"""Ctrl-C and SIGTERM while a run is under way: it ends between two batches, and nothing that is done is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from bluffscope.errors import RunStopped

_STOPPING: Final = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""The signals, and the handlers that a process has for them unless somebody chose others: those are left alone."""

Check = Callable[[], None]
"""Raises `RunStopped` once a signal came."""


@dataclass
class _Told:
    number: int | None = None


@contextmanager
def stoppable() -> Generator[Check, None, None]:
    """Within the block, a signal is only noted: the check that is yielded raises `RunStopped` at its next call.

    A second signal raises `KeyboardInterrupt` at once. Only Python's main thread hears signals: elsewhere nothing is
    changed, and the check never raises.
    """
    told = _Told()

    def hear(number: int, frame: FrameType | None) -> None:
        if told.number is not None:
            signal.default_int_handler(number, frame)
        told.number = number

    def check() -> None:
        if told.number is not None:
            raise RunStopped(told.number)

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
