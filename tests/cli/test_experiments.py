"""The four scripts of experiments/ run by their names and flags."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
SINGLE = ("centroid_drift", "axis_twist", "stability", "entropy", "cross_layer_consistency", "cross_layer_alignment")


@pytest.fixture
def script(monkeypatch, tiny_flags, capsys, tmp_path):
    """Run a script on the tiny model, in this process; gives its exit code and the metrics measured."""

    def run(name: str, *flags: object, out: str = "run") -> tuple[int, pl.DataFrame]:
        path = FOLDER / f"{name}.py"
        given = [*tiny_flags[:-1], tmp_path / out, *flags, "--allow-unsound"]
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, given)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(path), run_name="__main__")
        return stop.value.code, pl.read_parquet(tmp_path / out / "metrics.parquet")

    return run


def measured(table):
    """The metrics of the fact in a table, without layers."""
    return {
        name.split("_fact_")[-1].removesuffix("_fact")
        for name in table.columns
        if "_fact" in name and not name.startswith("fact_")
    }


def saved(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


@pytest.mark.usefixtures("drawn")
def test_04_measures_layer_sensitivity_alone(script, tmp_path, capsys):
    code, table = script("04_layer_sensitivity", "--figures", "--full")
    assert code == 0
    assert {"l0_norm", "gini", "sphericity", "shape_class", "relative_error"} <= measured(table)
    assert not measured(table) & set(SINGLE)
    out = capsys.readouterr().out
    assert "Layer sensitivity, layer 3" in out
    assert "Stability" not in out
    assert (tmp_path / "run" / "figures" / "dashboard.png").stat().st_size > 10_000


@pytest.mark.usefixtures("drawn")
def test_05_measures_semantic_misalignment_alone(script, tmp_path, capsys):
    code, table = script("05_semantic_misalignment", "--figures", "--full")
    assert code == 0
    assert measured(table) == {"centroid_drift", "axis_twist"}
    assert "Semantic misalignment" in capsys.readouterr().out
    assert (tmp_path / "run" / "figures" / "dashboard.png").stat().st_size > 10_000


def test_06_takes_one_pair_at_a_time_and_its_parallel_twin_eight_or_what_it_is_told(script, tmp_path):
    code, one = script("06_comprehensive_analysis", out="one")
    assert code == 0
    assert set(SINGLE) <= measured(one)
    assert "gini" in measured(one)
    assert saved(tmp_path / "one")["engine"]["batch_size"] == 1
    _, eight = script("06_comprehensive_analysis_parallel", out="eight")
    assert saved(tmp_path / "eight")["engine"]["batch_size"] == 8
    _, sixteen = script("06_comprehensive_analysis_parallel", "--batch-size", 16, out="sixteen")
    assert saved(tmp_path / "sixteen")["engine"]["batch_size"] == 16
    for table in (eight, sixteen):
        assert_frame_equal(table, one, rel_tol=1e-4, abs_tol=1e-3)


def test_the_parts_give_the_columns_of_the_whole(script):
    _, whole = script("06_comprehensive_analysis_parallel", out="whole")
    for name in ("04_layer_sensitivity", "05_semantic_misalignment"):
        _, part = script(name, "--batch-size", 8, out=name)
        assert_frame_equal(part, whole.select(part.columns), check_exact=True)


def test_a_script_takes_every_flag_and_refuses_others_by_its_own_name(script, monkeypatch, capsys, tmp_path):
    _, table = script("04_layer_sensitivity", "--layers", 1, "--limit", 2)
    assert table.height == 2
    assert "l1_fact_gini" in table.columns
    assert "l0_fact_gini" not in table.columns
    path = str(FOLDER / "04_layer_sensitivity.py")
    for flags, code, word in (
        (["--nope"], 2, "--nope: no such option"),
        (["--help"], 0, "usage: 04_layer_sensitivity.py"),
    ):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [path, *flags])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(path, run_name="__main__")
        said = capsys.readouterr()
        assert stop.value.code == code
        assert word in said.out + said.err
        assert len(said.err.splitlines()) == (1 if code else 0)


def test_every_script_is_a_few_lines():
    scripts = sorted(FOLDER.glob("*.py"))
    assert [path.name[:2] for path in scripts] == ["04", "05", "06", "06"]
    assert all(len(path.read_text().splitlines()) <= 12 for path in scripts)
