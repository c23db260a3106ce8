"""The files that `--data` names: a path, a folder, a dataset of the hub, or the benchmark."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from bluffscope.errors import InputError
from bluffscope.pairs.hub_files import hub_files
from bluffscope.pairs.readers import format_of, stem, suffixes
from bluffscope.pairs.record import quoted, shown

BUNDLED: Final = "bluff200"
LONGEST_NAME: Final = 60


@dataclass(frozen=True)
class Located:
    """The files that a value of `--data` names."""

    name: str
    """As `Source.name`."""
    files: list[Path]
    location: str
    """As `Source.location`."""
    commit: str | None = None


def located(data: str) -> Located:
    """The files of a path, of a dataset of the hub, or of the benchmark; nothing is read yet.

    Raises:
        InputError: as `open_source`.
    """
    # The bare word is always the benchmark: a run must not depend on what lies in the folder it starts in.
    if data == BUNDLED:
        bundled = resources.files("bluffscope.pairs").joinpath("data", f"{BUNDLED}.jsonl")
        return Located(BUNDLED, [Path(str(bundled))], BUNDLED)
    if not data.strip():
        raise InputError(f"--data is empty; give a {suffixes()} file, a folder of such files, or {BUNDLED}")
    if data.startswith("hf://"):
        found = hub_files(data)
        return Located(_safe_name(found.name), found.files, found.location, found.commit)
    path = Path(data)
    try:
        files = _files(path)
        for file in files:
            file.open("rb").close()
        # A link keeps its own name; only "." and ".." have none.
        named = path if path.name not in ("", "..") else path.resolve()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{shown(path)}: cannot be read ({reason}); check the path and its permissions") from error
    name = _safe_name(stem(named) if format_of(path) else named.name)
    return Located(name, files, str(path.resolve()))


def _files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder that have a reader, by name."""
    if path.is_dir():
        inside = sorted((file for file in path.iterdir() if _usable(file)), key=lambda file: file.name)
        if not inside:
            raise InputError(f"{shown(path)}: no {suffixes()} file in this folder; give the folder that holds them")
        return inside
    if not path.exists():
        raise InputError(f"{shown(path)}: no such file or folder; give a {suffixes()} file, a folder, or {BUNDLED}")
    if format_of(path) is None:
        raise InputError(f"{shown(path)}: unknown file type {quoted(path.suffix)}; give a {suffixes()} file")
    if not path.is_file():
        raise InputError(f"{shown(path)}: not a regular file (it is read twice); save the pairs to a file first")
    return [path]


def _usable(file: Path) -> bool:
    return format_of(file) is not None and not file.name.startswith(".") and file.is_file()


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:LONGEST_NAME] or "pairs"
