"""Files that are either there and whole, or not there."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import polars as pl

from bluffscope.errors import RunFolderError

_NO_DIRECTORY_SYNC: Final = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot fsync a folder (some network mounts): nothing more can be done there."""

_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    `write` fills a hidden temporary file in the same folder; it is synced to disk, renamed over `path`,
    and the folder is synced. Whatever fails, the temporary file is removed and `path` keeps its old content
    (only when the folder's own sync fails, after the rename, is the new content in place already).

    Raises:
        RunFolderError: The operating system refused (no space, read-only, input/output error).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        _sync_file(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    except pl.exceptions.ComputeError as error:
        # Polars wraps what the system says while it writes: "... No space left on device (os error 28)".
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise unwritable(path, OSError(number, os.strerror(number))) from error
    finally:
        _remove(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file atomically; see `atomic_write`."""
    atomic_write(path, lambda temporary: _fill(temporary, content))


def remove(paths: Iterable[Path]) -> None:
    """Removes files that are there.

    Raises:
        RunFolderError: The operating system refused.
    """
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error


def sync_folder(folder: Path) -> None:
    """Makes the renames in a folder durable; does nothing where the system cannot."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> RunFolderError:
    """The one clear line for a path that the operating system would not write."""
    # Polars raises OSErrors without errno, whose reason is their text.
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return RunFolderError(f"cannot write {path}: {reason}; free space or choose another folder with --out")


def unreadable(path: Path, error: Exception) -> str:
    """The start of a clear line for a file that is missing, cut off or damaged."""
    if isinstance(error, FileNotFoundError):
        return f"{path} is missing"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    kind = "is damaged" if isinstance(error, pl.exceptions.PolarsError | ValueError) else "cannot be read"
    return f"{path} {kind} ({reason})"


def _fill(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # The error that brought us here says more; a hidden *.tmp file is never read.
        return
