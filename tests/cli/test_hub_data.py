"""Pairs from a dataset of a hub: over loopback, in processes of their own."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

import tiny
from loopback_hub import TOKEN, LoopbackHub, calls

PAIRS = "hf://datasets/org/pairs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(folder):
    """Datasets as they lie on the hub: in shards by split, flat, private, and one of pictures."""
    repositories = {}
    for name in ("pairs", "flat", "private", "pictures"):
        repositories[f"datasets/org/{name}"] = folder / "repositories" / name
        repositories[f"datasets/org/{name}"].mkdir(parents=True)
        (repositories[f"datasets/org/{name}"] / "README.md").write_text("# A data set")
    sharded = repositories["datasets/org/pairs"] / "data"
    sharded.mkdir()
    tiny.write_pairs(sharded / "test-0.jsonl", tiny.PAIRS[:2])
    tiny.write_pairs(sharded / "test-1.jsonl", tiny.PAIRS[2:4])
    tiny.write_pairs(sharded / "train-0.jsonl", tiny.PAIRS[4:5])
    for name in ("flat", "private"):
        tiny.write_pairs(repositories[f"datasets/org/{name}"] / "pairs.jsonl", tiny.PAIRS[:3])
    (repositories["datasets/org/pictures"] / "a.png").write_bytes(b"\x89PNG")
    with LoopbackHub(repositories=repositories, private={"datasets/org/private": TOKEN}) as hub:
        yield hub


@pytest.fixture(scope="module")
def run(hub, folder, tiny_model, tiny_saes):
    """A run of two of the three shards, of the data set as it was."""
    flags = ["--model", str(tiny_model), "--sae", str(tiny_saes), "--allow-unsound"]
    runs = {"run": ["analyze", "--data", f"{PAIRS}/data/test-*.jsonl", "--out", str(folder / "run"), *flags]}
    code, _, err = calls(runs, folder / "home", hub.url)["run"]
    assert code == 0, err
    return folder / "run"


def test_a_run_holds_the_pairs_that_the_pattern_names_and_names_their_commit(run, hub):
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["counts"]["pairs"] == 4
    assert manifest["data"]["commit"] == hub.commit("datasets/org/pairs")
    assert manifest["data"]["name"] == "pairs"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["data"] == f"{PAIRS}@{hub.commit('datasets/org/pairs')}/data/test-*.jsonl"
    assert not hub.downloads("train-0.jsonl")


def test_without_the_hub_the_cache_serves_a_replay_and_a_linter_that_names_no_commit(run, folder):
    with LoopbackHub() as gone:
        address = gone.url
    again = ["analyze", "--config", str(run / "config.yaml"), "--out", str(folder / "again"), "--allow-unsound"]
    said = calls({"again": again, "lint": ["lint", f"{PAIRS}/data"]}, folder / "home", address)
    assert said["again"][0] == 0, said
    assert f"{address} does not answer: used the local cache of {PAIRS}@" in said["again"][2]
    digests = [json.loads((path / "manifest.json").read_text())["data"] for path in (run, folder / "again")]
    assert digests[0] == digests[1]
    assert "4 pairs" in said["lint"][1]  # what was never downloaded is not there


@pytest.fixture(scope="module")
def outcomes(hub, folder):
    """What the linter says of addresses, in a process that has no token."""
    data = {
        "folder": f"{PAIRS}/data/",
        "file": f"{PAIRS}@main/data/train-0.jsonl",
        "flat": "hf://datasets/org/flat",
        "in folders": PAIRS,
        "no file": f"{PAIRS}/data/validation.jsonl",
        "no pattern": f"{PAIRS}/*.csv",
        "not pairs": "hf://datasets/org/pictures",
        "nothing": "hf://datasets/org/nothing",
        "private": "hf://datasets/org/private",
        "revision": f"{PAIRS}@v9",
        "no owner": "hf://datasets/pairs",
        "no dataset": "hf://org/pairs/data",
        "upwards": f"{PAIRS}/../../secret.jsonl",
    }
    return calls({name: ["lint", address] for name, address in data.items()}, folder / "home-lint", hub.url)


@pytest.mark.parametrize(("name", "pairs"), [("folder", 5), ("file", 1), ("flat", 3)])
def test_a_folder_a_file_and_a_flat_data_set_are_read(outcomes, name, pairs):
    code, out, err = outcomes[name]
    assert code in (0, 1), err  # so few pairs are not balanced
    assert f"{pairs} pair" in out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "in folders",
            f"{PAIRS}: its .json, .jsonl, .ndjson, .csv, .tsv, .parquet files are in folders; give one of d",
        ),
        (
            "no file",
            "no .json, .jsonl, .ndjson, .csv, .tsv, .parquet file at data/validation.jsonl; give one of data/test-0",
        ),
        ("no pattern", "file at *.csv; give one of data/test-0.jsonl, data/test-1.jsonl, data/train-0.jsonl, or a"),
        ("not pairs", "hf://datasets/org/pictures: this dataset has no file of the kinds that are read (.json, "),
        (
            "nothing",
            "hf://datasets/org/nothing: {hub} has none of this name, or it is private; check the name, set H",
        ),
        ("private", "org/private: it is gated: accept its licence at {hub}/datasets/org/private, then set HF_TOKEN"),
        ("revision", "it has no such revision; give hf://datasets/org/pairs@REVISION a branch, tag or commit of it"),
        ("no owner", "hf://datasets/pairs: expected hf://datasets/OWNER/NAME[@REVISION][/PATH]"),
        ("no dataset", "hf://org/pairs/data: expected hf://datasets/OWNER/NAME[@REVISION][/PATH]"),
        ("upwards", "file at ../../secret.jsonl; give one of data/test-0.jsonl"),
    ],
)
def test_what_cannot_be_had_is_one_line_that_says_what_to_do(outcomes, hub, name, says):
    code, out, err = outcomes[name]
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("bluffscope lint: hf://")
    assert says.format(hub=hub.url) in line


def test_with_the_token_a_private_data_set_is_read_and_without_hub_and_cache_it_is_said(hub, folder):
    lint = {"private": ["lint", "hf://datasets/org/private"]}
    code, out, _ = calls(lint, folder / "home-token", hub.url, HF_TOKEN=TOKEN)["private"]
    assert (code in (0, 1), "3 pairs" in out) == (True, True)
    shutil.rmtree(folder / "home-token")
    with LoopbackHub() as gone:
        address = gone.url
    code, out, err = calls(lint, folder / "home-token", address, HF_TOKEN=TOKEN)["private"]
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert f"{address} does not answer: check the name and the network, or give a folder" in line
