"""`bluffscope compare`: what is printed and written, what is refused; no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import polars as pl
import pytest

import bluffscope
import tiny
from bluffscope.compare.runs import COMPARE_SCHEMA
from random_pairs import random_pairs


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model, tiny_saes):
    """Folders of three runs over the same pairs: as it is, in bfloat16, with other layers and another seed."""
    root = tmp_path_factory.mktemp("runs")
    said = [r for r in random_pairs(41, count=40) if r["fact"].strip() and r["hallucination"].strip()][:20]
    records = [{**record, "known": bool(n % 3)} for n, record in enumerate(said)]
    options = {"model": str(tiny_model), "sae": str(tiny_saes), "noise_draws": 2, "device": "cpu", "logprob": False}
    for name, more in {
        "plain": {},
        "half": {"dtype": "bfloat16"},
        "deep": {"layers": (3,), "seed": 4},
        "shallow": {"layers": (1,), "logprob": True},
    }.items():
        bluffscope.analyze(records, out=root / name, **(options | more))
    return root


def test_it_says_what_differs_what_agrees_and_what_precision_changed(call, runs, tmp_path):
    outcome = call("compare", runs / "plain", runs / "half", "--by", "known", "--out", tmp_path / "deep" / "out")
    assert (outcome.code, outcome.err) == (0, ""), outcome
    said = " ".join(outcome.out.split())
    assert outcome.out.startswith("half against plain: 20 shared pairs (of 20 in the first run and 20 in this one)")
    assert "Options: model.dtype is 'bfloat16' here, 'float32' in the first run." in said
    assert "Options: engine" not in said
    rows = pl.read_parquet(tmp_path / "deep" / "out" / "compare.parquet")
    assert rows.schema == COMPARE_SCHEMA
    assert set(rows["scope"]) == {"a", "b", "pooled", "known=true", "known=false"}
    pooled = rows.filter(pl.col("metric") != "cross_layer_consistency", scope="pooled")
    tested = pooled.drop_nulls(["adj_dz_first", "adj_dz_other"])
    assert f"Verdicts agree in {tested.filter(agrees=True).height} of {tested.height} metrics over all pairs" in said
    for metric in rows["metric"].unique():
        assert metric in outcome.out
    assert "Fidelity: the same model and SAEs" in said
    assert "active in the first" in said
    assert f"compare.parquet, compare.json ({rows.height} rows)" in said
    assert max(map(len, outcome.out.splitlines()[:-1])) <= 100
    about = json.loads((tmp_path / "deep" / "out" / "compare.json").read_text())
    assert about["rows"] == rows.to_dicts()
    (other,) = about["others"]
    assert other["differences"]["model.dtype"] == ["float32", "bfloat16"]
    assert {row["metric"] for row in other["fidelity"]} >= {"features", "gini", "stability", "shape_class"}


def test_several_runs_other_layers_and_missing_metrics(call, runs, tmp_path):
    outcome = call("compare", runs / "shallow", runs / "deep", runs / "plain")
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())
    assert "Options: model.layers is 3 here, 1 in the first run." in said
    assert "Options: measure.seed is 4 here, 0 in the first run." in said
    assert "Layers: 3 with 1 of the first run, matched by name and order." in said
    assert "Not compared, in one run only: 2 metrics (logprob, logprob_per_token)." in said
    assert "l1_gini / l3_gini" in said
    assert "plain against shallow: 20 shared pairs" in said
    assert list((tmp_path / "cwd").iterdir()) == []


def test_equal_runs_are_called_so(call, runs, copied):
    outcome = call("compare", runs / "plain", copied(runs / "plain"))
    assert "Options: the same, as far as they change numbers." in outcome.out
    assert "opposite" not in outcome.out.partition("Over all pairs")[2]


def test_what_cannot_be_used_is_refused_in_one_line(refused, runs, copied, tmp_path):
    one = runs / "plain"
    refused("compare", says="expected two or more runs to compare, got 0")
    refused("compare", one, says="expected two or more runs to compare, got 1: give the folders of all")
    refused("compare", one, one, says="is given twice")
    refused("compare", one, tmp_path / "no", says="is missing: expected the folder of a run")
    refused("compare", one, tmp_path, says="holds no run")
    refused("compare", one, runs / "half", "--by", "mood", says="--by mood: no such column")
    refused("compare", one, runs / "half", "--otu", "x", says="--otu: no such option")
    for name, says in (
        ("pairs.parquet", "pairs.parquet"),
        ("manifest.json", "manifest.json"),
        ("config.yaml", "config.yaml"),
        ("features.parquet", "features.parquet"),
    ):
        folder = copied(runs / "half")
        (folder / name).write_bytes(b"\x00 nothing")
        refused("compare", one, folder, says=says)
        (folder / name).unlink()
        refused("compare", one, folder, says=says)
        shutil.rmtree(folder)


BLOCKED = """
import sys
from importlib.machinery import PathFinder

there = PathFinder.find_spec
absent = ("torch", "ray", "transformers", "sae_lens", "safetensors")
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in absent else there(name, *rest)
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    sys.exit("torch is still there")
from bluffscope.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.process
def test_it_works_where_torch_and_ray_cannot_be_imported(runs):
    arguments = ["compare", str(runs / "plain"), str(runs / "half")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "half against plain" in done.stdout


def test_pairs_of_another_data_set_are_refused(refused, runs, tiny_model, tiny_saes, tmp_path):
    bluffscope.analyze(tiny.PAIRS, model=tiny_model, sae=tiny_saes, out=tmp_path / "foreign", device="cpu")
    refused("compare", runs / "plain", tmp_path / "foreign", says="share no pair (no pair id is in both)")
