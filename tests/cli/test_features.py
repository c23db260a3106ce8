"""`bluffscope features`: the demo's planted structure by name, without the model; files; what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import polars as pl
import pytest

import bluffscope
from made_runs import make_run


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "demo"
    bluffscope.analyze("bluff200", preset="demo", out=str(out))
    return out


def rows_of(path) -> pl.DataFrame:
    return pl.read_parquet(path)


def test_on_the_demo_the_table_names_the_features_of_true_and_false_at_layer_8(call, demo, tmp_path):
    outcome = call("features", demo, "--where", "known=true", "--layer", 8, "--tokens", "--out", tmp_path / "f.parquet")
    assert outcome.code == 0, outcome.err
    rows = rows_of(tmp_path / "f.parquet")
    judged_true, judged_false = rows.row(0, named=True), rows.row(1, named=True)
    assert (judged_true["share_fact"], judged_true["share_hall"]) == (1.0, 0.0)
    assert judged_true["promotes"][0].strip() == "true"
    assert judged_false["share_fact"] < 0.05
    assert judged_false["share_hall"] == 1.0
    assert judged_false["promotes"][0].strip() == "false"
    for row in (judged_true, judged_false):
        assert row["differs_in"] == ["entity", "temporal", "logical", "adversarial"]
        assert row["q"] < 1e-15
    said = " ".join(outcome.out.split())
    assert f"{judged_true['feature']} 100 % 0 %" in said
    assert "'true'" in said
    assert "'false'" in said
    assert "more than chance" in said


def test_for_pairs_that_the_demo_does_not_know_nothing_differs_and_it_says_so(call, demo):
    outcome = call("features", demo, "--where", "known=false", "--format", "json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert [layer["found"] for layer in found["layers"]] == [0, 0, 0]
    assert all(layer["ghosts"] <= layer["ghosts_high"] for layer in found["layers"])
    said = " ".join(call("features", demo, "--where", "known=false", "--layer", 8).out.split())
    assert "tested features differs between fact and hallucination" in said
    assert "no more than chance" in said


def test_split_by_known_every_strong_feature_differs_in_known_pairs_alone(call, demo, tmp_path):
    assert call("features", demo, "--by", "known", "--out", tmp_path / "f.parquet").code == 0
    strongest = rows_of(tmp_path / "f.parquet").group_by("layer").head(20)
    assert strongest["differs_in"].to_list() == [["true"]] * 60


BLOCKED = """
import sys
from importlib.machinery import PathFinder
there = PathFinder.find_spec
absent = ("torch", "ray", "transformers", "sae_lens", "safetensors")
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in absent else there(name, *rest)
from bluffscope.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.process
def test_it_needs_neither_model_nor_torch_nor_ray(demo, tmp_path):
    command = [sys.executable, "-c", BLOCKED, "features", str(demo), "--out", str(tmp_path / "f.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Layer 8:" in done.stdout
    assert (tmp_path / "f.csv").exists()
    tokens = subprocess.run([*command, "--tokens"], capture_output=True, text=True, timeout=120)
    assert "No module named 'torch'" in tokens.stderr  # the block works


def test_pages_on_neuronpedia_are_named_where_the_sae_knows_its_place(call, tmp_path):
    run = make_run(tmp_path / "run", texts=("=1+1", "x"))
    outcome = call("features", run, "--out", tmp_path / "f.csv")
    assert outcome.code == 0, outcome.err
    assert "Pages: https://neuronpedia.org/gemma-2-2b/2-res/FEATURE" in outcome.out
    assert "javascript" not in outcome.out
    rows = pl.read_csv(tmp_path / "f.csv")
    first = rows.filter(layer=2).row(0, named=True)
    assert (first["feature"], first["page"]) == (0, "https://neuronpedia.org/gemma-2-2b/2-res/0")
    assert rows.filter(layer=5)["page"].null_count() == rows.filter(layer=5).height
    assert "1 ghost feature (in 5 or more hallucinations, in no fact)" in " ".join(outcome.out.split())


def test_the_report_counts_ghosts_too(tmp_path):
    from bluffscope.report.contents import read_contents
    from bluffscope.report.page import render_page

    page = render_page(read_contents(make_run(tmp_path / "run"))).decode()
    assert page.count("1 ghost feature (in 5 or more hallucinations, in no fact)") == 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--layer", 9), "--layer 9: the run has features of 2, 5"),
        (("--domain", "nonsense"), "--where domain=nonsense: no pair has it; domain is one of entity"),
        (("--where", "known"), "give COLUMN=VALUE"),
        (("--where", "nonsense=1"), "no such column"),
        (("--top", 0), "--top 0: give at least 1"),
        (("--limit", 5), "only with --ablate"),
        (("--out", "x.txt"), "ends in .csv"),
        (("--by", "nonsense"), "--by nonsense"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(refused, tmp_path, flags, says):
    refused("features", make_run(tmp_path / "run"), *flags, says=says)


def test_a_failed_health_gate_is_said_and_sets_the_exit_code(call, tmp_path):
    health = {"status": "unsound", "findings": [{"severity": "error", "message": "L0 is 1000"}]}
    run = make_run(tmp_path / "run", manifest={"health": health})
    outcome = call("features", run)
    assert outcome.code == 4
    assert "The run failed its health gate: L0 is 1000" in outcome.out
    assert call("features", run, "--allow-unsound").code == 0


def test_tokens_are_refused_where_the_saes_are_no_longer_those_of_the_run(refused, copied, demo):
    run = copied(demo)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["saes"]["8"]["weights"] = "0" * 32
    (run / "manifest.json").write_text(json.dumps(manifest))
    refused("features", run, "--tokens", says="layer 8: the SAE's weights have the hash")
