"""How `bluffscope analyze` ends, and the same command as a script of its own."""

from __future__ import annotations

import sys

import polars as pl

from bluffscope.cli import analyze
from bluffscope.cli.analyze import experiment


def test_an_experiment_runs_its_analyses_alone_and_a_complete_run_is_not_run_again(
    call, tiny_flags, tmp_path, monkeypatch, capsys
):
    script = "experiments/05_semantic_misalignment.py"
    monkeypatch.setattr(sys, "argv", ["", *map(str, tiny_flags), "--allow-unsound"])
    assert experiment(script, "Geometry of the features.", ("semantic_misalignment",), batch_size=2) == 0
    columns = pl.read_parquet_schema(tmp_path / "run" / "metrics.parquet")
    assert "axis_twist_fact" in columns
    assert "l1_fact_gini" not in columns
    assert "batch_size: 2" in (tmp_path / "run" / "config.yaml").read_text()
    assert "Run: " in capsys.readouterr().out

    outcome = call("analyze", "--resume", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    said = f"Nothing to do: {tmp_path / 'run'} is complete, and its 4 tables match their checksums\n"
    assert outcome.out == said


def test_an_experiment_s_wrong_flag_is_answered_under_the_script_s_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["05_semantic_misalignment.py", "--modle", "x"])
    assert experiment("experiments/05_semantic_misalignment.py", "Geometry of the features.") == 2
    assert capsys.readouterr().err.startswith("05_semantic_misalignment.py: --modle")


def test_workers_and_memory_are_told_in_a_line_each():
    workers = {"number": 2, "threads": 1, "gpu": False, "lost": 1, "pairs_per_second_each": 61.23}
    assert analyze._workers_line(workers) == "Workers: 2, each with 1 thread, 61.2 pairs/sec (1 died on the way)"
    fresh = workers | {"threads": 4, "gpu": True, "lost": 0, "pairs_per_second_each": None}
    assert analyze._workers_line(fresh) == "Workers: 2, each with 4 threads and a GPU"
    assert analyze._memory_line({"peak_bytes": 1_240_000_000, "predicted_bytes": None}) == "Peak memory: 1.2 GB"
