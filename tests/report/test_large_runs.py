"""Reports of runs too large for a page or a memory: samples, and a page that says so."""

from __future__ import annotations

import json
import re

import polars as pl

from bluffscope.report import contents, page
from bluffscope.report.contents import read_contents
from bluffscope.report.page import page_data, render_page
from bluffscope.report.write import write_report
from bluffscope.stats import sampling
from made_runs import data_of, make_run


def small_limits(monkeypatch) -> None:
    monkeypatch.setattr(sampling, "MOST_TESTED", 40)
    monkeypatch.setattr(sampling.read_metrics, "__defaults__", (40,))
    monkeypatch.setattr(contents, "FEATURE_PAIRS", 30)
    monkeypatch.setattr(page, "MOST_PAIRS", 20)


def test_the_page_holds_a_sample_and_says_of_how_many(tmp_path, monkeypatch):
    small_limits(monkeypatch)
    folder = make_run(tmp_path / "run", 60)
    text = write_report(folder).path.read_text()
    assert "This page holds 20 of 60 pairs, drawn at random (seed 0)" in text
    assert "Of 60 pairs, 40 were looked at: whole groups drawn at random, seed 0." in text
    assert "Of 60 pairs, 30 were looked at" in text
    data = data_of(text)
    assert len(data["pairs"]["id"]) == len(data["metrics"][0]["fact"]) == len(data["features"]["pairs"]) == 20
    notes = json.loads((folder / "stats.json").read_text())["notes"]
    assert notes[0].startswith("Of 60 pairs, 40 were looked at")


def test_the_numbers_of_a_pair_that_is_held_are_its_own(tmp_path, monkeypatch):
    small_limits(monkeypatch)
    folder = make_run(tmp_path / "run", 60)
    found = read_contents(folder)
    data = page_data(found)
    whole = {row["pair_id"]: row for row in pl.read_parquet(folder / "metrics.parquet").iter_rows(named=True)}
    first = data["metrics"][0]
    column = f"l{first['layer']}_fact_{first['metric']}"
    for name, value in zip(data["pairs"]["id"], first["fact"], strict=True):
        assert abs(value - whole[name][column]) <= 1e-3 * abs(value)


def test_a_run_that_fits_is_shown_whole_without_a_word_of_samples(tmp_path):
    folder = make_run(tmp_path / "run", 60)
    write_report(folder)
    text = render_page(read_contents(folder)).decode()
    assert "drawn at random" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_a_run_of_very_many_metrics_has_fewer_items_on_its_page(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", 60)
    measured = len(read_contents(folder).measured)
    monkeypatch.setattr(page, "MOST_NUMBERS", 2 * measured * 25)
    text = write_report(folder).path.read_text()
    assert "This page holds 25 of 60 pairs, drawn at random (seed 0)" in text
    assert len(data_of(text)["pairs"]["id"]) == 25
