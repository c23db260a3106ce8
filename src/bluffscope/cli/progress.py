"""Live progress of a run: a bar on a terminal, one line at a time elsewhere."""

from __future__ import annotations

import contextlib
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 2.0
"""Lines come no more often than this, except the last."""


def progress_text(done: int, total: int, seconds: float) -> str:
    """`Progress: 80/200 samples | Rate: 8.5 samples/sec | ETA: 14s` (a sample is a pair)."""
    rate = done / seconds if seconds > 0 else 0.0
    left = _duration((total - done) / rate) if rate > 0 else "?"
    return f"Progress: {done}/{total} samples | Rate: {rate:.1f} samples/sec | ETA: {left}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


class LineProgress:
    """For logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._done = self._total = 0
        self._started = self._shown = 0.0

    def start(self, total: int) -> None:
        """The clock starts here: rates leave out the loading of the model."""
        self._total = total
        self._started = self._shown = time.perf_counter()

    def advance(self, pairs: int) -> None:
        """Print a line if the last is old enough, or this is the last."""
        if not pairs and self._done == self._total:
            return  # the last line is there already
        self._done += pairs
        now = time.perf_counter()
        if now - self._shown >= LINE_SECONDS or self._done == self._total:
            self._shown = now
            # Hours of work must not end because nobody reads along any more.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(progress_text(self._done, self._total, now - self._started) + "\n")
                self._stream.flush()

    def finish(self) -> None:
        """Nothing is left to tidy."""

    def tell(self, text: str) -> None:
        """Logs hear of pairs alone."""

    def close(self) -> None:
        """Nothing is left to tidy."""


class BarProgress:
    """For terminals: a bar that says what is being done, pulses where nothing can be counted, and leaves no trace."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            BarColumn(), TextColumn("{task.description}", markup=False), console=console, transient=True
        )
        self._task = self._bar.add_task("Starting", total=None)
        self._done = self._total = 0
        self._started = 0.0
        self._measuring = False
        self._bar.start()

    def tell(self, text: str) -> None:
        """Say what is being done, unless pairs are being counted."""
        if not self._measuring:
            self._bar.update(self._task, description=text)

    def start(self, total: int) -> None:
        """The clock starts here: rates leave out the loading of the model."""
        self._total, self._measuring = total, True
        self._started = time.perf_counter()
        self._bar.update(self._task, total=total, completed=0, description=progress_text(0, total, 0))

    def advance(self, pairs: int) -> None:
        """Move the bar."""
        self._done += pairs
        text = progress_text(self._done, self._total, time.perf_counter() - self._started)
        self._bar.update(self._task, completed=self._done, description=text)

    def finish(self) -> None:
        """Go back to saying what is being done."""
        self._measuring = False
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task("Writing tables", total=None)  # one without an end pulses

    def close(self) -> None:
        """Take the bar away; may be called again."""
        self._bar.stop()
