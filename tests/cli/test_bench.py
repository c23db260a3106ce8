"""`bluffscope bench`: tables on the terminal, records and figures on disk."""

from __future__ import annotations

import json
from typing import get_args, get_type_hints

import pytest

from bluffscope.compare.bench.jobs import STRATEGIES, ladder
from bluffscope.config import EngineOptions


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
    jobs = {job.step: job for job in ladder("demo")}
    for strategy in get_args(get_type_hints(EngineOptions)["strategy"]):
        step = STRATEGIES.get(strategy, strategy)
        assert jobs[step].strategy == strategy


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--strategies", "magic"], "--strategies 'magic': no such step or strategy; there are 'packed', 'separate'"),
        (["--strategies", "paked"], "--strategies 'paked': no such step or strategy; did you mean 'packed'?"),
        (["--strategies", "tries"], "--strategies 'tries': no such step or strategy; did you mean 'token tries'?"),
        (["--batch-sizes", "0"], "--batch-sizes 0: give at least 1"),
        (["--shape", "huge"], "--shape: expected demo or mid or gemma-2-2b, got huge"),
    ],
)
def test_bad_options_are_one_line(call, tmp_path, flags, says):
    outcome = call("bench", *flags, "--out", tmp_path / "bench")
    assert outcome.code == 2
    assert says in outcome.err
    assert not (tmp_path / "bench").exists()
