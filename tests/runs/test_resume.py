"""Going on with a run in one process: what it keeps, what it makes again, and what it refuses to go on with."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace

import pytest
import yaml

import tiny
from bluffscope.api import config_from
from bluffscope.errors import InputError, QuarantineLimitError, RunFolderError, RunStopped, WorkerLostError
from bluffscope.runs.resume import look_for_run, resumable
from bluffscope.runs.run import run
from bluffscope.table.folder import RunFolder

TABLES = ("metrics.parquet", "pairs.parquet", "features.parquet", "residuals.parquet")


class Stopping:
    """A progress that stops the run, as Ctrl-C does, once so many pairs are done."""

    def __init__(self, after):
        self.left = after

    def start(self, total):
        pass

    def advance(self, pairs):
        self.left -= pairs
        if self.left <= 0:
            raise RunStopped(signal.SIGINT)

    def finish(self):
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", tiny.PAIRS[:3])


@pytest.fixture(scope="module")
def options(tiny_model, tiny_saes, data):
    given = {"model": str(tiny_model), "sae": str(tiny_saes), "data": str(data)}
    return given | {"shard_pairs": 1, "batch_size": 1, "allow_unsound": True}


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(config_from(out=folder, **options))
    return folder


@pytest.fixture(scope="module")
def stopped(options, tmp_path_factory):
    """A run that was stopped when some of its pairs were committed, and what it said."""
    folder = tmp_path_factory.mktemp("stopped") / "a run"
    with pytest.raises(RunStopped) as stop:
        run(config_from(out=folder, **options), progress=Stopping(2))
    return folder, stop.value.resume


@pytest.fixture
def half(stopped, tmp_path):
    """A copy of the stopped run."""
    return shutil.copytree(stopped[0], tmp_path / "run")


@pytest.fixture
def complete(whole, tmp_path):
    """A copy of the whole run."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def resume(options):
    """Go on with a run, with its options but for those that are given."""
    return lambda folder, **changed: run(config_from(**options | changed, resume=folder))


@pytest.fixture
def refusal(resume):
    """Why a run is not gone on with; its folder stays as it was."""

    def refused(folder, **changed):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(InputError) as error:
            resume(folder, **changed)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        return str(error.value)

    return refused


def same(folder, whole):
    for name in TABLES:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (folder / "shards").exists()


@pytest.mark.thorough
def test_a_run_from_before_data_sets_had_names_goes_on_with_its_own_pairs(half, whole, resume):
    later = {"schema", "prompt_template", "pairing"}
    config = yaml.safe_load((half / "config.yaml").read_text())
    config["data"] = {name: value for name, value in config["data"].items() if name not in later}
    (half / "config.yaml").write_text(yaml.safe_dump(config))
    file = half / "shards" / "run.json"
    identity = json.loads(file.read_text())
    assert later <= identity["options"].keys()
    identity["options"] = {name: value for name, value in identity["options"].items() if name not in later}
    file.write_text(json.dumps(identity))
    resume(half)
    same(half, whole)


def test_a_stopped_run_says_how_to_go_on_and_goes_on_to_the_table_of_a_whole_one(stopped, half, whole, resume):
    folder, command = stopped
    assert command == f"bluffscope analyze --resume '{folder}'"
    assert not (folder / "metrics.parquet").exists()
    kept = len(list((folder / "shards").glob("*.parquet")))
    assert 1 <= kept < 3
    result = resume(half)
    assert (result.untouched, result.merged.rows) == (False, 3)
    assert [session["pairs"] for session in result.manifest["sessions"]] == [kept, 3 - kept]
    same(half, whole)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "--seed: the run has 0, not 1; leave it as it was, or start a new run with --out"),
        ({"layers": (1, 3)}, "--layers: the run has 0 1 3, not 1 3"),
        ({"noise_sweep": (0.3,)}, "--noise-sweep: the run has none, not 0.3"),
        (
            {"position": "completion-mean", "limit": 2},
            "--limit: the run has None, not 2; --position: the run has 'last', ",
        ),
        ({"join": ","}, "--join: the run has 'auto', not ','"),
        ({"out": "elsewhere"}, "--out elsewhere: cannot be combined with --resume; leave it out"),
    ],
    ids=str,
)
def test_another_value_of_an_option_is_refused_by_name_before_anything_is_loaded(
    half, change, says, refusal, monkeypatch
):
    monkeypatch.setattr("bluffscope.runs.run.crew_of", lambda *_: pytest.fail("something was loaded"))
    assert says in refusal(half, **change)


def test_other_weights_other_saes_and_other_pairs_are_refused(half, refusal, tmp_path):
    other = tiny.write_pairs(tmp_path / "other.jsonl", tiny.PAIRS[:2])
    model = tiny.save_model(tmp_path / "other-model", "gemma2", seed=5)
    saes = tiny.save_saes(tmp_path / "other-saes", seed=9)
    said = refusal(half, data=str(other), model=str(model), sae=str(saes))
    for what in ("--model: its weights", "--sae, layer 0: its weights", "--sae, layer 3: its weights"):
        assert f"{what} are not those of the run (" in said
    assert "--data: its pairs are not those of the run (digest " in said


def test_what_is_no_run_is_refused_with_what_is_there_instead(tmp_path):
    (tmp_path / "file").write_text("x")
    for name, says in (("gone", "no such folder"), ("file", "is a file")):
        with pytest.raises(InputError, match=f"--resume .*{name}: {says}; give the folder of a run that was started"):
            look_for_run(tmp_path / name)
    with pytest.raises(InputError, match="no run in this folder"):
        look_for_run(tmp_path)


@pytest.mark.parametrize(
    ("stray", "says"),
    [
        ("shards/foo.parquet", "is not a shard of this run"),
        ("metrics.parquet/", "is a folder, where the run has a file"),
        ("figures", "is a file, where the run has a folder"),
    ],
)
def test_what_lies_in_a_run_s_way_is_named_with_what_to_type_then(half, stray, says, refusal):
    (half / stray).mkdir() if stray.endswith("/") else (half / stray).write_text("mine")
    said = refusal(half)
    assert (
        said == f"--resume {half}: {half / stray} {says}; move it elsewhere, then: bluffscope analyze --resume {half}"
    )


def test_a_run_stopped_before_its_options_were_written_takes_them_again_and_not_the_demo_s(
    half, whole, resume, refusal, caplog
):
    (half / "config.yaml").unlink()
    said = refusal(half, model=None, sae=None)
    assert "stopped before its options were written; repeat them with --resume: --data, and" in said
    (half / "shards" / "run.json").write_text("{")  # what the shards depend on is written again, too
    resume(half)
    assert any("run.json is damaged and written again; shards tell by their names" in said for said in caplog.messages)
    same(half, whole)


def test_a_complete_run_is_left_as_it_is_and_only_tidied(complete, resume):
    (complete / "checksums.txt").unlink()
    (complete / ".metrics.parquet.0123abcd.bluffscope.tmp").write_text("half a table")
    before = {name: (complete / name).stat().st_mtime_ns for name in TABLES}
    result = resume(complete)
    assert (result.untouched, result.merged.rows, result.merged.quarantined) == (True, 3, 0)
    assert {name: (complete / name).stat().st_mtime_ns for name in TABLES} == before
    assert (complete / "checksums.txt").read_text().count("\n") == len(TABLES)
    assert not list(complete.glob(".*.tmp"))


def test_a_run_whose_manifest_is_lost_keeps_its_tables(complete, whole, resume, caplog):
    (complete / "manifest.json").unlink()
    before = (complete / "metrics.parquet").stat().st_mtime_ns
    resume(complete)
    assert f"{complete / 'manifest.json'} is missing: made again" in caplog.messages
    assert (complete / "metrics.parquet").stat().st_mtime_ns == before
    same(complete, whole)


def test_tables_of_other_options_are_not_given_a_manifest_of_these(complete, resume):
    (complete / "manifest.json").unlink()
    config = complete / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    said = "the options, model or data are not those that metrics.parquet was made with"
    with pytest.raises(InputError, match=said):
        resume(complete, seed=1)
    assert not (complete / "manifest.json").exists()


@pytest.mark.thorough
def test_a_damaged_table_is_named_and_made_again(complete, whole, resume, caplog):
    (complete / "features.parquet").write_bytes((whole / "features.parquet").read_bytes()[:-9])
    resume(complete)
    assert f"{complete / 'features.parquet'} is cut off or altered: made again" in caplog.messages
    same(complete, whole)


def test_too_many_pairs_in_quarantine_stop_the_run_and_a_larger_limit_goes_on(options, resume, tmp_path):
    long = {**tiny.PAIRS[1], "id": "long", "prompt": "Water boils at " * 60}
    data = tiny.write_pairs(tmp_path / "long.jsonl", [tiny.PAIRS[0], long])
    folder = tmp_path / "run"
    with pytest.raises(QuarantineLimitError) as stopped:
        run(config_from(**options | {"data": str(data)}, out=folder, max_quarantine=0))
    assert "1 of 2 pairs are in quarantine, --max-quarantine is 0 (1 x " in str(stopped.value)
    assert f"bluffscope analyze --resume {folder} --max-quarantine N" in str(stopped.value)
    result = resume(folder, data=str(data), max_quarantine=1)
    assert (result.merged.rows, result.merged.quarantined) == (1, 1)
    assert '"level": "error"' in (folder / "log.jsonl").read_text()


@pytest.mark.parametrize("error", [RunFolderError("the disk is full"), WorkerLostError("gone"), KeyboardInterrupt()])
@pytest.mark.parametrize(("address", "again"), [("ray:6379", " --address ray:6379"), ("auto", ""), (None, "")])
def test_a_run_on_a_named_cluster_is_gone_on_with_on_that_cluster(error, address, again, tmp_path):
    config = config_from(engine="ray", address=address)
    config = replace(config, measure=replace(config.measure, analysis=("mine.py:f",)))
    with pytest.raises(type(error)) as raised, resumable(RunFolder(tmp_path), config):
        raise error
    said = getattr(raised.value, "resume", str(raised.value))
    assert said.endswith(f"bluffscope analyze --resume {tmp_path}{again} --analysis mine.py:f")
