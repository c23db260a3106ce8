"""One process a run: a lock that the operating system takes back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import lock_descriptor

from bluffscope.errors import InputError
from bluffscope.table.atomic import writing
from bluffscope.table.links import open_plain

LOCK: Final = ".lock"
"""Its file in the run's folder; it is there while a run is under way, or was when it was killed."""

_UNKNOWN: Final = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What file systems answer that have no locks (some network mounts)."""

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Within the block, this process alone writes the run.

    Raises:
        InputError: Another process does.
        RunFolderError: The folder cannot be written.
    """
    path = folder / LOCK
    with writing(path):
        descriptor = _acquired(path, folder)
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
        with contextlib.ExitStack() as undo:
            descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
            undo.callback(os.close, descriptor)
            try:
                if not lock_descriptor(descriptor, blocking=False):
                    raise InputError(
                        f"{folder} is being written by another process: wait for it, or stop it and use --resume then"
                    )
                there = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in _UNKNOWN:
                    raise
                _log.warning("%s: this file system has no locks; see to it that no other process writes there", folder)
                there = True
            if there:
                undo.pop_all()
                return descriptor
