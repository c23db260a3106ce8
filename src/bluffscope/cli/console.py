"""Where the commands print: consoles that survive a closed pipe, and log messages as single lines."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Generator
from typing import Any, Final

from rich.console import Console

from bluffscope.host.redaction import redacted

PLAIN_WIDTH = 100
"""Columns of the output where there is no terminal."""
SEVERITIES: Final = {"error": "bold red", "warning": "bold yellow", "info": "bold", "note": "dim", "ok": "green"}
"""Styles of the findings of linter and health gate."""


class LastingConsole(Console):
    """A console that falls silent when its pipe is closed; rich's own would end the process, and with it the run."""

    def on_broken_pipe(self) -> None:
        """Print nothing more; what is left in the stream's buffer is nobody's loss either."""
        self.quiet = True
        if drain := getattr(self.file, "drain", None):
            drain()

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but leave no spaces at the ends of lines in logs and files."""
        if self.is_terminal or self.quiet:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        try:
            self.file.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))
            self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def say(self, *lines: str, style: str | None = None) -> None:
        """Print lines as they are: no markup, colours of numbers or line breaks."""
        for line in lines:
            self.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def output_console() -> LastingConsole:
    """For results, on standard output."""
    return LastingConsole(width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def message_console() -> LastingConsole:
    """For progress and messages, on standard error."""
    return LastingConsole(stderr=True)


class _MessageHandler(logging.Handler):
    """Each warning on one line, above the progress bar where there is one."""

    def __init__(self, console: LastingConsole, *, once: bool, notes: bool) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._once = once
        self._notes = notes
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        called = getattr(record, "called", record.levelname.lower())  # a note says what was done, and warns of nothing
        if called == "note" and not self._notes:
            return
        text = redacted(" ".join(f"{called}: {record.getMessage()}".split()))
        if self._once and text in self._said:
            return
        self._said.add(text)
        with contextlib.suppress(OSError, ValueError):
            self._console.say(text)


@contextlib.contextmanager
def messages_on(console: LastingConsole, *, once: bool = False, notes: bool = True) -> Generator[None, None, None]:
    """Send the package's warnings to this console; with `once`, each text a single time; notes where wanted."""
    package = logging.getLogger("bluffscope")
    handler, propagated = _MessageHandler(console, once=once, notes=notes), package.propagate
    package.addHandler(handler)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.propagate = propagated
