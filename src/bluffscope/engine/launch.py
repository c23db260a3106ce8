"""How Ray is started on this machine: in a folder of its own, for this process alone; and whether a cluster answers."""

from __future__ import annotations

import secrets
import shutil
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from bluffscope.errors import InputError
from bluffscope.machine import memory_available
from bluffscope.quiet import environment

_ANSWER_SECONDS: Final = 5.0
"""How long a cluster may take to answer; Ray itself tries for minutes."""
_STORE_BYTES: Final = 1 << 30
"""Most memory for tables on their way from workers; Ray puts the rest on disk."""
_LEAST_STORE_BYTES: Final = 100 << 20
_SHARED_MEMORY: Final = Path("/dev/shm")
_SHORT_FOLDER: Final = Path("/tmp")
"""Names of sockets have about 100 characters at most: the temporary folders of some systems are too long for them."""


@contextmanager
def starting() -> Generator[dict[str, Any], None, None]:
    """Inside, Ray may be started on this machine, with what is given as options of `ray.init`.

    Its files are gone on leaving; no statistics are sent; nobody without this process's secret can talk to it.
    """
    folder = tempfile.mkdtemp(prefix="bluffscope-ray-", dir=_SHORT_FOLDER if _SHORT_FOLDER.is_dir() else None)
    # With a token there, Ray makes none in the user's home. It sets RAY_AUTH_MODE itself, which is undone here too.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": _secret(), "RAY_AUTH_MODE": None}
    try:
        with environment(settings):
            yield {"object_store_memory": _store_bytes(), "include_dashboard": False, "_temp_dir": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_address(address: str) -> None:
    """Refuse what is no address, or one that nobody listens at.

    Raises:
        InputError: it is neither "auto" nor HOST:PORT.
        OSError, OverflowError: nobody answers there.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise InputError(f"--address {address}: give HOST:PORT of the cluster's head, or auto, on a machine of it")
    socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()


def _store_bytes() -> int:
    """Room for tables on their way: what Ray would take, a third of the memory, is far more than they need."""
    free = memory_available()
    if _SHARED_MEMORY.is_dir():  # in containers often small
        free = min(free, shutil.disk_usage(_SHARED_MEMORY).free)
    return max(_LEAST_STORE_BYTES, min(_STORE_BYTES, free // 4))


@cache
def _secret() -> str:
    """Ray keeps to the first one that a process gives it."""
    return secrets.token_hex(32)
