"""A run's folder is made whole or not at all, and never over another run."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from bluffscope.config import RunConfig
from bluffscope.errors import InputError, RunFolderError
from bluffscope.table import folder as folder_module
from bluffscope.table.folder import RUN_MARKS, RunFolder, default_run_path, manifest_checksum, plain
from bluffscope.table.manifest import STAGES, assemble_manifest, package_versions
from bluffscope.table.reader import read_run
from bluffscope.table.schema import table_columns
from made_runs import make_run


def test_a_new_folder_is_made_with_its_parents_and_is_empty_but_for_shards(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "b")
    assert [path.name for path in folder.path.iterdir()] == ["shards"]
    assert folder.shards == tmp_path / "a" / "b" / "shards"


def test_an_existing_folder_without_a_run_is_accepted_and_its_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.create(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("mark", RUN_MARKS)
def test_a_folder_that_holds_a_run_is_refused(tmp_path, mark):
    (tmp_path / mark).mkdir() if mark == "shards" else (tmp_path / mark).write_text("")
    with pytest.raises(InputError, match=f"already holds a run \\({mark}\\): give --out another folder, or .*--resume"):
        RunFolder.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [mark]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="is a file: give --out a folder"):
        RunFolder.create(tmp_path / "f")
    with pytest.raises(RunFolderError, match="cannot write .*f/below: Not a directory"):
        RunFolder.create(tmp_path / "f" / "below")


def test_a_link_to_nowhere_is_one_clear_line(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "gone")
    with pytest.raises(RunFolderError, match="cannot write .*link"):
        RunFolder.create(tmp_path / "link")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody can write")
def test_a_place_where_nobody_can_write_is_one_clear_line():
    with pytest.raises(RunFolderError, match="cannot write /proc/bluffscope-run: ") as caught:
        RunFolder.create(Path("/proc/bluffscope-run"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_removes_what_was_made_and_nothing_else(tmp_path, monkeypatch, step):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(os, step, fail)
    target = tmp_path / "mine" / "a" / "b"
    with pytest.raises(RunFolderError, match=f"cannot write {re.escape(str(target))}: No space left on device"):
        RunFolder.create(target)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path):
    barrier = threading.Barrier(8)

    def start(_: int) -> Path:
        barrier.wait(30)
        return RunFolder.create_default("demo", tmp_path).path

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(start, range(8)))
    assert len(paths) == 8 and all((path / "shards").is_dir() for path in paths)
    assert len(list(tmp_path.iterdir())) == 8


def test_the_default_path_names_time_and_run_and_never_collides(tmp_path, monkeypatch):
    first = default_run_path("google/gemma-2-2b", tmp_path)
    assert re.fullmatch(r"\d{8}T\d{6}Z-google-gemma-2-2b", first.name)

    class Frozen(folder_module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 23, 8, 50, 0, tzinfo=tz)

    monkeypatch.setattr(folder_module, "datetime", Frozen)
    paths = []
    for _ in range(3):
        path = default_run_path("demo", tmp_path)
        path.mkdir()
        paths.append(path.name)
    stamp = "20261123T085000Z-demo"
    assert paths == [stamp, f"{stamp}-2", f"{stamp}-3"]
    assert default_run_path("demo").parent == Path("runs")


@pytest.mark.parametrize("name", ["", "///", "..", "новый", "a" * 500, "a\nb"])
def test_any_name_makes_a_usable_folder(tmp_path, name):
    path = default_run_path(name, tmp_path)
    assert path.parent == tmp_path and len(path.name) <= 80 and re.fullmatch(r"[\w.-]+", path.name)
    RunFolder.create(path)


def test_the_config_can_be_read_back(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config(plain(RunConfig()) | {"out": Path("a") / "b", "joined": " ", "name": "Ω: ‮ #"})
    text = (folder.path / "config.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    assert found["measure"]["noise_std"] == 0.1 and found["model"]["layers"] == []
    assert found["out"] == str(Path("a") / "b") and found["joined"] == " " and found["name"] == "Ω: ‮ #"
    assert "python/" not in text


@dataclass(frozen=True)
class Identity:
    path: Path
    layers: tuple[int, ...]


def test_plain_leaves_only_what_json_knows():
    value = {
        1: Identity(Path("m"), (1, 2)),
        "nan": float("nan"),
        "numbers": [np.float32(0.5), np.int64(3), np.array([1.0, np.inf]), True, None],
        "set": {"b", "a"},
    }
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "1": {"path": "m", "layers": [1, 2]},
        "nan": None,
        "numbers": [0.5, 3, [1.0, None], True, None],
        "set": ["a", "b"],
    }


def test_the_manifest_says_what_made_the_numbers_and_nothing_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    folder = RunFolder.create(tmp_path / "run")
    folder.write_manifest(
        assemble_manifest(
            columns=table_columns([5], [], [("note", "str")]),
            model={"name": "demo", "sha256": "ab" * 32, "folder": Path("m")},
            saes={"5": {"release": "r", "l0": float("nan")}},
            device="cpu",
            dtype="float32",
            seeds={"noise": 0},
            counts={"pairs": 3, "quarantined": 1},
            timings={"forward": 1.23456, "total": 2},
        )
    )
    text = (folder.path / "manifest.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert found["schema_version"] == 1 and found["packages"]["polars"] and found["packages"]["bluffscope"]
    assert found["model"]["folder"] == "m" and found["saes"]["5"] == {"release": "r", "l0": None}
    assert list(found["timings"]) == [*STAGES, "total"] and found["timings"]["forward"] == 1.2346
    assert found["timings"]["sae"] == 0.0
    assert found["health"] == {} and found["lint"] == {} and found["counts"]["quarantined"] == 1
    assert found["metric_versions"]["entropy_fact"] == 1 and "note" not in found["metric_versions"]
    assert "hf_secret_value" not in text and str(Path.home()) not in text


def test_the_manifest_has_a_checksum_of_what_it_says(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    written = folder.write_manifest({"b": "Ω \udc80", "a": [1, 0.1, float("nan")]})
    found = json.loads((folder.path / "manifest.json").read_text(encoding="utf-8"))
    assert found == written and found["checksum"] == manifest_checksum(found)
    assert manifest_checksum(found | {"a": [1, 0.1, 0]}) != found["checksum"]
    assert folder.write_manifest(found) == written


def test_a_timing_of_no_stage_is_refused():
    with pytest.raises(ValueError, match="unknown stages \\['tokenize'\\]"):
        assemble_manifest(
            columns=(), model={}, saes={}, device="", dtype="", seeds={}, counts={}, timings={"tokenize": 1.0}
        )


def test_a_package_that_is_not_there_has_no_version():
    versions = package_versions(["no-such-package-here", "numpy"])
    assert versions["no-such-package-here"] is None and versions["numpy"] == np.__version__


def test_the_log_grows_by_one_json_line_each(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.log("warning", "two\nlines “ö” \udc80", ["p1", "p2"])
    folder.log("error", "then")
    first, second = map(json.loads, (folder.path / "log.jsonl").read_bytes().splitlines())
    assert first["level"] == "warning" and first["pair_ids"] == ["p1", "p2"] and first["message"].startswith("two\n")
    assert second["message"] == "then" and second["pair_ids"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", first["time"])


def test_a_log_that_cannot_be_written_is_one_clear_line(tmp_path):
    with pytest.raises(RunFolderError, match="cannot write .*log.jsonl: No such file"):
        RunFolder(tmp_path / "gone").log("error", "x")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"health": "sound"}, "health is not an object"),
        ({"health": {"findings": [{"message": []}]}}, "health.findings.message is not text or a number"),
        ({"metric_versions": {"gini": "x"}}, "metric_versions.gini is not a whole number"),
    ],
    ids=str,
)
def test_a_manifest_that_says_what_no_run_writes_is_refused_by_whoever_reads_it(tmp_path, change, says):
    with pytest.raises(InputError, match=f"manifest.json is damaged .{says}.: run the analysis again"):
        _ = read_run(make_run(tmp_path / "run", 10, features=4, manifest=change)).manifest


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("features", lambda table: table.drop("activation"), "column 'activation' holds nothing, not numbers"),
        ("features", lambda table: table.with_columns(view=pl.lit(1)), "column 'view' holds int32, not text"),
        (
            "features",
            lambda table: table.with_columns(layer=pl.lit([1])),
            "column 'layer' holds .*list.*, not whole numbers",
        ),
        (
            "features",
            lambda table: table.with_columns(activation=pl.lit([1.5])),
            "column 'activation' holds .*list.*, not numbers",
        ),
        ("pairs", lambda table: table.with_columns(domain=pl.lit([1])), "column 'domain' holds no plain values"),
        ("metrics", lambda table: table.rename({"pair_id": "id"}), "column 'pair_id' holds nothing, not text"),
        ("metrics", lambda table: table.with_columns(x_fact=pl.lit([1])), "column 'x_fact' holds no plain values"),
        ("metrics", lambda table: pl.concat([table, table]), "it has a pair_id twice"),
        ("pairs", lambda table: pl.concat([table, table]), "it has a pair_id twice"),
    ],
)
def test_a_table_that_no_run_writes_is_refused_by_whoever_reads_it(tmp_path, name, change, says):
    run = read_run(make_run(tmp_path / "run", 10, features=4))
    table, path = pl.read_parquet(tmp_path / "run" / f"{name}.parquet"), tmp_path / "run" / f"{name}.parquet"
    change(table).write_parquet(path, metadata=pl.read_parquet_metadata(path))
    with pytest.raises(InputError, match=f"{name}.parquet is damaged .{says}.: run the analysis again"):
        getattr(run, name)
