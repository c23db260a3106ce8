"""What the page's table says of a folder: one `Row`, whatever lies in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import quote

from bluffscope.errors import InputError
from bluffscope.host.parquet_limits import LargeParquetError
from bluffscope.host.terminal import count
from bluffscope.report.labels import clean
from bluffscope.report.summary import POOLED
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
from bluffscope.report.view.statistics import Area, Effect, area, carried, detectors, strongest
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
    effects: list[Effect] = field(default_factory=list[Effect])
    """The strongest ones, apart for what the model knows and does not know where the run says so."""
    detectors: list[Area] = field(default_factory=list[Area])
    """How well a detector does, likewise."""
    said: str | None = None
    """What a comparison, a transfer or a linter found, in a sentence."""
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


def read(root: Path, folder: Folder, held: frozenset[int], let_go: frozenset[int] = frozenset()) -> Row:
    """The line of a folder; one that cannot be read says why.

    Args:
        root: what the folder's parts start from.
        folder: what lies there.
        held: locks that some process holds, see `bluffscope.report.view.underway.locks`.
        let_go: those that one held earlier and holds no more.
    """
    row = unread(root, folder)
    try:
        if folder.kind in _OTHERS:
            return replace(_OTHERS[folder.kind](root, folder, row), state="finished")
        if "manifest.json" in folder.files:
            return _finished(root, folder, row)
        return _unfinished(root, folder, row, held, let_go)
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
    effects, wrong = _of(root, folder, "stats.parquet", partial(strongest, manifest=manifest))
    found, wrong_too = _of(root, folder, "detectors.parquet", partial(detectors, manifest=manifest))
    return replace(
        row,
        state="finished",
        model=_named(under(manifest, "model", "name")),
        data=_named(under(manifest, "data", "name")),
        n=whole(under(manifest, "counts", "measured")),
        items="texts" if "texts.parquet" in tables and "pairs.parquet" not in tables else "pairs",
        health=said,
        sound=not health.unsound if health.ran else None,
        effects=effects or [],
        detectors=found or [],
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
    from polars.exceptions import PolarsError

    try:
        return read(root, (*folder.parts, name)), None
    except LargeParquetError as error:
        return None, clean(f"{name}: {error}", _LONG)
    except (pyarrow.ArrowException, PolarsError, OSError, ValueError, OverflowError, TypeError):
        return None, f"{name} is damaged"


def _without(root: Path, folder: Folder, error: Exception) -> str:
    """A message without the path in front of it, which says less than the row does."""
    return clean(str(error).replace(f"{root.joinpath(*folder.parts)}{os.sep}", ""), _LONG)


def _unfinished(root: Path, folder: Folder, row: Row, held: frozenset[int], let_go: frozenset[int]) -> Row:
    how = progress(root, folder, held, let_go=let_go)
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
    rows = _objects(under(about, "evaluation", "cross_validated"))
    own = [one for one in rows if one.get("detector") == name]
    trained: Mapping[str, Any] = under(about, "trained") if isinstance(under(about, "trained"), dict) else {}
    items = "pairs" if "pairs" in trained else "texts"
    return replace(
        row,
        model=_named(under(about, "model", "name")),
        data=_named(under(about, "config", "data", "data")),
        n=whole(trained.get(items)),
        items=items,
        detectors=[found] if own and (found := area(name, own[0])) else [],
        date=_date(about.get("created")) or row.date,
    )


def _comparison(root: Path, folder: Folder, row: Row) -> Row:
    """In how many metrics each run's verdicts over all items are those of the first."""
    about = read_json(root, (*folder.parts, "compare.json"))
    rows = [one for one in _objects(about.get("rows")) if one.get("scope") == POOLED]
    said: list[str] = []
    others = _objects(about.get("others"))
    for other in others[:_MESSAGES]:
        agree = [one["agrees"] for one in rows if one.get("run") == other.get("run") and one.get("agrees") is not None]
        met = f"verdicts agree in {sum(map(bool, agree))} of {count(len(agree), 'metric')}" if agree else "compared"
        said.append(f"{_named(other.get('run')) or 'a run'}: {met}")
    said += [f"{len(others) - _MESSAGES} more"] if len(others) > _MESSAGES else []
    with_first = f"With {_named(about.get('first')) or 'the first run'}: {'; '.join(said)}"
    return replace(row, n=whole(others[0].get("shared")) if others else None, said=clean(with_first, _LONG))


def _transfer(root: Path, folder: Folder, row: Row) -> Row:
    said, wrong = _of(root, folder, "transfer_matrix.parquet", carried)
    if wrong is not None:
        raise DocumentError(wrong)
    return replace(row, said=said)


def _lint(root: Path, folder: Folder, row: Row) -> Row:
    about = read_json(root, (*folder.parts, "lint.json"))
    items = "texts" if about.get("items") == "texts" else "pairs"
    said = clean(text(about.get("headline")) or "No error and no warning", _LONG)
    return replace(row, data=_named(about.get("data")), n=whole(about.get("rows")), items=items, said=said)


_OTHERS: Final[dict[str, Callable[[Path, Folder, Row], Row]]] = {
    "detector": _detector,
    "comparison": _comparison,
    "transfer": _transfer,
    "lint": _lint,
}
"""Readers of what is no run."""


def _objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list, or nothing."""
    return [one for one in cast("list[Any]", value) if isinstance(one, dict)] if isinstance(value, list) else []


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
