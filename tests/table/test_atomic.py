"""A file is there whole or not at all, whichever step fails."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bluffscope
from bluffscope.errors import RunFolderError
from bluffscope.table import atomic
from bluffscope.table.atomic import atomic_write, write_bytes


def refuse(number: int):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_content_takes_the_place_of_the_old(tmp_path):
    target = tmp_path / "table.bin"
    write_bytes(target, b"old")
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["table.bin"]


def test_the_temporary_file_is_hidden_in_the_same_folder_and_synced_before_the_rename(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b))[1])

    def write(file):
        steps.append("write")
        (path,) = tmp_path.iterdir()
        assert path.name.startswith(".") and path.suffix == ".tmp"
        file.write(b"x")

    atomic_write(tmp_path / "t", write)
    assert steps == ["write", "fsync", "replace", "fsync"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failed_step_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path, monkeypatch, step, number):
    target = tmp_path / "table.bin"
    target.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        if step == "write":
            refuse(number)()

    if step != "write":
        monkeypatch.setattr(os, step, refuse(number))
    with pytest.raises(RunFolderError) as caught:
        atomic_write(target, write)
    assert str(target) in str(caught.value) and os.strerror(number) in str(caught.value)
    assert "\n" not in str(caught.value) and ".tmp" not in str(caught.value)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["table.bin"]


def test_a_failed_sync_of_the_folder_is_told_and_leaves_the_new_file_whole(tmp_path, monkeypatch):
    calls = iter([None, errno.EIO])

    def fsync(fd):
        number = next(calls)
        if number:
            refuse(number)()

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunFolderError, match="Input/output error"):
        write_bytes(tmp_path / "t", b"new")
    assert (tmp_path / "t").read_bytes() == b"new"
    assert names(tmp_path) == ["t"]


def test_a_file_system_that_cannot_sync_folders_is_accepted(tmp_path, monkeypatch):
    calls = iter([None, errno.EINVAL])

    def fsync(fd):
        number = next(calls)
        if number:
            refuse(number)()

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(tmp_path / "t", b"new")
    assert (tmp_path / "t").read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_writer_leaves_nothing_and_its_error_passes(tmp_path, error):
    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        atomic_write(tmp_path / "t", write)
    assert names(tmp_path) == []


def test_a_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(RunFolderError, match="cannot write .*gone/t: No such file or directory"):
        write_bytes(tmp_path / "gone" / "t", b"")


def test_a_temporary_file_that_cannot_be_removed_does_not_hide_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "unlink", refuse(errno.EIO))
    monkeypatch.setattr(os, "replace", refuse(errno.ENOSPC))
    with pytest.raises(RunFolderError, match="No space left"):
        write_bytes(tmp_path / "t", b"x")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files by the operating system's own means")
def test_a_real_limit_hit_by_parquet_writing_becomes_one_clear_line(tmp_path):
    program = """
import resource, sys
from pathlib import Path
import polars as pl
from bluffscope.errors import RunFolderError
from bluffscope.table.atomic import atomic_write
frame = pl.DataFrame({"x": list(range(200_000))}).with_columns(y=pl.col("x").hash())
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
for write in (frame.write_parquet, frame.lazy().sink_parquet):
    try:
        atomic_write(Path(sys.argv[1]) / "t.parquet", write)
    except RunFolderError as error:
        print(error)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == 2 and all("t.parquet: " in line and "File too large" in line for line in lines)
    assert names(tmp_path) == []


def test_a_disk_that_takes_nothing_more_or_loses_bytes_leaves_no_file(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, atomic.AtomicFile(tmp_path, "t.bin") as file:
        file.write(b"content")
        patch.setattr(os, "write", lambda *_: 0)
        with pytest.raises(OSError, match="the disk takes no more bytes"):
            file.commit()
    assert file.refused is not None
    with monkeypatch.context() as patch, atomic.AtomicFile(tmp_path, "t.bin") as file:
        file.write(b"content")
        patch.setattr(os, "write", lambda _, data: len(data))  # as it claims
        with pytest.raises(OSError, match="0 of 7 bytes are on the disk"):
            file.commit()
    assert names(tmp_path) == []


def test_a_file_that_is_in_its_place_takes_nothing_more(tmp_path):
    with atomic.AtomicFile(tmp_path, "t.bin") as file:
        assert file.writable()
        assert file.write(b"content") == file.tell() == 7
        assert file.commit("0123.bin") == tmp_path / "0123.bin"
        with pytest.raises(ValueError, match="is closed: nothing can be added"):
            file.write(b"more")
        with pytest.raises(ValueError, match="is closed: it cannot be committed"):
            file.commit()
    assert (tmp_path / "0123.bin").read_bytes() == b"content"
    assert names(tmp_path) == ["0123.bin"]


def test_nothing_but_a_parquet_error_is_called_damage(tmp_path):
    assert "is missing" in atomic.unreadable(tmp_path / "x", FileNotFoundError(2, "No such file"))
    assert "cannot be read (Input/output error)" in atomic.unreadable(
        tmp_path / "x", OSError(errno.EIO, os.strerror(errno.EIO))
    )


WRITERS = {"write_text", "write_bytes", "write_parquet", "write_csv", "write_ipc", "sink_parquet", "savez", "savefig"}
OTHERWISE = {
    "compare/bench/against.py": "the data of some pairs, in a temporary folder",
    "compare/bench/texts.py": "the benchmark's own pairs, in a temporary folder",
    "compare/precision.py": "pairs to measure again, in a temporary folder",
    "pairs/given.py": "pairs in memory, in a temporary folder",
    "host/machine.py": "a switch of /proc",
    "engine/worker_process.py": "into memory",
    "report/transfer_page.py": "into the page",
    "table/shards.py": "into an AtomicFile",
    "table/paired.py": "into an AtomicFile",
    "cli/streams.py": "the null device",
    "sae/plain.py": "an SAE for SAELens to read, in a temporary folder",
}
"""Files that write in another way than by `atomic_write` and `write_bytes`, and where to."""


def writes_in_place(tree: ast.AST) -> list[int]:
    """Lines that write a file under the name that a reader knows: without `atomic_write`, which names a temporary."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        texts = [part.value for part in call.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        opened = name == "open" and any(text[:1] in ("w", "a", "x") for text in texts)
        hidden = bool(call.args) and isinstance(call.args[0], ast.Name) and call.args[0].id == "temporary"
        if opened or (name in WRITERS and isinstance(call.func, ast.Attribute) and not hidden):
            found.append(call.lineno)
    return found


def test_every_file_of_the_user_s_is_written_whole_or_not_at_all():
    assert writes_in_place(ast.parse("p.write_bytes(b)\nopen(p, 'w')\np.open('rb')\nf.write_csv(temporary)")) == [1, 2]
    root = Path(bluffscope.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if writes_in_place(ast.parse(path.read_text("utf-8")))
    }
    assert found <= OTHERWISE.keys()
