"""Files that a flag names are refused before the work where they cannot be, and in one line after it."""

from __future__ import annotations

import errno
import os

import pytest

from bluffscope.cli.named_file import check_file, write_json
from bluffscope.errors import InputError


def test_a_path_that_cannot_be_a_file_is_refused_before_the_work(tmp_path):
    check_file("--json", None)
    check_file("--json", tmp_path / "new.json")
    with pytest.raises(InputError, match="^--json .*: a folder; give a file's path$"):
        check_file("--json", tmp_path)
    with pytest.raises(InputError, match="^--json .*: no such folder; give a file's path$"):
        check_file("--json", tmp_path / "gone" / "new.json")


def test_a_file_that_cannot_be_written_costs_one_line_and_the_earlier_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "found.json"
    write_json(path, {"x": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError) as refusal:
        write_json(path, {"x": 2})
    assert str(refusal.value) == f"--json {path}: cannot be written (No space left on device); give another file"
    assert path.read_text() == '{\n  "x": 1\n}\n'
    write_json(None, {"x": 3})
