"""A run's folder: its files by name, made so that a failure leaves nothing half-done behind."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import yaml

from bluffscope.errors import InputError
from bluffscope.table.atomic import AtomicFile, hidden, write_bytes, writing
from bluffscope.table.links import APPENDED, open_plain, refuse_links

RUN_MARKS: Final = ("config.yaml", "manifest.json", "metrics.parquet", "shards")
"""Any of these in a folder means that it holds a run."""

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. ``RunFolder(path)`` names an existing one; `create` makes a new one.

    It holds nothing but the path, so that workers in other processes can be given it.
    """

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Makes the folder (and its parents) for a new run and proves that it can be written.

        A folder that exists is accepted as long as it holds no run. On failure what was made is removed again.

        Raises:
            InputError: `path` is a file, or the folder already holds a run.
            RunFolderError: The operating system refused to make or write it.
        """
        path = Path(path)
        _refuse_run(path)
        with contextlib.ExitStack() as undo, writing(path):
            for folder in reversed([path, *path.parents]):
                if not folder.exists():
                    folder.mkdir(exist_ok=True)
                    undo.callback(_remove_empty, folder)
            probe = hidden(path / "probe")
            try:
                with AtomicFile(path, "probe") as file:
                    file.commit(probe.name)
            finally:
                probe.unlink(missing_ok=True)
            try:
                (path / "shards").mkdir()
            except FileExistsError:  # another run has taken the folder since we looked
                _refuse_run(path)
                raise
            undo.pop_all()
        return cls(path)

    @classmethod
    def create_default(cls, name: str, parent: Path = Path("runs")) -> RunFolder:
        """Makes ``runs/<utc time>-<name>``, also when other runs start in the same second.

        Raises:
            RunFolderError: The operating system refused to make or write it.
        """
        while True:
            path = default_run_path(name, parent)
            try:
                return cls.create(path)
            except InputError:
                if not path.exists():
                    raise

    @staticmethod
    def check(path: Path) -> None:
        """Refuses a path that cannot become a run's folder because of what is there; makes nothing.

        Raises:
            InputError: `path` is a file, or the folder already holds a run.
            RunFolderError: The operating system refused to look.
        """
        _refuse_run(Path(path))

    @property
    def shards(self) -> Path:
        """Where shards are committed; gone once they are merged."""
        return self.path / "shards"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.yaml, the resolved options. Paths become text, tuples lists.

        Raises:
            RunFolderError: The file cannot be written.
        """
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        write_bytes(self.path / "config.yaml", text.encode())

    def write_manifest(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Writes manifest.json with a checksum of its own, and returns what it holds; see `manifest_checksum`.

        Numbers that are not finite become null.

        Raises:
            RunFolderError: The file cannot be written.
        """
        content = plain(manifest)
        content["checksum"] = manifest_checksum(content)
        write_json(self.path / "manifest.json", content, indent=2)
        return content

    def log(self, level: Level, message: str, pair_ids: Sequence[str] = ()) -> None:
        """Appends one line to log.jsonl: time (UTC), level, message, ids of the pairs concerned.

        The line is one write to a file opened for appending, so lines of several processes do not mix.

        Raises:
            RunFolderError: The file cannot be written.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"time": time, "level": level, "message": message, "pair_ids": list(pair_ids)}
        path = self.path / APPENDED
        line = _encode(as_json(record, indent=None))
        with writing(path):
            descriptor = open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                while line:  # once, but on a disk that is nearly full
                    line = line[os.write(descriptor, line) :]
            finally:
                os.close(descriptor)


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over what a manifest says, however it is written down, its own checksum left out."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def default_run_path(name: str, parent: Path = Path("runs")) -> Path:
    """``runs/<utc time>-<name>`` such as ``runs/20261123T085000Z-demo``, numbered where that is taken.

    Characters of `name` that are awkward in paths (``google/gemma-2-2b``) become hyphens.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "run"
    base = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{safe}"
    path, number = parent / base, 2
    while os.path.lexists(path):
        path, number = parent / f"{base}-{number}", number + 1
    return path


def plain(value: Any) -> Any:
    """A value as JSON and YAML know it: dataclasses and mappings become dicts, sequences lists, paths text.

    Numbers that are not finite become None: JSON has none.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        items = cast(Sequence[Any], value)
        return [plain(item) for item in (sorted(items) if isinstance(value, set | frozenset) else items)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def as_json(content: Any, indent: int | None = 1) -> str:
    """A `plain` value as JSON text."""
    return json.dumps(plain(content), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: Any, indent: int = 1) -> None:
    """Writes a JSON file, whole.

    Raises:
        RunFolderError: The operating system refused.
    """
    write_bytes(path, _encode(as_json(content, indent)))


def _encode(text: str) -> bytes:
    # A lone surrogate (a file name that is not UTF-8) becomes \udcxx, which is valid JSON.
    return text.encode("utf-8", "backslashreplace")


def _refuse_run(path: Path) -> None:
    with writing(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file: give --out a folder")
        refuse_links(path, append=True)
        held = next((mark for mark in RUN_MARKS if (path / mark).exists()), None)
    if held is not None:
        raise InputError(
            f"{path} already holds a run ({held}): give --out another folder, or continue that run with --resume {path}"
        )


def _remove_empty(folder: Path) -> None:
    # Where somebody else has put something there in the meantime, it is not ours to remove.
    with contextlib.suppress(OSError):
        folder.rmdir()
