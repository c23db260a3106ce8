"""Files that are either there and whole, or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import uuid
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import polars as pl

from bluffscope.errors import InputError, RunFolderError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NO_DIRECTORY_SYNC: Final = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot fsync a folder (some network mounts): nothing more can be done there."""

_LEFT_BEHIND: Final = re.compile(r"\..+\.[0-9a-f]{8}\.bluffscope\.tmp")
"""Hidden names that files have while they are being written: no other program's."""

_BUFFER: Final = 1 << 20
"""Bytes that are held before the disk is asked to take them."""


class AtomicFile(io.RawIOBase):
    """A file that stands under its name only once it is whole: filled under a hidden name, synced, renamed.

    A context manager: what was not committed when the block ends is removed. Errors of the operating system come as
    they are; `writing` makes one clear line of them.
    """

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self.path: Path = folder / name
        self.size: int = 0
        """Bytes written."""
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        self._temporary: Path = hidden(self.path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._descriptor: int | None = os.open(self._temporary, flags, 0o666)
        self.refused: OSError | None = None
        """What the operating system said to a write that failed."""

    @property
    def sha256(self) -> str:
        """Of what was committed, 64 hex digits."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes written."""
        return self.size

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of it."""
        if self._descriptor is None:
            raise ValueError(f"{self.path} is closed: nothing can be added")
        added = memoryview(data).cast("B")
        self._waiting += added
        self.size += len(added)
        if len(self._waiting) >= _BUFFER:
            self._drain(self._descriptor)
        return len(added)

    def commit(self, name: str | None = None) -> Path:
        """Put the file in its place, in one step; returns its path.

        Args:
            name: replaces the name that was given first: it may hold the content's checksum.
        """
        if self._descriptor is None:
            raise ValueError(f"{self.path} is closed: it cannot be committed")
        self.path = self.path if name is None else self.path.with_name(name)
        self._drain(self._descriptor)
        os.fsync(self._descriptor)
        if (held := os.fstat(self._descriptor).st_size) != self.size:
            raise OSError(errno.EIO, f"{held} of {self.size} bytes are on the disk")
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)
        os.replace(self._temporary, self.path)
        sync_folder(self.path.parent)
        return self.path

    def _drain(self, descriptor: int) -> None:
        """Have the disk take what waits: one that is nearly full takes a part, and says why only when asked again."""
        waiting = memoryview(bytes(self._waiting))
        self._waiting.clear()
        self._digest.update(waiting)
        try:
            while waiting:
                written = os.write(descriptor, waiting)
                if written < 1:
                    raise OSError(errno.EIO, "the disk takes no more bytes")
                waiting = waiting[written:]
        except OSError as error:
            self.refused = error
            raise

    def close(self) -> None:
        """Remove what was not committed."""
        if not self.closed:
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                with contextlib.suppress(OSError):  # the error that brought us here says more
                    os.close(descriptor)
            _remove(self._temporary)
        super().close()


@contextmanager
def writing(path: Path) -> Generator[None, None, None]:
    """Within the block, an error of the operating system becomes the one clear line of `unwritable`."""
    try:
        yield
    except RunFolderError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def hidden(path: Path) -> Path:
    """A name in the same folder for a file that is not whole yet."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.bluffscope.tmp")


def is_leftover(path: Path) -> bool:
    """Whether a name is that of a file that is being written, or was when its writer died."""
    return _LEFT_BEHIND.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left of files that it had not finished. Nobody else may be writing there."""
    for path in folder.iterdir():
        if is_leftover(path) and path.is_file():
            _remove(path)


def atomic_write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    `write` fills an `AtomicFile`. Whatever fails, `path` keeps its old content (only when the folder's own sync fails,
    after the rename, is the new content in place already).

    Raises:
        RunFolderError: The operating system refused (no space, read-only, input/output error).
    """
    with writing(path), AtomicFile(path.parent, path.name) as file:
        try:
            write(cast("IO[bytes]", file))
        except pl.exceptions.ComputeError as error:  # Polars wraps what the system says while it writes
            raise file.refused or error from error
        file.commit()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file atomically; see `atomic_write`."""
    atomic_write(path, lambda file: file.write(content))


def remove(paths: Iterable[Path]) -> None:
    """Removes files that are there.

    Raises:
        RunFolderError: The operating system refused.
    """
    for path in paths:
        with writing(path):
            path.unlink(missing_ok=True)


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
    in_the_way = isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError)
    do = "move what is there elsewhere" if in_the_way else "free space or choose another folder with --out"
    return RunFolderError(f"cannot write {path}: {reason}; {do}")


TABLE_ERRORS: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises for a missing or damaged table: some damage makes it panic, and that is not an `Exception`."""


@contextmanager
def table_errors(path: Path, again: str = "run the analysis again") -> Generator[None]:
    """Within the block, an error that polars raises for a damaged table becomes one line.

    Args:
        path: the table.
        again: how to make it again.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        yield
    except TABLE_ERRORS as error:
        raise InputError(f"{unreadable(path, error)}: {again}") from error


def unreadable(path: Path, error: BaseException) -> str:
    """The start of a clear line for a file that is missing, cut off or damaged."""
    if isinstance(error, FileNotFoundError):
        return f"{path} is missing"
    if isinstance(error, pl.exceptions.PanicException):
        return f"{path} is damaged"  # what polars says there is about its own code
    kind = "is damaged" if isinstance(error, pl.exceptions.PolarsError | ValueError) else "cannot be read"
    return f"{path} {kind} ({reason_of(error)})"


def reason_of(error: BaseException, longest: int = 200) -> str:
    """What an error says, in one line: libraries quote the file's content, however long, and add hints of their own."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n\n")[0]
    found = " ".join(text.split())
    return found if len(found) <= longest else f"{found[: longest - 3]}..."


def _remove(path: Path) -> None:
    # The error that brought us here says more; a hidden *.tmp file is never read.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
