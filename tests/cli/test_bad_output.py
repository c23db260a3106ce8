"""Folders that cannot take a run: refused before the model is loaded, and nothing is made."""

from __future__ import annotations

import pytest

import bluffscope.api.closing
import bluffscope.runs.options


@pytest.fixture
def never_loads(monkeypatch):
    """Loading may take minutes: what can be seen before must be said before."""

    def build(*arguments):
        raise AssertionError("the model was loaded first")

    monkeypatch.setattr(bluffscope.runs.workers, "build_worker", build)


@pytest.mark.usefixtures("never_loads")
def test_an_output_folder_below_a_file_is_refused(refused, tiny_flags, pairs_file):
    refused("analyze", *tiny_flags[:-1], pairs_file / "x" / "run", says=("--out", f"{pairs_file} is a file"))
    refused("analyze", *tiny_flags[:-1], pairs_file, says=(f"{pairs_file} is a file", "give --out a folder"))


@pytest.mark.usefixtures("never_loads")
def test_an_output_folder_that_holds_a_run_is_refused(refused, tiny_flags, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    refused("analyze", *tiny_flags, says=("already holds a run (manifest.json)", "give --out another folder"))


@pytest.mark.usefixtures("never_loads")
def test_a_folder_without_permission_is_refused(refused, tiny_flags, monkeypatch, tmp_path):
    monkeypatch.setattr(bluffscope.runs.options.os, "access", lambda path, mode: False)  # tests may run as root
    refused("analyze", *tiny_flags, says=(f"{tmp_path} cannot be written", "choose another folder with --out"))
    refused("analyze", *tiny_flags[:-2], says="cannot be written")


@pytest.mark.usefixtures("never_loads")
def test_a_name_that_the_file_system_refuses_is_refused(refused, tiny_flags, tmp_path):
    refused("analyze", *tiny_flags[:-1], tmp_path / ("x" * 300), says="File name too long")
    refused("analyze", *tiny_flags[:-1], pairs_line(tmp_path), says=r"two\nlines")


def pairs_line(tmp_path):
    """A path below a file whose name has a line break."""
    (tmp_path / "two\nlines").write_text("")
    return tmp_path / "two\nlines" / "run"


def test_a_file_system_that_says_no_only_when_it_is_written_to_is_refused(refused, tiny_flags):
    refused("analyze", *tiny_flags[:-1], "/proc/bluffscope/run", says=("cannot write /proc/bluffscope/run", "--out"))


def test_an_existing_folder_without_a_run_is_used(call, tiny_flags, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert call("analyze", *tiny_flags).code == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "run" / "metrics.parquet").exists()


def test_missing_parents_are_made(call, tiny_flags, tmp_path):
    assert call("analyze", *tiny_flags[:-1], tmp_path / "a" / "b" / "run").code == 0
    assert (tmp_path / "a" / "b" / "run" / "metrics.parquet").exists()


def test_without_out_the_folder_is_named_after_time_model_and_data(call, tiny_flags, tmp_path):
    outcome = call("analyze", *tiny_flags[:-2])
    (folder,) = (tmp_path / "cwd" / "runs").iterdir()
    assert folder.name.endswith("Z-gemma2-pairs")
    assert outcome.out.splitlines()[-1] == f"Run: runs/{folder.name}"
