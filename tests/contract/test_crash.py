"""A run that is killed at any moment and gone on with: the same tables, every pair once, nothing measured twice."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import crashing
import soak_table
from faults import Fault, killed

SHARDS = -(-crashing.PAIRS // crashing.SHARD_PAIRS)
HALF = SHARDS // 2
STEPS = {
    "before a shard is written": killed("open", rf"^\.0*{HALF}\."),
    "a shard half-written": killed("write", rf"^\.0*{HALF}\.", "half"),
    "before a shard is renamed": killed("replace", rf"^0*{HALF}\."),
    "after a shard is renamed": killed("replace", rf"^0*{HALF}\.", "after"),
    "a table half-written": killed("write", r"^\.features\.", "half"),
    "between two tables": killed("replace", r"^pairs\.parquet"),
    "before the manifest": killed("replace", r"^manifest\.json"),
    "after the manifest": killed("replace", r"^manifest\.json", "after"),
    "while shards are removed": killed("rename", r"^\.shards\.tmp", "after"),
}
KEPT = {name: HALF + (name == "after a shard is renamed") for name in STEPS if "a shard" in name}
"""Shards that are committed by then; all of them at the later steps."""


@pytest.fixture
def killed_run(tmp_path, options) -> Callable[[Fault], Path]:
    def start(fault: Fault) -> Path:
        folder = tmp_path / "run"
        ended = crashing.start(options, folder, fault)
        assert ended.code == -signal.SIGKILL, ended.said
        return folder

    return start


@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_at_a_step_of_a_commit_finishes_as_if_nothing_had_happened(killed_run, whole, step):
    folder = killed_run(STEPS[step])
    ended = crashing.resume(folder)
    assert ended.code == 3, ended.said
    crashing.check_equal(folder, whole.folder)
    measured = [session["pairs"] for session in crashing.manifest(folder)["sessions"]]
    kept = KEPT.get(step, SHARDS) * crashing.SHARD_PAIRS
    assert sum(measured) == crashing.PAIRS
    assert measured[-1] == (crashing.PAIRS - kept if step in KEPT else measured[-1])
    assert measured[0] == kept


def test_a_run_killed_at_half_computes_no_more_than_the_other_half(killed_run, whole):
    folder = killed_run(killed("replace", rf"^0*{HALF - 1}\.", "after"))
    assert crashing.resume(folder).code == 3
    first, second = crashing.manifest(folder)["sessions"]
    assert first["pairs"] == second["pairs"] == crashing.PAIRS // 2
    counts, forwards = crashing.manifest(folder)["counts"], second["computed"]["forwards"]
    assert counts["measured"] + counts["quarantined"] == crashing.PAIRS
    assert forwards <= 0.6 * crashing.manifest(whole.folder)["counts"]["forwards"]
    assert counts["forwards"] == first["computed"]["forwards"] + forwards
    timings = crashing.manifest(folder)["timings"]
    assert timings["total"] == pytest.approx(first["elapsed"] + second["elapsed"], abs=0.01)


def test_a_run_killed_again_and_again_finishes(killed_run, whole):
    folder = killed_run(killed("replace", r"^000000\."))
    for fault in (killed("write", r"^\.000002\.", "half"), killed("write", r"^\.metrics", "half")):
        assert crashing.resume(folder, fault=fault).code == -signal.SIGKILL
    assert crashing.resume(folder).code == 3
    crashing.check_equal(folder, whole.folder)
    assert len(crashing.manifest(folder)["sessions"]) == 3  # one died before it committed anything


def test_a_folder_killed_before_its_options_were_written_is_simply_started(killed_run, whole, options):
    folder = killed_run(killed("replace", r"^config\.yaml"))
    assert crashing.resume(folder, *options).code == 3
    crashing.check_equal(folder, whole.folder)


def random_kills(folder: Path, whole: crashing.Whole, options: list[str], rng: random.Random) -> tuple[int, int]:
    """Kill a run at a random moment of it, and then whoever goes on with it, until one comes through."""
    injected, runs = 0, 1
    ended = crashing.start(options, folder, kill_after=rng.uniform(0.2, 1.0) * whole.seconds)
    while ended.code == -signal.SIGKILL:
        injected, runs = injected + 1, runs + 1
        # One in three is killed again: otherwise a run might never end.
        moment = rng.uniform(0.2, 1.0) * whole.seconds if rng.random() < 1 / 3 else None
        ended = (
            crashing.resume(folder, *options, kill_after=moment) if folder.exists() else crashing.start(options, folder)
        )
    assert ended.code == 3, ended.said
    crashing.check_equal(folder, whole.folder)
    return injected, runs


def kill_often(folder: Path, whole: crashing.Whole, options: list[str], kills: int) -> soak_table.Row:
    """Runs that are killed at random moments, until so many were; some of them come through before their moment."""
    rng, started = random.Random(kills), time.perf_counter()
    injected = runs = lost = again = number = 0
    while injected < kills:
        number += 1
        assert number <= 10 * kills, f"only {injected} of {number} runs were killed"
        more = random_kills(folder / f"run{number}", whole, options, rng)
        gone, twice = crashing.missing_and_repeated(folder / f"run{number}")
        injected, runs, lost, again = injected + more[0], runs + more[1], lost + gone, again + twice
    seconds = time.perf_counter() - started
    return soak_table.Row("kill -9 at a random moment", injected, runs, lost, again, seconds)


def test_a_run_killed_at_five_random_moments_finishes_each_time(tmp_path, whole, options):
    kill_often(tmp_path, whole, options, 5)


@pytest.mark.soak
def test_a_run_killed_at_many_random_moments_finishes_each_time(tmp_path, whole, options):
    soak_table.ROWS.append(kill_often(tmp_path, whole, options, 25))


STEPS_OF_A_COMMIT = {
    "before a file is opened": ("open", "before", 3),
    "in the middle of a write": ("write", "half", 3),
    "before a sync": ("fsync", "before", 3),
    "before a rename": ("replace", "before", 1),
    "after a rename": ("replace", "after", 1),
}
"""Each with how many calls are passed over: files are opened, written and synced in the same way again and again."""


@pytest.mark.soak
@pytest.mark.parametrize("step", STEPS_OF_A_COMMIT)
def test_every_step_of_every_commit(tmp_path, whole, options, step):
    started = time.perf_counter()
    call, moment, stride = STEPS_OF_A_COMMIT[step]
    injected = runs = lost = again = 0
    nth = 1
    while True:
        folder = tmp_path / f"run{nth}"
        runs += 1
        fault = Fault(signal=signal.SIGKILL, call=call, moment=moment, nth=nth)
        if crashing.start(options, folder, fault).code != -signal.SIGKILL:
            break
        ended = crashing.resume(folder, *options) if folder.exists() else crashing.start(options, folder)
        assert ended.code == 3, ended.said
        crashing.check_equal(folder, whole.folder)
        gone, twice = crashing.missing_and_repeated(folder)
        injected, runs, lost, again, nth = injected + 1, runs + 1, lost + gone, again + twice, nth + stride
    seconds = time.perf_counter() - started
    soak_table.ROWS.append(soak_table.Row(f"kill -9 {step}", injected, runs, lost, again, seconds))
