"""`--json FILE`: refused before the work where it cannot be written, written after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bluffscope.errors import InputError, RunFolderError


def check_json(path: Path | None) -> None:
    """Refuse a path that cannot be written before minutes go into a large file."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"--json {path}: {'a folder' if path.is_dir() else 'no such folder'}; give a file's path")


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write the file, if one is asked for."""
    if path is None:
        return
    from bluffscope.table.folder import write_json as write  # polars: not needed without --json

    try:
        write(path, content, indent=2)
    except RunFolderError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        raise InputError(f"--json {path}: cannot be written ({reason}); give another file") from error
