"""`bluffscope bench`: tables on the terminal, records and figures on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from bluffscope.compare.bench import jobs, processes
from bluffscope.compare.bench.jobs import STRATEGIES, ladder
from bluffscope.config import EngineOptions


@pytest.fixture
def one_pair_here(monkeypatch):
    """Each job measures one pair, in this process: a process of its own for each and its many pairs take minutes."""
    from bluffscope.compare.bench.measure import records  # torch

    def run_here(job):
        return records(replace(job, measurements=tuple(replace(one, pairs=1) for one in job.measurements)))

    monkeypatch.setattr(processes, "run_job", run_here)
    monkeypatch.setattr(jobs, "GROWTH", (100,))


@pytest.mark.thorough
def test_each_part_that_is_asked_for_has_its_records_its_table_and_its_figure(call, tmp_path, one_pair_here):
    out = tmp_path / "bench"
    steps = ("sequential", "one forward for all layers", "packed")
    outcome = call("bench", "--parts", "ladder", "limit", "growth", "--strategies", *steps, "--out", out)
    assert outcome.code == 0, outcome
    jobs_said = ("sequential (sequential", f"{steps[1]} (batched", "async I/O (packed", "growth (packed")
    assert outcome.err.splitlines() == [f"measuring demo: {job}, float32)" for job in jobs_said]

    lists = json.loads((out / "bench.json").read_text())
    counts = {"ladder": 3, "batch_sizes": 0, "limit": 1, "growth": 1, "sharing": 0}
    assert {part: len(records) for part, records in lists.items()} == counts
    slow, first, fast = lists["ladder"]
    work = ("forwards", "encodes", "eigendecompositions")
    assert [slow["computed"][name] for name in work] == [13, 33, 9]
    assert slow["plain_forward_seconds"] > 0
    assert (first["computed"]["forwards"], first["computed"]["reads"]) == (1, 3)
    assert first["computed"]["tokens"] >= fast["computed"]["tokens"], "packed texts share their prompt"
    assert fast["held_bytes"] < fast["predicted_bytes"]

    assert "sequential: 13 forwards, 33 encodes, 9 eigendecompositions a pair" in outcome.out
    assert f"{first['seconds_per_pair'] / fast['seconds_per_pair']:.2f}x" in outcome.out
    assert f"float32: matrix products at {lists['limit'][0]['peak_flops'] / 1e9:.0f} GFLOP/s" in outcome.out
    assert "Growth, the embedded model" in outcome.out
    for name in ("ladder", "growth"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text()[:200]
        assert f"Written: {out / name}.svg" in outcome.out
    assert not (out / "sharing.svg").exists()


@pytest.mark.process
def test_the_command_prints_tables_and_writes_records_and_figures(call, tmp_path):
    out = tmp_path / "bench"
    outcome = call("bench", "--parts", "ladder", "--strategies", "token tries", "packed", "--out", out)
    assert outcome.code == 0
    assert "The ladder, shape demo" in outcome.out
    lists = json.loads((out / "bench.json").read_text())
    assert list(lists) == ["ladder", "batch_sizes", "limit", "growth", "sharing"]
    assert [found["step"] for found in lists["ladder"]] == ["token tries", "async I/O"]
    assert lists["limit"][0]["peak_flops"] > 1e9
    for name in ("ladder.png", "ladder.svg"):
        assert (out / name).stat().st_size > 3000


def test_every_strategy_has_its_place_on_the_ladder():
    steps = {job.step: job for job in ladder("demo")}
    for strategy in get_args(get_type_hints(EngineOptions)["strategy"]):
        step = STRATEGIES.get(strategy, strategy)
        assert steps[step].strategy == strategy


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--strategies", "magic"], "--strategies 'magic': no such step or strategy; there are 'packed', 'separate'"),
        (["--strategies", "paked"], "--strategies 'paked': no such step or strategy; did you mean 'packed'?"),
        (["--strategies", "tries"], "--strategies 'tries': no such step or strategy; did you mean 'token tries'?"),
        (["--batch-sizes", "0"], "--batch-sizes 0: give at least 1"),
        (["--sae", "folder"], "--sae without --model: name the model to measure"),
        (["--model", "m", "--repeats", "0"], "--repeats 0: give at least 1"),
        (["--model", "m", "--strategies", "packed"], "--strategies: not with --model, which has a table of its own"),
        (["--shape", "huge"], "--shape: expected demo or mid or gemma-2-2b, got huge"),
    ],
)
def test_bad_options_are_one_line(call, tmp_path, flags, says):
    outcome = call("bench", *flags, "--out", tmp_path / "bench")
    assert outcome.code == 2
    assert says in outcome.err
    assert not (tmp_path / "bench").exists()


def test_a_folder_that_cannot_be_made_is_one_line_before_anything_is_measured(call, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = call("bench", "--out", tmp_path / "file" / "bench")
    assert outcome.code == 2
    assert "bench: cannot be made (Not a directory); choose another folder" in outcome.err
    assert "measuring" not in outcome.err
