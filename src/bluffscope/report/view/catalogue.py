"""All lines of the table: read once, and again when a file of the folder has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bluffscope.report.view.folders import Folder, Walk, look, walk
from bluffscope.report.view.rows import Row, read, unread
from bluffscope.report.view.underway import locks

BUDGET: Final = 0.5
"""Seconds of a call that go into reading; what is not read by then follows with the next call."""
_PAUSE: Final = 1.5
"""Seconds between two walks over all folders, at least."""
_EFFORT: Final = 10
"""Of the time, at most one part in so many goes into walking."""


@dataclass(frozen=True)
class _Known:
    files: Mapping[str, Any]
    row: Row


class Catalogue:
    """What lies below a folder; calls from several threads wait for one another."""

    def __init__(self, root: Path) -> None:
        """Nothing is read yet.

        Args:
            root: the folder; it may be reached through a link.
        """
        self.root = root
        self._lock = threading.Lock()
        self._walk = Walk(())
        self._again = 0.0
        self._known: dict[tuple[str, ...], _Known] = {}
        self._held: set[int] = set()
        """Locks of runs that were held at some time."""

    def listing(self, budget: float = BUDGET) -> dict[str, Any]:
        """The lines, the newest folder first, as JSON has them.

        Returns:
            ``rows``; ``pending``, how many of them are not read yet; ``whole``, whether all folders were looked into.
        """
        with self._lock:
            rows = self._rows(time.monotonic() + budget)
        return {
            "rows": [row.entry() for row in rows],
            "pending": sum(row.state == "reading" for row in rows),
            "whole": self._walk.whole,
        }

    def folder(self, parts: tuple[str, ...]) -> Folder | None:
        """What lies at a place that the walk found; None elsewhere."""
        if not self._again:  # a link to a report may be followed before the page asks for anything
            with self._lock:
                self._look_around()
        return look(self.root, parts) if parts in self._walk.places else None

    def _look_around(self) -> None:
        """Walk over all folders, if it is time to."""
        began = time.monotonic()
        if began >= self._again:
            self._walk = walk(self.root)
            now = time.monotonic()
            self._again = now + max(_PAUSE, _EFFORT * (now - began))

    def _rows(self, end: float) -> list[Row]:
        self._look_around()
        folders = [folder for parts in self._walk.places if (folder := look(self.root, parts)) is not None]
        folders.sort(key=_newest, reverse=True)
        self._known = {folder.parts: self._known[folder.parts] for folder in folders if folder.parts in self._known}
        held = locks()
        self._held |= held & {folder.files[".lock"].number for folder in folders if ".lock" in folder.files}
        return [self._row(folder, held, end) for folder in folders]

    def _row(self, folder: Folder, held: frozenset[int], end: float) -> Row:
        known = self._known.get(folder.parts)
        moving = known is not None and known.row.state in ("running", "stopped")
        if known is not None and known.files == folder.files and not moving:
            return known.row
        if time.monotonic() > end:
            return unread(self.root, folder) if known is None else known.row
        row = read(self.root, folder, held, frozenset(self._held - held))
        self._known[folder.parts] = _Known(folder.files, row)
        return row


def _newest(folder: Folder) -> float:
    return max((file.changed for file in folder.files.values()), default=0.0)
