"""Files that a flag names: checked before the work, written after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bluffscope.errors import InputError, RunFolderError


def check_file(flag: str, path: Path | None) -> None:
    """Refuse a path that cannot be written before minutes go into its content."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"{flag} {path}: {'a folder' if path.is_dir() else 'no such folder'}; give a file's path")


def write_json(path: Path | None, content: Any) -> None:
    """Write --json FILE, if one is asked for."""
    if path is None:
        return
    from bluffscope.table import folder  # polars: not needed without --json

    try:
        folder.write_json(path, content, indent=2)
    except RunFolderError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        raise InputError(f"--json {path}: cannot be written ({reason}); give another file") from error
