"""Live progress of a run: a bar on a terminal, one line at a time elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Generator
from typing import ClassVar, TextIO

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


class _Counting:
    """Counts pairs; the clock starts with the first, so that rates leave out the loading of the model."""

    moves: ClassVar[bool] = False
    """Whether it shows each step as it begins."""

    def __init__(self) -> None:
        self._done = self._total = 0
        self._started = 0.0

    def start(self, total: int) -> None:
        """So many pairs will come."""
        self._total, self._started = total, time.perf_counter()

    def advance(self, pairs: int) -> None:
        """So many more are done."""
        self._done += pairs
        self._show(time.perf_counter() - self._started)

    def finish(self) -> None:
        """No more pairs will come."""

    def tell(self, text: str) -> None:
        """What is being done."""

    def close(self) -> None:
        """Leave nothing behind; may be called again."""

    def _show(self, seconds: float) -> None:
        raise NotImplementedError


class SilentProgress(_Counting):
    """For whoever wants nothing but the result."""

    def _show(self, seconds: float) -> None:
        del seconds


class LineProgress(_Counting):
    """For logs and pipes: pairs, a line every other second and at the end, then what takes longer than that."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._shown = 0.0
        self._finished = False

    def advance(self, pairs: int) -> None:
        """So many more are done; nothing new after the last."""
        if pairs or self._done < self._total:
            super().advance(pairs)

    def _show(self, seconds: float) -> None:
        if seconds - self._shown >= LINE_SECONDS or self._done == self._total:
            self._say(progress_text(self._done, self._total, seconds), seconds)

    def finish(self) -> None:
        """Go on with what is being done."""
        self._finished = True

    def tell(self, text: str) -> None:
        """What is being done once all pairs are, if something was for long."""
        if self._finished and (seconds := time.perf_counter() - self._started) - self._shown >= LINE_SECONDS:
            self._say(text, seconds)

    def _say(self, text: str, seconds: float) -> None:
        self._shown = seconds
        # Hours of work must not end because nobody reads along any more.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{text}\n")
            self._stream.flush()


class BarProgress(_Counting):
    """For terminals: a bar that says what is being done, pulses where nothing can be counted, and leaves no trace."""

    moves = True

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._bar = Progress(
            BarColumn(), TextColumn("{task.description}", markup=False), console=console, transient=True
        )
        self._task = self._bar.add_task("Starting", total=None)
        self._measuring = False
        self._bar.start()

    def tell(self, text: str) -> None:
        """What is being done, unless pairs are being counted."""
        if not self._measuring:
            self._bar.update(self._task, description=text)

    def start(self, total: int) -> None:
        """So many pairs will come."""
        super().start(total)
        self._measuring = True
        self._bar.update(self._task, total=total)
        self._show(0)

    def _show(self, seconds: float) -> None:
        text = progress_text(self._done, self._total, seconds)
        self._bar.update(self._task, completed=self._done, description=text)

    def finish(self) -> None:
        """Go back to what is being done."""
        self._measuring = False
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task("Writing tables", total=None)  # one without an end pulses

    def close(self) -> None:
        """Take the bar away; may be called again."""
        self._bar.stop()


@contextlib.contextmanager
def shown_progress(
    messages: Console, *, quiet: bool = False
) -> Generator[SilentProgress | LineProgress | BarProgress, None, None]:
    """A bar on a terminal, lines elsewhere, nothing with `quiet`; gone at the end.

    Args:
        messages: the console of standard error.
        quiet: whether nothing is shown.
    """
    shown = SilentProgress() if quiet else BarProgress(messages) if messages.is_terminal else LineProgress(sys.stderr)
    with contextlib.closing(shown):
        yield shown
