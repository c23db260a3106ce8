"""Standard output and error as the commands write to them: full, closed or narrow, they cost a line, never a run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from typing import Any, TextIO


class OutputError(OSError):
    """Standard output cannot be written."""


class _Stream:
    """A standard stream whose failures can be distinguished from those of other files.

    A pipe that nobody reads is left to its writer. Standard error fails silently: the exit code says it too.
    """

    def __init__(self, stream: TextIO, *, needed: bool) -> None:
        self._stream = stream
        self._needed = needed

    def write(self, text: str) -> int:
        with self._failures():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._failures():
            self._stream.flush()

    def drain(self) -> None:
        """Leave nothing for Python to flush at exit: where it fails, that is its exit code."""
        try:
            self._stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _failures(self) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            if self._needed and isinstance(error, BrokenPipeError):
                raise
            if self._needed:
                raise OutputError(error.errno, error.strerror) from error


@contextlib.contextmanager
def lasting_streams() -> Generator[None, None, None]:
    """Replace `sys.stdout` and `sys.stderr` by such streams; nothing is left to flush at exit."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout, needed=True), _lasting(sys.stderr, needed=False)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Stream):
                stream.drain()
        sys.stdout, sys.stderr = (was or now for was, now in zip(before, (sys.stdout, sys.stderr), strict=True))


def _lasting(stream: TextIO | None, *, needed: bool) -> Any:
    if stream is None:  # closed by the caller; whatever file is opened next would take its place
        return open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - stays open
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    return _Stream(stream, needed=needed)
