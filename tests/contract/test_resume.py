"""Going on with a run: only with the same options, model and data; one process at a time; after Ctrl-C too."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import crashing
import tiny
from bluffscope.api import config_from
from bluffscope.config import RunConfig
from bluffscope.errors import RunFolderError
from bluffscope.runs.identity import BY_IDENTITY, FREE
from bluffscope.runs.resume import resumable
from bluffscope.table.folder import RunFolder
from bluffscope.table.journal import Journal
from faults import Fault, killed

HALF = crashing.PAIRS // 2


@pytest.fixture(scope="module")
def started(tmp_path_factory, options) -> Path:
    """A run that died when half of its pairs were committed."""
    folder = tmp_path_factory.mktemp("runs") / "started"
    assert crashing.start(options, folder, killed("replace", r"^000002\.", "after")).code == -signal.SIGKILL
    return folder


@pytest.fixture
def half(started, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(started, tmp_path / "run"))


def listing(folder: Path) -> dict[str, bytes]:
    """Of its files, by name: those of a run, not what goes when it is over."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


CHANGES = {
    "--seed 1": "--seed: the run has 0, not 1",
    "--noise-std 0.2": "--noise-std: the run has 0.1, not 0.2",
    "--noise-sweep 0.3 1": "--noise-sweep: the run has none, not 0.3 1.0",
    "--layers 1 3": "--layers: the run has 0 1 3, not 1 3",
    "--dtype float64": "--dtype: the run has 'float32', not 'float64'",
    "--position completion-mean": "--position: the run has 'last', not 'completion-mean'",
    "--join ,": "--join: the run has 'auto', not ','",
    "--limit 5": "--limit: the run has None, not 5",
    "--cluster-by prompt": "--cluster-by: the run has 'both', not 'prompt'",
    "--shard-pairs 3": "--shard-pairs: the run has 2, not 3",
    "--strategy batched": "--strategy: the run has 'packed', not 'batched'",
    "--logprob": "--logprob: the run has False, not True",
    "--keep-residuals": "--keep-residuals: the run has False, not True",
    "--out elsewhere": "--out elsewhere: cannot be combined with --resume",
    "--config x.yaml": "--config x.yaml: ",
    "--max-quarantine -1": "--max-quarantine -1: give a number that is 0 or more",
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_value_of_an_option_is_refused_by_name(call, half, change):
    before = listing(half)
    outcome = call("analyze", "--resume", half, *change.split(" "))
    assert outcome.code == 2
    assert CHANGES[change] in outcome.said and len(outcome.said.splitlines()) == 1
    assert listing(half) == before


def test_an_option_left_open_that_comes_out_otherwise_is_refused(call, options, tmp_path):
    swept = [*options, "--noise-sweep", "0.3"]
    crashing.start(swept, tmp_path / "run", killed("replace", r"^000002\."))
    outcome = call("analyze", "--resume", tmp_path / "run", "--noise-sweep")
    assert outcome.code == 2 and "--noise-sweep: the run has 0.3, not none" in outcome.said


def test_a_run_with_the_join_of_earlier_versions_keeps_it(call, options, tmp_path):
    """It was one space always, and stands in the options of every run."""
    earlier = [*options, "--join", " "]
    assert call("analyze", *earlier, "--out", tmp_path / "whole").code == 3
    crashing.start(earlier, tmp_path / "run", killed("replace", r"^000002\."))
    outcome = call("analyze", "--resume", tmp_path / "run", "--join", "auto")
    assert outcome.code == 2 and "--join: the run has ' ', not 'auto'" in outcome.said
    assert call("analyze", "--resume", tmp_path / "run").code == 3
    assert call("analyze", "--config", tmp_path / "run" / "config.yaml", "--out", tmp_path / "again").code == 3
    metrics = [(tmp_path / name / "metrics.parquet").read_bytes() for name in ("whole", "run", "again")]
    assert metrics[0] == metrics[1] == metrics[2]
    assert "join: ' '" in (tmp_path / "again" / "config.yaml").read_text()


@pytest.mark.parametrize("closed", [True, False])
def test_a_run_of_the_version_before_clusters_ends_with_the_groups_of_this_one(
    call, tiny_model, tiny_saes, tmp_path, monkeypatch, closed
):
    """Shards whose groups are others now are measured again; where no completion is closed, all are kept."""
    data = crashing.write_pairs(tmp_path / "pairs.jsonl")
    if closed:
        sides = ("yes", "no"), ("no", "yes")
        rows = [{"prompt": f"Is it {i}?" + " very" * 70 * (i == 3)} for i in range(12)]
        rows = [row | dict(zip(("fact", "hallucination"), sides[i % 2], strict=True)) for i, row in enumerate(rows)]
        tiny.write_pairs(data, rows)
    options = crashing.flags(tiny_model, tiny_saes, data)
    ends = call("analyze", *options, "--out", tmp_path / "whole").code
    commit = Journal.commit

    def until_full(journal, shard, *rest):
        if shard.number == 3:
            raise RunFolderError("full")
        commit(journal, shard, *rest)

    with monkeypatch.context() as before:
        before.setattr("bluffscope.pairs.groups.CLOSED_PAIRS", 1000)
        before.setattr(Journal, "commit", until_full)
        assert "full" in call("analyze", *options, "--out", tmp_path / "run").said
    written = tmp_path / "run" / "config.yaml"
    written.write_text(written.read_text().replace("  cluster_by: both\n", ""))
    identity = json.loads((tmp_path / "run" / "shards" / "run.json").read_text())
    del identity["options"]["cluster_by"]
    (tmp_path / "run" / "shards" / "run.json").write_text(json.dumps(identity))
    outcome = call("analyze", "--resume", tmp_path / "run")
    assert outcome.code == ends, outcome.said
    assert outcome.said.count("measured again") == (3 if closed else 0)
    crashing.check_equal(tmp_path / "run", tmp_path / "whole")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"]["cluster_by"] == manifest["lint"]["cluster_by"] == "both"


def test_other_pairs_other_weights_and_other_saes_are_refused(call, half, options, tiny_model, tiny_saes, tmp_path):
    other = tiny.write_pairs(tmp_path / "other.jsonl", tiny.PAIRS)
    outcome = call("analyze", "--resume", half, "--data", other)
    assert outcome.code == 2 and "--data: its pairs are not those of the run (digest " in outcome.said

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][0, 0] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    outcome = call("analyze", "--resume", half, "--model", model)
    assert outcome.code == 2 and "--model: its weights are not those of the run (" in outcome.said

    saes = tiny.save_saes(tmp_path / "saes", seed=9)
    outcome = call("analyze", "--resume", half, "--sae", saes)
    assert outcome.code == 2 and "--sae, layer 0: its weights are not those of the run (" in outcome.said


def test_data_that_changed_in_their_place_are_refused(call, tiny_model, tiny_saes, tmp_path):
    data = crashing.write_pairs(tmp_path / "pairs.jsonl")
    options = crashing.flags(tiny_model, tiny_saes, data)
    crashing.start(options, tmp_path / "run", killed("replace", r"^000002\."))
    data.write_text(data.read_text().replace("Rome", "Roma"))
    outcome = call("analyze", "--resume", tmp_path / "run")
    assert outcome.code == 2 and "--data: its pairs are not those of the run" in outcome.said


def test_model_saes_and_data_may_have_moved_and_batches_may_be_smaller(
    call, half, whole, tiny_model, tiny_saes, tmp_path
):
    moved = {
        "--model": shutil.copytree(tiny_model, tmp_path / "model"),
        "--sae": shutil.copytree(tiny_saes, tmp_path / "saes"),
        "--data": crashing.write_pairs(tmp_path / "moved.jsonl"),
    }
    flags = [word for pair in moved.items() for word in pair]
    outcome = call("analyze", "--resume", half, *flags, "--device", "cpu", "--row-tokens", 512)
    assert outcome.code == 3, outcome.said
    crashing.check_equal(half, whole.folder)
    assert call("analyze", "--resume", half, "--batch-size", 1).out.startswith("Nothing to do")


def test_every_option_that_may_change_exists_or_is_of_the_other_engine():
    parts = config_from()
    known = {name for part in vars(parts).values() for name in vars(part)}
    assert known >= BY_IDENTITY
    assert FREE - known <= {"engine", "workers", "address", "allow_unsound", "dry_run"}


def test_what_is_no_run_is_refused(call, tmp_path):
    for path, says in ((tmp_path / "gone", "no such folder"), (tmp_path / "file", "is a file")):
        (tmp_path / "file").write_text("x")
        outcome = call("analyze", "--resume", path)
        assert outcome.code == 2 and f"--resume {path}: {says}" in outcome.said
    outcome = call("analyze", "--resume", tmp_path)
    assert outcome.code == 2 and "no run in this folder" in outcome.said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert (
        call("analyze", "--resume").said
        == "bluffscope analyze: --resume: expected a path, got nothing; see bluffscope analyze --help\n"
    )


STRAYS = {
    "shards/foo.parquet": "is not a shard of this run",
    "shards/000002.0123.parquet/": "is not a shard of this run",
    "metrics.parquet/": "is a folder, where the run has a file",
    "log.jsonl/": "is a folder, where the run has a file",
    "figures": "is a file, where the run has a folder",
}


@pytest.mark.parametrize("stray", STRAYS)
def test_what_lies_in_a_run_s_way_is_named_before_anything_is_loaded_and_moved_away_it_goes_on(
    call, half, whole, stray
):
    path = half / stray
    if path.is_file():
        path.unlink()
    path.mkdir() if stray.endswith("/") else path.write_bytes(b"mine")
    before = listing(half)
    outcome = call("analyze", "--resume", half)
    again = f"move it elsewhere, then: bluffscope analyze --resume {half}"
    assert (outcome.code, outcome.said) == (
        2,
        f"bluffscope analyze: --resume {half}: {path} {STRAYS[stray]}; {again}\n",
    )
    assert listing(half) == before
    path.rename(half.parent / "elsewhere")
    assert call("analyze", "--resume", half).code == 3
    crashing.check_equal(half, whole.folder)


@pytest.mark.parametrize("given", [(), ("--data", "DATA"), ("--preset", "demo"), ("--seed", "1")], ids=" ".join)
def test_a_run_stopped_before_its_options_were_written_never_becomes_the_demo(call, options, whole, tmp_path, given):
    folder = tmp_path / "run"
    died = crashing.start(options, folder, killed("open", r"^\.config\.yaml"))
    assert died.code == -signal.SIGKILL and not (folder / "config.yaml").exists()
    before = listing(folder)
    outcome = call("analyze", "--resume", folder, *(options[5] if word == "DATA" else word for word in given))
    assert outcome.code == 2
    assert f"--resume {folder}: stopped before its options were written; repeat them with --resume" in outcome.said
    assert listing(folder) == before
    assert call("analyze", "--resume", folder, *options).code == 3
    crashing.check_equal(folder, whole.folder)


def test_two_processes_do_not_write_one_run(call, options, whole, tmp_path):
    folder = tmp_path / "run"
    first = crashing.Child(
        ["analyze", *options, "--out", folder], folder, Fault(signal=signal.SIGSTOP, call="replace", name=r"^000002\.")
    )
    first.await_stop()
    outcome = call("analyze", "--resume", folder)
    assert outcome.code == 2
    assert outcome.said == (
        f"bluffscope analyze: {folder} is being written by another process: wait for it, or stop it and use --resume "
        "then\n"
    )
    assert "already holds a run" in call("analyze", *options, "--out", folder).said
    assert first.end(kill_after=0).code == -signal.SIGKILL  # and the lock is gone with it
    assert call("analyze", "--resume", folder).code == 3
    crashing.check_equal(folder, whole.folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_after_its_batch_and_says_how_to_go_on(options, whole, tmp_path, number, code):
    folder = tmp_path / "a run"
    ended = crashing.start(options, folder, Fault(signal=number, call="replace", name=r"^000001\.", moment="after"))
    assert ended.code == code, ended.said
    last = ended.said.splitlines()[-1]
    assert last == (
        f"bluffscope analyze: stopped; committed shards are kept; resume with: bluffscope analyze --resume '{folder}'"
    )
    assert not (folder / "metrics.parquet").exists()
    kept = len(list((folder / "shards").glob("*.parquet")))
    assert kept >= 2
    ended = crashing.resume(folder)
    assert ended.code == 3, ended.said
    assert crashing.manifest(folder)["sessions"][0]["pairs"] == kept * crashing.SHARD_PAIRS
    crashing.check_equal(folder, whole.folder)


@pytest.mark.parametrize("error", [RunFolderError("the disk is full"), KeyboardInterrupt()])
@pytest.mark.parametrize(("address", "again"), [("ray:6379", " --address ray:6379"), ("auto", ""), (None, "")])
def test_a_run_on_a_named_cluster_is_gone_on_with_on_that_cluster(error, address, again, tmp_path):
    config = replace(RunConfig(), engine=replace(RunConfig().engine, engine="ray", address=address))
    with pytest.raises(type(error)) as raised, resumable(RunFolder(tmp_path), config):
        raise error
    said = getattr(raised.value, "resume", str(raised.value))
    assert said.endswith(f"bluffscope analyze --resume {tmp_path}{again}")


def test_a_signal_during_the_merge_stops_it_too(options, whole, tmp_path):
    folder = tmp_path / "run"
    ended = crashing.start(options, folder, Fault(signal=signal.SIGINT, call="open", name=r"^\.metrics\."))
    assert ended.code == 130, ended.said
    assert not list(folder.glob("*.parquet")) and not list(folder.glob(".*"))
    assert crashing.resume(folder).code == 3
    crashing.check_equal(folder, whole.folder)


def test_quarantine_beyond_the_limit_stops_the_run_and_a_larger_limit_goes_on(call, options, whole, tmp_path):
    folder = tmp_path / "run"
    outcome = call("analyze", *options, "--max-quarantine", 0, "--out", folder)
    assert outcome.code == 2 and len(outcome.said.splitlines()) == 1
    assert "1 of 4 pairs are in quarantine, --max-quarantine is 0 (1 x the prompt text has " in outcome.said
    assert f"--resume {folder} --max-quarantine N" in outcome.said
    again = call("analyze", "--resume", folder)  # the limit is the run's own
    assert again.code == 2 and "--max-quarantine is 0" in again.said
    assert call("analyze", "--resume", folder, "--max-quarantine", 1).code == 3
    crashing.check_equal(folder, whole.folder)
    assert sum(session["pairs"] for session in crashing.manifest(folder)["sessions"]) == crashing.PAIRS


def test_what_the_shards_depend_on_is_written_again_where_it_is_damaged(call, half, whole):
    (half / "shards" / "run.json").write_text("{")
    outcome = call("analyze", "--resume", half)
    assert outcome.code == 3 and "run.json is damaged" in " ".join(outcome.said.split())
    assert [session["pairs"] for session in crashing.manifest(half)["sessions"]] == [HALF, HALF]
    crashing.check_equal(half, whole.folder)


def test_shards_of_another_run_are_not_taken_over(call, half, options, whole, tmp_path):
    crashing.start([*options, "--seed", "7"], tmp_path / "other", killed("replace", r"^000005\."))
    foreign = sorted((tmp_path / "other" / "shards").glob("00000[34]*"))
    assert len(foreign) == 2
    for path in foreign:
        shutil.copy(path, half / "shards" / path.name)
    outcome = call("analyze", "--resume", half)
    assert outcome.code == 3
    assert (half / "log.jsonl").read_text().count("holds other pairs, or results of other options") == 2
    assert json.loads((half / "manifest.json").read_text())["counts"]["pairs"] == crashing.PAIRS
    crashing.check_equal(half, whole.folder)
