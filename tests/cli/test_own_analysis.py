"""`bluffscope analyze --analysis FILE.py:NAME`: measured, reported, resumed; run only where it is asked for."""

from __future__ import annotations

import os

import polars as pl
import pytest

import bluffscope
from bluffscope import InputError
from bluffscope.api import run
from bluffscope.config import run_config
from made_runs import data_of

FILE = """
import bluffscope
from pathlib import Path

Path({mark!r}).touch()

def peak(m, layer):
    return m.features(layer).max()

peak = bluffscope.per_read("peak", peak, unit="volts", low=0, doc="How high it goes.", label="Peak of it")
low = bluffscope.per_read("low", lambda m, layer: -m.features(layer).count(), unit="features", low=0)
"""


@pytest.fixture
def own(tmp_path):
    """The file, and a mark that it leaves where it is run."""
    mark = tmp_path / "was run"
    (tmp_path / "own.py").write_text(FILE.format(mark=str(mark)))
    return tmp_path / "own.py", mark


@pytest.fixture
def flags(tiny_model, tiny_saes, pairs_file):
    return ["--model", tiny_model, "--sae", tiny_saes, "--data", pairs_file]


def test_it_is_measured_tested_and_in_the_report(call, drawn, own, flags, tmp_path):
    out = tmp_path / "run"
    outcome = call("analyze", *flags, "--out", out, "--analysis", f"{own[0]}:peak")
    assert outcome.code == 0, outcome.err
    kept = bluffscope.read_run(out)
    assert kept.metrics["l3_hall_peak"].null_count() == 0
    assert kept.manifest["added"] == {"peak": {"label": "Peak of it", "unit": "volts", "doc": "How high it goes."}}
    assert {"l0_peak", "l1_peak", "l3_peak"} <= set(pl.read_parquet(out / "stats.parquet")["metric"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert ">Peak of it</summary>" in page
    assert "How high it goes. Unit: volts." in page
    assert "l1_peak" in data_of(page)["stats"]["metric"]  # among the effects
    largest = kept.features.filter(layer=1, view="fact").group_by("pair_id").agg(pl.col("activation").max()).collect()
    both = kept.metrics.select("pair_id", "l1_fact_peak").join(largest, on="pair_id")
    assert both["l1_fact_peak"].to_list() == pytest.approx(both["activation"].to_list())


def test_options_of_a_run_do_not_run_it_unless_it_is_asked_for_again(call, refused, own, flags, tmp_path):
    file, mark = own
    out = tmp_path / "run"
    assert call("analyze", *flags, "--out", out, "--analysis", f"{file}:peak").code == 0
    first = pl.read_parquet(out / "metrics.parquet")
    for name in ("manifest.json", "metrics.parquet"):
        (out / name).unlink()
    mark.unlink()
    again = f"--analysis {file}:peak"
    for flag, path in (("--resume", out), ("--config", out / "config.yaml")):
        says = ("its options name an analysis, which is code", again)
        assert refused("analyze", flag, path, says=says)
    with pytest.raises(InputError, match="options alone run no code"):
        run(run_config({"measure": {"analysis": [f"{file}:peak"]}}, "config.yaml"), draw=False)
    assert not mark.exists()
    assert call("analyze", "--resume", out, "--analysis", f"{file}:peak").code == 0
    assert pl.read_parquet(out / "metrics.parquet").equals(first)


def test_a_value_outside_its_range_ends_the_run_in_one_line(call, own, flags, tmp_path):
    outcome = call("analyze", *flags, "--out", tmp_path / "run", "--analysis", f"{own[0]}:low")
    assert outcome.code == 2
    line = outcome.err.splitlines()[-1]
    assert "analysis 'low', pair " in line and "outside its declared range 0 to ..." in line


def test_another_definition_is_not_resumed(call, own, flags, tmp_path):
    file, _ = own
    out = tmp_path / "run"
    assert call("analyze", *flags, "--out", out, "--analysis", f"{file}:peak").code == 0
    os.remove(out / "metrics.parquet")
    file.write_text(file.read_text().replace('low=0, doc="How', 'low=0, version=2, doc="How'))
    outcome = call("analyze", "--resume", out, "--analysis", f"{file}:peak")
    assert outcome.code == 2
    assert "the columns measured, or their definitions, are others" in outcome.err
