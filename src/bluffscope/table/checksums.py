"""Checksums of a finished run's tables: what they must hold, and which of them no longer do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from bluffscope.errors import InputError, RunFolderError
from bluffscope.host.weights_digest import sha256_of
from bluffscope.table.atomic import write_bytes
from bluffscope.table.damage import MANIFEST, checked, read_json
from bluffscope.table.folder import manifest_checksum
from bluffscope.table.links import OURS

CHECKSUMS: Final = "checksums.txt"
"""The tables' SHA-256 as ``sha256sum --check`` reads it. The manifest holds them too: each is the other's spare."""

_NEEDED: Final = ("metrics.parquet", "features.parquet")
_TEXTS: Final = ("pairs.parquet", "texts.parquet")
"""One of them is needed too."""
_LINE: Final = re.compile(r"([0-9a-f]{64})  ([\w.-]+)")


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table as it was written."""

    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Finished:
    """What stands in the folder of a run that was merged."""

    manifest: dict[str, Any] | None
    """None where it is missing, cut off or altered."""
    damaged: tuple[str, ...]
    """What no longer holds what was written, each with the reason."""
    tables: Mapping[str, TableFile]
    """Every table by its file's name, where all of them hold what was written; else none."""

    @property
    def tables_whole(self) -> bool:
        """Whether every table holds what was written."""
        return bool(self.tables)


def check_table(path: Path, table: TableFile) -> None:
    """Reads a table back and refuses one that is not what was written.

    Raises:
        RunFolderError: It holds other bytes, or another number of rows.
    """
    if found := _fault(path, table.sha256):
        raise RunFolderError(f"{found} as soon as it was written: run the analysis again on another disk")
    rows = pq.read_metadata(path).num_rows
    if rows != table.rows:
        raise RunFolderError(f"{path} holds {rows} rows, expected {table.rows}: run the analysis again")


def write_checksums(folder: Path, tables: Mapping[str, TableFile]) -> None:
    """Writes checksums.txt.

    Raises:
        RunFolderError: The file cannot be written.
    """
    lines = [f"{table.sha256}  {name}\n" for name, table in tables.items()]
    write_bytes(folder / CHECKSUMS, "".join(lines).encode())


def inspect(folder: Path) -> Finished:
    """Reads a merged run's manifest and all of its tables, and says what is damaged."""
    manifest, damaged = _manifest(folder / "manifest.json")
    listed = _listed(folder / CHECKSUMS)
    files: dict[str, Any] = (manifest or {}).get("files", {})
    stated = {name: str(entry["sha256"]) for name, entry in files.items() if OURS.fullmatch(name)}
    expected = stated or listed
    faults = [fault for name, sum_ in expected.items() if (fault := _fault(folder / name, sum_))]
    if not (set(_NEEDED) <= set(expected) and any(name in expected for name in _TEXTS)):
        faults.append(f"{folder / CHECKSUMS} and manifest.json do not name the tables")
    elif listed != expected:
        damaged.append(f"{folder / CHECKSUMS} is missing or altered")
    tables = {} if faults else {name: _read(folder / name, sum_) for name, sum_ in expected.items()}
    return Finished(manifest, (*damaged, *faults), tables)


def _read(path: Path, sha256: str) -> TableFile:
    return TableFile(sha256, path.stat().st_size, int(pq.read_metadata(path).num_rows))


def _manifest(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    if not path.exists():
        return None, [f"{path} is missing"]
    try:
        checked(content := read_json(path), MANIFEST, path)
    except InputError:
        return None, [f"{path} is cut off or damaged"]
    if content.get("checksum") != manifest_checksum(content):
        return None, [f"{path} is altered"]
    return content, []


def _listed(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    matches = [_LINE.fullmatch(line) for line in lines]
    return {match[2]: match[1] for match in matches if match and OURS.fullmatch(match[2])}


def _fault(path: Path, sha256: str) -> str | None:
    """What is wrong with a file, or None."""
    try:
        return None if sha256_of(path) == sha256 else f"{path} is cut off or altered"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})" if path.exists() else f"{path} is missing"
