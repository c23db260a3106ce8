"""How far a run is that has not finished: from its committed shards and its lock, without touching either."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bluffscope.report.view.documents import DocumentError, count_lines, read_json, under, whole
from bluffscope.report.view.folders import Folder
from bluffscope.table.shards import ShardFile

SIGN_SECONDS: Final = 90
"""Where nobody can be seen to hold a run's lock, a sign of life no older than this stands for it."""
_LOCKS: Final = Path("/proc/locks")


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    running: bool
    stage: str
    """What it is doing, or was doing when it stopped."""
    done: int | None = None
    """Pairs in committed shards."""
    total: int | None = None
    rate: float | None = None
    """Pairs a second, since this session began to measure."""
    eta: float | None = None
    """Seconds until all are measured."""
    sign: float | None = None
    """Seconds since the run last wrote something."""
    seen: bool = False
    """Whether a process of this machine was seen to hold the run's lock; without one, signs of life decide."""


def locks() -> frozenset[int]:
    """Inodes of files that a process of this machine holds a lock on; empty where the system does not say.

    Asking for the lock itself would make a run that starts at this moment believe that another one is there.
    """
    try:
        lines = _LOCKS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    fields = (line.split() for line in lines)
    return frozenset(int(inode) for row in fields if len(row) > 5 and (inode := row[5].rpartition(":")[2]).isdecimal())


def progress(
    root: Path,
    folder: Folder,
    held: frozenset[int],
    now: Callable[[], float] = time.time,
    let_go: frozenset[int] = frozenset(),
) -> Progress:
    """How far the run (or the asking) in a folder is.

    Args:
        root: what the folder's parts start from.
        folder: of a run without a manifest.
        held: see `locks`.
        now: seconds since the epoch.
        let_go: locks that a process of this machine was seen to hold and holds no more: whoever did has died.
    """
    if folder.kind == "answers":
        return _asking(root, folder, now())
    shards, identity = _shards(root.joinpath(*folder.parts, "shards"))
    lock = folder.files.get(".lock")
    signs = [shard.changed for shard in shards] + [file.changed for file in folder.files.values()]
    sign = max(0.0, now() - max(signs)) if signs else None
    seen = lock is not None and lock.number in held
    alive = sign is not None and sign < SIGN_SECONDS
    running = seen or (lock is not None and lock.number not in let_go and alive)
    total, size = _plan(root, folder)
    if total is None or size is None:
        return Progress(running, "starting", sign=sign, seen=seen)
    # The last shard has what is left over.
    last = -(-total // size) - 1
    counts = [total - last * size if shard.number == last else size for shard in shards if shard.number <= last]
    done = min(total, sum(counts))
    if "metrics.parquet" in folder.files:
        return Progress(running, "checking health", done, total, sign=sign, seen=seen)
    if done == total:
        return Progress(running, "writing tables", done, total, sign=sign, seen=seen)
    rate = eta = None
    if running and identity is not None:
        new = [shard for shard in shards if shard.changed > identity and shard.number <= last]
        if new and (took := max(shard.changed for shard in new) - identity) > 0:
            rate = sum(total - last * size if shard.number == last else size for shard in new) / took
            eta = max(0.0, (total - done) / rate - (now() - max(shard.changed for shard in new)))
    return Progress(running, "measuring", done, total, rate, eta, sign, seen)


@dataclass(frozen=True)
class _Shard:
    number: int
    changed: float


def _shards(path: Path) -> tuple[list[_Shard], float | None]:
    """The committed shards, one for each number, and when the session began to measure."""
    found: dict[int, _Shard] = {}
    began: float | None = None
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name == "run.json":
                    began = entry.stat(follow_symlinks=False).st_mtime
                elif (shard := ShardFile.of(Path(entry.name))) is not None:
                    changed = entry.stat(follow_symlinks=False).st_mtime
                    found[shard.number] = _Shard(shard.number, changed)
    except OSError:  # it has just finished
        return [], None
    return list(found.values()), began


def _plan(root: Path, folder: Folder) -> tuple[int | None, int | None]:
    """Pairs in all, and in a shard."""
    try:
        identity: dict[str, Any] = read_json(root, (*folder.parts, "shards", "run.json"))
    except DocumentError:
        return None, None
    total, size = whole(under(identity, "data", "pairs")), whole(under(identity, "options", "shard_pairs"))
    return (total, size) if total and size else (None, None)


def _asking(root: Path, folder: Folder, now: float) -> Progress:
    """A model that is being asked: a line an answered question, after a first one."""
    name = "answers.jsonl.part"
    sign = max(0.0, now - folder.files[name].changed) if name in folder.files else None
    done = max(0, count_lines(root, (*folder.parts, name)) - 1)
    return Progress(sign is not None and sign < SIGN_SECONDS, "asking the model", done, sign=sign)
