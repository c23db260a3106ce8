"""A disk that is full, read-only or broken at any single call: one clear line, nothing corrupt, and it goes on."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

import crashing
import soak_table
from bluffscope.table.shards import committed_shards
from faults import Fault, Injector

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO)
SHORT = "short write"
PAIRS = 6


@pytest.fixture
def few(call, options, tmp_path) -> tuple[list[str], Path]:
    """Flags of a run of three shards, and the run."""
    flags = [*options, "--limit", str(PAIRS)]
    assert call("analyze", *flags, "--out", tmp_path / "whole").code == 3
    return flags, tmp_path / "whole"


def check_nothing_corrupt(folder: Path) -> None:
    """Whatever stands under its own name is whole."""
    if (folder / "shards").exists():
        for file in committed_shards(folder / "shards"):
            file.content()
    for path in folder.glob("*.parquet"):
        pl.read_parquet(path)
    if (folder / "manifest.json").exists():
        crashing.manifest(folder)


def strike(call: Callable, options: list[str], whole: Path, folder: Path, nth: int, kind: int | str) -> bool:
    """A run whose n-th call goes wrong so, and another that goes on; False where there is no such call."""
    fault = Fault(call="write", moment="half", nth=nth) if kind == SHORT else Fault(error=int(kind), nth=nth)
    injector = Injector(folder, fault)
    with injector.installed():
        outcome = call("analyze", *options, "--out", folder)
    struck = [name for name in injector.calls if kind != SHORT or name[0] == "write"]
    if len(struck) < nth:
        assert outcome.code == 3
        return False
    where = f"{kind} at {struck[nth - 1]}: {outcome.said}"
    if outcome.code == 3:  # what had to be written is: tidying, and making a folder that is there, may fail
        assert kind == SHORT or struck[nth - 1][0] in ("unlink", "mkdir"), where
    else:
        assert outcome.code == 2, where
        assert len(outcome.said.splitlines()) == 1 and os.strerror(int(kind)) in outcome.said, where
        assert str(folder) in outcome.said and "Traceback" not in outcome.said, where
        if folder.exists():
            check_nothing_corrupt(folder)
    again = ("--resume", folder) if folder.exists() else ("--out", folder)
    assert call("analyze", *options, *again).code == 3, where
    crashing.check_equal(folder, whole, PAIRS)
    return True


def kinds() -> Iterator[int | str]:
    """The ways in which a call goes wrong, in turn."""
    while True:
        yield from ERRORS


def test_every_call_that_writes_may_fail_once(call, few, tmp_path):
    injected = 0
    for nth, kind in enumerate(kinds(), 1):
        if not strike(call, *few, tmp_path / f"run{nth}", nth, kind):
            break
        injected += 1
    assert injected > 60  # each shard alone has six calls


def test_every_write_may_take_a_part_only(call, few, tmp_path):
    nth = 1
    while strike(call, *few, tmp_path / f"run{nth}", nth, SHORT):
        nth += 1
    assert nth > 10


def test_a_disk_that_stays_full_lets_the_run_go_on_when_there_is_space_again(call, options, whole, tmp_path):
    class Full(Injector):
        def _hits(self, call, name):
            return call == "write" and "000002" in name

    with Full(tmp_path / "run", Fault(error=errno.ENOSPC)).installed():
        for how in ("--out", "--resume"):
            outcome = call("analyze", *options, how, tmp_path / "run")
            assert outcome.code == 2
            assert "No space left on device; free space" in outcome.said
            assert f"bluffscope analyze --resume {tmp_path / 'run'}" in outcome.said
    assert call("analyze", "--resume", tmp_path / "run").code == 3
    crashing.check_equal(tmp_path / "run", whole.folder)
    assert crashing.manifest(tmp_path / "run")["sessions"][0]["pairs"] == 2 * crashing.SHARD_PAIRS


def test_a_run_that_will_not_fit_is_refused_before_it_starts(call, options, monkeypatch, tmp_path):
    usage = type("usage", (), {"total": 10**12, "free": 10_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    outcome = call("analyze", *options, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "12 pairs need about" in outcome.said and "and 10.0 kB are free: free space" in outcome.said
    assert not (tmp_path / "run").exists()


WAYS = {"no space": errno.ENOSPC, "read-only": errno.EROFS, "I/O error": errno.EIO, SHORT: SHORT}


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS)
def test_every_call_fails_in_every_way(call, few, tmp_path, way):
    started = time.perf_counter()
    nth = 1
    lost = again = 0
    while strike(call, *few, tmp_path / f"run{nth}", nth, WAYS[way]):
        gone, twice = crashing.missing_and_repeated(tmp_path / f"run{nth}", PAIRS)
        lost, again, nth = lost + gone, again + twice, nth + 1
    row = soak_table.Row(
        f"disk: {way}, at each {'write' if way == SHORT else 'call'} in turn",
        nth - 1,
        2 * nth - 1,
        lost,
        again,
        time.perf_counter() - started,
    )
    soak_table.ROWS.append(row)
