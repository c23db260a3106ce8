"""What the page's table says of a folder: one `Row`, whatever lies in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import quote

from bluffscope.errors import InputError
from bluffscope.host.parquet_limits import LargeParquetError
from bluffscope.report.labels import clean
from bluffscope.report.view.documents import (
    DocumentError,
    last_messages,
    read_json,
    read_options,
    text,
    under,
    whole,
)
from bluffscope.report.view.folders import File, Folder, Kind, offered
from bluffscope.report.view.statistics import Area, Effect, area, detector, strongest
from bluffscope.report.view.underway import Progress, progress
from bluffscope.table.damage import MANIFEST, checked
from bluffscope.table.health import read_health

Said = TypeVar("Said")
State = Literal["finished", "running", "stopped", "unreadable", "reading"]

_WIDE: Final = 80
"""Characters of a name."""
_LONG: Final = 200
"""Characters of a message."""
_MESSAGES: Final = 3


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    """The folder's place below the root."""
    href: str
    """What its files' addresses start with."""
    kind: Kind
    state: State = "reading"
    model: str | None = None
    data: str | None = None
    n: int | None = None
    items: str = "pairs"
    health: str | None = None
    sound: bool | None = None
    """Whether the health gate passed; None where it did not run."""
    effect: Effect | None = None
    detector: Area | None = None
    date: str | None = None
    """ISO 8601, UTC."""
    progress: Progress | None = None
    messages: list[str] = field(default_factory=list[str])
    """The last ones of the log of a run that has not finished."""
    problem: str | None = None
    """What cannot be read, in a few words."""
    files: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Names and bytes."""

    def entry(self) -> dict[str, Any]:
        """It as JSON has it."""
        return asdict(self)


def unread(root: Path, folder: Folder) -> Row:
    """The line before anything in the folder is read."""
    name = "/".join(folder.parts) or root.name
    address = "/".join(quote(os.fsencode(part), safe="") for part in ("files", *folder.parts))
    files = [(name, file.size) for name, file in offered(folder)]
    newest = max((file.changed for file in folder.files.values()), default=None)
    return Row(clean(name, 160), address, folder.kind, date=_stamp(newest), files=files)


def read(root: Path, folder: Folder, held: frozenset[int]) -> Row:
    """The line of a folder; one that cannot be read says why.

    Args:
        root: what the folder's parts start from.
        folder: what lies there.
        held: locks that some process holds, see `bluffscope.report.view.underway.locks`.
    """
    row = unread(root, folder)
    try:
        if folder.kind == "detector":
            return _detector(root, folder, row)
        if "manifest.json" in folder.files:
            return _finished(root, folder, row)
        return _unfinished(root, folder, row, held)
    except (DocumentError, InputError) as error:
        return replace(row, state="unreadable", problem=_without(root, folder, error))


def _finished(root: Path, folder: Folder, row: Row) -> Row:
    path = root.joinpath(*folder.parts)
    manifest = checked(read_json(root, (*folder.parts, "manifest.json")), MANIFEST, path / "manifest.json")
    health = read_health(manifest)
    warnings = sum(item.severity == "warning" for item in health.findings)
    noted = f", {warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    said = "failed" if health.unsound else f"passed{noted}" if health.ran else "not checked"
    tables = under(manifest, "files") or {}
    effect, wrong = _of(root, folder, "stats.parquet", strongest)
    found, wrong_too = _of(root, folder, "detectors.parquet", detector)
    return replace(
        row,
        state="finished",
        model=_named(under(manifest, "model", "name")),
        data=_named(under(manifest, "data", "name")),
        n=whole(under(manifest, "counts", "measured")),
        items="texts" if "texts.parquet" in tables and "pairs.parquet" not in tables else "pairs",
        health=said,
        sound=not health.unsound if health.ran else None,
        effect=effect,
        detector=found,
        problem=wrong or wrong_too,
        date=_date(manifest.get("created")) or row.date,
    )


def _of(
    root: Path, folder: Folder, name: str, read: Callable[[Path, Sequence[str]], Said | None]
) -> tuple[Said | None, str | None]:
    """What a table says, where the folder has it; and why it cannot be read, where it cannot."""
    if name not in folder.files:
        return None, None
    import pyarrow  # 0.2 s, and a folder of runs under way has no tables

    try:
        return read(root, (*folder.parts, name)), None
    except LargeParquetError as error:
        return None, clean(f"{name}: {error}", _LONG)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, TypeError):
        return None, f"{name} is damaged"


def _without(root: Path, folder: Folder, error: Exception) -> str:
    """A message without the path in front of it, which says less than the row does."""
    return clean(str(error).replace(f"{root.joinpath(*folder.parts)}{os.sep}", ""), _LONG)


def _unfinished(root: Path, folder: Folder, row: Row, held: frozenset[int]) -> Row:
    how = progress(root, folder, held)
    row = replace(row, state="running" if how.running else "stopped", progress=how)
    messages = last_messages(root, (*folder.parts, "log.jsonl"), _MESSAGES)
    row = replace(row, messages=[clean(message, _LONG) for message in messages])
    if "config.yaml" in folder.files:
        options = _options(root, folder.parts, folder.files["config.yaml"])
        row = replace(
            row,
            model=_named(under(options, "model", "model")),
            data=_named(under(options, "data", "data")),
            date=_stamp(folder.files["config.yaml"].changed),
        )
    elif "study.json" in folder.files:
        asked = read_json(root, (*folder.parts, "study.json"))
        row = replace(row, model=_named(under(asked, "asking", "model")))
    return replace(row, n=how.total)


@lru_cache(maxsize=4096)
def _options(root: Path, parts: tuple[str, ...], _: File) -> dict[str, Any]:
    """A run's options, read once for each state of the file: YAML takes 20 ms, and running runs are read often."""
    return read_options(root, (*parts, "config.yaml"))


def _detector(root: Path, folder: Folder, row: Row) -> Row:
    about = read_json(root, (*folder.parts, "detector.json"))
    name = text(about.get("on")) or ""
    rows: object = under(about, "evaluation", "cross_validated")
    own = [
        cast("dict[str, Any]", one)
        for one in (cast("list[object]", rows) if isinstance(rows, list) else [])
        if isinstance(one, dict) and cast("dict[str, Any]", one).get("detector") == name
    ]
    trained: Mapping[str, Any] = under(about, "trained") if isinstance(under(about, "trained"), dict) else {}
    items = "pairs" if "pairs" in trained else "texts"
    return replace(
        row,
        state="finished",
        model=_named(under(about, "model", "name")),
        data=_named(under(about, "config", "data", "data")),
        n=whole(trained.get(items)),
        items=items,
        detector=area(name, own[0]) if own else None,
        date=_date(about.get("created")) or row.date,
    )


def _named(value: object) -> str | None:
    """A model's or a data set's name; of a path its last part: the machine's folders say nothing."""
    said = text(value)
    if not said:
        return None
    absolute = PurePosixPath(said).is_absolute() or PureWindowsPath(said).is_absolute()
    return clean((PureWindowsPath(said).name or said) if absolute else said, _WIDE)


def _date(value: object) -> str | None:
    """A moment that a file names."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) and len(value) < 64 else None
        if found is None:
            return None
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return None


def _stamp(seconds: float | None) -> str | None:
    """A moment in seconds since the epoch."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
