"""Runs of the command in real processes that die, and what they and those that resume them leave behind."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

import tiny
from faults import Fault, Injector

PAIRS = 12
SHARD_PAIRS = 2
TABLES = ("metrics", "pairs", "features", "quarantine")
_PLACES = ("France", "Italy", "Spain", "Norway", "Peru", "Chad")
_LONGEST = 120
"""Seconds until a process that hangs is killed, and the test fails."""

# Processes are forked from one that has imported everything, and has done nothing else: a second each, not ten.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["sae_lens", "bluffscope.cli.analyze", "bluffscope.api", "bluffscope.report"])


def write_pairs(path: Path, pairs: int = PAIRS) -> Path:
    """Pairs of different lengths, the fourth of them too long for the tiny model."""
    rows: list[dict[str, object]] = [
        {
            "id": f"pair-{i}",
            "domain": "ab"[i % 2],
            "prompt": f"The capital of {_PLACES[i % 6]} is " + ("very " * 60 if i == 3 else "well " * (i % 4)),
            "fact": f"Paris {i}",
            "hallucination": "Rome" + " and Oslo" * (i % 3),
        }
        for i in range(pairs)
    ]
    return tiny.write_pairs(path, rows)


def flags(model: Path, saes: Path, data: Path) -> list[str]:
    """Of a run of a few small shards on one thread, without what is measured and kept by default."""
    small = ["--no-logprob", "--no-keep-residuals", "--shard-pairs", str(SHARD_PAIRS)]
    return ["--model", str(model), "--sae", str(saes), "--data", str(data), *small]


@dataclass(frozen=True)
class Ended:
    """How a process came to its end."""

    code: int
    """Its exit code, or the negative number of the signal that it died of."""
    said: str
    """What it wrote to standard error."""
    seconds: float


@dataclass(frozen=True)
class Whole:
    """A run that nothing happened to."""

    folder: Path
    seconds: float
    """Of its process."""


class Child:
    """`bluffscope` in a process of its own, in which something goes wrong."""

    def __init__(self, arguments: Sequence[object], folder: Path, fault: Fault | None = None) -> None:
        self._said = folder.parent / f"{folder.name}.said"
        words = [str(argument) for argument in arguments]
        self._process = PROCESSES.Process(target=_work, args=(words, folder, fault, self._said), daemon=True)
        self._started = time.perf_counter()
        self._process.start()

    def end(self, kill_after: float | None = None) -> Ended:
        """Wait until it ends, or kill it after so many seconds."""
        if kill_after is not None:
            self._process.join(kill_after)
            self._process.kill()
        self._process.join(_LONGEST)
        seconds = time.perf_counter() - self._started
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"the process hangs; it said: {self._said.read_text()}")
        said = self._said.read_text() if self._said.exists() else ""
        return Ended(self._process.exitcode, said, seconds)

    def await_stop(self) -> None:
        """Wait until it has stopped itself (SIGSTOP)."""
        end = time.monotonic() + _LONGEST
        while time.monotonic() < end:
            state = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                return
            time.sleep(0.01)
        raise AssertionError("the process did not stop")


def _work(arguments: list[str], folder: Path, fault: Fault | None, said: Path) -> None:
    """In the child: the command, with one fault."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - until the end
    import bluffscope.api.closing
    from bluffscope.cli.main import main

    bluffscope.api.closing._report = lambda *_: None  # page and figures take seconds
    with Injector(folder, fault).installed():
        code = main([*arguments, "--allow-unsound"])  # random SAEs explain nothing, and the health gate says so
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def start(
    options: Sequence[object], folder: Path, fault: Fault | None = None, kill_after: float | None = None
) -> Ended:
    """A new run in a process, to its end."""
    return Child(["analyze", *options, "--out", folder], folder, fault).end(kill_after)


def resume(folder: Path, *options: object, fault: Fault | None = None, kill_after: float | None = None) -> Ended:
    """A run gone on with in another process, to its end."""
    return Child(["analyze", "--resume", folder, *options], folder, fault).end(kill_after)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of what each table says, row for row."""
    found = {}
    for name in TABLES:
        table = pl.read_parquet(folder / f"{name}.parquet")
        found[name] = hashlib.sha256(table.write_ipc(None, compression="uncompressed").getvalue()).hexdigest()
    return found


def missing_and_repeated(folder: Path, pairs: int = PAIRS) -> tuple[int, int]:
    """Pairs that neither table nor quarantine has, and rows that are there again."""
    ids = [
        name for table in ("metrics", "quarantine") for name in pl.read_parquet(folder / f"{table}.parquet")["pair_id"]
    ]
    return pairs - len(set(ids)), len(ids) - len(set(ids))


def leftovers(folder: Path) -> list[str]:
    """Files of a finished run's folder that should not be there."""
    stated = {"config.yaml", "manifest.json", "checksums.txt", "log.jsonl", *(f"{name}.parquet" for name in TABLES)}
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name not in stated)


def check_equal(folder: Path, whole: Path, pairs: int = PAIRS) -> None:
    """The run's tables are those of an uninterrupted one, and nothing else lies in its folder."""
    assert missing_and_repeated(folder, pairs) == (0, 0)
    for name in TABLES:
        one, other = (pl.read_parquet(path / f"{name}.parquet") for path in (folder, whole))
        assert one["pair_id"].to_list() == other["pair_id"].to_list()
        assert one.schema == other.schema
    assert contents(folder) == contents(whole)
    assert leftovers(folder) == []
