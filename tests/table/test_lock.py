"""One process a run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from bluffscope.errors import InputError, RunFolderError
from bluffscope.table import lock
from bluffscope.table.lock import LOCK, locked


def test_a_folder_is_locked_once_at_a_time_and_keeps_no_trace(tmp_path):
    with locked(tmp_path):
        with pytest.raises(InputError, match="is being written by another process"), locked(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_process_that_died_is_free(tmp_path):
    program = "import os, sys; from pathlib import Path; from bluffscope.table.lock import locked\n"
    program += "with locked(Path(sys.argv[1])): os._exit(7)"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    assert done.returncode == 7 and (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_its_holder_removed_meanwhile_is_made_anew(tmp_path, monkeypatch):
    take, calls = lock.lock_descriptor, []

    def late(descriptor, *, blocking):
        if not calls:
            (tmp_path / LOCK).unlink()  # the holder ends between our opening its file and locking it
        calls.append(descriptor)
        return take(descriptor, blocking=blocking)

    monkeypatch.setattr(lock, "lock_descriptor", late)
    with locked(tmp_path), pytest.raises(InputError), locked(tmp_path):
        pass
    assert len(calls) == 3


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def none(descriptor, *, blocking):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "lock_descriptor", none)
    with locked(tmp_path):
        assert "this file system has no locks" in caplog.text


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path, monkeypatch):
    with pytest.raises(RunFolderError, match="cannot write .*gone.*: No such file"), locked(tmp_path / "gone"):
        pass

    def broken(descriptor, *, blocking):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(lock, "lock_descriptor", broken)
    with pytest.raises(RunFolderError, match="Input/output error"), locked(tmp_path):
        pass
