"""A run's folder that comes from somebody else leads nowhere: not by links, and not by names in its files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bluffscope.detectors.files import check_new, read_detector
from bluffscope.errors import InputError, RunFolderError
from bluffscope.runs.resume import look_for_run
from bluffscope.table.atomic import hidden, remove_leftovers
from bluffscope.table.checksums import inspect
from bluffscope.table.folder import RunFolder, manifest_checksum
from bluffscope.table.links import refuse_links
from bluffscope.table.lock import locked
from bluffscope.table.reader import read_run
from made_runs import make_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="making links takes rights there")

FILES = ("log.jsonl", ".lock", "config.yaml", "manifest.json", "metrics.parquet", "stats.json", "report.html")
FOLDERS = ("shards", "figures", ".shards.tmp")
INSIDE = ("shards/000000.parquet", "figures/dashboard.svg")


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_run(tmp_path / "run", 6)


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder with a file that nothing may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "profile").write_text("mine\n")
    return tmp_path / "outside"


def plant(folder: Path, name: str, outside: Path) -> None:
    """Put a link into the run's folder."""
    place = folder / name
    place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(outside if name in FOLDERS else outside / "profile")


@pytest.mark.parametrize("name", [*FILES, *FOLDERS, *INSIDE])
def test_a_run_with_a_link_in_it_is_refused_whoever_asks(folder, outside, name):
    plant(folder, name, outside)
    for opened in (read_run, look_for_run, RunFolder.check, RunFolder.create):
        with pytest.raises(InputError, match=r"run") as caught:
            opened(folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"{name} is a link"):
        refuse_links(folder)
    assert [path.name for path in outside.iterdir()] == ["profile"]
    assert (outside / "profile").read_text() == "mine\n"


@pytest.mark.parametrize("name", ["log.jsonl", "figures", "shards"])
def test_a_new_run_does_not_start_where_a_link_waits_for_it(tmp_path, outside, name):
    (tmp_path / "new").mkdir()
    plant(tmp_path / "new", name, outside)
    for opened in (RunFolder.check, RunFolder.create):
        with pytest.raises(InputError):
            opened(tmp_path / "new")


def test_a_link_to_nowhere_and_a_pipe_are_refused_too(folder):
    (folder / "log.jsonl").symlink_to(folder / "nowhere")
    with pytest.raises(InputError, match=r"log\.jsonl is a link"):
        read_run(folder)
    (folder / "log.jsonl").unlink()
    os.mkfifo(folder / "log.jsonl")
    with pytest.raises(InputError, match=r"log\.jsonl is a pipe"):
        read_run(folder)


def test_a_log_with_a_second_name_elsewhere_is_not_appended_to(folder, outside):
    (folder / "log.jsonl").hardlink_to(outside / "profile")
    with pytest.raises(InputError, match=r"log\.jsonl is a hard link"):
        look_for_run(folder)
    with pytest.raises(RunFolderError, match="plain file"):
        RunFolder(folder).log("warning", "x")
    assert (outside / "profile").read_text() == "mine\n"
    assert read_run(folder).rows == 6  # copies made of hard links are backups: they may be read


def test_a_link_that_comes_after_the_check_is_not_followed(folder, outside):
    run = RunFolder(folder)
    plant(folder, "log.jsonl", outside)
    plant(folder, ".lock", outside)
    with pytest.raises(RunFolderError, match=r"cannot write .*log\.jsonl"):
        run.log("warning", "x")
    with pytest.raises(RunFolderError, match=r"cannot write .*\.lock"), locked(folder):
        pass
    (folder / ".lock").unlink()
    os.mkfifo(folder / ".lock")
    with pytest.raises(RunFolderError, match=r"cannot write .*\.lock"), locked(folder):
        pass
    assert (outside / "profile").read_text() == "mine\n"


def test_the_folder_itself_may_be_reached_through_a_link_and_may_hold_links_of_others(folder, tmp_path, outside):
    (folder / "notes").symlink_to(outside)
    (tmp_path / "latest").symlink_to(folder)
    assert read_run(tmp_path / "latest").rows == 6
    look_for_run(tmp_path / "latest")


def test_only_our_own_unfinished_files_are_removed(folder, tmp_path):
    foreign = [folder / ".notes.0123abcd.tmp", folder / ".metrics.parquet.0123abcd.tmp", folder / ".x.bluffscope.tmp"]
    ours = hidden(folder / "metrics.parquet")
    for path in (*foreign, ours):
        path.write_text("x")
    remove_leftovers(folder)
    assert [path.exists() for path in (*foreign, ours)] == [True, True, True, False]


def test_a_manifest_that_names_files_elsewhere_has_none_of_them_read(folder, outside):
    name = "../outside/profile"
    content = json.loads((folder / "manifest.json").read_text()) | {"files": {name: {"sha256": "0" * 64}}}
    content["checksum"] = manifest_checksum(content)
    (folder / "manifest.json").write_text(json.dumps(content))
    found = inspect(folder)
    assert not found.tables
    assert not any("profile" in line for line in found.damaged)


def test_links_in_a_detectors_folder_are_refused(tmp_path, outside):
    (tmp_path / "detector").mkdir()
    plant(tmp_path / "detector", "detector.json", outside)
    with pytest.raises(InputError, match="is a link"):
        read_detector(tmp_path / "detector")
    with pytest.raises(InputError, match="is a link"):
        check_new(tmp_path / "detector")
