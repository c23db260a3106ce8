"""Which files of a hub's dataset an address names, at which commit: of a hub over loopback, in this process."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

import tiny
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source
from bluffscope.pairs.hub_files import hub_files
from loopback_hub import TOKEN, LoopbackHub, use_here

NAME = "datasets/org/pairs"
PAIRS = f"hf://{NAME}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files as datasets have them: shards by split, and what is no data."""
    folder = tmp_path_factory.mktemp("hub") / "pairs"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# A data set")
    (folder / "data" / ".hidden.jsonl").write_text("")
    for number, name in enumerate(("test-0", "test-1", "train-0")):
        tiny.write_pairs(folder / "data" / f"{name}.jsonl", tiny.PAIRS[number : number + 1])
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    pictures = tmp_path_factory.mktemp("pictures")
    (pictures / "a.png").write_bytes(b"\x89PNG")
    repositories = {NAME: folder, "datasets/org/pictures": pictures, "datasets/org/private": folder}
    with LoopbackHub(
        repositories=repositories,
        private={"datasets/org/private": TOKEN},
        refusals={"datasets/org/forbidden": (403, ""), "datasets/org/broken": (500, "")},
    ) as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The hub of this process for the length of a test, with an empty cache."""
    use_here(server, tmp_path / "cache", monkeypatch)
    server.requests.clear()
    return server


def names(found):
    return [file.name for file in found.files]


def test_a_folder_a_pattern_and_a_file_name_their_files_and_the_commit(hub):
    commit = hub.commit(NAME)
    for path, expected in {
        "data": ["test-0.jsonl", "test-1.jsonl", "train-0.jsonl"],
        "data/test-*.jsonl": ["test-0.jsonl", "test-1.jsonl"],
        "data/train-0.jsonl": ["train-0.jsonl"],
    }.items():
        found = hub_files(f"{PAIRS}/{path}")
        assert names(found) == expected
        assert (found.name, found.commit, found.location) == ("pairs", commit, f"{PAIRS}@{commit}/{path}")
        assert all(commit in file.parts for file in found.files)


def test_only_what_is_named_is_downloaded_and_that_once(hub):
    for _ in range(2):
        hub_files(f"{PAIRS}/data/test-0.jsonl")
    asked = [request.path for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]
    assert asked == [f"/{NAME}/resolve/main/data/test-0.jsonl"]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("hf://datasets/pairs", "hf://datasets/pairs: expected hf://datasets/OWNER/NAME[@REVISION][/PATH]"),
        (PAIRS, "its .json, .jsonl, .ndjson, .csv, .tsv, .parquet files are in folders; give one of "),
        (f"{PAIRS}/data/validation.jsonl", "file at data/validation.jsonl; give one of "),
        (f"{PAIRS}/*.csv", "file at *.csv; give one of "),
        (f"{PAIRS}@v9/data", "it has no such revision; give hf://datasets/org/pairs@REVISION a branch, tag or commit"),
        ("hf://datasets/org/nothing", "has none of this name, or it is private; check the name, set HF_TOKEN"),
        ("hf://datasets/org/pictures", "this dataset has no file of the kinds that are read (.json, .jsonl, "),
        (
            "hf://datasets/org/private",
            "it is gated: accept its licence at {hub}/datasets/org/private, then ",
        ),
        ("hf://datasets/org/forbidden", "{hub} refuses it (403); set HF_TOKEN to a token that may read it"),
        ("hf://datasets/org/broken", "{hub} answers with error 500; check the name, try again later, or give a fold"),
    ],
)
def test_what_cannot_be_had_is_one_line_that_says_what_to_do(hub, address, says):
    with pytest.raises(InputError) as refusal:
        hub_files(address)
    assert str(refusal.value).startswith(f"{address}: ")
    assert says.format(hub=hub.url) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_without_the_hub_the_cache_serves_what_was_downloaded_and_says_so_of_the_rest(hub, monkeypatch):
    online = hub_files(f"{PAIRS}/data/test-*.jsonl")
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = hub_files(f"{PAIRS}/data")
    assert names(found) == ["test-0.jsonl", "test-1.jsonl"], "the third was never downloaded"
    assert found.commit == online.commit
    with pytest.raises(InputError, match="hf://datasets/org/other: not .wholly. in the Hugging Face cache, while HF_H"):
        hub_files("hf://datasets/org/other")
    assert len(hub.requests) == asked


def test_its_pairs_are_read_and_the_source_says_where_they_are_from(hub):
    source = open_source(DataOptions(data=f"{PAIRS}/data/test-*.jsonl"))
    assert [pair.prompt for pair in source.pairs()] == [pair["prompt"] for pair in tiny.PAIRS[:2]]
