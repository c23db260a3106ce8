"""The warnings and errors of a run, in its log.jsonl."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from bluffscope.host.redaction import redacted
from bluffscope.table.folder import RunFolder

_own: ContextVar[RunLog | None] = ContextVar("own", default=None)
"""The log of the run that this thread works for."""


class RunLog(logging.Handler):
    """Puts a run's own warnings and errors into its log.jsonl; those that came before the folder, once it is there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._folder: RunFolder | None = None
        self._early: list[logging.LogRecord] = []
        self.addFilter(lambda _: _own.get() is self)

    def open(self, folder: RunFolder) -> None:
        """The folder is there."""
        self._folder = folder
        for record in self._early:
            self.emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or keep it until there is a folder."""
        if self._folder is None:
            self._early.append(record)
        else:
            self._folder.log("error" if record.levelno >= logging.ERROR else "warning", redacted(record.getMessage()))


@contextmanager
def logging_to(log: RunLog) -> Generator[RunLog, None, None]:
    """Within the block, what the package logs in this thread, and in those that a run starts, is also written there."""
    package = logging.getLogger("bluffscope")
    # Where nobody has set up logging, Python would print warnings; with a handler of ours it would not.
    last_resort = None if package.hasHandlers() else logging.lastResort
    handlers = [handler for handler in (log, last_resort) if handler is not None]
    for handler in handlers:
        package.addHandler(handler)
    before = _own.set(log)
    try:
        yield log
    finally:
        _own.reset(before)
        for handler in handlers:
            package.removeHandler(handler)
