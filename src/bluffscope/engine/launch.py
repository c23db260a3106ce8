"""How Ray is started on this machine: in a folder of its own, for this process alone; and whether a cluster answers."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from bluffscope.errors import InputError
from bluffscope.host.machine import memory_available
from bluffscope.host.own_process import waiting
from bluffscope.host.quiet import environment

_ANSWER_SECONDS: Final = 12.0
"""How long a cluster may take to answer, the import of Ray included; Ray itself tries for minutes."""
_STORE_BYTES: Final = 1 << 30
"""Most memory for tables on their way from workers; Ray puts the rest on disk."""
_LEAST_STORE_BYTES: Final = 100 << 20
_NICENESS: Final = "RAY_worker_niceness"
_SHARED_MEMORY: Final = Path("/dev/shm")
_SHORT_FOLDER: Final = Path("/tmp")
"""Names of sockets have about 100 characters at most: the temporary folders of some systems are too long for them."""


@contextmanager
def starting() -> Generator[dict[str, Any], None, None]:
    """Within the block, Ray may be started on this machine, with the yielded options of `ray.init`.

    Its files are gone on leaving; no statistics are sent; nobody without this process's secret can talk to it.
    """
    folder = tempfile.mkdtemp(prefix="bluffscope-ray-", dir=_SHORT_FOLDER if _SHORT_FOLDER.is_dir() else None)
    # With a token there, Ray makes none in the user's home. It sets RAY_AUTH_MODE itself, which is undone here too.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": _secret(), "RAY_AUTH_MODE": None, **_as_workers()}
    try:
        with environment(settings):
            yield {"object_store_memory": _store_bytes(), "include_dashboard": False, "_temp_dir": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_address(address: str) -> None:
    """Refuse an address at which no Ray cluster answers.

    Raises:
        InputError: it is neither "auto" nor HOST:PORT, or no cluster that this machine belongs to answers there.
    """
    host, _, port = address.rpartition(":")
    if address != "auto" and ("://" in address or not host or not port.isdecimal() or not 0 < int(port[:9]) < 1 << 16):
        raise InputError(f"--address {address[:80]}: give HOST:PORT of the cluster's head, or auto, on a machine of it")
    # -P: or `ray` would be the module next to the script.
    command = [sys.executable, "-P", str(Path(__file__).with_name("probe.py")), address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
        said = None if done.returncode == 0 else " ".join(done.stdout.split()) or "its client crashed"
    except subprocess.TimeoutExpired:
        said = f"nothing there answered as Ray does within {_ANSWER_SECONDS:.0f} s"
    if said is not None:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({said[:150]}); start one with `ray start --head`, or "
            "leave --address out to use this machine alone"
        )


def _store_bytes() -> int:
    """Room for tables on their way: what Ray would take, a third of the memory, is far more than they need."""
    free = memory_available()
    if _SHARED_MEMORY.is_dir():  # in containers often small
        free = min(free, shutil.disk_usage(_SHARED_MEMORY).free)
    return max(_LEAST_STORE_BYTES, min(_STORE_BYTES, free // 4))


def _as_workers() -> dict[str, str]:
    """What Ray's processes inherit: its default niceness of 15 leaves workers a fiftieth of a core beside others."""
    return {_NICENESS: os.environ.get(_NICENESS, "0"), **waiting()}


@cache
def _secret() -> str:
    """Ray keeps to the first one that a process gives it."""
    return secrets.token_hex(32)
