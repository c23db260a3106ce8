"""A run whose model, SAEs and pairs all come from a hub: over loopback, in this process."""

from __future__ import annotations

import hashlib
import json

import polars as pl
import pytest
import yaml

import tiny
from loopback_hub import LoopbackHub, use_here

FLAGS = ["--model", "org/model", "--sae", "org/saes:layer_{layer}", "--layers", "0", "3"]
PAIRS = "hf://datasets/org/pairs"


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    pairs = folder / "pairs"
    (pairs / "data").mkdir(parents=True)
    tiny.write_pairs(pairs / "data" / "test-0.jsonl", tiny.PAIRS[:2])
    tiny.write_pairs(pairs / "data" / "test-1.jsonl", tiny.PAIRS[2:4])
    tiny.write_pairs(pairs / "data" / "train-0.jsonl", tiny.PAIRS[4:5])
    saes = tiny.save_saes(folder / "saes", (0, 3))
    with LoopbackHub(repositories={"org/model": tiny_model, "org/saes": saes, "datasets/org/pairs": pairs}) as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    use_here(server, tmp_path / "cache", monkeypatch)
    server.requests.clear()
    return server


def test_a_run_from_the_hub_names_commits_and_hashes_and_is_replayed_without_the_hub(
    call, hub, tmp_path, tiny_model, monkeypatch
):
    outcome = call("analyze", *FLAGS, "--data", f"{PAIRS}/data/test-*.jsonl", "--out", tmp_path / "run", "--full")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("Summary of 4 pairs")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    weights = (tiny_model / "model.safetensors").read_bytes()
    assert manifest["model"]["revision"] == hub.commit("org/model")
    assert manifest["model"]["files"] == {
        "model.safetensors": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    }
    for layer in ("0", "3"):
        sae = manifest["saes"][layer]
        assert (sae["repository"], sae["revision"]) == ("org/saes", hub.commit("org/saes"))
        assert list(sae["files"]) == [f"layer_{layer}/sae_weights.safetensors"]
    assert (manifest["data"]["name"], manifest["data"]["commit"]) == ("pairs", hub.commit("datasets/org/pairs"))
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"]["data"] == f"{PAIRS}@{hub.commit('datasets/org/pairs')}/data/test-*.jsonl"
    assert config["model"]["revision"] == hub.commit("org/model")
    assert config["model"]["sae"] == f"org/saes@{hub.commit('org/saes')}:layer_{{layer}}"
    assert not hub.downloads("train-0.jsonl")

    with LoopbackHub() as gone:
        use_here(gone, tmp_path / "cache", monkeypatch)
    again = call("analyze", "--config", tmp_path / "run" / "config.yaml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert f"{gone.url} does not answer: used the local cache of " in " ".join(again.err.split())
    first, replayed = (pl.read_parquet(tmp_path / name / "metrics.parquet") for name in ("run", "again"))
    assert replayed.equals(first)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model", "org/nothing"], "--model org/nothing: {hub} has none of this name, or it is private; check the n"),
        (["--revision", "v9"], "--model org/model: it has no such revision; give --revision a branch, tag or commit"),
        (["--sae", "org/saes@v9:layer_{layer}"], "layer 0: it has no such revision; give --sae RELEASE@REVISION a br"),
        (["--sae", "org/saes:{layer}"], "layer 0: {hub} answers with error 404; check the name, try again later, or"),
    ],
)
def test_what_the_hub_has_not_is_one_line_that_says_what_to_do(call, hub, pairs_file, flags, says, tmp_path):
    options = {**dict(zip(FLAGS[:4:2], FLAGS[1:4:2], strict=True)), flags[0]: flags[1]}
    given = [word for option in options.items() for word in option]
    outcome = call("analyze", *given, "--layers", "0", "--data", pairs_file, "--out", tmp_path / "run")
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert says.format(hub=hub.url) in line
    assert not (tmp_path / "run").exists()
