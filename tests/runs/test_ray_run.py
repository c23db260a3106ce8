"""Whole runs on Ray: the same tables as in one process, one fatal pair in quarantine, and resumed on either engine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import polars as pl
import psutil
import pytest
import torch
from polars.testing import assert_frame_equal

import tiny
from bluffscope.api import config_from, run
from bluffscope.errors import RunStopped
from bluffscope.host.machine import cores_granted
from bluffscope.metrics.own import UserAnalysis
from bluffscope.runs.resume import saved_options
from bluffscope.table.schema import Column

pytest.importorskip("ray")
from bluffscope.engine.cluster import cluster  # noqa: E402

NUMBER = 24


@pytest.fixture(scope="module", autouse=True)
def machine():
    """Ray on this machine, once for all tests."""
    with cluster(None, 3):
        yield


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs with prompts of their own."""
    rows = [
        {**tiny.PAIRS[index % 5], "id": f"p{index}", "prompt": f"{index}: {tiny.PAIRS[index % 5]['prompt']}"}
        for index in range(NUMBER)
    ]
    return tiny.write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def options(tiny_model, tiny_saes, pairs):
    return {"model": tiny_model, "sae": tiny_saes, "data": str(pairs), "shard_pairs": 4, "logprob": "off"}


@pytest.fixture(scope="module")
def local(options, tmp_path_factory):
    """Runs in this process, by number of threads."""
    done = {}

    def with_threads(number):
        if number not in done:
            before = torch.get_num_threads()
            torch.set_num_threads(number)
            done[number] = run(config_from(**options, out=tmp_path_factory.mktemp("local") / "run"), draw=False)
            torch.set_num_threads(before)
        return done[number]

    return with_threads


def same_tables(one, other):
    for name in ("metrics", "features", "pairs"):
        left, right = (pl.read_parquet(folder / f"{name}.parquet") for folder in (one, other))
        assert left.equals(right), name


def checked(result):
    """What the health gate looked at, and what came out."""
    return [(check["check"], check["layer"], check["severity"]) for check in result.manifest["health"]["checks"]]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_tables_of_one_process_bit_for_bit(workers, options, local, tmp_path, caplog):
    result = run(config_from(**options, engine="ray", workers=workers, out=tmp_path / "run"), draw=False)
    found = result.manifest["workers"]
    assert found["number"] == workers
    here = local(found["threads"])
    same_tables(here.path, result.path)
    counts = result.manifest["counts"]
    assert counts == here.manifest["counts"]
    assert result.manifest["model"] == here.manifest["model"]
    assert {"tokenise", "forward", "sae", "geometry", "write"} <= set(result.manifest["timings"])
    # A worker reads the texts again: the gate is the same.
    assert checked(result) == checked(here)
    assert ("packed = single", 1, "ok") in checked(result)
    memory = result.manifest["memory"]
    assert memory["predicted_bytes"] > 0
    assert memory["peak_bytes"] > 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_every_layer_predicts_is_the_same_on_ray_without_saes(tiny_model, pairs, tmp_path):
    bare = {"model": tiny_model, "sae": "none", "layers": "all", "data": str(pairs), "shard_pairs": 4, "logprob": "off"}
    result = run(config_from(**bare, engine="ray", workers=2, out=tmp_path / "ray"), draw=False)
    assert result.manifest["workers"]["number"] == 2
    before = torch.get_num_threads()
    torch.set_num_threads(result.manifest["workers"]["threads"])
    here = run(config_from(**bare, out=tmp_path / "here"), draw=False)
    torch.set_num_threads(before)
    metrics = result.metrics()
    assert {f"l{layer}_hall_lens_logprob" for layer in range(4)} <= set(metrics.columns)
    assert metrics.height == NUMBER
    assert metrics.equals(here.metrics())
    same_tables(here.path, result.path)
    assert checked(result) == checked(here)


def fatal(measurement):
    """An analysis of the user's own: it ends its process at one pair."""
    if "p13" in measurement.pair_ids:
        os._exit(3)
    return {"letters": np.array([float(len(pair)) for pair in measurement.pair_ids])}


def test_a_pair_that_kills_its_worker_is_quarantined_and_all_others_are_measured(options, local, tmp_path):
    added = UserAnalysis(fatal, (Column("letters", "float", "letters", 0, None, "Letters of the id."),))
    config = config_from(**{**options, "shard_pairs": 2}, engine="ray", workers=1, out=tmp_path / "run")
    result = run(config, added=(added,), draw=False)
    assert (result.merged.rows, result.merged.quarantined) == (NUMBER - 1, 1)
    found = pl.read_parquet(result.path / "quarantine.parquet").row(0, named=True)
    assert found["pair_id"] == "p13"
    assert found["reason"].startswith("the worker's process died whenever it measured this pair")
    assert result.manifest["workers"]["lost"] >= 3  # its shard twice, then the pair
    metrics = result.metrics()
    assert metrics["letters"].to_list() == [float(len(pair)) for pair in metrics["pair_id"]]
    here = local(1).metrics().filter(pl.col("pair_id") != "p13")
    assert_frame_equal(metrics.drop("letters"), here, rel_tol=1e-4, abs_tol=1e-4)
    assert "died" in (result.path / "log.jsonl").read_text()


class Interrupting:
    """A progress during which the user presses Ctrl-C."""

    def start(self, total):
        self.left = 9

    def advance(self, pairs):
        self.left -= pairs
        if self.left <= 0:
            raise KeyboardInterrupt

    def finish(self):
        pass


def test_a_run_that_was_stopped_here_is_finished_on_ray_with_the_same_tables(options, local, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.raises(RunStopped):
        run(config_from(**options, out=tmp_path / "run"), progress=Interrupting())
    torch.set_num_threads(threads)
    committed = len(list((tmp_path / "run" / "shards").glob("*.parquet")))
    assert 0 < committed < NUMBER // 4
    saved = saved_options(tmp_path / "run")
    engine = replace(saved.engine, engine="ray", workers=3)
    result = run(replace(saved, engine=engine, output=replace(saved.output, resume=tmp_path / "run")), draw=False)
    assert result.manifest["workers"]["threads"] == 1
    same_tables(local(1).path, result.path)
    assert [session["pairs"] for session in result.manifest["sessions"]] == [4 * committed, NUMBER - 4 * committed]


def running(process):
    """Whether a process works still: one whose parent is gone may wait for ever to be buried."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("victim", ["driver", "raylet", pytest.param("gcs_server", marks=pytest.mark.soak)])
def test_a_run_whose_driver_or_whose_ray_is_killed_ends_and_is_finished_here_with_the_same_tables(
    victim, options, tmp_path
):
    out = tmp_path / "run"
    # Each pair a shard and a forward of its own: there is time to kill it between the first shard and the last.
    slow = {**options, "shard_pairs": 1, "noise_draws": 200}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in slow.items()]
    command = [sys.executable, "-m", "bluffscope", "analyze", *flags, "--engine", "ray", "--workers", "1"]
    with (tmp_path / "stderr").open("w") as stream:
        driver = subprocess.Popen([*command, "--out", str(out)], stderr=stream)
    try:
        deadline = time.monotonic() + 200
        while not list(out.glob("shards/*.parquet")) and time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.02)
        # Ray's own agents end a minute later, once they have given up on telling somebody.
        processes = psutil.Process(driver.pid).children(recursive=True)
        workers = [process for process in processes if "Station" in " ".join(process.cmdline())]
        if victim != "driver":
            next(process for process in processes if process.name() == victim).kill()
            driver.wait(timeout=60)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(timeout=30)
    if victim != "driver":
        assert driver.returncode == 2
        said = (tmp_path / "stderr").read_text(encoding="utf-8")
        assert "Traceback" not in said
        last = said.strip().splitlines()[-1]
        assert last.startswith(f"bluffscope analyze: --engine ray: Ray's process {victim} on this machine has died; ")
        assert last.endswith(f"committed shards are kept: bluffscope analyze --resume {out}")
    assert workers
    committed = len(list(out.glob("shards/*.parquet")))
    assert 0 < committed < NUMBER
    saved = saved_options(out)
    threads = torch.get_num_threads()
    torch.set_num_threads(cores_granted())  # as its one worker
    here = replace(saved.engine, engine="local", workers="auto")
    result = run(replace(saved, engine=here, output=replace(saved.output, resume=out)), draw=False)
    whole = run(config_from(**slow, out=tmp_path / "whole"), draw=False)
    torch.set_num_threads(threads)
    same_tables(whole.path, result.path)
    assert result.manifest["sessions"][0]["pairs"] == committed
    deadline = time.monotonic() + 30
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(running, workers))
