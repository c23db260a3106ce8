"""A folder from anybody holds files and folders: what leads out of it is refused before anything is opened."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Final

from bluffscope.errors import InputError

APPENDED: Final = "log.jsonl"
"""The one file that is written in place; all others are replaced."""
OURS: Final = re.compile(
    r"(metrics|features|pairs|texts|tokens|token_features|paired|quarantine|residuals|further_residuals|fidelity|stats|ladder|compare"
    r"|detectors|detector_gains|detector_curves|transfer|transfer_matrix|sweep)\.parquet"
    r"|(manifest|stats|compare|detector)\.json|config\.yaml|checksums\.txt|report\.html|weights\.safetensors"
    r"|log\.jsonl|\.lock|shards|figures|\.shards\.tmp"
)
"""Names that a run or a detector has in its folder; what else lies there is neither read nor written."""
_INSIDE: Final = ("shards", "figures", ".shards.tmp")
"""Folders of a run, in which every entry is its own."""
_KINDS: Final = ((stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
_PLAIN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def refuse_links(folder: Path, *, append: bool = False) -> None:
    """Refuse the folder of a run or a detector in which anything of theirs is a link, a pipe or a device.

    The folder itself may be reached through a link, and others' entries in it may be links.

    Args:
        folder: need not exist.
        append: whether `APPENDED` will be written, which then must have no second name elsewhere.

    Raises:
        InputError: naming the entry.
    """
    for inside in ("", *_INSIDE):  # the folder first: its subfolders are then no links
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    if not inside and not OURS.fullmatch(entry.name):
                        continue
                    found = entry.stat(follow_symlinks=False)
                    shared = append and entry.name == APPENDED and stat.S_ISREG(found.st_mode) and found.st_nlink > 1
                    if what := "a hard link" if shared else _strange(found.st_mode):
                        raise InputError(
                            f"{Path(entry.path)} is {what}: a run's or detector's folder holds plain files and "
                            "folders; remove it, or give another folder"
                        )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(f"{folder / inside} cannot be read ({error.strerror}); check its permissions") from error


def open_plain(path: Path, flags: int) -> int:
    """Open a file for writing in place, and nothing but a file that has this name alone.

    Raises:
        OSError: as `os.open`; or it is a link, a pipe, a device, or has a second name.
    """
    descriptor = os.open(path, flags | _PLAIN, 0o666)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a plain file of this folder alone")


def _strange(mode: int) -> str | None:
    """What something is that is neither a file nor a folder."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return next((name for test, name in _KINDS if test(mode)), "a device")
