"""One process a run: a lock that the operating system takes back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bluffscope.errors import InputError
from bluffscope.table.atomic import unwritable
from bluffscope.table.links import open_plain

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK: Final = ".lock"
"""Its file in the run's folder; it is there while a run is under way, or was when it was killed."""

_HELD: Final = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_UNKNOWN: Final = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What file systems answer that have no locks (some network mounts)."""

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Inside, this process alone writes the run.

    Raises:
        InputError: Another process does.
        RunFolderError: The folder cannot be written.
    """
    path = folder / LOCK
    try:
        descriptor = _acquired(path, folder)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        if os.name == "nt":  # which removes no open file
            os.close(descriptor)
        with contextlib.suppress(OSError):  # a lock file that stays locks nothing
            path.unlink()
        if os.name != "nt":
            os.close(descriptor)


def _acquired(path: Path, folder: Path) -> int:
    """The open lock file. Whoever held it last may have removed it since it was opened: then another is made."""
    while True:
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
        try:
            _lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _HELD:
                os.close(descriptor)
                raise InputError(
                    f"{folder} is being written by another process: wait for it, or stop it and use --resume then"
                ) from error
            if error.errno not in _UNKNOWN:
                os.close(descriptor)
                raise
            _log.warning("%s: this file system has no locks; see to it that no other process writes there", folder)
            return descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock, or fail at once."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
