"""Finds the folders of runs, studies and detectors below a folder, and opens their files; never through a link."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

Kind = Literal["run", "study", "detector", "answers", "comparison", "transfer", "lint"]

MOST_FOLDERS: Final = 20_000
"""Folders that are looked into; the page says where there are more."""
DEEPEST: Final = 12
"""Levels below the folder that are looked into."""
_PASSED_OVER: Final = frozenset({"node_modules", "__pycache__", "site-packages", "shards", "figures"})
_MARKS: Final = ("config.yaml", "manifest.json", "metrics.parquet", "shards")
"""Two of these make a run: each alone may be another program's."""
_ALONE: Final[dict[str, Kind]] = {
    "answers.jsonl.part": "answers",
    "compare.json": "comparison",
    "transfer_matrix.parquet": "transfer",
    "lint.json": "lint",
}
"""Files of folders that are no run: answers of a model that is being asked, and what commands write about runs."""
_FILES: Final = re.compile(
    r"report\.html|README\.md|config\.yaml|checksums\.txt|(answers|log)\.jsonl|weights\.safetensors"
    r"|(manifest|stats|study|detector|compare|lint)\.json"
    r"|(metrics|features|pairs|texts|paired|tokens|quarantine|residuals|further_residuals|fidelity|stats|ladder|compare|transfer|transfer_matrix|sweep"
    r"|detectors|detector_gains|detector_curves)\.parquet"
)
"""The files that the page offers; whatever else lies in a folder is not served."""
_FIGURE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}\.(png|svg)")
_MOST_FIGURES: Final = 60
_LINKLESS: Final = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)
_BY_DESCRIPTOR: Final = os.open in os.supports_dir_fd


@dataclass(frozen=True)
class File:
    """A plain file of a folder."""

    size: int
    changed: float
    """Seconds since the epoch."""
    number: int
    """Its inode."""


@dataclass(frozen=True)
class Folder:
    """A folder that holds a run, a study, a detector, or what a command wrote about runs."""

    parts: tuple[str, ...]
    """Its place below the root."""
    kind: Kind
    files: Mapping[str, File]
    """Plain files by name, those of its figures too."""
    shards: bool
    """Whether it has a folder of shards."""


@dataclass(frozen=True)
class Walk:
    """The folders that were found."""

    places: Sequence[tuple[str, ...]]
    whole: bool = True
    """Whether all folders were looked into."""


def walk(root: Path) -> Walk:
    """The places below a folder, itself included, at which something of ours may lie, in alphabetical order.

    Hidden folders, links and folders that cannot be read are passed over.
    """
    found: list[tuple[str, ...]] = []
    waiting: list[tuple[str, ...]] = [()]
    seen = 0
    while waiting:
        parts = waiting.pop()
        seen += 1
        if seen > MOST_FOLDERS:
            return Walk(sorted(found), whole=False)
        names, below = _names(root.joinpath(*parts))
        if kind_of(names) is not None:
            found.append(parts)
        if len(parts) < DEEPEST:
            waiting += [(*parts, name) for name in below]
    return Walk(sorted(found))


def kind_of(names: set[str]) -> Kind | None:
    """What a folder with these names in it holds."""
    if "detector.json" in names:
        return "detector"
    if "study.json" in names:
        return "study"
    if sum(mark in names for mark in _MARKS) >= 2:
        return "run"
    return next((kind for name, kind in _ALONE.items() if name in names), None)


def _names(path: Path) -> tuple[set[str], list[str]]:
    """The names in a folder that are no links, and those among them that are folders to look into."""
    names: set[str] = set()
    below: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                names.add(entry.name)
                hidden = entry.name.startswith(".") or entry.name in _PASSED_OVER
                if not hidden and entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
    except OSError:
        return set(), []
    return names, below


def look(root: Path, parts: tuple[str, ...]) -> Folder | None:
    """What lies at a place now; None where nothing of ours does any more."""
    path = root.joinpath(*parts)
    files: dict[str, File] = {}
    names: set[str] = set()
    shards = figures = False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                names.add(entry.name)
                shards = shards or (entry.name == "shards" and entry.is_dir(follow_symlinks=False))
                figures = figures or (entry.name == "figures" and entry.is_dir(follow_symlinks=False))
                if _offered(entry.name) or entry.name in (*_ALONE, ".lock"):
                    files |= _plain(entry.name, entry)
    except OSError:
        return None
    kind = kind_of(names)
    if kind is None:
        return None
    if figures:
        files |= _figures(path / "figures")
    return Folder(parts, kind, files, shards)


def _plain(name: str, entry: os.DirEntry[str]) -> dict[str, File]:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return {}
    if not stat.S_ISREG(found.st_mode):
        return {}
    return {name: File(found.st_size, found.st_mtime, found.st_ino)}


def _figures(path: Path) -> dict[str, File]:
    files: dict[str, File] = {}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if len(files) < _MOST_FIGURES and _FIGURE.fullmatch(entry.name):
                    files |= _plain(f"figures/{entry.name}", entry)
    except OSError:
        return {}
    return files


def _offered(name: str) -> bool:
    return _FILES.fullmatch(name) is not None


def offered(folder: Folder) -> Iterator[tuple[str, File]]:
    """The files that the page offers, the report first."""
    order = sorted(folder.files, key=lambda name: (name != "report.html", "/" in name, name))
    return ((name, folder.files[name]) for name in order if _offered(name) or name.startswith("figures/"))


def open_inside(root: Path, parts: Sequence[str]) -> BinaryIO:
    """Open a plain file below a folder, no part of whose way is a link.

    Args:
        root: the folder.
        parts: names of folders and of the file.

    Raises:
        OSError: there is none, or something on the way is a link; or it is a folder, a pipe or a device.
    """
    if not parts or any(_strange(part) for part in parts):
        raise FileNotFoundError(errno.ENOENT, "no such file")
    descriptor = _by_descriptor(root, parts) if _BY_DESCRIPTOR else _by_path(root, parts)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "no plain file")
    return os.fdopen(descriptor, "rb")


def _strange(part: str) -> bool:
    """Whether a name could lead elsewhere."""
    return part in ("", ".", "..") or any(sign in part for sign in "/\\\0") or (os.name == "nt" and ":" in part)


def _by_descriptor(root: Path, parts: Sequence[str]) -> int:
    """Each name is looked up in the folder that was opened before it, so that nothing can be put in its place."""
    held = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for place, part in enumerate(parts):
        flags = _LINKLESS if place == len(parts) - 1 else _LINKLESS | os.O_DIRECTORY
        try:
            following = os.open(part, flags, dir_fd=held)
        finally:
            os.close(held)
        held = following
    return held


def _by_path(root: Path, parts: Sequence[str]) -> int:
    path = root
    for part in parts:
        path = path / part
        # Windows has no folders by descriptor; what is no link there (a junction) leads elsewhere all the same.
        if path.is_symlink() or path.resolve() != path.absolute():
            raise FileNotFoundError(errno.ENOENT, "a link")
    return os.open(path, _LINKLESS)
